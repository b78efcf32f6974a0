"""Models from scratch of both generations of nanochat: what they are, how they go on, and who loads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, losses, run_here

from train.checkpoint import load_model

ErrorOf = Callable[..., str]


@pytest.mark.parametrize(
    ("flags", "generation", "loader"),
    [
        ([], "2025-12", "nanochat of 2025-12 (not today's)"),
        (["--generation", "2025-12"], "2025-12", "nanochat of 2025-12 (not today's)"),
        (["--generation", "2026-07"], "2026-07", "today's nanochat"),
    ],
)
def test_a_model_from_scratch_is_of_the_generation_asked_for_and_says_which_nanochat_loads_it(
    flags: list[Any], generation: str, loader: str, build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2, *flags)
    assert f"from scratch, generation {generation} " in capsys.readouterr().out
    run_here(
        "--shards", build, "--out", tmp_path, *TINY[2:], "--num-iterations", 2, "--mode", "sft", "--base", tmp_path
    )
    assert f"next, in {loader}: " in capsys.readouterr().out
    for stage in ("mid_checkpoints", "chatsft_checkpoints"):
        (root,) = (tmp_path / stage).iterdir()
        model, meta = load_model(root)
        assert model.config.generation == generation
        assert ("window_pattern" in meta["model_config"]) == (generation == "2026-07")


def test_a_run_of_2026_07_goes_on_to_the_bit_and_not_as_one_of_the_other(
    build: Path, tmp_path: Path, error_of: ErrorOf
) -> None:
    flags = ["--shards", build, *TINY, "--num-iterations", 4, "--save-every", 2, "--generation", "2026-07"]
    run_here(*flags, "--out", tmp_path / "whole")
    run_here(*flags, "--out", tmp_path / "parts")
    (root,) = (tmp_path / "parts/mid_checkpoints").iterdir()
    (root / "meta_000004.json").unlink()
    run_here(*flags, "--out", tmp_path / "parts")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    for other in (["--generation", "2025-12"], []):
        error = error_of(*flags[:-2], "--out", tmp_path / "parts", *other)
        assert "holds a run of generation 2026-07, this one is of 2025-12: give --generation 2026-07" in error
    run_here(*flags[:-2], "--out", tmp_path / "parts", "--resume", "never")
    assert load_model(root)[0].config.generation == "2025-12"


def test_a_generation_beside_a_base_is_refused(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_here("--shards", build, "--base", tmp_path, "--generation", "2026-07")
    assert "--base has its own: leave one of them out" in capsys.readouterr().err
