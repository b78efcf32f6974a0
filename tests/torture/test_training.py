"""Training that is killed, stopped and moved ends in the losses of a run that was left in peace."""

from pathlib import Path

import pytest

from tests.torture.train_trials import kills, moves


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_the_bit(tmp_path: Path) -> None:
    lines = list(kills(tmp_path, 6, seed=0))
    assert "6 kills" in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [[1], [1, 2]])
def test_a_run_that_is_stopped_and_moved_ends_as_one_left_in_peace(tmp_path: Path, ranks: list[int]) -> None:
    print(*moves(tmp_path, 40, ranks, seed=0), sep="\n")


@pytest.mark.torture
def test_a_hundred_kills_of_training(tmp_path: Path) -> None:
    print(*kills(tmp_path, 100, seed=1), sep="\n")


@pytest.mark.torture
@pytest.mark.parametrize("ranks", [[1], [2], [1, 2]])
def test_five_minutes_of_stops_and_moves(tmp_path: Path, ranks: list[int]) -> None:
    print(*moves(tmp_path, 300, ranks, seed=1), sep="\n")
