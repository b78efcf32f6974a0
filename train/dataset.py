"""
Rows as a torch IterableDataset, for training loops of other people's.

    row of T + 1 = 9      <|bos|> <|user_start|> hi <|user_end|> <|assistant_start|> yo <|assistant_end|> pad pad
    input_ids                256       257      104     258             259        121       260       256  256
    labels, sft             -100      -100     -100    -100            -100        121       260      -100 -100
    position_ids              0         1        2       3               4          5         6         0    1

Labels stand at the token itself, as Hugging Face's models want them (they shift inside); a loop of one's own takes
`input_ids[:-1]` and `labels[1:]`. Position ids restart with each document, which is how packed documents are told apart.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from prep.shard import open_shards
from prep.steps import epoch_order, row_targets

IGNORE = -100


class Rows(IterableDataset[dict[str, Tensor]]):
    """
    The rows of a split that train something, an epoch at a time: each a dict of (T + 1,) int64 `input_ids`, `labels` and
    `position_ids`. Ranks and DataLoader workers take their part by position; `epoch` 0 is the stored order.
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
        for row in order[self.rank :: self.world_size][number::workers]:
            yield self.row(int(row))

    def row(self, row: int) -> dict[str, Tensor]:
        """One row by its number in the split"""
        tokens = self.split.read_tokens(np.array([row]))[0].astype(np.int64)  # (T + 1,)
        trains = np.arange(len(tokens)) < int(self.split.rows["num_tokens"][row])
        if self.mode == "sft":
            trains &= self.split.read_mask(np.array([row]))[0].astype(bool)
        lengths = self.split.docs["length"][slice(*self.split.doc_range(row))].astype(np.int64)
        lengths = np.append(lengths, len(tokens) - lengths.sum())  # padding is one document more
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        return {
            "input_ids": torch.from_numpy(tokens),
            "labels": torch.from_numpy(np.where(trains, tokens, IGNORE)),
            "position_ids": torch.from_numpy(np.arange(len(tokens)) - starts),
        }
