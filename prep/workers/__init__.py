"""
Run one function over many jobs, on the engine that was chosen: this machine's cores, or a Ray cluster.

    for job, result in run(render_unit, context, jobs, Workers("local", 2)): ...      as they finish, in any order

Results must not depend on the order or the number of workers. The engine that is not chosen is not imported.
"""

from collections.abc import Callable, Iterator, Sequence

from prep.workers.engine import Context, Job, Result, Workers


def run(
    function: Callable[[Context, Job], Result],
    context: Context,
    jobs: Sequence[Job],
    workers: Workers,
    kind: str = "processes",
) -> Iterator[tuple[Job, Result]]:
    """
    (job, function(context, job)) of every job, as they finish. `kind` is for the local engine: processes, threads (for
    work that leaves the interpreter), or here.
    """
    if workers.engine == "ray":
        from prep.workers import ray

        return ray.run(function, context, jobs, workers.workers, workers.address, workers.cache_dir)
    from prep.workers import local

    return local.run(function, context, jobs, min(workers.workers, len(jobs)), kind)
