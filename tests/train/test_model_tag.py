"""Models by name: where --model-tag puts them, how --base finds them, and which checkpoint a tag means."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, run_here
from shards_factory import random_rows, write_build

from train.checkpoint import BASES, find_checkpoint, load_model
from train.config import parse_args
from train.meta import steps_in
from train.watch import find_metrics

ErrorOf = Callable[..., str]
SHORT = [*TINY, "--num-iterations", "2"]
SFT = [*SHORT[2:], "--mode", "sft"]


def base_of(root: Path) -> str:
    meta = json.loads((root / f"meta_{steps_in(root)[-1]:06d}.json").read_text())
    return str(meta["midprep"]["identity"]["base"])


@pytest.fixture
def two(build: Path, tmp_path: Path) -> Path:
    """A directory with the mid models a and b, both of depth 1"""
    for tag, seed in (("a", 1), ("b", 2)):
        run_here("--shards", build, "--out", tmp_path, *SHORT, "--model-tag", tag, "--seed", seed)
    return tmp_path


def test_two_models_of_one_depth_stand_side_by_side(
    build: Path, two: Path, capsys: pytest.CaptureFixture[str], error_of: ErrorOf
) -> None:
    assert sorted(path.name for path in (two / "mid_checkpoints").iterdir()) == ["a", "b"]
    for tag in ("a", "b"):
        capsys.readouterr()
        run_here("--shards", build, "--out", two, *SFT, "--base", tag, "--model-tag", tag)
        out = capsys.readouterr().out
        assert f"of {two}/mid_checkpoints/{tag}, step 2" in out
        assert out.endswith(f"python -m scripts.chat_cli -i sft -g {tag}\n")
        assert f"ask it: midprep chat {two}/chatsft_checkpoints/{tag}\n" in out
    sft = two / "chatsft_checkpoints"
    assert base_of(sft / "a") != base_of(sft / "b")
    assert find_metrics(sft / "a") == sft / "a" / "metrics.jsonl"
    run_here("--shards", build, "--out", two, *SFT, "--base", "a")
    assert "holds a run with base step 2, " in error_of("--shards", build, "--out", two, *SFT, "--base", "b")


def test_the_command_that_mid_ends_with_trains_the_model_on_under_its_name(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here("--shards", build, "--out", tmp_path, *SHORT, "--model-tag", "my mix")
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("next: "))
    run_here(*command[2:], "--num-iterations", 1, "--eval-every", 0, "--device", "cpu")
    assert steps_in(tmp_path / "chatsft_checkpoints" / "my mix") == [1]


def test_shards_that_sft_cannot_train_on_end_without_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_eval_options import untrained

    rows = [[untrained(doc) for doc in row] for row in random_rows(0, 20, 16)]
    shards = write_build(tmp_path / "shards", {"train": rows}, max_seq_len=16)
    run_here("--shards", shards, "--out", tmp_path, *SHORT)
    out = capsys.readouterr().out
    assert "next: " not in out
    assert "midprep chat" not in out


@pytest.mark.parametrize("where", [".", "mid_checkpoints"])
def test_a_directory_with_several_names_and_no_depth_is_ambiguous(two: Path, where: str) -> None:
    with pytest.raises(ValueError, match=r"mid_checkpoints has several models \(a, b\): give one of them, as .*/a$"):
        find_checkpoint(two / where, None, BASES["sft"])
    shutil.rmtree(two / "mid_checkpoints" / "b")
    assert find_checkpoint(two / where, None, BASES["sft"])[0].name == "a"
    shutil.copytree(two / "mid_checkpoints" / "a", two / "mid_checkpoints" / "c")
    shutil.copytree(two / "mid_checkpoints" / "a", two / "mid_checkpoints" / "d1")
    assert find_checkpoint(two / where, None, BASES["sft"])[0].name == "d1"


def test_a_run_with_a_name_goes_on_with_its_base_and_without(build: Path, two: Path, error_of: ErrorOf) -> None:
    flags = ["--shards", build, "--out", two / "sft", *SFT, "--save-every", 1, "--base", two / "mid_checkpoints" / "a"]
    run_here(*flags, "--model-tag", "x")
    root = two / "sft" / "chatsft_checkpoints" / "x"
    records = (root / "metrics.jsonl").read_text()
    (root / "meta_000002.json").unlink()
    run_here(*flags, "--model-tag", "x")
    (root / "meta_000002.json").unlink()
    shutil.rmtree(two / "mid_checkpoints")
    assert "no checkpoint" in error_of(*flags)  # another run: that of d1
    assert "no checkpoint" in error_of(*flags, "--model-tag", "y")
    run_here(*flags, "--model-tag", "x")
    again = (root / "metrics.jsonl").read_text()
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in (records, again)]
    assert losses[0] == losses[1]
    assert load_model(root)[1]["step"] == 2


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "/a", "a/", ".a", "a\n"])
def test_a_tag_that_is_no_name_of_a_directory_is_refused(tag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_args(["--shards", "s", "--model-tag", tag])
    assert "wanted a name for a directory" in capsys.readouterr().err


def test_a_tag_that_names_another_depth_is_refused(build: Path, tmp_path: Path, error_of: ErrorOf) -> None:
    error = error_of("--shards", build, "--out", tmp_path, *SHORT, "--model-tag", "d2")
    assert error.endswith("--model-tag d2 names a model of 2 layers, this one has 1: give another name")
    run_here("--shards", build, "--out", tmp_path, *SHORT, "--model-tag", "d1", "--dry-run")


def test_sft_prefers_the_mid_checkpoint_of_a_tag_and_says_so(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    run_here("--shards", build, "--out", tmp_path, *SHORT)
    mid, base = tmp_path / "mid_checkpoints" / "d1", tmp_path / "base_checkpoints" / "d1"
    flags = ["--shards", build, *SFT, "--base", "d1", "--dry-run"]
    capsys.readouterr()
    run_here(*flags)
    out = capsys.readouterr().out
    assert f"model: depth 1 of {mid}, step 2" in out
    assert "give its path" not in out
    shutil.copytree(mid, base)
    run_here(*flags)
    out = capsys.readouterr().out
    assert f"--base d1 is {mid}; to start from {base}, give its path" in out
    assert f"model: depth 1 of {mid}, step 2" in out
    shutil.rmtree(mid)
    run_here(*flags)
    assert f"model: depth 1 of {base}, step 2" in capsys.readouterr().out


def test_a_tag_in_nanochats_home_comes_before_one_in_out(
    build: Path, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(home))
    flags: list[Any] = ["--shards", build, "--out", two, *SFT, "--base", "a", "--dry-run"]
    run_here(*flags)
    shutil.copytree(two / "mid_checkpoints" / "a", home / "base_checkpoints" / "a")
    capsys.readouterr()
    run_here(*flags)
    out = capsys.readouterr().out
    assert f"--base a is {home}/base_checkpoints/a; to start from {two}/mid_checkpoints/a, give its path" in out
