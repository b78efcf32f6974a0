"""What the trainer's tests share: one thread (runs are compared to the bit), tiny builds, and runs as users start them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shards_factory import random_rows, write_build

from tests.train.inference.speakers import parrot, run_of_parrot  # noqa: F401 (fixtures)

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
TINY = ["--depth", "1", "--total-batch-size", "128", "--eval-every", "0", "--device", "cpu"]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """43 rows x 16 in train, 9 in val; about a third of their tokens trained"""
    root = tmp_path_factory.mktemp("builds") / "toy"
    return write_build(root, {"train": random_rows(0, 43, 16), "val": random_rows(1, 9, 16)}, max_seq_len=16)


def command(*flags: Any, ranks: int = 1) -> list[str]:
    """`python train/mid.py ...` for one rank, torchrun for more"""
    script = [str(ROOT / "train" / "mid.py"), *map(str, flags)]
    if ranks == 1:
        return [sys.executable, *script]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *script]


def environment() -> dict[str, str]:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


def run(*flags: Any, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*flags, ranks=ranks), env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def run_here(*flags: Any) -> None:
    """The same in this process, without the two seconds of importing torch; threads and signals are put back."""
    import signal

    from train.mid import main
    from train.stops import STOPS

    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        main([str(flag) for flag in flags])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def records(out: Path, stage: str = "mid_checkpoints") -> list[dict[str, Any]]:
    (path,) = out.glob(f"{stage}/d*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses(out: Path, stage: str = "mid_checkpoints") -> list[float]:
    return [record["loss"] for record in records(out, stage)]


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a run with these flags fails with"""

    def fail(*flags: Any) -> str:
        with pytest.raises(SystemExit) as stop:
            run_here(*flags)
        assert stop.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return fail
