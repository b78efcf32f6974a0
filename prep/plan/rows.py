"""
Rows: conversations in the mixture's order, none longer than a row, laid out in rows and shards. Decided from lengths alone.

    lengths in mixture order   36 349 147 305 81 690 188 ...
    ordered, T = 512           [36 349 81 ..] [147 305 ..] ...      in order, the ends filled from a window ahead
    bfd                        [690 349 305 147 81 36 .....]        a shard's sorted and packed, rows permuted
    wrapped                    [36 349 127] [20 305 81 106] ...     one stream, a row every T tokens, one token shared

    max_seq_len 6              <|bos|> u u u a a a a u u            too long:
    truncate                   <|bos|> u u u a a                                as nanochat does
    split                      <|bos|> u u u | <|bos|> a a a a | <|bos|> u u    at message starts where they are in reach
    drop                       counted as rejected, listed in rejected.jsonl

Conversations come and leave as pieces: a source, a row in it, and a range of its tokens, 20 bytes each. They are put in the
order of the rows where they are, and have the layout of what is written about them.

Legend: D pieces (documents in rows), R rows of a shard, T = max_seq_len.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from prep.arrays import Array, offsets
from prep.plan.ordered import pack_in_order, reorder
from prep.plan.packing import longest_first, pack
from prep.render.block_cache import BlockFiles, read_block

# the packings, and of each a version: bumped when the same lengths give other rows
VERSIONS = {"ordered": 2, "bfd": 1, "wrapped": 1}
EXCESS = ("truncate", "split", "drop", "raise")
LONGEST = 1 << 24  # tokens of a row: some rows are in memory at once
NANOCHAT_MAX_TOKENS = 2048
SHARD_TOKENS = 1 << 25  # about 64 MiB of uint16: small enough for every worker to hold one, large enough to pack well

# prep.shard.DOC with where a piece starts in place of its loss tokens: one array becomes the other as shards are written
PIECE = np.dtype([("length", "<u4"), ("start", "<u4"), ("source", "<u2"), ("repeat", "<u2"), ("index", "<u8")])


@dataclass(frozen=True)
class RowOptions:
    """What decides the bytes of a build beside its mixture and tokenizer. ValueError for what cannot be meant."""

    max_seq_len: int = 2048
    packing: str = "ordered"
    excess_length_strategy: str = "truncate"
    max_tokens: int | None = None  # of a conversation, before anything else; see `token_limit`

    def __post_init__(self) -> None:
        if not 2 <= self.max_seq_len <= LONGEST:
            raise ValueError(f"--max-seq-len {self.max_seq_len} found, wanted 2 to {LONGEST}.")
        if self.packing not in VERSIONS:
            raise ValueError(f"--packing {self.packing!r} found, wanted {', '.join(VERSIONS)}.")
        if self.excess_length_strategy not in EXCESS:
            raise ValueError(
                f"--excess-length-strategy {self.excess_length_strategy!r} found, wanted {', '.join(EXCESS)}."
            )
        if self.wrapped and self.excess_length_strategy != "truncate":
            raise ValueError(
                f"--excess-length-strategy {self.excess_length_strategy} has no effect with --packing wrapped, whose rows "
                "take conversations of any length (--max-tokens truncates them): leave it out."
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"--max-tokens {self.max_tokens} found, wanted 1 or more.")

    @property
    def wrapped(self) -> bool:
        return self.packing == "wrapped"

    @property
    def token_limit(self) -> int | None:
        """
        Where a conversation is truncated whatever the packing. nanochat's renderer truncates at 2,048 tokens, so `wrapped`,
        which needs no limit of its own, does so too, unless rows are longer; the others fit conversations to a row by the
        excess-length strategy.
        """
        if self.max_tokens is not None or not self.wrapped:
            return self.max_tokens
        return max(NANOCHAT_MAX_TOKENS, self.max_seq_len)


@dataclass(frozen=True)
class ShardPlan:
    """One shard: its pieces in row order and how many are in each row."""

    number: int
    pieces: Array  # (D,) PIECE; length counts tokens of the conversation, without a bos of the piece's own
    needs_bos: Array  # (D,) uint8: 1 for a piece that is not the start of its conversation
    docs_per_row: Array  # (R,) int64


def num_shards(total_tokens: int) -> int:
    return max(1, -(-total_tokens // SHARD_TOKENS))


def plan_rows(pieces: Array, options: RowOptions, seed: int, has_bos: bool = True) -> list[ShardPlan]:
    """
    Pieces (D,) PIECE in mixture order, none longer than a row takes -> the shards of a split. `has_bos`: whether the later
    pieces of a conversation get one
    """
    if options.wrapped:
        return plan_wrapped(pieces, options.max_seq_len)
    if options.packing == "bfd":
        return plan_bfd(pieces, options.max_seq_len, seed, has_bos)
    return plan_ordered(pieces, options.max_seq_len, has_bos)


def plan_ordered(pieces: Array, max_seq_len: int, has_bos: bool = True) -> list[ShardPlan]:
    """Pieces in mixture order -> rows in that order, and shards of as many rows each. `pieces` are put in the rows' order."""
    order, docs_per_row = pack_in_order(pieces["length"] + _need_bos(pieces, has_bos), max_seq_len + 1)
    reorder(pieces, order)
    needs_bos = _need_bos(pieces, has_bos)
    shards = num_shards(int(pieces["length"].sum(dtype=np.int64)))
    bounds = [len(docs_per_row) * i // shards for i in range(shards + 1)]
    starts = offsets(docs_per_row)[bounds].tolist()
    return [
        ShardPlan(number, pieces[first:end], needs_bos[first:end], docs_per_row[a:b].astype(np.int64))
        for number, ((a, b), (first, end)) in enumerate(zip(pairwise(bounds), pairwise(starts), strict=True))
    ]


def plan_bfd(pieces: Array, max_seq_len: int, seed: int, has_bos: bool = True) -> list[ShardPlan]:
    """
    Pieces in mixture order -> shards of consecutive pieces, each packed best fit first, its rows permuted. `pieces` are
    put in that order, and those of the shards are views of them.
    """
    width = max_seq_len + 1
    needs_bos = _need_bos(pieces, has_bos)
    ends = np.cumsum(pieces["length"] + needs_bos, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    targets = [total * (i + 1) // num_shards(total) for i in range(num_shards(total))]
    bounds = [0, *np.searchsorted(ends, targets, side="left") + 1] if total else [0, 0]
    bounds[-1] = len(pieces)
    del ends  # 8 bytes a conversation
    plans = []
    for number, (a, b) in enumerate(pairwise(bounds)):
        lengths = pieces["length"][a:b].astype(np.int64) + needs_bos[a:b]
        row_of, num_rows = pack(lengths, width)
        permuted = np.empty(num_rows, dtype=np.int64)
        permuted[np.random.default_rng([seed, number]).permutation(num_rows)] = np.arange(num_rows)
        row_of = permuted[row_of]
        by_length = longest_first(lengths, width)
        order = by_length[np.argsort(row_of[by_length], kind="stable")]  # in a row: longest first
        pieces[a:b], needs_bos[a:b] = pieces[a:b][order], needs_bos[a:b][order]
        plans.append(ShardPlan(number, pieces[a:b], needs_bos[a:b], np.bincount(row_of, minlength=num_rows)))
    return plans


def _need_bos(pieces: Array, has_bos: bool) -> Array:
    """(D,) uint8: 1 for a piece that gets a bos, as it is not the start of its conversation"""
    needs: Array = ((pieces["start"] > 0) & has_bos).view(np.uint8)
    return needs


def plan_wrapped(pieces: Array, max_seq_len: int) -> list[ShardPlan]:
    """Pieces in mixture order as one stream; row i is stream[i * T : i * T + T + 1]"""
    starts = offsets(pieces["length"])
    total = int(starts[-1])
    num_rows = max(1, -(-(total - 1) // max_seq_len)) if total else 0
    shards = num_shards(total)
    bounds = [num_rows * i // shards for i in range(shards + 1)]
    plans = []
    for number, (a, b) in enumerate(pairwise(bounds)):
        row_starts = np.arange(a, b, dtype=np.int64) * max_seq_len  # (R,)
        row_ends = np.minimum(row_starts + max_seq_len + 1, total)
        first = np.searchsorted(starts, row_starts, side="right") - 1  # conversation at the start of each row
        last = np.searchsorted(starts, row_ends, side="left")  # one past the conversation at its end
        counts = last - first
        row = np.repeat(np.arange(b - a), counts)
        which = np.arange(len(row)) - offsets(counts)[row] + first[row]
        begins = np.maximum(starts[which], row_starts[row])
        parts = pieces[which].copy()
        parts["start"] = begins - starts[which]
        parts["length"] = np.minimum(starts[which + 1], row_ends[row]) - begins
        plans.append(ShardPlan(number, parts, np.zeros(len(parts), dtype=np.uint8), counts))
    return plans


# ---- splitting what is too long ----


def split_points(length: int, message_starts: Array, max_seq_len: int) -> list[int]:
    """
    Where to split a conversation that is too long: at the last message start within reach, else where the room ends.
    Every piece but the first gets a bos of its own, so it has one token less room.

    >>> split_points(10, np.array([1, 4, 7]), 6)
    [0, 4, 7]
    """
    points, room = [0], max_seq_len
    while length - points[-1] > room:
        in_reach = (message_starts > points[-1]) & (message_starts <= points[-1] + room)
        # a message start right after the split would leave a piece of bos alone
        reach = message_starts[in_reach & (message_starts > points[-1] + 1)]
        points.append(int(reach[-1]) if len(reach) else points[-1] + room)
        room = max_seq_len - 1
    return points


def split_pieces(pieces: Array, points: dict[int, list[int]]) -> Array:
    """Pieces with those at the places of `points` split at the points given"""
    counts = np.ones(len(pieces), dtype=np.int64)
    counts[list(points)] = [len(starts) for starts in points.values()]
    parts, first = np.repeat(pieces, counts), offsets(counts)
    for place, starts in points.items():
        here = slice(first[place], first[place + 1])
        ends = [*starts[1:], int(pieces["length"][place])]
        parts["start"][here] = starts
        parts["length"][here] = np.subtract(ends, starts)
    return parts


def find_split_points(
    pieces: Array, too_long: Array, blocks: list[BlockFiles], message_starts: list[int], max_seq_len: int
) -> dict[int, list[int]]:
    """{place of a piece: where to split it} for the pieces at the places `too_long`; `message_starts` are token ids"""
    points = {}
    for source, files in enumerate(blocks):
        mine = too_long[pieces["source"][too_long] == source]
        for number, places in files.by_block(pieces["index"][mine].astype(np.int64)):
            block, here = read_block(files.paths[number]), mine[places]
            first = offsets(block.lengths)[pieces["index"][here].astype(np.int64) - files.starts[number]]
            # text never encodes to a special token, so these are the message starts and nothing else
            starts = np.flatnonzero(np.isin(block.tokens, message_starts))
            for place, a, b in zip(here.tolist(), first, first + pieces["length"][here], strict=True):
                inside = starts[np.searchsorted(starts, a) : np.searchsorted(starts, b)] - a
                points[place] = split_points(int(b - a), inside, max_seq_len)
    return points
