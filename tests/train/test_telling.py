"""What only tells of a run never ends it: streams that are closed or full, loggers, metrics.jsonl."""

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import TINY, command, environment, records, run_here

from train import mid, stops
from train.metrics import Metrics

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
FLAGS = [*TINY, "--num-iterations", 4, "--save-every", 2]


def saved(out: Path) -> list[int]:
    return sorted(json.loads(path.read_text())["step"] for path in out.glob("mid_checkpoints/d1/meta_*.json"))


class Broken(io.TextIOBase):
    """A stream that stops to take text after the first lines"""

    def __init__(self, error: Exception, num_lines: int) -> None:
        self.error, self.left, self.text = error, num_lines, ""

    def write(self, text: str) -> int:
        if not self.left:
            raise self.error
        self.text += text
        self.left -= text.count("\n")
        return len(text)

    def flush(self) -> None:
        if not self.left:
            raise self.error

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device"), ValueError("I/O on closed file")],
)
@pytest.mark.parametrize("num_lines", [0, 2, 5])
def test_a_stdout_that_fails_is_said_once_and_the_run_goes_on(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, num_lines: int
) -> None:
    told = Broken(error, 1000)
    monkeypatch.setattr(sys, "stdout", Broken(error, num_lines))
    monkeypatch.setattr(sys, "stderr", told)
    run_here("--shards", build, "--out", tmp_path, *FLAGS)
    reason = getattr(error, "strerror", None) or str(error)
    assert told.text == f"stdout cannot be written ({reason}): going on without it\n"
    assert len(records(tmp_path)) == 4
    assert saved(tmp_path) == [2, 4]


def test_both_streams_may_fail(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Broken(BrokenPipeError(32, "Broken pipe"), 0))
    run_here("--shards", build, "--out", tmp_path, *FLAGS)
    assert saved(tmp_path) == [2, 4]


@pytest.mark.parametrize(
    "ending", ["| head -n 1", ">/dev/full 2>/dev/full", ">&- 2>&-"], ids=["pipe", "full", "closed"]
)
@needs_full
def test_a_run_ends_well_whatever_becomes_of_its_output(build: Path, tmp_path: Path, ending: str) -> None:
    """The whole process, with the flush at its end and the file descriptors that closed streams leave free"""
    words = command("--shards", build, "--out", tmp_path, *FLAGS)
    script = f'set -o pipefail; "$@" {ending}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in records(tmp_path)] == [0, 1, 2, 3]
    assert saved(tmp_path) == [2, 4]
    if "head" in ending:
        assert done.stderr.count("stdout cannot be written (Broken pipe)") == 1
        assert "Traceback" not in done.stderr


def test_a_stop_signal_does_not_mind_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(stops.signal, "signal", handlers.__setitem__)

    def fail(*arguments: Any) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(stops.os, "write", fail)
    requested = stops.StopRequest()
    handlers[signal.SIGTERM](15, None)
    assert requested


class Mute(Exception):
    def __str__(self) -> str:
        raise TypeError("says nothing")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("gone"), SystemExit(3), OSError(28, "No space left"), ValueError(""), CancelledError(), Mute()],
)
def test_a_logger_may_raise_anything(
    build: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    module = ModuleType("trackio")
    for name, function in {"init": lambda **about: module, "log": fail, "finish": fail}.items():
        setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "trackio", module)
    run_here("--shards", build, "--out", tmp_path, *FLAGS, "--run", "mine", "--logger", "trackio")
    assert capsys.readouterr().err.count("the logger failed") == 1
    assert saved(tmp_path) == [2, 4]


@pytest.mark.parametrize("error", [SystemExit("gone"), CancelledError("gone"), RuntimeError("gone")])
def test_a_logger_that_cannot_be_started_is_named(
    build: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_of: Callable[..., str],
    error: BaseException,
) -> None:
    def fail(**about: Any) -> None:
        raise error

    module = ModuleType("wandb")
    module.init = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    line = error_of("--shards", build, "--out", tmp_path, *FLAGS, "--run", "mine")
    assert line == "error: --run mine (wandb): gone: install it, or log in"


@needs_full
def test_metrics_that_cannot_be_written_end_a_run_with_a_checkpoint(
    build: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    root = tmp_path / "mid_checkpoints/d1"
    root.mkdir(parents=True)
    (root / "metrics.jsonl").symlink_to("/dev/full")
    line = error_of("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 9)
    reason = f"{root}/metrics.jsonl cannot be written (No space left on device)"
    assert line == f"error: {reason}: the run is saved at step 2; mend that, and run the same command to go on"
    assert saved(tmp_path) == [2]
    (root / "metrics.jsonl").unlink()
    run_here("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 9)
    assert saved(tmp_path) == [2, 9]


@needs_full
def test_the_last_record_that_cannot_be_written_is_an_error_too(
    build: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    root = tmp_path / "mid_checkpoints/d1"
    root.mkdir(parents=True)
    (root / "metrics.jsonl").symlink_to("/dev/full")
    line = error_of("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 1)
    assert "metrics.jsonl cannot be written (No space left on device): the run is saved at step 1" in line
    assert saved(tmp_path) == [1]


def test_metrics_that_cannot_be_opened_are_told_before_the_first_step(
    build: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    root = tmp_path / "mid_checkpoints/d1"
    (root / "metrics.jsonl").mkdir(parents=True)
    for more in ([], ["--resume", "never"]):
        line = error_of("--shards", build, "--out", tmp_path, *FLAGS, *more)
        assert (
            line == f"error: {root}/metrics.jsonl cannot be written (Is a directory): mend that, or give another --out"
        )
    assert saved(tmp_path) == []
    (root / "metrics.jsonl").rmdir()
    os.mkfifo(root / "metrics.jsonl")
    line = error_of("--shards", build, "--out", tmp_path, *FLAGS)
    assert "metrics.jsonl cannot be written (it is a named pipe): mend that, or give another --out" in line


def test_half_a_record_is_taken_back_and_written_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    record = {"num_steps": 3, "loss": 1.0, "lrm": 1.0, "dt": 1.0, "tokens_per_second": 1.0, "mfu": 0.0}
    metrics = Metrics(path, True)
    metrics.write({"step": 0, **record})

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, hard))
    try:
        with redirect_stdout(io.StringIO()):  # pytest's is a file, and full too
            metrics.write({"step": 1, **record})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert metrics.problem == "File too large"
    assert len(path.read_text().splitlines()) == 1
    metrics.write({"step": 2, **record})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_a_directory_that_vanishes_is_made_again_for_a_checkpoint(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Callable[..., str]
) -> None:
    plain = mid.set_step

    def set_step(optimizers: Any, step: int, lrm: float) -> None:
        if step == 3:
            shutil.rmtree(tmp_path / "out")
        plain(optimizers, step, lrm)

    monkeypatch.setattr(mid, "set_step", set_step)
    line = error_of("--shards", build, "--out", tmp_path / "out", *TINY, "--num-iterations", 9)
    assert "/metrics.jsonl cannot be written (No such file or directory): the run is saved at step 5" in line
    assert saved(tmp_path / "out") == [5]
