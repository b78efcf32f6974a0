"""
How well the steps of a split mix its sources: whether packing has undone the shuffle.

    steps of 256 rows      source   share   deviation   of an ideal shuffle
    bfd                    mmlu     31.0%      0.0222                0.0111   2.0 times: a step has much or little of it
    ordered                mmlu     31.0%      0.0113                0.0111

The deviation is that of a source's share of the tokens, from step to step. Conversations in random order have one too, for
a step holds few of them: a conversation of l tokens of source s moves the share by l * ([it is of s] - share of s), and the
variances of conversations drawn at random add up (less, since none is drawn twice).

Legend: D documents, R rows, G rows a step, S sources, n = G * (T + 1) tokens of a step.
"""

from dataclasses import dataclass

import numpy as np

from prep.arrays import Array
from prep.shard.batches import document_chunks
from prep.shard.format import Split
from prep.shard.steps import default_rows_per_step

LEAST_STEPS = 32  # a deviation over n steps is known to about 1 / sqrt(2 n)


@dataclass(frozen=True)
class Mixing:
    """Of each source its share of all tokens, the deviation of its share over the steps, and that of an ideal shuffle: (S,)."""

    rows_per_step: int
    num_steps: int
    share: Array
    deviation: Array
    ideal: Array

    @property
    def figure(self) -> float:
        """The deviation over the ideal one, of all sources together: 1 is an ideal shuffle"""
        return float(np.sqrt((self.deviation**2).sum() / (self.ideal**2).sum()))


def mixing(split: Split, rows_per_step: int | None = None) -> Mixing | None:
    """
    How the stored order of a split mixes in steps of `rows_per_step` rows, by default those that a run takes; None for fewer
    than LEAST_STEPS full steps and for a split of a single source.
    """
    num_sources = len(split.entry["sources"])
    rows_per_step = rows_per_step or default_rows_per_step(split.num_rows, split.max_seq_len)
    num_steps = split.num_rows // rows_per_step
    step_tokens, squares = np.zeros((num_steps + 1, num_sources)), np.zeros(num_sources)
    for _, docs, rows in document_chunks(split):
        length, source = docs["length"].astype(np.float64), docs["source"].astype(np.int64)
        place = np.minimum(rows // rows_per_step, num_steps) * num_sources + source
        step_tokens += np.bincount(place, weights=length, minlength=step_tokens.size).reshape(step_tokens.shape)
        squares += np.bincount(source, weights=length**2, minlength=num_sources)
    return measure_mixing(step_tokens, squares, rows_per_step)


def measure_mixing(step_tokens: Array, squares: Array, rows_per_step: int) -> Mixing | None:
    """
    Tokens of each full step by source and, last, of what follows them (steps + 1, S), and the sum of the squared lengths of
    each source's documents (S,) -> how they mix; None for fewer than LEAST_STEPS steps or two sources.
    """
    full, tokens = step_tokens[:-1], step_tokens.sum(axis=0)
    if len(full) < LEAST_STEPS or np.count_nonzero(tokens) < 2:
        return None
    share, per_step = tokens / tokens.sum(), full.sum() / len(full)
    moved = squares * (1 - share) ** 2 + (squares.sum() - squares) * share**2  # (S,) squared moves of all documents
    ideal = np.sqrt(moved / (per_step * tokens.sum()) * (1 - per_step / tokens.sum()))
    deviation = (full / full.sum(axis=1, keepdims=True)).std(axis=0)
    return Mixing(rows_per_step, len(full), share, deviation, ideal)
