"""The packing that keeps the mixture's order: every conversation once, none split, rows as the plain rule has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from prep.plan import ordered
from prep.plan.ordered import WINDOW, link_equal, pack_in_order, pack_in_order_plainly, reorder

CAPACITY = 17  # 2**4 + 1: a row of 16 inputs and one target more


def rows_of(lengths: list[int], capacity: int) -> list[list[int]]:
    order, docs_per_row = pack_in_order(np.array(lengths, dtype=np.int64), capacity)
    return [row.tolist() for row in np.split(order, np.cumsum(docs_per_row)[:-1])] if len(order) else []


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ([4, 4, 3], [[0, 1], [2]]),  # in order, while the next fits
        ([5, 4, 2, 3, 1], [[0, 3], [1, 2, 4]]),  # one that fits exactly, before two that do
        ([5, 4, 2, 1], [[0, 3, 2], [1]]),  # two that fit exactly, before the longest that fits
        ([6, 4, 1, 1], [[0, 2, 3], [1]]),  # the longest that fits, and again; two of one length are no pair
        ([6, 4, 2, 2], [[0, 2], [1, 3]]),  # of equal ones the first
        ([8, 8], [[0], [1]]),
        ([], []),
    ],
)
def test_rows_of_eight_tokens(lengths: list[int], rows: list[list[int]]) -> None:
    assert pack_in_order_plainly(lengths, 8) == rows
    assert rows_of(lengths, 8) == rows


@given(lengths=lists(integers(1, CAPACITY), max_size=80))
def test_the_fast_form_gives_the_rows_of_the_plain_rule(lengths: list[int]) -> None:
    assert rows_of(lengths, CAPACITY) == pack_in_order_plainly(lengths, CAPACITY)


@given(seed=integers(0, 999), size=integers(0, 70))
def test_so_it_does_where_the_window_moves_on(seed: int, size: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, CAPACITY + 1, size).tolist()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BLOCK": 4, "WINDOW": 12, "CHUNK": 16}.items():
            patch.setattr(ordered, name, value)
        assert rows_of(lengths, CAPACITY) == pack_in_order_plainly(lengths, CAPACITY)


@given(lengths=lists(integers(1, CAPACITY), max_size=80))
def test_every_conversation_is_packed_once_and_fits(lengths: list[int]) -> None:
    rows = rows_of(lengths, CAPACITY)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[place] for place in row) <= CAPACITY for row in rows)


def test_no_conversation_moves_by_more_than_the_window() -> None:
    order, _ = pack_in_order(np.random.default_rng(0).integers(1, 400, 20_000), 513)
    assert 100 < np.abs(order - np.arange(len(order))).max() <= WINDOW


def test_rows_of_mixed_conversations_are_filled_to_within_a_thousandth() -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(4.5, 1, 50_000).astype(np.int64) + 5, 2048)
    _, docs_per_row = pack_in_order(lengths, 2049)
    assert len(docs_per_row) <= 1.001 * -(-int(lengths.sum()) // 2049)


def test_a_conversation_that_is_too_long_for_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lengths 3 \.\. 9 found, wanted 1 \.\. 8"):
        pack_in_order(np.array([3, 9]), 8)


@given(seed=integers(0, 999), size=integers(0, 60))
def test_values_are_put_in_order_in_chunks_as_at_once(seed: int, size: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, CAPACITY + 1, size)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BLOCK": 4, "WINDOW": 12, "CHUNK": 16}.items():
            patch.setattr(ordered, name, value)
        order, _ = pack_in_order(lengths, CAPACITY)
        values = np.arange(size) * 10
        reorder(values, order)
        assert values.tolist() == (order * 10).tolist()
        after, first = link_equal(lengths, CAPACITY)
    for length in range(CAPACITY + 1):
        place, chain = first[length], []
        while place < size:
            chain.append(place)
            place = after[place]
        assert chain == np.flatnonzero(lengths == length).tolist()
