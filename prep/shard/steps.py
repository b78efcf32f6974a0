"""
Which rows each step trains on. The whole state of a run's data is the number of the step.

    order     epoch 0: 0 1 2 3 4 5 6    epoch 1: 3 6 0 5 1 4 2    (as stored; then permuted by default_rng([seed, e]))
    steps     |0 1 2 3|4 5 6 3|6 0 5 1|4 2 . .|                        G = 4 rows a step; "." has no targets
    2 ranks x 1 row x 2 micro-batches of step 0:   rank 0: 0, 2   rank 1: 1, 3

Rows of a step and the number of their targets depend on neither ranks, device batch size nor where a run was stopped. So
a loss can be divided by the targets of the whole step without asking other ranks, and resuming is O(1). Rows without a
target (in sft: user turns only) are left out. The trainer, `midprep plan` and `midprep show --step` use this arithmetic.

Legend: N rows with targets, G rows a step, S steps, B rows of a micro-batch.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.shard import Split

FILLER = -1  # in place of a row number: a row of padding
DEVICE_BATCH_LIMIT = 32  # rows per micro-batch on a GPU if no device batch size is given
MODES = ("mid", "sft")
REFERENCE_BATCH = 524_288  # tokens per step, nanochat's
MIN_STEPS = 50


@dataclass(frozen=True)
class StepPlan:
    """
    All steps of a run: row_ids (N,) in stored order, their num_targets (N,), and the number of positions in the order of
    epochs that the steps cover: the last step is filled up.
    """

    row_ids: Array
    num_targets: Array
    rows_per_step: int
    num_steps: int
    num_positions: int
    seed: int

    def rows_of_step(self, step: int) -> Array:
        """(G,) row numbers of the split, FILLER in what the last step does not need"""
        return self._take(step, self.row_ids, FILLER)

    def targets_of_step(self, step: int) -> int:
        return int(self._take(step, self.num_targets, 0).sum())

    def _take(self, step: int, values: Array, filler: int) -> Array:
        N = len(self.row_ids)
        positions = step * self.rows_per_step + np.arange(self.rows_per_step)
        positions = positions[positions < self.num_positions]
        out = np.full(self.rows_per_step, filler, dtype=np.int64)
        epochs, places = np.divmod(positions, N)
        # a step may reach into the next epoch, or span several of a tiny split
        for epoch in np.unique(epochs).tolist():
            here = np.flatnonzero(epochs == epoch)
            out[here] = values[epoch_order(self.seed, epoch, N)[places[here]]]
        return out


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, num_rows: int) -> Array:
    """(N,) order of an epoch: 0 is as stored, every other one a permutation that no other (seed, epoch) shares."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows) if epoch else np.arange(num_rows)


def row_targets(split: Split, mode: str, isolated: bool = False) -> Array:
    """(rows,) int64 targets of each row. Isolated documents do not predict the start of the next one."""
    if mode not in MODES:
        raise ValueError(f"--mode is {mode!r}, wanted {' or '.join(MODES)}.")
    if mode == "sft":
        return split.rows["num_trainable"].astype(np.int64)
    counts: Array = split.rows["num_targets"].astype(np.int64)
    if isolated:
        num_docs = np.diff(split.rows["first_doc"].astype(np.int64), append=split.entry["docs"])
        counts = counts - (num_docs - 1)
    return counts


def rows_per_step(num_rows: float, max_seq_len: int, total_batch_size: int | None) -> int:
    """Rows in steps of `total_batch_size` tokens; by default what suits the number of rows. ValueError for a part of a row."""
    if total_batch_size is None:
        return default_rows_per_step(num_rows, max_seq_len)
    rows = total_batch_size // max_seq_len
    if rows == 0 or total_batch_size % max_seq_len:
        near = sorted({max(rows, 1) * max_seq_len, (rows + 1) * max_seq_len})
        raise ValueError(
            f"--total-batch-size {total_batch_size} is not a multiple of rows of {max_seq_len} tokens: "
            f"give {' or '.join(map(str, near))}"
        )
    return rows


def default_rows_per_step(num_rows: float, max_seq_len: int) -> int:
    """
    Rows per step: nanochat's 524,288 tokens, or the power of two that gives `num_rows` at least 50 steps.

    >>> default_rows_per_step(850, 2048), default_rows_per_step(10**6, 2048), default_rows_per_step(7, 2048)
    (16, 256, 1)
    """
    rows = 1
    while rows * 2 * max_seq_len <= REFERENCE_BATCH and rows * 2 * MIN_STEPS <= num_rows:
        rows *= 2
    return rows


def device_batch(
    rows_per_step: int, world_size: int, max_seq_len: int, requested: int | None, limit: int = DEVICE_BATCH_LIMIT
) -> int:
    """
    Rows per micro-batch of a rank: `requested`, or the largest divisor of a rank's rows per step up to `limit`.

    ValueError if a step cannot be divided, with the total batch sizes nearest to it that can.
    """
    if world_size < 1 or (requested is not None and requested < 1):
        raise ValueError(f"{world_size} ranks of {requested} rows requested, wanted 1 or more of each.")
    unit = world_size * (requested or 1)
    if rows_per_step % unit:
        below = rows_per_step // unit * unit
        sizes = " or ".join(str(rows * max_seq_len) for rows in (below, below + unit) if rows)
        raise ValueError(
            f"a total batch of {rows_per_step * max_seq_len:,} tokens is {rows_per_step} rows of {max_seq_len}, not a "
            f"multiple of {world_size} ranks x {requested or 1} rows: give --total-batch-size {sizes}"
        )
    share = rows_per_step // world_size
    return requested or max(size for size in range(1, min(share, limit) + 1) if share % size == 0)


def make_plan(counts: Array, rows_per_step: int, num_iterations: int | None, num_epochs: float, seed: int) -> StepPlan:
    """`num_iterations` steps, or `num_epochs` epochs, over the rows that have targets: `counts` (rows,)."""
    row_ids = np.flatnonzero(counts)
    if not len(row_ids):
        raise ValueError(f"none of {len(counts):,} rows has a target: nothing to train on (try --mode mid)")
    num_positions = math.ceil(round(num_epochs * len(row_ids), 6))  # 1.1 * 10 is 11.000000000000002
    if num_iterations is not None:
        num_positions = num_iterations * rows_per_step
    if num_positions < 1:
        raise ValueError(f"{num_epochs:g} epochs of {len(row_ids):,} rows are no step: give more --num-epochs.")
    num_steps = math.ceil(num_positions / rows_per_step)
    return StepPlan(row_ids, counts[row_ids], rows_per_step, num_steps, num_positions, seed)


def steps_plainly(plan: StepPlan) -> list[list[int]]:
    """
    The rows of every step by the plain rule, which `rows_of_step` computes for one step alone: epochs one after the other,
    cut into steps, the last one filled up.

    >>> steps_plainly(make_plan(np.array([5, 0, 7, 6]), 2, None, 1, seed=42))
    [[0, 2], [3, -1]]
    """
    rows: list[int] = []
    epoch = 0
    while len(rows) < plan.num_positions:
        rows += plan.row_ids[epoch_order(plan.seed, epoch, len(plan.row_ids))].tolist()
        epoch += 1
    rows = rows[: plan.num_positions]
    rows += [FILLER] * (plan.num_steps * plan.rows_per_step - len(rows))
    return [rows[start : start + plan.rows_per_step] for start in range(0, len(rows), plan.rows_per_step)]


def plan_steps(
    split: Split,
    mode: str,
    total_batch_size: int | None,
    num_epochs: float,
    seed: int,
    num_iterations: int | None = None,
    isolated: bool = False,
) -> StepPlan:
    """The steps of a run, from the flags of `train/mid.py`. ValueError if a step has a part of a row, or no row a target."""
    if num_epochs <= 0:
        raise ValueError(f"--num-epochs is {num_epochs}, wanted more than 0.")
    counts = row_targets(split, mode, isolated)
    num_rows = np.count_nonzero(counts) * num_epochs
    rows = rows_per_step(num_rows, split.max_seq_len, total_batch_size)
    return make_plan(counts, rows, num_iterations, num_epochs, seed)


def micro_batches(rows: Array, device_batch: int, rank: int, world_size: int) -> list[Array]:
    """(G,) rows of a step -> this rank's micro-batches, (B,) each, taken by position."""
    return list(rows.reshape(-1, world_size, device_batch)[:, rank])


def sum_of_run(plan: StepPlan, values: Array) -> int:
    """(N,) a value for each of the plan's rows -> its sum over all steps, in the time of one epoch"""
    epochs, rest = divmod(plan.num_positions, len(plan.row_ids))
    last = values[epoch_order(plan.seed, epochs, len(plan.row_ids))[:rest]]
    return epochs * int(values.sum(dtype=np.int64)) + int(last.sum(dtype=np.int64))


def step_sums(plan: StepPlan, values: Array) -> Array:
    """(N,) a value for each of the plan's rows -> (S,) int64 its sum over the rows of each step; one bincount per epoch"""
    num_rows = len(plan.row_ids)
    out = np.zeros(plan.num_steps, dtype=np.int64)
    for epoch in range(-(-plan.num_positions // num_rows)):
        start = epoch * num_rows
        order = epoch_order(plan.seed, epoch, num_rows)[: plan.num_positions - start]
        step = (start + np.arange(len(order))) // plan.rows_per_step
        first = int(step[0])
        sums = np.bincount(step - first, weights=values[order])  # float64: exact up to 2^53
        out[first : first + len(sums)] += sums.astype(np.int64)
    return out


def ranks_of_step(rows: Array, world_size: int, device_batch: int) -> list[dict[str, Any]]:
    """(G,) rows of a step -> [{"row", "rank", "micro_batch"}] as `micro_batches` distributes them"""
    place = np.arange(len(rows))
    rank = place // device_batch % world_size
    micro_batch = place // (device_batch * world_size)
    columns = {"row": rows.tolist(), "rank": rank.tolist(), "micro_batch": micro_batch.tolist()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
