"""Rows as a torch data set: labels at the token itself, positions that restart, every row once."""

from pathlib import Path

import torch
from shards_factory import Doc, write_build
from torch.utils.data import DataLoader

from train.dataset import Rows

ROWS = [
    [([0, 5, 6, 7], [0, 0, 1, 1]), ([0, 8], [0, 1])],
    [([0, 9, 9], [0, 0, 0])],
    [([0, 4, 4, 4, 4, 4, 4, 4, 4], [0, 1, 1, 0, 0, 0, 0, 0, 1])],
]


def build(folder: Path) -> Path:
    docs = [[Doc(tokens, mask) for tokens, mask in row] for row in ROWS]
    return write_build(folder, {"train": docs, "val": docs[:1]}, max_seq_len=8)


def test_labels_stand_at_the_token_and_padding_has_none(tmp_path: Path) -> None:
    row = Rows(build(tmp_path / "s"), mode="sft").row(0)
    assert row["input_ids"].tolist() == [0, 5, 6, 7, 0, 8, 0, 0, 0]
    assert row["labels"].tolist() == [-100, -100, 6, 7, -100, 8, -100, -100, -100]
    assert row["position_ids"].tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert Rows(tmp_path / "s", mode="mid").row(0)["labels"].tolist() == [0, 5, 6, 7, 0, 8, -100, -100, -100]


def test_rows_without_a_target_are_left_out_and_the_others_come_once(tmp_path: Path) -> None:
    root = build(tmp_path / "s")
    assert len(Rows(root, mode="sft")) == 2
    assert len(list(Rows(root, mode="mid"))) == 3
    for epoch in (0, 1):
        firsts = [
            int(row["input_ids"][1])
            for rank in range(2)
            for row in Rows(root, mode="mid", epoch=epoch, rank=rank, world_size=2)
        ]
        assert sorted(firsts) == [4, 5, 9]


def test_a_loader_with_workers_sees_every_row_once(tmp_path: Path) -> None:
    loader = DataLoader(Rows(build(tmp_path / "s"), mode="mid"), batch_size=1, num_workers=2)
    seen = torch.cat([batch["input_ids"][:, 1] for batch in loader])
    assert sorted(seen.tolist()) == [4, 5, 9]
