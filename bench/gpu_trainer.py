"""
Runs of the trainer for proofs: small ones, in this process on any device, or under torchrun.

    train_run     train.mid's own set_up and start -> the records of metrics.jsonl
    stopped_run   the same, killed on one device after a checkpoint and gone on with on another
    torchrun_run  a script under torchrun, in processes of its own
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from bench.gpu_place import Place
from train.config import parse_args
from train.distributed import Ranks
from train.mid import start
from train.setup import set_up
from train.stops import STOPS

ROOT = Path(__file__).parents[1]
HALF = 4  # steps after which a run is stopped, of twice as many

Record = dict[str, Any]


def flags_of(place: Place, device: torch.device, name: str, *more: Any) -> list[str]:
    """Of a small run in float32 that evaluates nothing; of a flag that is given twice the last one counts"""
    tokens = place.size.rows * place.size.max_seq_len
    flags = ["--shards", place.shards, "--out", place.folder / name, "--depth", place.size.depth, "--dtype", "float32"]
    flags += ["--eval-every", 0, "--total-batch-size", tokens, "--device-batch-size", place.size.rows]
    return [str(word) for word in [*flags, "--device", device.type, *more]]


def train_run(place: Place, device: torch.device, name: str, *more: Any, keep: bool = False) -> list[Record]:
    """The records of a run in this process, or of what was left of it to train; its checkpoints are removed, or kept"""
    config = parse_args(flags_of(place, device, name, *more))
    ranks = Ranks(0, 1, device)
    torch.compiler.reset()  # so that no run is one more variant of the one before
    with signals_kept(), ExitStack() as locks, redirect_stdout(io.StringIO()):
        run = set_up(config, ranks, locks)
        start(run, ranks)
    return records_of(place, name, keep)


def stopped_run(place: Place, first: torch.device, second: torch.device, *more: Any) -> list[Record]:
    """The records of a run that was killed on one device after its checkpoint at HALF, and went on on another"""
    train_run(place, first, "stopped", *more, "--save-every", HALF, keep=True)
    (root,) = (place.folder / "stopped").glob("*_checkpoints/*")
    for path in root.glob(f"*_{2 * HALF:06d}*"):
        path.unlink()
    return train_run(place, second, "stopped", *more)


def torchrun_run(place: Place, num_ranks: int, script: str, *more: Any) -> list[Record]:
    """The records of a run of a script under torchrun. RuntimeError if it fails."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
    done = run_command([*torchrun, str(ROOT / script), *flags_of(place, place.device, "torchrun", *more)])
    if done.returncode:
        raise RuntimeError(f"torchrun {script} ended with {done.returncode}: {done.stderr[-2000:]}")
    return records_of(place, "torchrun")


def run_command(words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command with this checkout on its path, and without TF32 in NVIDIA's libraries, as in this process"""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "NVIDIA_TF32_OVERRIDE": "0"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)


def records_of(place: Place, name: str, keep: bool = False) -> list[Record]:
    (path,) = (place.folder / name).glob("*_checkpoints/*/metrics.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    if not keep:
        shutil.rmtree(place.folder / name)
    return records


def furthest(got: list[Record], wanted: list[Record], key: str = "loss") -> float:
    """The largest difference of two runs' losses, or of what some of their records have under `key`"""
    pairs = [(a[key], b[key]) for a, b in zip(got, wanted, strict=True) if key in b]
    return max(abs(a - b) for a, b in pairs)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.splitlines() or [f"exit code {done.returncode}, nothing on stderr"])[-1]


@contextmanager
def signals_kept() -> Iterator[None]:
    """A run takes Ctrl-C as a wish to stop it: afterwards it means what it meant before"""
    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
