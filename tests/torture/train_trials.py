"""
Runs that are killed, stopped, moved and resumed, compared with one that was left in peace.

    python -m tests.torture.train_trials kills 100               kill -9 at any moment, every other time while it saves
    python -m tests.torture.train_trials moves 1800              for 1,800 seconds: a signal or kill -9, then another directory
    python -m tests.torture.train_trials moves 1800 --ranks 1,2  the same, with another number of ranks each time

With the same number of ranks every record and every weight is the same to the bit. With other numbers every step has the same
rows, and losses agree to 1e-5 over the 30 steps after the first change.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch

from tests.train.shards_factory import random_rows, write_build
from train.meta import steps_in

ROOT = Path(__file__).parents[2]
FLAGS = ["--depth", "1", "--total-batch-size", "512", "--device", "cpu", "--eval-every", "40", "--save-every", "7"]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGKILL)
STEPS_PER_SECOND = 8  # of a run that is stopped all the time: most of it is the start of Python
TIMES = ("dt", "tokens_per_second", "mfu")


class Trainer:
    """One run of `num_steps` steps, in one directory after the other"""

    def __init__(self, folder: Path, name: str, num_steps: int) -> None:
        self.shards, self.out, self.num_steps = folder / "shards", folder / name, num_steps
        self.log = folder / f"{name}.log"

    @property
    def root(self) -> Path:
        return self.out / "mid_checkpoints/d1"

    def start(self, ranks: int = 1) -> subprocess.Popen[bytes]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        flags = ["--shards", str(self.shards), "--out", str(self.out), *FLAGS, "--num-iterations", str(self.num_steps)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        words = [sys.executable, *torchrun, str(ROOT / "train/mid.py"), *flags]
        with open(self.log, "ab") as log:
            return subprocess.Popen(words, env=env, stdout=log, stderr=log, start_new_session=True)

    def finish(self, ranks: int = 1) -> None:
        if code := self.start(ranks).wait():
            raise AssertionError(f"exit code {code}: {self.log.read_text()[-2000:]}")

    def records(self) -> list[dict[str, Any]]:
        """Of each step what does not depend on the time"""
        records = map(json.loads, (self.root / "metrics.jsonl").read_text().splitlines())
        return [{key: value for key, value in record.items() if key not in TIMES} for record in records]

    def model(self) -> dict[str, torch.Tensor]:
        model: dict[str, torch.Tensor] = torch.load(self.root / f"model_{self.num_steps:06d}.pt", weights_only=True)
        return model

    def unfinished(self) -> dict[Path, int]:
        """Files of a save that has begun: temporary ones, and those without the meta, which is written last; their times"""
        without_meta = {path for path in self.root.glob("*.pt") if not self.meta_of(path).exists()}
        with suppress(FileNotFoundError):  # renamed meanwhile
            return {path: path.stat().st_mtime_ns for path in (*without_meta, *self.root.glob(".*.tmp"))}
        return {}

    def meta_of(self, path: Path) -> Path:
        return self.root / f"meta_{path.stem.split('_')[1]}.json"

    def num_trained(self) -> int:
        path = self.root / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


def processes_of(pid: int) -> list[int]:
    """It and all that it started"""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [pid, *(process for child in found.stdout.split() for process in processes_of(int(child)))]


def end(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal, kill -9 to all of its processes, and wait until none of them is left"""
    pids = processes_of(process.pid)
    for pid in pids if number == signal.SIGKILL else pids[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    process.wait(timeout=120)
    deadline = time.monotonic() + 120
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} go on after signal {number}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout.strip()[:1] not in ("", "Z")


def compare(run: Trainer, whole: Trainer) -> None:
    """Equal to the bit, and nothing left of what was killed"""
    assert run.records() == whole.records()
    assert not list(run.root.glob(".*.tmp"))
    assert not list(run.root.glob("metrics-*"))
    wanted = whole.model()
    assert all(torch.equal(weight, wanted[name]) for name, weight in run.model().items())


def make_shards(folder: Path) -> None:
    write_build(folder / "shards", {"train": random_rows(0, 400, 64), "val": random_rows(1, 40, 64)}, max_seq_len=64)


def kills(folder: Path, num_kills: int, seed: int) -> Iterator[str]:
    """Kill runs again and again, and start a new one when one was finished and compared."""
    make_shards(folder)
    rng = random.Random(seed)
    whole = Trainer(folder, "whole", 300)
    whole.finish()
    num_in_save = num_done = 0
    for number in count():
        run = Trainer(folder, f"run{number}", 300)
        while run.num_steps not in steps_in(run.root) and num_done < num_kills:
            before = run.unfinished()
            num_done += kill_it(run, rng)
            num_in_save += run.unfinished() not in ({}, before)
        run.finish()
        compare(run, whole)
        yield f"run {number}: equal to the bit, {num_done} kills, {num_in_save} of them in a save"
        if num_done >= num_kills:
            return


def kill_it(run: Trainer, rng: random.Random) -> bool:
    """Start it and kill it at any moment, of a start or of training, or as soon as it saves; whether it was not done before"""
    num_before, unfinished_before = run.num_trained(), run.unfinished()
    process = run.start()
    if rng.random() < 0.9:
        wait_for(process, lambda: run.num_trained() > num_before)
    ends = time.monotonic() + rng.uniform(0, 1.5)
    wait_for(process, lambda: time.monotonic() > ends)
    if rng.random() < 0.6:
        wait_for(process, lambda: run.unfinished() not in ({}, unfinished_before))
        time.sleep(rng.uniform(0, 0.003))
    process.kill()
    return process.wait() < 0


def wait_for(process: subprocess.Popen[bytes], is_time: Callable[[], bool]) -> None:
    """Until the time has come, or the process has ended"""
    while process.poll() is None and not is_time():
        time.sleep(0.001)


def moves(folder: Path, seconds: float, ranks: list[int], seed: int) -> Iterator[str]:
    """Stop a run, move it, resume it, until the time is over; then let it end."""
    make_shards(folder)
    rng = random.Random(seed)
    whole, run = (Trainer(folder, name, round(seconds * STEPS_PER_SECOND)) for name in ("whole", "moved"))
    whole.finish(ranks[0])
    yield f"left in peace: {whole.num_steps} steps"
    began, first_change, num_stops = time.monotonic(), None, dict.fromkeys(SIGNALS, 0)
    while time.monotonic() < began + seconds and run.num_steps not in (steps := steps_in(run.root)):
        num_ranks = ranks[sum(num_stops.values()) % len(ranks)]
        if first_change is None and steps and num_ranks != ranks[0]:
            first_change = steps[-1]
        num_stops[stop(run, num_ranks, rng)] += 1
        moved = folder / f"place{sum(num_stops.values())}"
        run.out.rename(moved)
        run.out = moved
    stops = ", ".join(f"{number.name} {times}" for number, times in num_stops.items())
    yield f"stopped and moved {sum(num_stops.values())} times in {time.monotonic() - began:.0f} s: {stops}"
    run.finish(ranks[0])
    if len(set(ranks)) == 1:
        compare(run, whole)
        yield "equal to the bit"
        return
    assert first_change is not None, "no change of ranks: give more time"
    yield compare_loosely(run.records(), whole.records(), first_change)


def stop(run: Trainer, num_ranks: int, rng: random.Random) -> signal.Signals:
    """Train up to 140 steps and stop; the signal"""
    until = run.num_trained() + rng.randrange(1, 140)
    process = run.start(num_ranks)
    wait_for(process, lambda: run.num_trained() >= until)
    number = rng.choice(SIGNALS)
    end(process, number)
    return number


def compare_loosely(records: list[dict[str, Any]], wanted: list[dict[str, Any]], first_change: int) -> str:
    for name in ("step", "rows_sha256", "num_targets"):
        assert [record[name] for record in records] == [record[name] for record in wanted], name
    differences = [abs(record["loss"] - other["loss"]) for record, other in zip(records, wanted, strict=True)]
    assert not any(differences[:first_change])
    assert max(differences[first_change : first_change + 30]) < 1e-5
    return (
        f"the same rows in all {len(records)} steps; equal to the bit up to step {first_change}, then within "
        f"{max(differences[first_change : first_change + 30]):.1e} for 30 steps, {max(differences):.1e} to the end"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("what", choices=("kills", "moves"))
    parser.add_argument("amount", type=float, help="number of kills, or seconds")
    parser.add_argument("--ranks", default="1", help="numbers of ranks of moves, in turn")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    ranks = [int(number) for number in asked.ranks.split(",")]
    with tempfile.TemporaryDirectory() as name:
        trials = kills(Path(name), int(asked.amount), asked.seed) if asked.what == "kills" else (
            moves(Path(name), asked.amount, ranks, asked.seed))  # fmt: skip
        for line in trials:
            print(line, flush=True)


if __name__ == "__main__":
    main()
