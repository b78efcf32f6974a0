"""
Conversations that a mixture does not want, though they are valid: counted as rejected, each with its reason.

    filters        min_tokens and the like, by entry, of conversations as rendered
    drop_overlap   their user asks what a conversation of val asks       training only, see prep.plan.overlap
    dedup          their tokens are those of one before them             in each split by itself, see below

What was there before: entries in the order of the mixture, rows in the order of the entry (which is that of the list before
it is shuffled). Copies that `repeat` makes are no duplicates. A conversation is told by 128 bits of XXH3 over its token
ids: that any two of 10 million that differ have the same has a chance of one in 10**24.
"""

import numpy as np
from xxhash import xxh3_128_digest

from prep.arrays import Array, offsets
from prep.conversations.conversation import REASON
from prep.mixture.mixture import Entry
from prep.plan.table import Table
from prep.render.block_cache import BlockFiles, read_block


def filter_lengths(entries: list[Entry], table: Table) -> None:
    """Mark what the filters of each entry leave out."""
    for i, entry in enumerate(entries):
        places = table.places(i)
        for name, low, high, what in (
            ("tokens", entry.min_tokens, entry.max_tokens, "tokens"),
            ("trainable", entry.min_trained_tokens, entry.max_trained_tokens, "trained tokens"),
        ):
            if low is not None:
                mark(table, places[getattr(table, name)[places] < low], f"too few {what}")
            if high is not None:
                mark(table, places[getattr(table, name)[places] > high], f"too many {what}")


def drop_duplicates(table: Table, runs: list[BlockFiles]) -> None:
    """Mark every conversation whose tokens are those of one before it."""
    rows = [table.selected(i)[table.usable(i)] for i in range(len(runs))]
    digests = np.concatenate([conversation_digests(files, some) for files, some in zip(runs, rows, strict=True)])
    places = np.concatenate([table.start[i] + some for i, some in enumerate(rows)])
    mark(table, places[is_repeated(digests)], "duplicate")


def mark(table: Table, places: Array, reason: str) -> None:
    """Leave out the conversations at some places, unless they are already"""
    fine = places[table.reasons[places] == 0]
    table.reasons[fine] = REASON[reason]


def conversation_digests(files: BlockFiles, rows: Array) -> Array:
    """(n,) row numbers of a source, in any order -> (n, 2) uint64, the hash of the token ids of each"""
    out = np.empty((len(rows), 2), dtype=np.uint64)
    for block, here in files.by_block(rows):
        run = read_block(files.paths[block])
        bounds = offsets(run.lengths) * run.tokens.dtype.itemsize
        data, wanted = run.tokens.data.cast("B"), rows[here] - files.starts[block]
        digests = [
            xxh3_128_digest(data[a:b])
            for a, b in zip(bounds[wanted].tolist(), bounds[wanted + 1].tolist(), strict=True)
        ]
        out[here] = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    return out


def is_repeated(digests: Array) -> Array:
    """
    (n, 2) uint64 -> (n,) bool: there is an equal one before it

    >>> is_repeated(np.array([[1, 1], [2, 1], [1, 1]], dtype=np.uint64))
    array([False, False,  True])
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal ones the first comes first
    ordered, repeated = digests[order], np.zeros(len(digests), dtype=bool)
    repeated[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return repeated
