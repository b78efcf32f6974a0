"""Numbers of a step, as facts."""

import json

import pytest
from conftest import FIXTURES
from hypothesis import given
from hypothesis.strategies import floats, integers

from prep.shard.steps import default_rows_per_step, device_batch
from train.schedule import lr_multiplier, muon_momentum


def test_the_learning_rate_is_nanochats_to_the_last_bit() -> None:
    expected = json.loads((FIXTURES / "ckpt_2025-12" / "expected.json").read_text())["train"]["lr_multipliers"]
    assert [lr_multiplier(step, 20, 0.2, 1.0) for step in range(20)] == expected


@given(num_steps=integers(1, 5000), warmdown=floats(0, 1), frac=floats(0.01, 1))
def test_the_learning_rate_never_rises_and_is_never_negative(num_steps: int, warmdown: float, frac: float) -> None:
    rates = [lr_multiplier(step, num_steps, warmdown, frac) for step in range(num_steps)]
    assert all(0 < rate <= frac for rate in rates)
    assert rates == sorted(rates, reverse=True)


def test_muon_momentum_rises_over_300_steps() -> None:
    assert [muon_momentum(step) for step in (0, 150, 300, 9000)] == pytest.approx([0.85, 0.90, 0.95, 0.95])


@given(num_rows=integers(1, 10**7), max_seq_len=integers(1, 8192))
def test_default_steps_are_524288_tokens_or_at_least_50_of_them(num_rows: int, max_seq_len: int) -> None:
    rows = default_rows_per_step(num_rows, max_seq_len)
    assert rows * max_seq_len <= 524_288
    assert rows == 1 or num_rows / rows >= 50
    assert rows * 2 * max_seq_len > 524_288 or num_rows / (rows * 2) < 50


def test_the_device_batch_divides_a_ranks_share() -> None:
    assert device_batch(256, 8, 2048, None, 32) == 32
    assert device_batch(12, 2, 2048, None, 4) == 3
    assert device_batch(12, 2, 2048, 2, 4) == 2


def test_a_total_batch_that_does_not_come_out_even_names_the_nearest_that_do() -> None:
    with pytest.raises(ValueError, match="not a multiple of 4 ranks x 8 rows: give --total-batch-size 65536 or 131072"):
        device_batch(40, 4, 2048, 8, 32)
    with pytest.raises(ValueError, match=r"give --total-batch-size 8192$"):
        device_batch(1, 4, 2048, None, 32)
