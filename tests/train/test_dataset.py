"""Rows for other trainers: labels at the token itself, positions that restart, every row once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from shards_factory import Doc, write_build
from torch.utils.data import DataLoader

from prep.shard.batches import PackedDataset

ROWS = [
    [([0, 5, 6, 7], [0, 0, 1, 1]), ([0, 8], [0, 1])],
    [([0, 9, 9], [0, 0, 0])],
    [([0, 4, 4, 4, 4, 4, 4, 4, 4], [0, 1, 1, 0, 0, 0, 0, 0, 1])],
]


def build(folder: Path) -> Path:
    docs = [[Doc(tokens, mask) for tokens, mask in row] for row in ROWS]
    return write_build(folder, {"train": docs, "val": docs[:1]}, max_seq_len=8)


def test_labels_stand_at_the_token_and_padding_has_none(tmp_path: Path) -> None:
    row = PackedDataset(build(tmp_path / "s"), mode="sft")[0]
    assert row["input_ids"].tolist() == [0, 5, 6, 7, 0, 8, 0, 0, 0]
    assert row["labels"].tolist() == [-100, -100, 6, 7, -100, 8, -100, -100, -100]
    assert row["position_ids"].tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert PackedDataset(tmp_path / "s", mode="mid")[0]["labels"].tolist() == [0, 5, 6, 7, 0, 8, -100, -100, -100]


def test_rows_without_a_target_are_left_out(tmp_path: Path) -> None:
    rows = PackedDataset(build(tmp_path / "s"), mode="sft")
    assert len(rows) == 2
    assert [row["input_ids"][1] for row in rows] == [5, 4]  # it ends by itself
    assert rows[-1]["input_ids"][1] == 4
    assert len(PackedDataset(tmp_path / "s", mode="mid")) == 3
    with pytest.raises(IndexError, match="row 2 requested, 2 have a target"):
        rows[2]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores, on a machine with one
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_sees_every_row_once_as_tensors(tmp_path: Path, num_workers: int) -> None:
    rows = PackedDataset(build(tmp_path / "s"), mode="mid")
    loader = DataLoader(rows, batch_size=1, shuffle=True, num_workers=num_workers)  # type: ignore[arg-type, var-annotated]
    seen = [batch["input_ids"] for batch in loader]
    assert all(ids.dtype == torch.int64 and ids.shape == (1, 9) for ids in seen)
    assert sorted(int(ids[0, 1]) for ids in seen) == [4, 5, 9]


@pytest.mark.parametrize("mode", ["mid", "sft"])
@pytest.mark.parametrize(
    ("doc", "problem"),
    [
        (Doc([0, 60, 5], [0, 1, 1]), "token 60 found, the vocabulary has 60 ids in train"),
        (Doc([0, 6, 5], [0, 1, 1], source=3), "documents found that are longer than their row, or of no source"),
    ],
)
def test_a_build_that_is_damaged_is_named_and_not_trained_on(
    tmp_path: Path, mode: str, doc: Doc, problem: str, error_of: Callable[..., str]
) -> None:
    root = write_build(tmp_path / "s", {"train": [[doc]]}, max_seq_len=8)
    flags = ["--shards", root, "--out", tmp_path, "--depth", 1, "--device", "cpu", "--mode", mode]
    for more in ([], ["--dry-run"]):
        error = error_of(*flags, *more)
        assert error.startswith(f"error: {root} is damaged: {problem}")
        assert f"`midprep verify {root}` names the file" in error
