"""
Which rows each step trains. The whole state of a run's data is the number of the step.

    order     epoch 0: 0 1 2 3 4 5 6    epoch 1: 3 6 0 5 1 4 2    (as stored; then permuted by default_rng([seed, e]))
    steps     |0 1 2 3|4 5 6 3|6 0 5 1|4 2 . .|                        G = 4 rows a step; "." has no targets
    2 ranks x 1 row x 2 micro-batches of step 0:   rank 0: 0, 2   rank 1: 1, 3

Rows of a step do not depend on ranks, device batch size or where a run was stopped; neither does the number of its
targets, which is added up from `rows` before the step. So a loss can be divided by the targets of the whole step with
no collective, and resuming is O(1). Rows without a target (in SFT: user turns only) are left out of the order. The
trainer and the commands that tell of a run beforehand do this one arithmetic; it needs no torch.

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
DEVICE_BATCH_LIMIT = 32  # what the trainer tries on a GPU when no device batch size is given
MODES = ("mid", "sft")
REFERENCE_BATCH = 524_288  # tokens a step, nanochat's
MIN_STEPS = 50


@dataclass(frozen=True)
class StepPlan:
    """All steps of a run: row_ids (N,) in stored order, their num_targets (N,), and where the last step ends."""

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
        out = np.full(self.rows_per_step, filler, dtype=np.int64)
        start = step * self.rows_per_step
        end = min(start + self.rows_per_step, self.num_positions)
        while start < end:  # a step may reach into the next epoch, or span several of a tiny split
            epoch, first = divmod(start, len(self.row_ids))
            here = epoch_order(self.seed, epoch, len(self.row_ids))[first : first + end - start]
            at = start - step * self.rows_per_step
            out[at : at + len(here)] = values[here]
            start += len(here)
        return out


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, num_rows: int) -> Array:
    """(N,) order of an epoch: 0 is as stored, every other one a permutation that no other (seed, epoch) shares."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows) if epoch else np.arange(num_rows)


def row_targets(split: Split, mode: str, isolated: bool = False) -> Array:
    """(rows,) int64 targets of each row. Isolated documents do not predict the start of the next one."""
    if mode not in MODES:
        raise ValueError(f"--mode {mode!r} found, wanted {' or '.join(MODES)}.")
    if mode == "sft":
        return split.rows["num_trainable"].astype(np.int64)
    counts: Array = split.rows["num_targets"].astype(np.int64)
    if isolated:
        num_docs = np.diff(split.rows["first_doc"].astype(np.int64), append=split.entry["docs"])
        counts = counts - (num_docs - 1)
    return counts


def rows_a_step(num_rows: int, num_epochs: float, max_seq_len: int, total_batch_size: int | None) -> int:
    """Rows a step of so many tokens; by default what suits the number of rows. ValueError where rows are not whole."""
    if total_batch_size is None:
        return default_rows_per_step(num_rows * num_epochs, max_seq_len)
    rows = total_batch_size // max_seq_len
    if rows == 0 or total_batch_size % max_seq_len:
        near = sorted({max(rows, 1) * max_seq_len, (rows + 1) * max_seq_len})
        raise ValueError(
            f"--total-batch-size {total_batch_size} is no multiple of rows of {max_seq_len} tokens: "
            f"give {' or '.join(map(str, near))}"
        )
    return rows


def default_rows_per_step(num_rows: float, max_seq_len: int) -> int:
    """
    Rows a step: nanochat's 524,288 tokens, or the power of two that gives `num_rows` at least 50 steps.

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
    """Steps over all rows that have targets, `counts` (rows,): `num_iterations` of them, or `num_epochs` epochs."""
    row_ids = np.flatnonzero(counts)
    if not len(row_ids):
        raise ValueError(f"none of {len(counts):,} rows has a target: nothing to train on (try --mode mid)")
    if num_iterations is not None:
        num_steps, num_positions = num_iterations, num_iterations * rows_per_step
    else:
        num_positions = math.ceil(round(num_epochs * len(row_ids), 6))  # 1.1 * 10 is 11.000000000000002
        num_steps = math.ceil(num_positions / rows_per_step)
    return StepPlan(row_ids, counts[row_ids], rows_per_step, num_steps, num_positions, seed)


def plan_steps(
    split: Split,
    mode: str,
    total_batch_size: int | None,
    num_epochs: float,
    seed: int,
    num_iterations: int | None = None,
    isolated: bool = False,
) -> StepPlan:
    """
    The steps of a run over a split, of the flags of `train/mid.py`. ValueError where a step does not hold whole rows, or no
    row has a target.
    """
    if num_epochs <= 0:
        raise ValueError(f"{num_epochs} epochs asked for, wanted more than 0.")
    counts = row_targets(split, mode, isolated)
    rows_per_step = rows_a_step(int(np.count_nonzero(counts)), num_epochs, split.max_seq_len, total_batch_size)
    return make_plan(counts, rows_per_step, num_iterations, num_epochs, seed)


def micro_batches(rows: Array, device_batch: int, rank: int, world_size: int) -> list[Array]:
    """(G,) rows of a step -> this rank's micro-batches, (B,) each, taken by position."""
    return list(rows.reshape(-1, world_size, device_batch)[:, rank])


# ---- for those who look before they train ----


def step_sums(plan: StepPlan, values: Array) -> Array:
    """(N,) a value for each of the plan's rows -> (S,) int64 its sum over the rows of each step; one bincount an epoch"""
    num_rows, out = len(plan.row_ids), np.zeros(plan.num_steps, dtype=np.int64)
    for epoch in range(-(-plan.num_positions // num_rows)):
        start = epoch * num_rows
        order = epoch_order(plan.seed, epoch, num_rows)[: plan.num_positions - start]
        step = (start + np.arange(len(order))) // plan.rows_per_step
        first = int(step[0])
        sums = np.bincount(step - first, weights=values[order])  # float64: exact up to 2^53
        out[first : first + len(sums)] += sums.astype(np.int64)
    return out


def ranks_of_step(rows: Array, world_size: int, batch: int) -> list[dict[str, Any]]:
    """(G,) rows of a step -> where each goes: [{"row", "rank", "micro_batch"}], by position as the trainer deals them"""
    place = np.arange(len(rows))
    rank, micro = place // batch % world_size, place // (batch * world_size)
    return [
        {"row": int(row), "rank": int(r), "micro_batch": int(m)} for row, r, m in zip(rows, rank, micro, strict=True)
    ]
