"""What is read from metrics.jsonl again."""

import pytest

from train.records import first_and_last, first_and_last_means


def test_losses_are_compared_by_means_over_steps() -> None:
    losses = [5.0, 3.0, 4.0, 4.0, 2.0, 4.5]  # of single steps, 5.0 -> 4.5
    records = [{"loss_by_source": {"a": loss}} for loss in losses]
    assert first_and_last_means(records, "loss_by_source") == {"a": pytest.approx((4.0, 3.5))}
    assert first_and_last(records, "loss_by_source") == {"a": (5.0, 4.5)}


def test_means_are_over_ten_steps_at_most_and_of_the_steps_that_have_the_source() -> None:
    records = [{"loss_by_source": {"a": float(step)} | ({"b": 7.0} if step == 12 else {})} for step in range(100)]
    assert first_and_last_means(records, "loss_by_source") == {"a": (4.5, 94.5), "b": (7.0, 7.0)}
    assert first_and_last_means([], "loss_by_source") == {}
