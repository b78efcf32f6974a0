"""--inherit: what a run takes from its base, that it is part of the run, and that the base is not needed again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, losses, run_here

from train.config import INHERITED, Config, parse_args

ErrorOf = Callable[..., str]
STEPS = ["--num-iterations", "6", "--eval-every", "0", "--device", "cpu", "--save-every", "3", "--mode", "sft"]
SFT = "chatsft_checkpoints"


@pytest.fixture(scope="module")
def trained(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a mid model d1 after 2 steps of 64 tokens with rates of its own"""
    home = tmp_path_factory.mktemp("home")
    flags = ["--total-batch-size", 64, "--embedding-lr", 0.3, "--unembedding-lr", 0.008, "--matrix-lr", 0.03]
    run_here("--shards", build, "--out", home, *TINY, *flags, "--num-iterations", 2)
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "home")
    return tmp_path / "home"


def change_meta(home: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Of the base, as if nanochat had written it: without what midprep notes"""
    path = home / "mid_checkpoints" / "d1" / "meta_000002.json"
    meta = json.loads(path.read_text())
    del meta["midprep"]
    change(meta)
    path.write_text(json.dumps(meta))


def config_of(out: Path) -> dict[str, Any]:
    """What the last checkpoint of a run notes of its flags"""
    meta: dict[str, Any] = json.loads(max(out.glob(f"{SFT}/d1/meta_*.json")).read_text())
    return dict(meta["user_config"])


def test_what_is_typed_is_given_even_where_it_is_the_default() -> None:
    given = ["--shards", "s", "--base", "b", "--inherit"]
    assert parse_args(given).inherit == INHERITED
    typed = ["--matrix-lr", str(Config.matrix_lr), "--warmdown-ratio=0.2", "--no-base-optimizer"]
    left = parse_args([*given, *typed]).inherit
    assert left == ("total_batch_size", "embedding_lr", "unembedding_lr", "init_lr_frac")
    assert parse_args(given[:-1]).inherit == parse_args([*given, "--no-inherit"]).inherit == ()


def test_inherit_without_a_base_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_args(["--shards", "s", "--inherit"])
    assert "--inherit have no effect without --base" in capsys.readouterr().err


def test_a_run_inherits_what_was_not_given_and_says_where_each_is_from(
    build: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--shards", build, *STEPS, "--base", home, "--matrix-lr", "0.02"]
    run_here(*flags, "--inherit", "--out", tmp_path / "a")
    root = home / "mid_checkpoints" / "d1"
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("--inherit: ")]
    assert lines == [
        f"--inherit: --total-batch-size 64 --embedding-lr 0.3 --unembedding-lr 0.008 (of {root}, step 2), "
        "--init-lr-frac 0.8 --warmdown-ratio 0.5 (of nanochat's SFT)",
        "--inherit: --base-optimizer (--no-base-optimizer starts without its state)",
    ]
    same = ["--total-batch-size", 64, "--embedding-lr", 0.3, "--unembedding-lr", 0.008, "--init-lr-frac", 0.8]
    run_here(*flags, *same, "--warmdown-ratio", 0.5, "--base-optimizer", "--out", tmp_path / "b")
    assert losses(tmp_path / "a", SFT) == losses(tmp_path / "b", SFT)
    run_here(*flags, "--out", tmp_path / "c")
    assert losses(tmp_path / "a", SFT) != losses(tmp_path / "c", SFT)


@pytest.mark.parametrize("keep_base", [True, False])
def test_a_run_that_inherited_goes_on_to_the_bit_with_its_base_and_without(
    build: Path, home: Path, tmp_path: Path, error_of: ErrorOf, capsys: pytest.CaptureFixture[str], keep_base: bool
) -> None:
    flags = ["--shards", build, *STEPS, "--base", home, "--inherit", "--out", tmp_path / "run"]
    run_here(*flags)
    whole = losses(tmp_path / "run", SFT)
    root = tmp_path / "run" / SFT / "d1"
    for path in root.glob("*_000006*"):
        path.unlink()
    (home / "mid_checkpoints" / "d1" / "optim_000002_rank0.pt").unlink()  # of a run that goes on nothing of it is read
    if not keep_base:
        shutil.rmtree(home)
        assert "began with other flags than these: give its flags, or the base" in error_of(
            *flags, "--matrix-lr", "0.03"
        )
    capsys.readouterr()
    run_here(*flags)
    assert losses(tmp_path / "run", SFT) == whole
    assert f"--base-optimizer (as {root} has it)" in capsys.readouterr().out


def test_another_run_is_not_taken_for_one_that_inherited(
    build: Path, home: Path, tmp_path: Path, error_of: ErrorOf
) -> None:
    flags = ["--shards", build, *STEPS, "--base", home, "--out", tmp_path / "run"]
    run_here(*flags, "--inherit", "--matrix-lr", "0.01")
    assert "holds a run with matrix_lr 0.01, this one has 0.03" in error_of(*flags, "--inherit")
    assert "holds a run with base_optimizer True, this one has False" in error_of(*flags)


def test_nanochats_metas_of_both_generations_are_read(
    build: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def as_of_2026(meta: dict[str, Any]) -> None:
        meta["user_config"] = {"total_batch_size": -1, "matrix_lr": 0.05, "embedding_lr": None}
        meta["total_batch_size"] = 32

    def as_of_2025(meta: dict[str, Any]) -> None:
        del meta["total_batch_size"]
        meta["user_config"] = {"total_batch_size": 48, "matrix_lr": 0.05, "unembedding_lr": 0.004}

    for name, change, batch in (("a", as_of_2026, 32), ("b", as_of_2025, 48)):
        shutil.copytree(home, tmp_path / name)
        change_meta(tmp_path / name, change)
        run_here("--shards", build, *STEPS, "--base", tmp_path / name, "--inherit", "--out", tmp_path / f"{name}-run")
        noted = config_of(tmp_path / f"{name}-run")
        assert (noted["total_batch_size"], noted["matrix_lr"], noted["embedding_lr"]) == (batch, 0.05, 0.2)
        assert "--embedding-lr" in capsys.readouterr().out.split(" (not in its meta: as without --inherit)")[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("matrix_lr", "0.1"),
        ("matrix_lr", -0.5),
        ("matrix_lr", True),
        ("total_batch_size", 0),
        ("total_batch_size", 9.5),
    ],
)
def test_a_meta_with_something_else_than_a_number_is_refused_in_one_line(
    build: Path, home: Path, tmp_path: Path, error_of: ErrorOf, name: str, value: Any
) -> None:
    def set_it(meta: dict[str, Any]) -> None:
        meta.pop(name, None)
        meta["user_config"][name] = value

    change_meta(home, set_it)
    error = error_of("--shards", build, *STEPS, "--base", home, "--inherit", "--out", tmp_path / "run")
    assert f"has {value!r} for {name}, wanted a number: give --{name.replace('_', '-')}" in error


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.unlink(), "there is no "),
        (lambda path: shutil.copy(path, str(path).replace("rank0", "rank1")), "it is in parts, "),
        (lambda path: torch.save({"state": {}, "param_groups": []}, path), "does not hold [AdamW, Muon]"),
    ],
    ids=["missing", "a file for each rank", "one of nanochat's HEAD"],
)
def test_where_the_state_of_the_optimizer_cannot_be_loaded_training_starts_without(
    build: Path,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Any],
    said: str,
) -> None:
    make(home / "mid_checkpoints" / "d1" / "optim_000002_rank0.pt")
    flags = ["--shards", build, *STEPS, "--base", home, "--inherit"]
    run_here(*flags, "--out", tmp_path / "a")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "training starts without" in line]
    assert line.startswith("--inherit: training starts without the base's optimizer state: ")
    assert said in line
    assert config_of(tmp_path / "a")["base_optimizer"] is False
    run_here(*flags, "--no-base-optimizer", "--out", tmp_path / "b")
    assert losses(tmp_path / "a", SFT) == losses(tmp_path / "b", SFT)


def test_a_damaged_state_of_the_optimizer_is_refused_by_name(
    build: Path, home: Path, tmp_path: Path, error_of: ErrorOf
) -> None:
    change_meta(home, lambda meta: None)
    path = home / "mid_checkpoints" / "d1" / "optim_000002_rank0.pt"
    path.write_bytes(path.read_bytes()[:-100])
    error = error_of("--shards", build, *STEPS, "--base", home, "--inherit", "--out", tmp_path / "run")
    assert f"{path} is not a file of plain tensors" in error
    assert error.endswith(", or give --no-base-optimizer")
