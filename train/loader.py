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
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
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


def read_batch(split: Split, row_ids: Array, mode: str, isolated: bool) -> tuple[Array, Array, Array]:
    """(B,) rows -> inputs (B, T) int32, targets (B, T) int64 with -1 where nothing trains, docs (B, T + 1) int32"""
    real = row_ids != FILLER
    tokens = np.full((len(row_ids), split.max_seq_len + 1), split.manifest["pad_id"], dtype=np.int64)
    trains = np.zeros(tokens.shape, dtype=bool)
    tokens[real] = split.read_tokens(row_ids[real])
    docs = doc_numbers(split, row_ids)
    if mode == "sft":
        trains[real] = split.read_mask(row_ids[real])
    else:
        filled = np.where(real, split.rows["num_tokens"][np.maximum(row_ids, 0)], 0)
        trains[:] = np.arange(split.max_seq_len + 1) < filled[:, None]
        if isolated:
            trains[:, 1:] &= docs[:, 1:] == docs[:, :-1]
    targets = np.where(trains[:, 1:], tokens[:, 1:], -1)
    return tokens[:, :-1].astype(np.int32), targets, docs


def doc_numbers(split: Split, row_ids: Array) -> Array:
    """(B,) rows -> (B, T + 1) int32: the number within its row of the document of each position, then of the padding"""
    out = np.zeros((len(row_ids), split.max_seq_len + 1), dtype=np.int32)
    for number, row in enumerate(row_ids):
        if row != FILLER:
            first, end = split.doc_range(int(row))
            ends = np.cumsum(split.docs["length"][first:end])
            out[number] = np.searchsorted(ends, np.arange(out.shape[1]), side="right")
    return out


def source_numbers(split: Split, row_ids: Array, docs: Array) -> Array:
    """(B,) rows, docs (B, T + 1) -> (B, T + 1) int64: the source of each position; of padding, the last document's"""
    last = np.array([split.doc_range(int(row))[1] - 1 if row != FILLER else 0 for row in row_ids])
    first = np.array([split.doc_range(int(row))[0] if row != FILLER else 0 for row in row_ids])
    sources: Array = split.docs["source"][np.minimum(first[:, None] + docs, last[:, None])].astype(np.int64)
    return sources


@dataclass(frozen=True)
class Batch:
    """
    One micro-batch. `positions` (K,) are the flat positions of inputs (B, T) that train, `labels` and `sources` (K,)
    what they predict and where that is from. K is filled up to a multiple of 32 with label -1, so that compiled
    code sees few shapes; `docs` (B, T) only where documents are isolated.
    """

    rows: Array
    inputs: Tensor
    positions: Tensor
    labels: Tensor
    sources: Tensor
    docs: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """Copies do not wait for the device where the batch is pinned."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def pack_targets(targets: Array) -> tuple[Array, Array]:
    """targets (B, T) -> flat positions that train and their labels (K,) int64, filled up with label -1"""
    flat = targets.reshape(-1)
    positions = np.flatnonzero(flat >= 0)
    num_padded = max(1, -(-len(positions) // ROUND_TO)) * ROUND_TO
    where, labels = np.zeros(num_padded, dtype=np.int64), np.full(num_padded, -1, dtype=np.int64)
    where[: len(positions)] = positions
    labels[: len(positions)] = flat[positions]
    return where, labels


def make_batch(split: Split, row_ids: Array, mode: str, isolated: bool, pin: bool = False) -> Batch:
    inputs, targets, docs = read_batch(split, row_ids, mode, isolated)
    where, labels = pack_targets(targets)
    sources = source_numbers(split, row_ids, docs)[:, 1:].reshape(-1)[where]
    doc_tensor = torch.from_numpy(np.ascontiguousarray(docs[:, :-1])) if isolated else None
    arrays = [torch.from_numpy(array) for array in (inputs, where, labels, sources)]
    if pin:
        arrays = [array.pin_memory() for array in arrays]
    return Batch(row_ids, arrays[0], arrays[1], arrays[2], arrays[3], doc_tensor)


def prefetch(split: Split, batches: Iterator[Array], mode: str, isolated: bool, pin: bool) -> Iterator[Batch]:
    """Batches for an iterator of row numbers, made in a thread while the one before is trained on."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=PREFETCH)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for row_ids in batches:
                put(make_batch(split, row_ids, mode, isolated, pin))
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # raised where the batch is asked for
            put(error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
