"""Two ranks of which one saves: the other waits, for a disk that is slow, and not for one that failed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY, environment, losses

SLOW_SAVE = """
import functools, time
from datetime import timedelta
from train import distributed, mid

limited = functools.partial(distributed.dist.init_process_group, timeout=timedelta(seconds=3))
distributed.dist.init_process_group = limited
save_checkpoint = mid.save_checkpoint

def save_slowly(*arguments):
    time.sleep(8)
    {then}
    return save_checkpoint(*arguments)

mid.save_checkpoint = save_slowly
mid.main()
"""


def run_two(build: Path, folder: Path, then: str) -> subprocess.CompletedProcess[str]:
    (folder / "slow_save.py").write_text(SLOW_SAVE.format(then=then))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    flags = ["--shards", build, "--out", folder / "out", *TINY, "--num-iterations", 4, "--save-every", 2]
    words = [*torchrun, folder / "slow_save.py", *flags]
    return subprocess.run(
        list(map(str, words)), env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_a_save_may_take_longer_than_the_timeout_of_collectives(build: Path, tmp_path: Path) -> None:
    done = run_two(build, tmp_path, then="pass")
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "out")) == 4


@pytest.mark.slow
def test_a_slow_save_that_fails_ends_the_rank_that_waits(build: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = run_two(build, tmp_path, then="raise OSError(28, 'No space left on device')")
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "No space left on device" in done.stderr
    assert time.monotonic() - began < 8 + 25  # torchrun kills after 30
