"""
Rows as the arrays that a model trains on: inputs, targets, and which document and source each position is of.

    row of T + 1   inputs  = row[:-1]                      (B, T)
                   targets = row[1:], -1 where not trained (B, T)

No byte is looked for: what is filled, trained and from where, the build stores.

Legend: B rows of a batch, T positions.
"""

from typing import Any

import numpy as np

from prep.shard import Array, Split
from prep.steps import FILLER


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
