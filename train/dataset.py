"""Rows as a torch IterableDataset, for training loops of other people's: what a row is, `prep.shard.batches.read_row` says."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from prep.shard import open_shards
from prep.shard.batches import read_row
from prep.shard.steps import epoch_order, row_targets


class Rows(IterableDataset[dict[str, Tensor]]):
    """
    The rows of a split that train something, an epoch at a time: each a dict of (T + 1,) int64 `input_ids`, `labels` and
    `position_ids`. Ranks and DataLoader workers take their part by position; `epoch` 0 is the stored order. A loop of
    one's own takes `input_ids[:-1]` and `labels[1:]`.
    """

    def __init__(
        self,
        root: str | Path,
        mode: str = "sft",
        split: str = "train",
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.split, self.mode, self.epoch = open_shards(root).split(split), mode, epoch
        self.rank, self.world_size = rank, world_size
        self.row_ids = np.flatnonzero(row_targets(self.split, mode))

    def __len__(self) -> int:
        """Rows of this rank"""
        return len(self.row_ids[self.rank :: self.world_size])

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = self.row_ids[epoch_order(self.split.manifest["seed"], self.epoch, len(self.row_ids))]
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        return (self.row(int(row)) for row in order[self.rank :: self.world_size][number::workers])

    def row(self, row: int) -> dict[str, Tensor]:
        """One row by its number in the split"""
        return {name: torch.from_numpy(array) for name, array in read_row(self.split, row, self.mode).items()}
