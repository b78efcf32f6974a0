"""One run, one directory: locked before it is read, and a history without holes or twice the same step."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, records, run, run_here

from prep.files import Lock
from train import base, setup
from train.config import parse_args
from train.distributed import Ranks
from train.records import keep_steps

RANKS = Ranks(0, 1, torch.device("cpu"))


def set_up_locked(flags: list[Any], locks: ExitStack | None) -> setup.Run:
    return setup.set_up(parse_args([str(flag) for flag in flags]), RANKS, locks)


def test_a_run_is_set_up_from_what_is_there_once_it_is_locked(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process trains on and leaves between the first look and the lock: its last step counts."""
    flags = ["--shards", build, "--out", tmp_path / "run", *TINY, "--num-iterations", 4, "--save-every", 2]
    run_here(*flags)
    root = tmp_path / "run/mid_checkpoints/d1"
    newest = [path for path in root.glob("*_000004*") if path.name != "metrics.jsonl"]
    shutil.copytree(root, tmp_path / "kept")
    for path in newest:
        path.unlink()

    def lock(*arguments: Any) -> Lock:
        for path in newest:
            shutil.copy(tmp_path / "kept" / path.name, path)
        return Lock(*arguments)

    monkeypatch.setattr(setup, "Lock", lock)
    with ExitStack() as locks:
        assert set_up_locked(flags, locks).first_step == 4


def test_nothing_of_a_run_is_read_while_another_process_holds_it(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Callable[..., str]
) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2]
    run_here(*flags)
    looked: list[object] = []
    monkeypatch.setattr(setup, "find_run", lambda *arguments: looked.append(arguments) or 0)
    monkeypatch.setattr(setup, "load_model", lambda *arguments, **options: looked.append(arguments))
    with Lock(tmp_path / "mid_checkpoints/d1/.lock", "", ""):
        for more in ([], ["--matrix-lr", 0.01], ["--resume", "never"]):  # who is there is said, not what differs
            assert f"another process trains in {tmp_path}/mid_checkpoints/d1" in error_of(*flags, *more)
    assert looked == []


def test_a_base_is_chosen_under_the_lock(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 1)
    flags = ["--shards", build, "--out", tmp_path, *TINY[2:], "--mode", "sft", "--base", tmp_path]
    seen: list[bool] = []
    plain = base.noted_base
    path = tmp_path / "chatsft_checkpoints/d1/.lock"
    monkeypatch.setattr(base, "noted_base", lambda root: seen.append(path.exists()) or plain(root))
    with ExitStack() as locks:
        set_up_locked(flags, locks)
    assert seen == [False, True]  # first to know which directory to lock


def test_a_dry_run_takes_no_lock_and_waits_for_none(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2]
    run_here(*flags)
    with Lock(tmp_path / "mid_checkpoints/d1/.lock", "", ""):
        run_here(*flags, "--dry-run")
    run_here(*flags[:3], tmp_path / "other", *flags[4:], "--dry-run")
    assert not (tmp_path / "other").exists()


def test_the_closing_lines_are_of_this_run_and_not_of_the_newest_file(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2]
    root = tmp_path / "mid_checkpoints/d1"
    run_here(*flags)
    for name in ("model", "optim"):
        suffix = "_rank0.pt" if name == "optim" else ".pt"
        shutil.copy(root / f"{name}_000002{suffix}", root / f"{name}_000001{suffix}")
    capsys.readouterr()
    run_here(*flags)
    assert f"{'steps':<12}2 of 2" in capsys.readouterr().out


# ---- metrics.jsonl ----


def write(path: Path, steps: list[int], end: str = "") -> bytes:
    lines = [
        json.dumps({"step": step, "num_steps": 20, "loss": 1.0, "dt": 0.5, "number": i}) for i, step in enumerate(steps)
    ]
    path.write_text("".join(f"{line}\n" for line in lines) + end)
    return path.read_bytes()


def keep(path: Path, num_steps: int) -> tuple[list[int], str]:
    """Steps that are kept, in the file too; what is said"""
    said: list[str] = []
    kept = [record["step"] for record in keep_steps(path, num_steps, said.append)]
    if path.is_file():
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == kept
    assert all("\n" not in line for line in said)
    return kept, "; ".join(said)


def copies(path: Path) -> list[bytes]:
    return [copy.read_bytes() for copy in sorted(path.parent.glob("metrics-*.jsonl"))]


def test_records_of_steps_that_are_trained_again_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, list(range(10)), end='{"st')
    assert keep(path, 6) == (
        [0, 1, 2, 3, 4, 5],
        f"{path}: 4 records from step 6 on are removed, they are trained again",
    )
    assert keep(path, 6) == ([0, 1, 2, 3, 4, 5], "")
    assert copies(path) == []
    write(path, [0, 1])
    assert keep(path, 0)[1] == f"{path}: 2 records from step 0 on are removed, they are trained again"


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([0, 1, 90, 3, 4, 5, 6], [0, 1, 3, 4, 5]),  # a number that was garbled
        ([0, 1, 2, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),  # twice the same
        ([0, 1, 2, 3, 4, 5, 0, 1], [0, 1, 2, 3, 4, 5]),
        ([3, 2, 1, 0], [0, 1, 2, 3]),
        ([0, 1, 2, 3, 4, 5, 9], [0, 1, 2, 3, 4, 5]),  # something is cut that nobody can tell of
        ([0, 1, 2, 3, 4, 5, 6, 8], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_nothing_out_of_order_is_cut_without_a_copy(tmp_path: Path, steps: list[int], kept: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    before = write(path, steps)
    found, said = keep(path, 6)
    assert found == kept
    wrong = next(i for i, step in enumerate(steps) if step != i)
    assert f"{path}, line {wrong + 1} is of step {steps[wrong]}, wanted {wrong}" in said
    assert f"{tmp_path}/metrics-1.jsonl" in said
    assert copies(path) == [before]
    keep(path, 6)
    assert len(copies(path)) == 1  # nothing more is cut
    write(path, steps)
    keep(path, 6)
    assert len(copies(path)) == 2  # no copy is written over


def test_the_last_record_of_a_step_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [0, 1, 1, 2])
    assert [record["number"] for record in keep_steps(path, 3, lambda text: None)] == [0, 2, 3]


@pytest.mark.parametrize(("steps", "num_kept"), [([], 0), ([0, 1, 2], 3), ([0, 1, 3, 4, 5], 5), (None, 0)])
def test_a_history_that_lost_steps_is_said_and_left(tmp_path: Path, steps: list[int] | None, num_kept: int) -> None:
    path = tmp_path / "metrics.jsonl"
    if steps is not None:
        write(path, steps)
    assert keep(path, 6) == (
        steps or [],
        f"{path} has {num_kept} of the 6 steps before: the others are missing there from now on",
    )
    assert copies(path) == []
    assert keep(path, 0)[1] == "" or steps


@pytest.mark.parametrize(
    "line",
    ['{"step": 1e400, "dt": 1}', '{"step": -1, "dt": 1}', '{"step": true, "dt": 1}', '{"step": 1, "dt": "x"}', "[" * 100_000]
    + ['{"step": 1, "dt": 1, "loss_by_source": 3}', '{"step": 1, "dt": 1, "val_bpb_by_source": {"a": "x"}}', "", "\x00" * 9]
    + ['{"step": 1, "dt": 1, "val_bpb": []}', '{"step": 1.5, "dt": 1}', '{"step": 1, "dt": null}'],
)  # fmt: skip
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    before = write(path, [0]) + f"{line}\n".encode()
    path.write_bytes(before)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not a record of a step: remove the line"):
        keep_steps(path, 2, lambda text: None)
    assert path.read_bytes() == before


def test_a_resumed_run_says_what_it_cuts(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--save-every", 2]
    run_here(*flags)
    root = tmp_path / "mid_checkpoints/d1"
    for path in root.glob("*_000006*"):
        os.unlink(path)
    capsys.readouterr()
    run_here(*flags)
    assert (
        f"{root}/metrics.jsonl: 2 records from step 4 on are removed, they are trained again\n"
        in capsys.readouterr().out
    )
    assert [record["step"] for record in records(tmp_path)] == list(range(6))


@pytest.mark.slow
def test_two_ranks_are_refused_once_where_another_process_trains(build: Path, tmp_path: Path) -> None:
    with Lock(tmp_path / "mid_checkpoints/d1/.lock", "", ""):
        refused = run("--shards", build, "--out", tmp_path, *TINY, ranks=2)
    assert refused.returncode == 1
    assert refused.stderr.count("error: ") == 1
    assert f"error: another process trains in {tmp_path}/mid_checkpoints/d1" in refused.stderr
