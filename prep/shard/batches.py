"""
Rows as the arrays that a model trains on, with numpy alone: what is filled, a target, and from where is stored in the build.

    row of T + 1 = 9       <|bos|> <|user_start|> hi <|user_end|> <|assistant_start|> yo <|assistant_end|> pad pad
    inputs  = row[:-1]         256       257      104     258             259        121       260         256
    targets = row[1:], sft          -1         -1      -1          -1              121       260         -1   -1
    read_batch  inputs, targets (B, T)      pack_targets  the positions that have a target and their labels, flat
    PackedDataset   for trainers that shift the labels themselves, as Hugging Face's do: the label is the token itself

Legend: B rows of a batch, T positions, K positions with a target.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prep.arrays import Array
from prep.moved import moved
from prep.shard import Split, open_shards
from prep.shard.chat_format import format_notice
from prep.shard.steps import FILLER, row_targets

CHUNK_DOCS = 1 << 20
IGNORE = -100  # the label that Hugging Face's and PyTorch's losses ignore


def read_batch(split: Split, row_ids: Array, mode: str) -> tuple[Array, Array]:
    """
    (B,) rows -> inputs and targets (B, T) int32, -1 without a target; they may share memory: do not write to them.
    ValueError for an id outside the vocabulary, which ends a GPU's process without a word.
    """
    real = row_ids != FILLER
    if not real.all():
        inputs = np.full((len(row_ids), split.max_seq_len), split.manifest["pad_id"], np.int32)
        targets = np.full_like(inputs, -1)
        if real.any():
            inputs[real], targets[real] = read_batch(split, row_ids[real], mode)
        return inputs, targets
    stored = split.read_tokens(row_ids)
    if stored.size and (largest := int(stored.max())) >= split.manifest["vocab_size"]:
        raise damaged(split, f"token {largest} found, the vocabulary has {split.manifest['vocab_size']:,} ids")
    tokens = stored.astype(np.int32)
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

    `np.repeat(sources, lengths).reshape(B, T + 1)` is the source of each position. No token is read.
    """
    is_row = row_ids != FILLER
    rows = np.where(is_row, row_ids, 0)
    first_doc = split.rows["first_doc"]
    first = first_doc[rows].astype(np.int64)  # (B,)
    following = first_doc[np.minimum(rows + 1, split.num_rows - 1)].astype(np.int64)
    ends = np.where(rows + 1 < split.num_rows, following, split.entry["docs"])
    counts = np.where(is_row, ends - first, 0) + 1  # one more, for the padding
    starts = np.cumsum(counts) - counts
    padding = starts + counts - 1
    row = np.repeat(np.arange(len(rows)), counts)
    numbers = np.arange(len(row)) - starts[row]
    docs = split.docs[np.minimum(first[row] + numbers, len(split.docs) - 1)]
    lengths = docs["length"].astype(np.int64)
    sources = docs["source"].astype(np.int32)
    lengths[padding] = 0
    sources[padding] = 0
    lengths[padding] = split.max_seq_len + 1 - np.add.reduceat(lengths, starts)
    if lengths.min(initial=0) < 0 or sources.max(initial=0) >= len(split.entry["sources"]):
        raise damaged(split, "documents found that are longer than their row, or of no source")
    return lengths, sources, numbers.astype(np.int32)


def damaged(split: Split, problem: str) -> ValueError:
    check = f"`midprep verify {split.root}` names the file, then build again with --overwrite"
    return ValueError(f"{split.root} is damaged: {problem} in {split.name}: {check}")


def document_chunks(split: Split) -> Iterator[tuple[int, Array, Array]]:
    """(number of the first, documents (c,) DOC, the row of each (c,)), a million at a time"""
    first_docs = split.rows["first_doc"].astype(np.int64)
    for first in range(0, int(split.entry["docs"]), CHUNK_DOCS):
        docs = np.asarray(split.docs[first : first + CHUNK_DOCS])
        rows = np.searchsorted(first_docs, np.arange(first, first + len(docs)), side="right") - 1
        yield first, docs, rows


def pack_targets(targets: Array, multiple: int) -> tuple[Array, Array]:
    """
    targets (B, T), -1 without a target -> positions in them, flat, and their labels (K,) int32. K is a multiple of
    `multiple`, filled up with label -1, and never 0.
    """
    flat = targets.reshape(-1)
    is_target = flat >= 0
    if is_target.all() and len(flat) % multiple == 0:  # most batches of mid
        return np.arange(len(flat), dtype=np.int32), flat
    places = np.flatnonzero(is_target)
    num_padded = max(1, -(-len(places) // multiple)) * multiple
    positions = np.zeros(num_padded, dtype=np.int32)
    labels = np.full(num_padded, -1, dtype=np.int32)
    positions[: len(places)] = places
    labels[: len(places)] = flat[is_target]
    return positions, labels


class PackedDataset:
    """
    The rows of a split that have a target, as a data set for torch's DataLoader, Hugging Face's Trainer and Lightning.

    `len(data)`, and `data[i]` with `input_ids`, `labels` and `position_ids`, (T + 1,) int64 each. The label of a token is
    the token itself, IGNORE without a target; positions restart with each document, by which trainers of packed rows tell
    documents apart. Order, ranks and workers are the loader's. Warns of a build in a chat format that is not its tokenizer's.
    """

    def __init__(self, root: str | Path, mode: str = "sft", split: str = "train") -> None:
        self.split = open_shards(root).split(split)
        if notice := format_notice(self.split.manifest):
            warnings.warn(notice, stacklevel=2)
        self.mode = mode
        self.row_ids = np.flatnonzero(row_targets(self.split, mode))

    def __len__(self) -> int:
        return len(self.row_ids)

    def __getitem__(self, i: int) -> dict[str, Array]:
        if i >= len(self):
            raise IndexError(f"row {i} requested, {len(self)} have a target")
        row = self.row_ids[[i]]
        tokens = self.split.read_tokens(row)[0].astype(np.int64)
        lengths, _, _ = read_documents(self.split, row)
        is_target = np.arange(len(tokens)) < self.split.rows["num_tokens"][row]
        if self.mode == "sft":
            is_target &= self.split.read_mask(row)[0].view(bool)
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        labels = np.where(is_target, tokens, IGNORE)
        return {"input_ids": tokens, "labels": labels, "position_ids": np.arange(len(tokens)) - starts}


__getattr__ = moved(__name__, {"Rows": "prep:PackedDataset"})
