"""
How rows become batches: mapped tokens and masks to tensors, made in a thread while the ones before are trained on.

    row of T + 1   inputs  = row[:-1]                      (B, T)
                   targets = row[1:], -1 where not trained (B, T)  ->  positions, labels, sources (K,) of those that train

Which rows a step trains is `train.plan`. No byte is looked for: what is filled, trained and from where, the build stores.

Legend: B rows of a batch, T positions, K positions that train.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prep.shard import Array, Split
from train.loss import ROUND_TO
from train.plan import FILLER

PREFETCH = 2  # batches made ahead


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
