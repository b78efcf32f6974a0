"""
What is known of every rendered row of a split before anything is planned: a few numbers a conversation, from the runs.

    input 0, rows 0 .. 3       tokens 36 0 147 305    trainable 20 0 80 90    reasons 0 2 0 0
    input 1, rows 0 .. 1              81 690                    2 300                 0 0

5 bytes a row, and 4 for its number in the order of its source. All that follows (what is left out, how much is taken, the
order, the rows) is decided from it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prep.arrays import Array, offsets
from prep.mixture.resolve import Input
from prep.plan.order import select_rows
from prep.render.block_cache import BlockFiles, read_block


@dataclass(frozen=True)
class Table:
    """All rows of all inputs, one after the other: row r of input i is at start[i] + r."""

    start: Array  # (inputs,) int64
    tokens: Array  # (n,) uint32, 0 where the row is no valid conversation
    reasons: Array  # (n,) uint8; prep.plan.filters adds to them
    rows: Array  # (m,) uint32: the rows that the mixture uses, those of one input after the other, each in its order
    bounds: Array  # (inputs + 1,) int64: where those of each input begin in `rows`
    runs: list[BlockFiles]  # of each input

    @cached_property
    def trainable(self) -> Array:
        """(n,) uint32; read where a mixture asks for it"""
        return np.concatenate([read_block(path).trainable for files in self.runs for path in files.paths])

    def selected(self, number: int) -> Array:
        """The rows of an input that the mixture uses, in their order"""
        return self.rows[self.bounds[number] : self.bounds[number + 1]]

    def places(self, number: int) -> Array:
        """Where the selected rows of an input are"""
        places: Array = self.start[number] + self.selected(number)
        return places

    def usable(self, number: int) -> Array:
        """Which of the selected rows of an input are valid and wanted, as places in `selected`"""
        return np.flatnonzero(self.reasons[self.places(number)] == 0)


def read_table(inputs: list[Input], runs: list[BlockFiles]) -> Table:
    """The numbers of every rendered row"""
    opened = [read_block(path) for files in runs for path in files.paths]
    sizes = [int(files.starts[-1] - files.starts[0]) for files in runs]
    first = np.array([files.starts[0] for files in runs], dtype=np.int64)
    selected = [select_rows(one.source.num_rows, one.permuted, one.entry.start, one.entry.stop) for one in inputs]
    return Table(
        start=offsets(np.array(sizes))[:-1] - first,
        tokens=np.concatenate([run.lengths for run in opened]),
        reasons=np.concatenate([run.reasons for run in opened]),
        rows=np.concatenate(selected),
        bounds=offsets([len(some) for some in selected]),
        runs=runs,
    )
