"""Best-fit decreasing: every conversation once, none split, none too much in a row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from prep.plan.packing import best_fit_decreasing, best_fit_decreasing_plainly, completion, exact_pattern, pack

CAPACITY = 17  # 2**4 + 1: a row of 16 inputs and one target more


def test_the_longest_come_first_and_fill_what_room_is_left() -> None:
    rows, num_rows = pack(np.array([5, 3, 4]), 8)
    assert rows.tolist() == [0, 0, 1]
    assert num_rows == 2


@given(lengths=lists(integers(1, CAPACITY), max_size=80))
def test_every_conversation_is_packed_once_and_fits(lengths: list[int]) -> None:
    for complete in (False, True):
        check_packing(lengths, *best_fit_decreasing(np.array(lengths, dtype=np.int64), CAPACITY, complete))


def check_packing(lengths: list[int], rows: np.ndarray, num_rows: int) -> None:
    assert len(rows) == len(lengths)
    filled = np.bincount(rows, weights=lengths, minlength=num_rows)
    assert len(filled) == num_rows
    assert all(0 < tokens <= CAPACITY for tokens in filled)


@given(lengths=lists(integers(1, CAPACITY), max_size=80))
def test_placing_all_of_one_length_together_gives_what_one_at_a_time_gives(lengths: list[int]) -> None:
    rows, _ = best_fit_decreasing(np.array(lengths, dtype=np.int64), CAPACITY, complete=False)
    assert rows.tolist() == best_fit_decreasing_plainly(lengths, CAPACITY)


def test_a_conversation_that_is_too_long_for_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lengths 3 \.\. 9 found, wanted 1 \.\. 8"):
        pack(np.array([3, 9]), 8)


@pytest.mark.parametrize("capacity", [513, 2049, 4097])
def test_rows_of_mixed_conversations_are_filled_to_more_than_99_percent(capacity: int) -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(4.5, 1, 50_000).astype(np.int64) + 5, capacity - 1)
    _, num_rows = pack(lengths, capacity)
    assert lengths.sum() / (num_rows * capacity) > 0.99


def test_a_row_is_completed_with_shorter_ones_where_they_fill_it_exactly() -> None:
    counts = np.bincount([30, 30, 21, 21, 21, 10, 12, 20], minlength=70)
    assert exact_pattern(counts, 30, 60) == {30: 2}
    assert exact_pattern(counts, 30, 63) == {30: 1, 21: 1, 12: 1}
    assert exact_pattern(counts, 30, 59) is None
    assert exact_pattern(counts, 30, 52) == {30: 1, 10: 1, 12: 1}
    assert completion(counts, 63, 30) == {21: 3}
    assert completion(counts, 20, 30) == {20: 1}
    assert completion(counts, 24, 30) is None


def test_many_conversations_of_few_lengths_fill_their_rows() -> None:
    lengths = np.repeat([30, 31, 29, 28, 22, 21], [900, 800, 700, 600, 50, 40])
    plain, completed = (best_fit_decreasing(lengths, 513, complete)[1] for complete in (False, True))
    least = -(-int(lengths.sum()) // 513)
    assert pack(lengths, 513)[1] == min(plain, completed) <= least + 1 < plain
