"""
Examples that a mixture does not want, though they are valid: counted as rejected, each with its reason.

    filters        min_tokens and the like, by entry, of conversations as rendered
    drop_overlap   their user asks what a conversation of val asks       train only, see prep.plan.overlap
    dedup          their tokens are those of an example before them      in each split by itself, see below

Before means: entries in the order of the mixture, examples in the order of the entry (the order of the list before it is
shuffled). Copies that `repeat` makes are not duplicates. A conversation is identified by 128 bits of XXH3 over its token ids:
that any two of 10 million different ones have the same has a chance of one in 10**24.
"""

import numpy as np
from xxhash import xxh3_128_digest

from prep.arrays import Array, offsets
from prep.plan.table import Table
from prep.render.block_cache import BlockFiles, read_block


def filter_lengths(table: Table) -> None:
    """Exclude what the filters of each entry leave out."""
    for number, source in enumerate(table.inputs):
        entry, places = source.entry, table.places(number)
        if entry.min_tokens is not None:
            table.exclude(places[table.tokens[places] < entry.min_tokens], "too few tokens")
        if entry.max_tokens is not None:
            table.exclude(places[table.tokens[places] > entry.max_tokens], "too many tokens")
        if entry.min_trained_tokens is not None:
            table.exclude(places[table.loss_tokens[places] < entry.min_trained_tokens], "too few trained tokens")
        if entry.max_trained_tokens is not None:
            table.exclude(places[table.loss_tokens[places] > entry.max_trained_tokens], "too many trained tokens")


def drop_duplicates(table: Table) -> None:
    """Exclude every example whose tokens are those of one before it."""
    places = [table.usable_places(entry) for entry in range(len(table.inputs))]
    digests = [
        digest_conversations(files, table.examples[here].astype(np.int64))
        for files, here in zip(table.blocks, places, strict=True)
    ]
    table.exclude(np.concatenate(places)[is_repeated(np.concatenate(digests))], "duplicate")


def digest_conversations(files: BlockFiles, rows: Array) -> Array:
    """(n,) row numbers of a source, in any order -> (n, 2) uint64, the hash of the token ids of each"""
    digests = np.empty((len(rows), 2), dtype=np.uint64)
    for number, here in files.by_block(rows):
        block, in_block = read_block(files.paths[number]), rows[here] - files.starts[number]
        bounds = offsets(block.lengths) * block.tokens.dtype.itemsize
        data = block.tokens.data.cast("B")
        spans = zip(bounds[in_block].tolist(), bounds[in_block + 1].tolist(), strict=True)
        joined = b"".join(xxh3_128_digest(data[start:end]) for start, end in spans)
        digests[here] = np.frombuffer(joined, dtype="<u8").reshape(-1, 2)
    return digests


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
