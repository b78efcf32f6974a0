"""
The plan: which conversation goes to which row of which shard, decided from lengths alone.

    lengths in mixture order   36 349 147 305 81 690 188 ...
    shard 0, row 0             [690 349 305 147 81 36 .....]        bfd: sorted and packed, rows permuted
    wrapped, T = 512           [36 349 127] [20 305 81 106] ...     one stream, cut every T tokens, one token shared

Nothing is read or written here. Conversations come and leave as pieces: a source, a row in it, and a range of its tokens, 20
bytes each. They are put in the order of the rows where they are, and have the layout of what is written about them.

Legend: D pieces (documents in rows), R rows of a shard, T = max_seq_len.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from prep.arrays import Array, offsets
from prep.plan.packing import longest_first, pack

VERSION = 1  # bumped when the same lengths give other rows

PACKINGS = ("bfd", "wrapped")
EXCESS = ("truncate", "split", "drop", "raise")  # see prep.plan.excess
SHARD_TOKENS = 1 << 25  # about 64 MiB of uint16: small enough for every worker to hold one, large enough to pack well

# prep.shard.DOC with where a piece starts in place of what it trains: one array becomes the other as shards are written
PIECE = np.dtype([("length", "<u4"), ("start", "<u4"), ("source", "<u2"), ("repeat", "<u2"), ("index", "<u8")])


@dataclass(frozen=True)
class ShardPlan:
    """One shard: its pieces in row order and how many are in each row. `lead` is 1 for a piece that gets a bos of its own."""

    number: int
    pieces: Array  # (D,) PIECE; length counts tokens of the conversation, without the lead
    lead: Array  # (D,) uint8
    docs_per_row: Array  # (R,) int64


def num_shards(total_tokens: int) -> int:
    return max(1, -(-total_tokens // SHARD_TOKENS))


# ---- too long ----


def split_points(length: int, message_starts: Array, max_seq_len: int) -> list[int]:
    """
    Where to cut a conversation that is too long: at the last message start within reach, else where the room ends.
    Every piece but the first is led by a bos, so it has one token less room.

    >>> split_points(10, np.array([1, 4, 7]), 6)
    [0, 4, 7]
    """
    points, room = [0], max_seq_len
    while length - points[-1] > room:
        reach = message_starts[(message_starts > points[-1]) & (message_starts <= points[-1] + room)]
        # a message start right after the cut would leave a piece of bos alone
        reach = reach[reach > points[-1] + 1]
        points.append(int(reach[-1]) if len(reach) else points[-1] + room)
        room = max_seq_len - 1
    return points


def split_pieces(pieces: Array, points: dict[int, list[int]]) -> Array:
    """Pieces with those at the places of `points` cut at the points given"""
    if not points:
        return pieces
    counts = np.ones(len(pieces), dtype=np.int64)
    counts[list(points)] = [len(cuts) for cuts in points.values()]
    out = np.repeat(pieces, counts)
    first = offsets(counts)
    for place, cuts in points.items():
        ends = [*cuts[1:], int(pieces["length"][place])]
        where = slice(first[place], first[place + 1])
        out["start"][where] = cuts
        out["length"][where] = np.subtract(ends, cuts)
    return out


# ---- rows ----


def plan_bfd(pieces: Array, max_seq_len: int, seed: int) -> list[ShardPlan]:
    """
    Pieces in mixture order -> shards of consecutive pieces, each packed best fit first, its rows permuted. `pieces` are in
    that order afterwards, and those of the shards are views of them.
    """
    width = max_seq_len + 1
    lead = (pieces["start"] > 0).view(np.uint8)
    ends = np.cumsum(pieces["length"] + lead, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    cuts = [total * (i + 1) // num_shards(total) for i in range(num_shards(total))]
    bounds = [0, *np.searchsorted(ends, cuts, side="left") + 1] if total else [0, 0]
    bounds[-1] = len(pieces)
    del ends
    plans = []
    for number, (a, b) in enumerate(pairwise(bounds)):
        lengths = pieces["length"][a:b].astype(np.int64) + lead[a:b]
        rows_of, num_rows = pack(lengths, width)
        new_rows = np.empty(num_rows, dtype=np.int64)
        new_rows[np.random.default_rng([seed, number]).permutation(num_rows)] = np.arange(num_rows)
        by_length = longest_first(lengths, width)
        order = by_length[np.argsort(new_rows[rows_of[by_length]], kind="stable")]  # in a row: longest first
        counts = np.bincount(new_rows[rows_of], minlength=num_rows)
        pieces[a:b], lead[a:b] = pieces[a:b][order], lead[a:b][order]
        plans.append(ShardPlan(number, pieces[a:b], lead[a:b], counts))
    return plans


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
        out = pieces[which].copy()
        begin = np.maximum(starts[which], row_starts[row])
        out["start"] = begin - starts[which]
        out["length"] = np.minimum(starts[which + 1], row_ends[row]) - begin
        plans.append(ShardPlan(number, out, np.zeros(len(out), dtype=np.uint8), counts))
    return plans
