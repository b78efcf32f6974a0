"""
What the plan knows of every example that the entries of a split select: a few numbers each, read from the rendered blocks.

    entry 0   examples 2 0 1      tokens 305 36 147      reasons 0 0 0
    entry 1   examples 0 1               81 0                    0 2        2: not an object

Three kinds of numbers, each with a name of its own. An *example* is a row of a source, by its number there. A *position*
counts the examples of one entry, in the order in which the entry has them. A *place* counts through this table: entry e has
the places bounds[e] .. bounds[e + 1] - 1, so place = bounds[e] + position. 9 bytes an example.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prep.arrays import Array, offsets
from prep.conversations.conversation import REASON
from prep.mixture.resolve import Input
from prep.render.block_cache import BlockFiles

HUB_SEED = 42  # every Hub source is permuted by this seed, whatever the mixture's


@dataclass(frozen=True)
class RejectedExamples:
    """Examples of one source that are not in a split."""

    source: Input
    examples: Array  # (n,) row numbers in the source, ascending
    reasons: Array  # (n,) uint8: place in REASONS


@dataclass(frozen=True)
class Table:
    """Every example that the entries select, those of one entry after the other."""

    inputs: list[Input]  # by entry
    blocks: list[BlockFiles]  # by entry
    bounds: Array  # (entries + 1,) int64: where the places of each entry begin
    examples: Array  # (n,) uint32 row number in the source
    tokens: Array  # (n,) uint32, 0 where the row is not a valid conversation
    reasons: Array  # (n,) uint8: place in REASONS, 0 where the example is used; `exclude` adds to them

    @cached_property
    def loss_tokens(self) -> Array:
        """(n,) uint32 tokens that SFT trains on; read only where a mixture asks for it"""
        pairs = zip(self.blocks, self.bounds, self.bounds[1:], strict=False)
        return np.concatenate(
            [files.column("trainable")[self.examples[a:b] - files.starts[0]] for files, a, b in pairs]
        )

    def places(self, entry: int) -> Array:
        """(m,) places of an entry's examples"""
        return np.arange(self.bounds[entry], self.bounds[entry + 1])

    def usable(self, entry: int) -> Array:
        """(u,) positions of an entry's examples that are valid and not excluded, ascending"""
        return np.flatnonzero(self.reasons[self.bounds[entry] : self.bounds[entry + 1]] == 0)

    def usable_places(self, entry: int) -> Array:
        """(u,) the same as places"""
        places: Array = self.bounds[entry] + self.usable(entry)
        return places

    def exclude(self, places: Array, reason: str) -> None:
        """Leave out the examples at some places; one that is left out already keeps its reason."""
        self.reasons[places[self.reasons[places] == 0]] = REASON[reason]

    def rejected(self, entry: int) -> RejectedExamples:
        """What an entry selects and does not use, by now"""
        places = self.places(entry)[self.reasons[self.places(entry)] > 0]
        places = places[np.argsort(self.examples[places])]
        return RejectedExamples(self.inputs[entry], self.examples[places].astype(np.int64), self.reasons[places])


def read_table(inputs: list[Input], blocks: list[BlockFiles]) -> Table:
    """The numbers of every example that the entries select"""
    selected = [
        select_examples(each.source.num_rows, each.permuted, each.entry.start, each.entry.stop) for each in inputs
    ]
    tokens, reasons = [], []
    for files, examples in zip(blocks, selected, strict=True):
        tokens.append(files.column("lengths")[examples - files.starts[0]])
        reasons.append(files.column("reasons")[examples - files.starts[0]])
    return Table(
        inputs=inputs,
        blocks=blocks,
        bounds=offsets([len(examples) for examples in selected]),
        examples=np.concatenate(selected),
        tokens=np.concatenate(tokens),
        reasons=np.concatenate(reasons),
    )


def select_examples(num_rows: int, permuted: bool, start: int, stop: int | None) -> Array:
    """
    Row numbers of a source that an entry selects, in its order: permuted if it comes from the Hub, then sliced.

    >>> select_examples(5, False, 1, 4)
    array([1, 2, 3], dtype=uint32)
    """
    dtype = np.uint32 if num_rows <= 1 << 32 else np.int64
    rows = np.random.default_rng(HUB_SEED).permutation(num_rows) if permuted else np.arange(num_rows, dtype=dtype)
    return rows[start:stop].astype(dtype, copy=False)
