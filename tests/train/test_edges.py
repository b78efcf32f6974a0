"""Where a run is to go and how long it is to be: links to nothing, `~`, half a checkpoint, lengths beyond all use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, losses, run_here


@pytest.mark.parametrize("link", ["", "mid_checkpoints", "mid_checkpoints/d1", "mid_checkpoints/d1/.lock"])
def test_a_link_to_nothing_is_named(build: Path, tmp_path: Path, error_of: Callable[..., str], link: str) -> None:
    path = tmp_path / "out" / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("nowhere/at/all")
    line = error_of("--shards", build, "--out", tmp_path / "out", *TINY)
    reason = f"{path} is a link to nowhere/at/all, which does not exist"
    assert line == f"error: {tmp_path}/out/mid_checkpoints/d1 cannot be written ({reason}): give another --out."


def test_metrics_that_are_a_link_to_nothing_are_named(
    build: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    path = tmp_path / "mid_checkpoints/d1/metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere/at/all")
    line = error_of("--shards", build, "--out", tmp_path, *TINY)
    assert f"{path} cannot be written ({path} is a link to nowhere/at/all, which does not exist): mend that" in line


def test_a_home_that_the_shell_left_is_expanded(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(build, tmp_path / "s")
    run_here("--shards=~/s", "--out=~/runs", *TINY, "--num-iterations", 1)
    assert len(losses(tmp_path / "runs")) == 1
    run_here("--shards=~/s", "--out=~/runs", "--base=~/runs", "--mode", "sft", *TINY[2:], "--num-iterations", 1)
    assert f"of {tmp_path}/runs/mid_checkpoints/d1, step 1" in capsys.readouterr().out
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("name", "is_link"), [("model_000004.pt", False), ("model_000004.pt", True), ("meta_000004.json", True)]
)
def test_a_last_checkpoint_that_lost_a_file_is_refused(
    build: Path, tmp_path: Path, error_of: Callable[..., str], name: str, is_link: bool
) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 6, "--save-every", 2]
    run_here(*flags)
    root = tmp_path / "mid_checkpoints/d1"
    whole = losses(tmp_path)
    for path in root.glob("*_000006*"):
        path.unlink()
    (root / name).unlink()
    if is_link:
        (root / name).symlink_to("nowhere")
    problem = f"error: {root}/{name} is missing, so the last checkpoint is not whole: put it back, or remove"
    assert error_of(*flags) == f"{problem} meta_000004.json to go on from step 2"
    for path in root.glob("*_000002*"):
        path.unlink()
    assert error_of(*flags) == f"{problem} meta_000004.json to start again"
    (root / "meta_000004.json").unlink()
    run_here(*flags)
    assert losses(tmp_path) == whole


def test_earlier_checkpoints_may_lose_their_models(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 6, "--save-every", 2]
    run_here(*flags)
    for step in (2, 4):
        (tmp_path / f"mid_checkpoints/d1/model_{step:06d}.pt").unlink()
    run_here(*flags)
    (meta,) = tmp_path.glob("mid_checkpoints/d1/meta_000006.json")
    assert json.loads(meta.read_text())["step"] == 6


def test_a_replaced_run_may_have_half_a_checkpoint(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2]
    run_here(*flags)
    (tmp_path / "mid_checkpoints/d1/model_000002.pt").unlink()
    run_here(*flags, "--resume", "never")
    assert len(losses(tmp_path)) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-epochs", "1e-10"], "1e-10 epochs of 43 rows are no step: give more --num-epochs"),
        (["--num-epochs", "1e30"], "--num-epochs is 1e+30, it has to be more than 0 and at most 1,000,000,000,000"),
        (["--num-iterations", str(10**23)], "it has to be more than 0 and at most 1,000,000,000,000,000"),
        (["--total-batch-size", str(10**23)], "it has to be more than 0 and at most 1,000,000,000,000"),
        (["--depth", "100000000"], "--depth is 100000000, it has to be more than 0 and at most 1,000"),
    ],
)
def test_lengths_that_make_no_sense_are_refused_at_once(
    build: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        run_here("--shards", build, "--device", "cpu", *flags)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
