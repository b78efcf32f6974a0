"""
Run one function over many jobs, on one core or on all of them; the function and the jobs are the same.

    for job, result in run(render_unit, context, jobs, workers=2): ...      as they finish, in any order

Results must not depend on the order or the number of workers. On Linux workers are forked from a server that has imported
what they need, once for all of them and while the program is still looking at its sources (`start_server`); elsewhere each
is a fresh process. They are never forked from the program itself, as Arrow has threads, and end with it, however it ends.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.context import BaseContext
from multiprocessing.forkserver import ensure_running
from typing import Any

from prep.signals import signals_later

_context: Any = None  # of this worker process

WINDOW = 3  # jobs in flight for each worker: plans of shards are not all copied at once
PRELOADED = ["typer", "prep.render_pass", "prep.encode_gigatoken"]


def run(
    function: Callable[..., Any], context: Any, jobs: Iterable[Any], workers: int, kind: str = "processes"
) -> Iterator[tuple[Any, Any]]:
    """Yield (job, function(context, job)) as jobs finish. Errors of a job end the run and are raised here."""
    if workers == 1 or kind == "here":
        for job in jobs:
            yield job, function(context, job)
        return
    if kind == "threads":
        with ThreadPoolExecutor(workers) as threads:
            yield from _as_they_finish(threads, partial(function, context), jobs, workers)
        return
    pool = ProcessPoolExecutor(workers, mp_context=_processes(), initializer=_start, initargs=(context,))
    done = False
    try:
        yield from _as_they_finish(pool, partial(_call, function), jobs, workers)
        done = True
    except (BrokenProcessPool, BrokenPipeError):
        raise RuntimeError(
            "a worker process died. If it told nothing above, it was most likely killed for want of memory: build again with "
            "fewer --workers; what was rendered so far is kept. A program that builds with workers has to do so below "
            'if __name__ == "__main__":'
        ) from None
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes if not done else []:
            process.terminate()  # left early: what is running is of no use
        for process in processes:
            process.join()


def _as_they_finish(
    pool: Executor, function: Callable[[Any], Any], jobs: Iterable[Any], workers: int
) -> Iterator[tuple[Any, Any]]:
    """(job, function(job)) of jobs that run in a pool, a few ahead"""
    waiting = iter(jobs)
    running: dict[Future[Any], Any] = {}
    while True:
        for job in islice(waiting, workers * WINDOW - len(running)):
            with _starting_workers():
                running[pool.submit(function, job)] = job
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


@cache
def _processes() -> BaseContext:
    """How workers are started: elsewhere than on Linux, libraries of the system may not be forked once they are loaded"""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_server() -> None:
    """Let workers be prepared while this process goes on; without it, that begins with the first of them."""
    if _processes().get_start_method() == "forkserver":
        with _starting_workers():
            ensure_running()


@contextmanager
def _starting_workers() -> Iterator[None]:
    """
    A worker that is being started when its parent is interrupted would end with a traceback: the parent is interrupted
    afterwards. Workers keep Ctrl-C blocked, as they find it here; it is the parent's.
    """
    with signals_later():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(context: Any) -> None:
    """First thing in a worker: keep the context, and end when the parent ends."""
    global _context
    _context = context
    keep_for_midprep()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


class _NoPandas:
    """A finder of modules that finds no pandas"""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def keep_for_midprep() -> None:
    """
    For a process that is midprep's alone. pyarrow imports pandas, 0.17 s, to see whether the first value it is given is
    one of pandas'. It looks once, so it looks while there is none. And what is imported now will not be garbage.
    """
    import pyarrow as pa

    gc.freeze()
    finder: Any = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(finder)


def _end_with(sentinel: int) -> None:
    wait_for_end([sentinel])
    os._exit(1)


def _call(function: Callable[..., Any], job: Any) -> Any:
    return function(_context, job)
