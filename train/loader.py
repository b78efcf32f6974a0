"""
How rows become batches: arrays of `prep.shard.batches` to tensors, made in a thread while the ones before are trained on.

    inputs (B, T), targets (B, T), -1 where not trained  ->  positions, labels, sources (K,) of those that train

Which rows a step trains is `prep.shard.steps`. Legend: B rows of a batch, T positions, K positions that train.
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
    One micro-batch. `positions` (K,) are the flat positions of inputs (B, T) that train, `labels` and `sources` (K,)
    what they predict and where that is from. K is filled up to a multiple of 32 with label -1, and never
    empty; `docs` (B, T) only where documents are isolated.
    """

    inputs: Tensor
    positions: Tensor
    labels: Tensor
    sources: Tensor
    docs: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Copies do not wait for the device where the batch is pinned."""
        return Batch(*[each.to(device, non_blocking=True) for each in self if each is not None])


def make_batch(split: Split, row_ids: Array, mode: str, isolated: bool, pin: bool = False) -> Batch:
    inputs, targets = read_batch(split, row_ids, mode)
    lengths, sources, numbers = read_documents(split, row_ids)
    width, extra = split.max_seq_len + 1, []
    if isolated:
        docs = np.repeat(numbers, lengths).reshape(-1, width)
        targets = np.where(docs[:, 1:] == docs[:, :-1], targets, np.int32(-1))
        extra = [np.ascontiguousarray(docs[:, :-1])]
    positions, labels = pack_targets(targets, ROUND_TO)
    by_target = np.repeat(sources, lengths).reshape(-1, width)[:, 1:].reshape(-1)
    if not (len(positions) == len(by_target) == positions[-1] + 1):
        by_target = by_target[positions]
    in_one = np.ascontiguousarray(inputs), positions, labels, by_target, *extra  # one layout, fillers or not
    return Batch(*[tensor.pin_memory() if pin else tensor for tensor in map(torch.from_numpy, in_one)])


def prefetch(split: Split, rows: Iterator[Array], mode: str, isolated: bool, device: torch.device) -> Iterator[Batch]:
    """Batches on `device` for an iterator of row numbers, made in a thread while the ones before are trained on."""
    with ThreadPoolExecutor(1, "prefetch") as thread:
        ahead: deque[Future[Batch]] = deque()
        for row_ids in rows:
            ahead.append(thread.submit(make_batch, split, row_ids, mode, isolated, device.type == "cuda"))
            if len(ahead) > PREFETCH:
                yield ahead.popleft().result().to(device)
        while ahead:
            yield ahead.popleft().result().to(device)
