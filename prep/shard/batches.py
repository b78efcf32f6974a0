"""
Rows as the arrays that a model trains on, with numpy alone.

    row of T + 1 = 9       <|bos|> <|user_start|> hi <|user_end|> <|assistant_start|> yo <|assistant_end|> pad pad
    inputs  = row[:-1]         256       257      104     258             259        121       260         256
    targets = row[1:], sft          -1         -1      -1          -1              121       260         -1   -1
    read_batch  inputs, targets (B, T)      pack_targets  the positions that train and what they predict, flat
    PackedDataset   the same for trainers that shift the labels themselves, as Hugging Face's do: labels stand at the token

No byte is looked for: what is filled, trained and from where, the build stores.

Legend: B rows of a batch, T positions, K positions that train.
"""

from pathlib import Path

import numpy as np

from prep.arrays import Array
from prep.moved import moved
from prep.shard import Split, open_shards
from prep.shard.steps import FILLER, row_targets

IGNORE = -100  # what Hugging Face's and PyTorch's losses leave out


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
    real = row_ids != FILLER
    rows = np.where(real, row_ids, 0)
    first_doc = split.rows["first_doc"]
    first = first_doc[rows].astype(np.int64)  # (B,)
    following = first_doc[np.minimum(rows + 1, split.num_rows - 1)].astype(np.int64)
    ends = np.where(rows + 1 < split.num_rows, following, split.entry["docs"])
    counts = np.where(real, ends - first, 0)
    starts = np.concatenate([[0], np.cumsum(counts + 1)])  # one more, for the padding
    row = np.repeat(np.arange(len(rows)), counts + 1)
    numbers = np.arange(len(row)) - starts[row]
    docs = split.docs[np.minimum(first[row] + numbers, len(split.docs) - 1)]
    lengths, sources, padding = docs["length"].astype(np.int64), docs["source"].astype(np.int32), starts[1:] - 1
    lengths[padding] = sources[padding] = 0
    lengths[padding] = split.max_seq_len + 1 - np.add.reduceat(lengths, starts[:-1])
    return lengths, sources, numbers.astype(np.int32)


def pack_targets(targets: Array, multiple: int) -> tuple[Array, Array]:
    """targets (B, T) -> positions in them, flat, and labels (K,) int32, filled up to a multiple with label -1, never empty"""
    flat = targets.reshape(-1)
    trained = flat >= 0
    if trained.all() and len(flat) % multiple == 0:  # most batches of mid
        return np.arange(len(flat), dtype=np.int32), flat
    positions = np.flatnonzero(trained)
    num_padded = max(1, -(-len(positions) // multiple)) * multiple
    where, labels = np.zeros(num_padded, dtype=np.int32), np.full(num_padded, -1, dtype=np.int32)
    where[: len(positions)], labels[: len(positions)] = positions, flat[trained]
    return where, labels


class PackedDataset:
    """
    The rows of a split that train something, as a data set that torch's DataLoader, Hugging Face's Trainer and Lightning
    take: `len(rows)`, and `rows[i]` with `input_ids`, `labels` and `position_ids`, (T + 1,) int64 each. Order, ranks and
    workers are the loader's. Labels stand at the token itself, IGNORE where nothing trains; positions restart with each
    document, which is how trainers of packed rows tell them apart.
    """

    def __init__(self, root: str | Path, mode: str = "sft", split: str = "train") -> None:
        self.split, self.mode = open_shards(root).split(split), mode
        self.row_ids = np.flatnonzero(row_targets(self.split, mode))

    def __len__(self) -> int:
        return len(self.row_ids)

    def __getitem__(self, i: int) -> dict[str, Array]:
        row = self.row_ids[i : i + 1] if i >= 0 else self.row_ids[[i]]
        if not len(row):
            raise IndexError(f"row {i} asked for, {len(self)} train something")
        tokens, lengths = self.split.read_tokens(row)[0].astype(np.int64), read_documents(self.split, row)[0]
        trains = np.arange(len(tokens)) < self.split.rows["num_tokens"][row]
        if self.mode == "sft":
            trains &= self.split.read_mask(row)[0].view(bool)
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        labels = np.where(trains, tokens, IGNORE)
        return {"input_ids": tokens, "labels": labels, "position_ids": np.arange(len(tokens)) - starts}


__getattr__ = moved(__name__, {"Rows": "prep:PackedDataset"})
