"""
The engine of a cluster: the same function over the same jobs as prep.workers.local, as Ray tasks.

    this process   jobs, results in any order       plans, and writes the manifest
    nodes          function(context, job)           read sources, read and write the cache, write shards

The context goes into Ray's object store once; a worker process unpacks it once. A task may run twice, as a function
writes the same files with the same bytes each time: if a worker or a node dies, Ray runs only its tasks again, elsewhere.
Sources, cache and output are on a file system that every node sees at the same path; that is checked, for the cache,
where a task runs. Imported only where it is chosen; ray is the extra midprep[ray].
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from prep import __version__
from prep.files import new_file
from prep.signals import signals_later
from prep.workers.engine import Context, Job, Result

MAX_RETRIES = 5  # of a task whose worker or node died; errors of a task are raised at once
WINDOW = 3  # tasks in flight per core: plans of shards are not all copied at once
WAIT_SECONDS = 0.5  # after which signals that came take effect
LEAVE_SECONDS = 120.0
SHARED_SECONDS = 15.0  # network file systems show a new file to other nodes a little later

_connected = False  # whether this module connected this process to Ray
_contexts: dict[str, Any] = {}  # of this worker process: only the last one


def run(
    function: Callable[[Context, Job], Result],
    context: Context,
    jobs: Sequence[Job],
    workers: int,
    address: str | None,
    cache_dir: Path,
) -> Iterator[tuple[Job, Result]]:
    """
    Yield (job, function(context, job)) as jobs finish. `workers`: most tasks at once, 0 for all cores of the cluster.
    Errors of a job are raised here as they were raised there; RuntimeError if a task's workers died again and again.
    """
    ray = connect(address, workers)
    remote = ray.remote(_call).options(max_retries=MAX_RETRIES, num_cpus=1, retry_exceptions=False)
    running: dict[Any, Job] = {}
    waiting = iter(jobs)
    with _shared(cache_dir) as probe:
        stored = ray.put(context)
        try:
            while True:
                # asked again each time, as nodes come and go
                room = workers or max(1, _cores(ray)) * WINDOW
                for job in islice(waiting, room - len(running)):
                    running[remote.remote(function, [stored], job, os.getcwd(), probe)] = job
                if not running:
                    return
                for task, result in _finished(ray, list(running)):
                    yield running.pop(task), result
        except BaseException:
            _leave(ray, list(running))
            raise


def connect(address: str | None, workers: int) -> Any:
    """
    Ray, connected: to the cluster at `address` ("auto": the one of this node), else to one that is started on this machine
    and ends with this process. ValueError or ConnectionError, in one line, where there is no Ray or no cluster.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("--engine ray needs Ray, which is not installed: pip install 'midprep[ray]'.") from None
    if ray.is_initialized():
        return ray
    global _connected
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns that it will be
    target = address or os.environ.get("RAY_ADDRESS", "")
    started: dict[str, Any] = {"num_cpus": workers or None, "include_dashboard": False}
    options = {"address": address} if address or "RAY_ADDRESS" in os.environ else {"address": "local", **started}
    try:
        _check_reachable(target)
        with signals_later():
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"no Ray cluster at {target or 'this machine'}: {' '.join(str(error).split())[:200]} Start one with "
            "`ray start --head`, or give its --address."
        ) from None
    _connected = True
    return ray


def _check_reachable(address: str) -> None:
    """OSError if nothing listens at HOST:PORT; Ray itself would take minutes, and many lines, to notice"""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def cluster(address: str | None, workers: int) -> str:
    """Where a build ran, as build.json has it: '3 nodes, 24 cores'"""
    ray = connect(address, workers)
    alive = sum(node["Alive"] for node in ray.nodes())
    return f"{alive} node{'s' if alive != 1 else ''}, {_cores(ray)} cores"


def _cores(ray: Any) -> int:
    return int(ray.cluster_resources().get("CPU", 1))


def _leave(ray: Any, running: list[Any]) -> None:
    """
    No task runs on after a build that ends early: what tasks write into is about to be removed. Ray is left, which ends
    them (to cancel one that is just finishing makes Ray abort); where others connected it, they are waited for.
    """
    global _connected
    with signals_later():
        if _connected:
            _connected = False
            ray.shutdown()
        elif running:
            ray.wait(running, num_returns=len(running), timeout=LEAVE_SECONDS)


def _finished(ray: Any, running: list[Any]) -> list[tuple[Any, Any]]:
    """(task, its result) of those that have finished by now; waits a moment if none has"""
    from ray.exceptions import RayError, RayTaskError

    try:
        with signals_later():
            return [(task, ray.get(task)) for task in ray.wait(running, num_returns=1, timeout=WAIT_SECONDS)[0]]
    except RayTaskError as error:
        # what the function raised, with its attributes; its traceback there is of no use here
        raise error.cause from None
    except RayError as error:
        raise RuntimeError(
            f"a task's workers died {MAX_RETRIES + 1} times ({type(error).__name__}), most likely killed for lack of memory: "
            "build again with fewer --workers; what was rendered so far is kept."
        ) from None


@contextmanager
def _shared(cache_dir: Path) -> Iterator[str]:
    """A file in the cache that holds this version while the block runs: by it a task checks that it shares both"""
    with new_file(cache_dir.absolute(), "shared") as (file, _):
        file.write(__version__.encode())
        file.flush()
        os.fsync(file.fileno())
        yield file.name


def _call(function: Callable[..., Any], stored: list[Any], job: Any, folder: str, probe: str) -> Any:
    """One task, on a node: in the directory of the process that builds, so that relative paths mean the same"""
    import ray

    key = stored[0].hex()
    if key not in _contexts:
        _check_shared(folder, probe)
        _contexts.clear()
        _contexts[key] = ray.get(stored[0])
    return function(_contexts[key], job)


def _check_shared(folder: str, probe: str) -> None:
    deadline = time.monotonic() + SHARED_SECONDS
    while not (os.path.isdir(folder) and os.path.exists(probe)):
        if time.monotonic() > deadline:
            raise ValueError(
                f"node {socket.gethostname()} does not see {os.path.dirname(probe)}: sources, cache and output must be "
                "on a file system that all nodes share, at the same path. Give --cache-dir and -o there."
            )
        time.sleep(0.2)
    if (version := Path(probe).read_text(encoding="utf-8")) != __version__:
        raise ValueError(
            f"node {socket.gethostname()} has midprep {__version__}, wanted {version}: install that there."
        )
    os.chdir(folder)
