"""
How rows become batches: arrays of `prep.shard.batches` as tensors, made in a thread while earlier batches are trained on.

    inputs (B, T), targets (B, T), -1 without a target  ->  positions, labels, sources (K,) of the targets

`prep.shard.steps` decides which rows. Legend: B rows of a batch, T positions, K positions with a target.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prep.arrays import Array
from prep.shard import Split
from prep.shard.batches import pack_targets, read_batch, read_documents
from train.loss import ROUND_TO

PREFETCH = 2  # batches made ahead


class Batch(NamedTuple):
    """
    One micro-batch. `positions` (K,) are the flat positions of inputs (B, T) that have a target, `labels` and `sources`
    (K,) their targets and the sources of these. K is a multiple of 32, filled up with label -1, and never 0. `docs` (B, T)
    numbers the documents of a row, if documents are isolated.
    """

    inputs: Tensor
    positions: Tensor
    labels: Tensor
    sources: Tensor
    docs: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """A copy on a device; if the batch is pinned, without waiting for it."""
        return Batch(*[each.to(device, non_blocking=True) for each in self if each is not None])


def make_batch(split: Split, row_ids: Array, mode: str, isolated: bool, pin: bool = False) -> Batch:
    inputs, targets = read_batch(split, row_ids, mode)
    lengths, sources, numbers = read_documents(split, row_ids)
    width = split.max_seq_len + 1
    extra = []
    if isolated:
        docs = np.repeat(numbers, lengths).reshape(-1, width)
        targets = np.where(docs[:, 1:] == docs[:, :-1], targets, np.int32(-1))
        extra = [np.ascontiguousarray(docs[:, :-1])]
    positions, labels = pack_targets(targets, ROUND_TO)
    target_sources = np.repeat(sources, lengths).reshape(-1, width)[:, 1:].reshape(-1)
    if not (len(positions) == len(target_sources) == positions[-1] + 1):  # not all positions
        target_sources = target_sources[positions]
    # contiguous with and without fillers: torch.compile would compile again for another layout
    arrays = [np.ascontiguousarray(inputs), positions, labels, target_sources, *extra]
    return Batch(*[tensor.pin_memory() if pin else tensor for tensor in map(torch.from_numpy, arrays)])


def prefetch(split: Split, rows: Iterator[Array], mode: str, isolated: bool, device: torch.device) -> Iterator[Batch]:
    """Batches on `device` for an iterator of (B,) row numbers, made in a thread while earlier ones are trained on."""
    with ThreadPoolExecutor(1, "prefetch") as thread:
        ahead: deque[Future[Batch]] = deque()
        for row_ids in rows:
            ahead.append(thread.submit(make_batch, split, row_ids, mode, isolated, device.type == "cuda"))
            if len(ahead) > PREFETCH:
                yield ahead.popleft().result().to(device)
        while ahead:
            yield ahead.popleft().result().to(device)
