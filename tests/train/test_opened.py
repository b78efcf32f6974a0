"""Shards that change under a run: written over, replaced, removed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, environment, losses, run_here

from train import mid

FLAGS = [*TINY[:4], "--device", "cpu", "--num-iterations", 8, "--save-every", 2]


@pytest.fixture
def shards(build: Path, tmp_path: Path) -> Path:
    shutil.copytree(build, tmp_path / "shards")
    return tmp_path / "shards"


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], Any]) -> None:
    plain = mid.set_step

    def set_step(optimizers: Any, step: int, lrm: float) -> None:
        if step == number:
            do()
        plain(optimizers, step, lrm)

    monkeypatch.setattr(mid, "set_step", set_step)


def write_over(path: Path) -> None:
    """The same bytes, by the same inode, as `cp -r new/. old/` or `rsync --inplace` write"""
    data = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("pattern", "more"),
    [
        ("train-00001*.tokens.npy", ["--eval-every", 0]),
        ("train.docs.npy", ["--eval-every", 0]),
        ("train-00000*.mask.npy", ["--eval-every", 0, "--mode", "sft"]),
        ("val-00000*.tokens.npy", ["--eval-every", 3]),
        ("token_bytes.npy", ["--eval-every", 3]),
    ],
)
def test_shards_written_over_in_place_end_a_run_before_it_saves(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_of: Callable[..., str],
    pattern: str,
    more: list[Any],
) -> None:
    (path,) = shards.glob(pattern)
    at_step(monkeypatch, 4, lambda: write_over(path))
    line = error_of("--shards", shards, "--out", tmp_path, *FLAGS, *more)
    assert line.startswith(f"error: {path} was written over while this run read it, so what trained since")
    assert f"`midprep verify {shards}`" in line
    saved = sorted(path.name for path in tmp_path.glob("*_checkpoints/d1/meta_*"))
    assert saved == ["meta_000002.json", "meta_000004.json"]  # step 4 was the last before it


def test_files_that_a_run_does_not_read_may_change(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        for pattern in ("val*.npy", "train-*.mask.npy", "token_bytes.npy", "tokenizer.json"):
            for path in shards.glob(pattern):
                write_over(path)

    at_step(monkeypatch, 4, change)
    run_here("--shards", shards, "--out", tmp_path, *FLAGS, "--eval-every", 0)
    assert len(losses(tmp_path)) == 8


def replace_files(shards: Path) -> None:
    for path in shards.iterdir():
        shutil.copy(path, shards / "new")
        os.replace(shards / "new", path)


def replace_folder(shards: Path) -> None:
    shutil.copytree(shards, shards.with_name("new"))
    shards.rename(shards.with_name("old"))
    shards.with_name("new").rename(shards)


@pytest.mark.parametrize("replace", [replace_files, replace_folder, shutil.rmtree])
def test_a_run_goes_on_with_the_files_that_it_opened(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], replace: Any
) -> None:
    flags = ["--shards", shards, *FLAGS, "--eval-every", 3]
    run_here(*flags, "--out", tmp_path / "a")
    at_step(monkeypatch, 2, lambda: replace(shards))
    run_here(*flags, "--out", tmp_path / "b")
    assert capsys.readouterr().out.count("was replaced or removed: this run goes on with the files that it opened") == 1
    assert losses(tmp_path / "b") == losses(tmp_path / "a")


def test_a_file_that_is_missing_is_told_before_the_first_step(
    shards: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    (path,) = shards.glob("train-00001*.tokens.npy")
    path.unlink()
    assert f"{path} not found: the build is not complete" in error_of("--shards", shards, "--out", tmp_path, *FLAGS)


@pytest.mark.slow
def test_a_rank_that_sees_the_change_ends_all_of_them(shards: Path, tmp_path: Path) -> None:
    """Each rank reads its own copy of the build, as on machines with disks of their own; that of rank 1 is written over."""
    shutil.copytree(shards, tmp_path / "mine")
    script = tmp_path / "two.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from train import mid\n"
        "plain = mid.set_step\n"
        "def set_step(optimizers, step, lrm):\n"
        "    if step == 4 and os.environ['RANK'] == '1': os.utime(next(Path('mine').glob('train-*.tokens.npy')))\n"
        "    plain(optimizers, step, lrm)\n"
        "mid.set_step = set_step\n"
        "mid.main(['--shards', ['shards', 'mine'][int(os.environ['RANK'])], *sys.argv[1:]])\n"
    )
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*words, *map(str, ["--out", tmp_path / "out", *FLAGS, "--eval-every", 0])],
        env=environment(), capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "error: mine/train-" in done.stderr
    assert sorted(path.name for path in tmp_path.glob("out/*/d1/meta_*")) == ["meta_000002.json", "meta_000004.json"]
