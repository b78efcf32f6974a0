"""
Run one function over many jobs, on one core or on all of them; the function and the jobs are the same.

    for job, result in run(render_unit, context, jobs, workers=2): ...      as they finish, in any order

Results must not depend on the order or the number of workers. Workers are fresh processes (no fork: Arrow has threads);
they end with the process that started them, however it ends, and leave nothing half-written.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.queues import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from prep.signals import signals_later
from prep.workers.engine import Context, Job, Result

LAST_SECONDS = 5  # that a worker has to end in when it is told to
WINDOW = 3  # jobs in flight per worker: plans of shards are not all copied at once

_context: Any = None  # of this worker process
_ending = False  # whether this worker was told to end


def run(
    function: Callable[[Context, Job], Result],
    context: Context,
    jobs: Iterable[Job],
    workers: int,
    kind: str = "processes",
) -> Iterator[tuple[Job, Result]]:
    """Yield (job, function(context, job)) as jobs finish. The first error of a job ends all and is raised here."""
    if workers == 1 or kind == "here":
        for job in jobs:
            yield job, function(context, job)
    elif kind == "threads":
        with ThreadPoolExecutor(workers) as threads:
            yield from _as_they_finish(threads, partial(function, context), jobs, workers)
    else:
        with _processes(context, workers) as processes:
            yield from _as_they_finish(processes, partial(_call, function), jobs, workers)


def _as_they_finish(
    pool: Executor, function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """(job, function(job)) of jobs that run in a pool, a few ahead"""
    waiting = iter(jobs)
    running: dict[Future[Result], Job] = {}
    while True:
        for job in islice(waiting, workers * WINDOW - len(running)):
            with _starting_workers():
                running[pool.submit(function, job)] = job
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


@contextmanager
def _processes(context: Any, workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of worker processes that have the context; they are ended where the block is left early"""
    spawn = multiprocessing.get_context("spawn")
    # not among the initargs: the parent would wait forever to send them to a worker that died before it read them
    contexts = spawn.SimpleQueue()
    threading.Thread(target=_send, args=(contexts, context, workers), daemon=True).start()
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(contexts,))
    done = False
    try:
        yield pool
        done = True
    except BrokenProcessPool:
        raise RuntimeError(
            "a worker process died. If it printed nothing above, it was most likely killed for lack of memory: build again "
            "with fewer --workers; what was rendered so far is kept. A program that builds with workers has to do so below "
            'if __name__ == "__main__":'
        ) from None
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes if not done else []:
            process.terminate()
        for process in processes:
            process.join(LAST_SECONDS if not done else None)
            process.kill()
        contexts.close()


def _send(contexts: SimpleQueue[Any], context: Any, times: int) -> None:
    """Put a copy of the context into the queue for each worker; one that nobody takes blocks this thread until it is closed"""
    with suppress(OSError, TypeError):  # closed; TypeError: in the middle of a put
        for _ in range(times):
            contexts.put(context)


@contextmanager
def _starting_workers() -> Iterator[None]:
    """
    A worker that is being started when its parent is interrupted would end with a traceback: the parent is interrupted
    afterwards. Workers keep Ctrl-C blocked, as they find it here; the parent handles it.
    """
    with signals_later():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(contexts: SimpleQueue[Any]) -> None:
    """First in a worker: end when the parent ends, or says so, and keep the context."""
    global _context
    # before the wait for the context: of a parent that has died it never comes, for workers hold both ends of that pipe
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _context = contexts.get()
    warm_up_process()
    signal.signal(signal.SIGTERM, _end)


def _end_with(sentinel: int) -> None:
    wait_for_end([sentinel])
    os._exit(1)


def _end(number: int, frame: Any) -> None:
    """Leave, removing temporary files on the way, without what extensions would print"""
    global _ending
    _ending = True
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit(1)


def _call(function: Callable[..., Any], job: Any) -> Any:
    try:
        return function(_context, job)
    except BaseException:  # of an extension also, which may make another error of SystemExit
        if _ending:  # temporary files have been removed by now
            os._exit(1)
        raise


def warm_up_process() -> None:
    """
    Keep pyarrow from importing pandas, 0.2 s, which it does to see whether the first value it is given is one of pandas':
    it looks once, so it looks while there is none. For a process that is only midprep's.
    """
    finder: Any = SimpleNamespace(find_spec=block_pandas)
    sys.meta_path.insert(0, finder)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(finder)


def block_pandas(name: str, path: Any = None, target: Any = None) -> None:
    """A `find_spec` by which there is no pandas"""
    if name == "pandas":
        raise ModuleNotFoundError(name)
