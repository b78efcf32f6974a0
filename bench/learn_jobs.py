"""
Commands side by side, each once: what was stopped goes on, what is done is not done again.

    mid-42 ----> sft-42 ----> score-42          out/logs/mid-42.txt     what it printed
    mid-43 ----> sft-43 ----> score-43          out/logs/mid-42.done    the command, once it has ended

Two processes of one thread each do more work on two cores than one of two threads, where models are this small (2 x 5,750
tokens a second against 9,500). A job whose command has changed runs again; whether its output may be replaced is for the
command to say.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from train.watch import find_metrics, read_records

POLL_SECONDS = 0.2
SHOWN_LINES = 5  # of a command that failed


@dataclass(frozen=True)
class Job:
    """A command with the names of those it needs; `run` is the directory of a training run that it has to finish."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    run: Path | None = None


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Sequence[Job], out: Path, at_once: int) -> None:
    """
    Run jobs, so many at once, in an order in which each finds what it needs. Jobs of one name have one command. RuntimeError
    for one that fails, after the others that run have been stopped; the same call again goes on.
    """
    by_name = {job.name: job for job in jobs}
    if clashes := [job.name for job in jobs if by_name[job.name] != job]:
        raise ValueError(f"jobs of one name with several commands: {clashes}")
    (out / "logs").mkdir(parents=True, exist_ok=True)
    order = TopologicalSorter({job.name: job.needs for job in jobs})
    order.prepare()
    ready: list[str] = []
    running: dict[str, subprocess.Popen[bytes]] = {}
    num_done = 0
    try:
        while order.is_active():
            ready += order.get_ready()
            for name in [name for name in ready if is_done(by_name[name], out)]:
                ready.remove(name)
                order.done(name)
                num_done += 1
            while ready and len(running) < at_once:
                name = ready.pop(0)
                running[name] = start(by_name[name], out, max(1, num_cores() // at_once))
            time.sleep(POLL_SECONDS if running else 0)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                finish(by_name[name], running.pop(name).returncode, out)
                order.done(name)
                num_done += 1
                print(f"{time.strftime('%H:%M')}  {num_done} of {len(by_name)} jobs: {name}", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def start(job: Job, out: Path, num_threads: int) -> subprocess.Popen[bytes]:
    threads = {"OMP_NUM_THREADS": str(num_threads), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    with open(log_of(job, out), "wb") as log:
        return subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | threads)


def finish(job: Job, returncode: int, out: Path) -> None:
    """Note that a job is done. RuntimeError if it failed, or is a run that was stopped before its last step"""
    log = log_of(job, out)
    if returncode:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:])
        raise RuntimeError(f"{job.name} ended with {returncode}, {log} has all it printed:\n{last}")
    if job.run is not None and not is_finished(job.run):
        raise RuntimeError(f"{job.name} was stopped: the same command goes on")
    log.with_suffix(".done").write_text(repr(job.command), encoding="utf-8")


def is_done(job: Job, out: Path) -> bool:
    done = log_of(job, out).with_suffix(".done")
    return done.is_file() and done.read_text(encoding="utf-8") == repr(job.command)


def is_finished(run: Path) -> bool:
    """Whether a training run has recorded its last step"""
    try:
        last = read_records(find_metrics(run))[-1]
    except (FileNotFoundError, IndexError):
        return False
    return bool(last["step"] + 1 == last["num_steps"])


def log_of(job: Job, out: Path) -> Path:
    return out / "logs" / f"{job.name}.txt"
