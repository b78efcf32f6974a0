"""Plans: which tokens of which conversation are in which row, from lengths alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from prep.plan import rows as plan
from prep.plan.ordered import pack_in_order_plainly
from prep.plan.rows import PIECE, plan_bfd, plan_ordered, plan_wrapped, split_pieces, split_points


def pieces_of(lengths: list[int]) -> np.ndarray:
    pieces = np.zeros(len(lengths), dtype=PIECE)
    pieces["index"], pieces["length"] = np.arange(len(lengths)), lengths
    return pieces


def rows_of(shards: list[plan.ShardPlan]) -> list[list[tuple[int, int, int]]]:
    """Each row as (conversation, first token, tokens) of its pieces"""
    rows = []
    for shard in shards:
        ends = np.cumsum(shard.docs_per_row)
        for a, b in zip([0, *ends[:-1]], ends, strict=True):
            rows.append([(int(p["index"]), int(p["start"]), int(p["length"])) for p in shard.pieces[a:b]])
    return rows


def test_wrapped_rows_share_one_token_with_the_next() -> None:
    assert rows_of(plan_wrapped(pieces_of([3, 4, 2]), 4)) == [[(0, 0, 3), (1, 0, 2)], [(1, 1, 3), (2, 0, 2)]]


@given(lengths=lists(integers(1, 30), min_size=1, max_size=40), max_seq_len=integers(2, 17))
def test_a_wrapped_row_is_a_slice_of_the_stream(lengths: list[int], max_seq_len: int) -> None:
    stream = [(i, k) for i, n in enumerate(lengths) for k in range(n)]
    rows = rows_of(plan_wrapped(pieces_of(lengths), max_seq_len))
    for i, row in enumerate(rows):
        tokens = [(conversation, start + k) for conversation, start, n in row for k in range(n)]
        assert tokens == stream[i * max_seq_len : i * max_seq_len + max_seq_len + 1]
    assert len(rows) == max(1, -(-(len(stream) - 1) // max_seq_len))


@given(lengths=lists(integers(1, 16), min_size=1, max_size=60), seed=integers(0, 99))
def test_bfd_rows_hold_every_conversation_whole_and_once(lengths: list[int], seed: int) -> None:
    rows = rows_of(plan_bfd(pieces_of(lengths), 16, seed))
    assert sorted(piece for row in rows for piece in row) == [(i, 0, n) for i, n in enumerate(lengths)]
    assert all(sum(n for _, _, n in row) <= 17 for row in rows)
    assert all([n for _, _, n in row] == sorted((n for _, _, n in row), reverse=True) for row in rows)


@given(lengths=lists(integers(1, 16), min_size=1, max_size=60))
def test_ordered_rows_are_those_of_the_rule(lengths: list[int]) -> None:
    rows = rows_of(plan_ordered(pieces_of(lengths), 16))
    assert rows == [[(i, 0, lengths[i]) for i in row] for row in pack_in_order_plainly(lengths, 17)]


def test_ordered_rows_are_shared_out_to_shards_and_pieces_get_their_bos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD_TOKENS", 40)
    pieces = pieces_of([7, 9, 16, 3, 8, 12, 5, 10, 6])  # 76 tokens: two shards
    pieces["start"][2] = 1  # a piece that goes on: with a bos of its own it has 17 tokens, a whole row
    first, second = plan_ordered(pieces, 16)
    assert rows_of([first]) == [[(0, 0, 7), (1, 0, 9)], [(2, 1, 16)]]
    assert rows_of([second])[0] == [(3, 0, 3), (4, 0, 8), (8, 0, 6)]
    assert first.needs_bos.tolist() == [0, 0, 1]
    assert len(second.docs_per_row) == 3
    assert np.shares_memory(first.pieces, pieces)


def test_shards_take_consecutive_conversations_of_the_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHARD_TOKENS", 40)
    lengths = [7, 9, 3, 8, 12, 5, 10, 6, 4, 11]  # 75 tokens: two shards
    shards = plan_bfd(pieces_of(lengths), 16, 42)
    assert [sorted(shard.pieces["index"].tolist()) for shard in shards] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    wrapped = plan_wrapped(pieces_of(lengths), 16)
    assert [len(shard.docs_per_row) for shard in wrapped] == [2, 3]


def test_rows_are_permuted_by_seed_and_shard() -> None:
    lengths = [16] * 20
    first, again, other = (rows_of(plan_bfd(pieces_of(lengths), 16, seed)) for seed in (1, 1, 2))
    assert first == again != other
    order = np.random.default_rng([1, 0]).permutation(20)
    assert [row[0][0] for row in first] == order.tolist()


@given(length=integers(1, 60), starts=lists(integers(1, 59), max_size=8), max_seq_len=integers(3, 20))
def test_a_split_conversation_loses_no_token_and_every_piece_fits(
    length: int, starts: list[int], max_seq_len: int
) -> None:
    points = split_points(length, np.unique([s for s in starts if s < length]).astype(int), max_seq_len)
    sizes = np.diff([*points, length])
    assert points[0] == 0
    assert (sizes > 0).all()
    assert sizes[0] <= max_seq_len
    assert all(size + 1 <= max_seq_len for size in sizes[1:])  # with the bos that leads it


def test_conversations_are_split_at_the_last_message_start_within_reach() -> None:
    assert split_points(10, np.array([1, 4, 7]), 6) == [0, 4, 7]
    assert split_points(10, np.array([1]), 6) == [0, 6]
    pieces = split_pieces(pieces_of([3, 10, 2]), {1: [0, 4, 7]})
    assert [(int(p["index"]), int(p["start"]), int(p["length"])) for p in pieces] == [
        (0, 0, 3), (1, 0, 4), (1, 4, 3), (1, 7, 3), (2, 0, 2),
    ]  # fmt: skip
