"""
Which rows a step trains, and how they become tensors. The loader's whole state is the number of the step.

    order     epoch 0: 0 1 2 3 4 5 6    epoch 1: 3 6 0 5 1 4 2    (as stored; then permuted by default_rng([seed, e]))
    steps     |0 1 2 3|4 5 6 3|6 0 5 1|4 2 . .|                        G = 4 rows a step; "." has no targets
    2 ranks x 1 row x 2 micro-batches of step 0:   rank 0: 0, 2   rank 1: 1, 3

Rows of a step do not depend on ranks, device batch size or where a run was stopped; neither does the number of its
targets, which is added up from `rows` before the step. So a loss can be divided by the targets of the whole step with
no collective, and resuming is O(1). Rows without a target (in SFT: user turns only) are left out of the order.

Legend: N rows with targets, G rows a step, B rows of a batch, T positions, K positions that train.
"""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prep.shard import Array, Split
from train.loss import ROUND_TO

FILLER = -1  # in place of a row number: a row of padding
PREFETCH = 2  # batches made ahead


@dataclass(frozen=True)
class Plan:
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


def row_targets(split: Split, mode: str, isolated: bool) -> Array:
    """(rows,) targets of each row. Isolated documents do not predict the start of the next one."""
    if mode == "sft":
        return split.rows["num_trainable"].astype(np.int64)
    counts: Array = split.rows["num_targets"].astype(np.int64)
    if isolated:
        num_docs = np.diff(split.rows["first_doc"].astype(np.int64), append=split.entry["docs"])
        counts = counts - (num_docs - 1)
    return counts


def make_plan(counts: Array, rows_per_step: int, num_iterations: int | None, num_epochs: float, seed: int) -> Plan:
    """Steps over all rows that have targets, `counts` (rows,): `num_iterations` of them, or `num_epochs` epochs."""
    row_ids = np.flatnonzero(counts)
    if not len(row_ids):
        raise ValueError(f"none of {len(counts):,} rows has a target: nothing to train on (try --mode mid)")
    if num_iterations is not None:
        num_steps, num_positions = num_iterations, num_iterations * rows_per_step
    else:
        num_positions = math.ceil(num_epochs * len(row_ids))
        num_steps = math.ceil(num_positions / rows_per_step)
    return Plan(row_ids, counts[row_ids], rows_per_step, num_steps, num_positions, seed)


def micro_batches(rows: Array, device_batch: int, rank: int, world_size: int) -> list[Array]:
    """(G,) rows of a step -> this rank's micro-batches, (B,) each, taken by position."""
    return list(rows.reshape(-1, world_size, device_batch)[:, rank])


# ---- rows to arrays ----


def read_batch(split: Split, row_ids: Array, mode: str) -> tuple[Array, Array]:
    """(B,) rows -> inputs and targets (B, T) int32, -1 where nothing trains; they may share memory: not to be written"""
    real = row_ids != FILLER
    if not real.all():
        inputs = np.full((len(row_ids), split.max_seq_len), split.manifest["pad_id"], np.int32)
        targets = np.full_like(inputs, -1)
        if real.any():
            inputs[real], targets[real] = read_batch(split, row_ids[real], mode)
        return inputs, targets
    tokens = split.read_tokens(row_ids).astype(np.int32)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    if mode == "sft":
        return inputs, np.where(split.read_mask(row_ids)[:, 1:].view(bool), targets, np.int32(-1))
    num_targets = split.rows["num_targets"][row_ids]
    unfilled = np.flatnonzero(num_targets < split.max_seq_len)
    if len(unfilled):
        targets = targets.copy()
        for row in unfilled:
            targets[row, num_targets[row] :] = -1
    return inputs, targets


def read_documents(split: Split, row_ids: Array) -> tuple[Array, Array, Array]:
    """
    (B,) rows -> length, source and number within its row of each document, flat; padding is one more, of source 0.

    `np.repeat(sources, lengths).reshape(B, T + 1)` is the source of each position. No token is looked at.
    """
    lengths: list[Any] = []
    sources: list[Any] = []
    numbers: list[Array] = []
    for row in row_ids:
        first, end = split.doc_range(int(row)) if row != FILLER else (0, 0)
        docs = split.docs[first:end]
        lengths += [docs["length"], [split.max_seq_len + 1 - int(docs["length"].sum())]]
        sources += [docs["source"], [0]]
        numbers.append(np.arange(end - first + 1))
    return np.concatenate(lengths), np.concatenate(sources).astype(np.int32), np.concatenate(numbers).astype(np.int32)


@dataclass(frozen=True)
class Batch:
    """
    One micro-batch. `positions` (K,) are the flat positions of inputs (B, T) that train, `labels` and `sources` (K,)
    what they predict and where that is from. K is filled up to a multiple of 32 with label -1, and never
    empty; `docs` (B, T) only where documents are isolated.
    """

    rows: Array
    inputs: Tensor
    positions: Tensor
    labels: Tensor
    sources: Tensor
    docs: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Copies do not wait for the device where the batch is pinned."""
        tensors = [each.to(device, non_blocking=True) for each in vars(self).values() if isinstance(each, Tensor)]
        return Batch(self.rows, *tensors)


def pack_targets(targets: Array) -> tuple[Array, Array]:
    """targets (B, T) -> flat positions that train and their labels (K,) int32, filled up with label -1"""
    flat = targets.reshape(-1)
    positions = np.flatnonzero(flat >= 0)
    num_padded = max(1, -(-len(positions) // ROUND_TO)) * ROUND_TO
    where, labels = np.zeros(num_padded, dtype=np.int32), np.full(num_padded, -1, dtype=np.int32)
    where[: len(positions)] = positions
    labels[: len(positions)] = flat if len(positions) == len(flat) else flat[positions]
    return where, labels


def make_batch(split: Split, row_ids: Array, mode: str, isolated: bool, pin: bool = False) -> Batch:
    inputs, targets = read_batch(split, row_ids, mode)
    lengths, sources, numbers = read_documents(split, row_ids)
    width, extra = split.max_seq_len + 1, []
    if isolated:
        docs = np.repeat(numbers, lengths).reshape(-1, width)
        targets = np.where(docs[:, 1:] == docs[:, :-1], targets, np.int32(-1))
        extra = [np.ascontiguousarray(docs[:, :-1])]
    positions, labels = pack_targets(targets)
    # a target at flat position p of (B, T) is at p + p // T + 1 of (B, T + 1)
    by_target = np.repeat(sources, lengths)[positions + positions // split.max_seq_len + 1]
    inputs = np.ascontiguousarray(inputs)  # one layout for compiled code, fillers or not
    tensors = [torch.from_numpy(array) for array in (inputs, positions, labels, by_target, *extra)]
    return Batch(row_ids, *[tensor.pin_memory() if pin else tensor for tensor in tensors])


def prefetch(split: Split, batches: Iterator[Array], mode: str, isolated: bool, pin: bool) -> Iterator[Batch]:
    """Batches for an iterator of row numbers, made in a thread while the ones before are trained on."""
    with ThreadPoolExecutor(1, "prefetch") as thread:
        ahead: deque[Future[Batch]] = deque()
        for row_ids in batches:
            ahead.append(thread.submit(make_batch, split, row_ids, mode, isolated, pin))
            if len(ahead) > PREFETCH:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
