"""
The steps of a run for those who look before they train: the trainer's own arithmetic (train.plan, which needs no torch),
and sums over all steps at once.

    targets of rows   3 0 5 2 4     G = 2 rows a step     steps  [3 5] [2 4]     sums  8 6

Sums take one bincount an epoch: 0.01 s for 400,000 rows. Legend: N rows with targets, G rows a step, S steps.
"""

from typing import Any

import numpy as np

from prep.shard import Array, Split
from train.plan import Plan, epoch_order, make_plan, row_targets, rows_a_step
from train.schedule import choose_device_batch

DEVICE_BATCH_LIMIT = 32  # what the trainer tries on a GPU when no device batch size is given
MODES = ("mid", "sft")
LR_FRAC = {"mid": 1.0, "sft": 0.02}


def targets_of_rows(split: Split, mode: str) -> Array:
    """(rows,) int64 targets of each row"""
    if mode not in MODES:
        raise ValueError(f"--mode {mode!r} found, wanted {' or '.join(MODES)}.")
    return row_targets(split, mode, isolated=False)


def plan_steps(split: Split, mode: str, total_batch_size: int | None, num_epochs: float, seed: int) -> Plan:
    """
    The steps of a run over a split, as `train/mid.py` makes them of the same flags. ValueError where a step does not hold
    whole rows, or no row has a target.
    """
    counts = targets_of_rows(split, mode)
    if num_epochs <= 0:
        raise ValueError(f"{num_epochs} epochs asked for, wanted more than 0.")
    num_rows = int(np.count_nonzero(counts))
    rows_per_step = rows_a_step(num_rows, num_epochs, split.max_seq_len, total_batch_size)
    return make_plan(counts, rows_per_step, None, num_epochs, seed)


def step_sums(plan: Plan, values: Array) -> Array:
    """(N,) a value for each of the plan's rows -> (S,) int64 its sum over the rows of each step"""
    num_rows, out = len(plan.row_ids), np.zeros(plan.num_steps, dtype=np.int64)
    for epoch in range(-(-plan.num_positions // num_rows)):
        start = epoch * num_rows
        order = epoch_order(plan.seed, epoch, num_rows)[: plan.num_positions - start]
        step = (start + np.arange(len(order))) // plan.rows_per_step
        first = int(step[0])
        sums = np.bincount(step - first, weights=values[order])  # float64: exact up to 2^53
        out[first : first + len(sums)] += sums.astype(np.int64)
    return out


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
