"""
Which rows each step of a run trains: the trainer's arithmetic, without torch, for those who look before they train.

    order     epoch 0: 0 1 2 3 4 5 6    epoch 1: 3 6 0 5 1 4 2    (as stored; then permuted by default_rng([seed, e]))
    steps     |0 1 2 3|4 5 6 3|6 0 5 1|4 2 . .|                        G = 4 rows a step; "." has no targets

A test holds it to `train.loader.Plan`, row by row and target by target. Sums over all steps take one bincount an epoch:
0.01 s for 400,000 rows.

Legend: N rows with targets, G rows a step, S steps, W ranks, B rows of a micro-batch, T positions.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from prep.shard import Array, Split
from train.schedule import choose_device_batch, default_rows_per_step

FILLER = -1  # in place of a row number: a row of padding
DEVICE_BATCH_LIMIT = 32  # what the trainer tries on a GPU when no device batch size is given
MODES = ("mid", "sft")
LR_FRAC = {"mid": 1.0, "sft": 0.02}


@dataclass(frozen=True)
class Steps:
    """All steps of a run: rows of the split that have targets, in stored order, and where the last step ends."""

    row_ids: Array  # (N,)
    num_targets: Array  # (N,)
    rows_per_step: int
    num_steps: int
    num_positions: int
    seed: int

    def rows_of_step(self, step: int) -> Array:
        """(G,) row numbers of the split, FILLER in what the last step does not need"""
        out = np.full(self.rows_per_step, FILLER, dtype=np.int64)
        start = step * self.rows_per_step
        stop = min(start + self.rows_per_step, self.num_positions)
        place = start
        while place < stop:  # a step may reach into the next epoch
            epoch, first = divmod(place, len(self.row_ids))
            here = epoch_order(self.seed, epoch, len(self.row_ids))[first : first + stop - place]
            out[place - start : place - start + len(here)] = self.row_ids[here]
            place += len(here)
        return out

    def sums(self, values: Array) -> Array:
        """(N,) a value for each of `row_ids` -> (S,) int64 its sum over the rows of each step"""
        out = np.zeros(self.num_steps, dtype=np.int64)
        for epoch in range(-(-self.num_positions // len(self.row_ids))):
            start = epoch * len(self.row_ids)
            order = epoch_order(self.seed, epoch, len(self.row_ids))[: self.num_positions - start]
            step = (start + np.arange(len(order))) // self.rows_per_step
            first = int(step[0])
            sums = np.bincount(step - first, weights=values[order])  # float64: exact up to 2^53
            out[first : first + len(sums)] += sums.astype(np.int64)
        return out


def epoch_order(seed: int, epoch: int, num_rows: int) -> Array:
    """(N,) order of an epoch: 0 is as stored, every other one a permutation of its own."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows) if epoch else np.arange(num_rows)


def row_targets(split: Split, mode: str) -> Array:
    """(rows,) int64 targets of each row"""
    if mode not in MODES:
        raise ValueError(f"--mode {mode!r} found, wanted {' or '.join(MODES)}.")
    return split.rows["num_trainable" if mode == "sft" else "num_targets"].astype(np.int64)


def plan_steps(split: Split, mode: str, total_batch_size: int | None, num_epochs: float, seed: int) -> Steps:
    """
    The steps of a run over a split, as `train/mid.py` makes them of the same flags. ValueError where a step does not hold
    whole rows, or no row has a target.
    """
    counts, T = row_targets(split, mode), split.max_seq_len
    row_ids = np.flatnonzero(counts)
    if not len(row_ids):
        raise ValueError(f"none of {len(counts):,} rows of {split.name} has a target in {mode}: look at it with mid.")
    if num_epochs <= 0:
        raise ValueError(f"{num_epochs} epochs asked for, wanted more than 0.")
    rows_per_step = default_rows_per_step(len(row_ids) * num_epochs, T)
    if total_batch_size is not None:
        rows_per_step = total_batch_size // T
        if rows_per_step * T != total_batch_size or rows_per_step <= 0:
            near = sorted({max(rows_per_step, 1) * T, (max(rows_per_step, 0) + 1) * T})
            raise ValueError(
                f"--total-batch-size {total_batch_size} is no multiple of rows of {T} tokens: "
                f"give {' or '.join(map(str, near))}"
            )
    num_positions = math.ceil(num_epochs * len(row_ids))
    num_steps = math.ceil(num_positions / rows_per_step)
    return Steps(row_ids, counts[row_ids], rows_per_step, num_steps, num_positions, seed)


def device_batch(rows_per_step: int, world_size: int, max_seq_len: int, wanted: int | None) -> int:
    """Rows of one micro-batch of one rank: `wanted`, or what the trainer takes on a GPU. ValueError if not even."""
    if world_size < 1 or (wanted is not None and wanted < 1):
        raise ValueError(f"{world_size} ranks of {wanted} rows asked for, wanted 1 or more of each.")
    return choose_device_batch(rows_per_step, world_size, max_seq_len, wanted, DEVICE_BATCH_LIMIT)


def ranks_of_step(rows: Array, world_size: int, batch: int) -> list[dict[str, Any]]:
    """(G,) rows of a step -> where each goes: [{"row", "rank", "micro_batch"}], by position as the trainer deals them"""
    place = np.arange(len(rows))
    rank, micro = place // batch % world_size, place // (batch * world_size)
    return [
        {"row": int(row), "rank": int(r), "micro_batch": int(m)} for row, r, m in zip(rows, rank, micro, strict=True)
    ]
