"""Rows of steps, and what becomes of a row."""

import math
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from
from shards_factory import Doc, write_build

from prep.arrays import Array
from prep.shard import open_shards
from prep.shard.batches import read_batch, read_documents
from prep.shard.steps import FILLER, make_plan, micro_batches, row_targets
from train.loader import make_batch, prefetch

counts = lists(integers(0, 9), min_size=1, max_size=40).filter(any)


@given(counts=counts, rows=integers(1, 12), hundredths=integers(10, 350), seed=integers(0, 9))
def test_every_epoch_trains_every_row_that_has_targets_once(
    counts: list[int], rows: int, hundredths: int, seed: int
) -> None:
    plan = make_plan(np.array(counts), rows, None, hundredths / 100, seed)
    with_targets = np.flatnonzero(counts)
    num_rows = -(-hundredths * len(with_targets) // 100)
    assert plan.num_steps == -(-num_rows // rows)
    order = np.concatenate([plan.rows_of_step(step) for step in range(plan.num_steps)])
    filled = order[order != FILLER]
    assert len(filled) == num_rows
    assert (order[len(filled) :] == FILLER).all()  # only the last step is filled up
    for epoch in range(math.ceil(hundredths / 100)):
        here = filled[epoch * len(with_targets) : (epoch + 1) * len(with_targets)]
        whole = np.random.default_rng([seed, epoch]).permutation(len(with_targets)) if epoch else slice(None)
        assert (here == with_targets[whole][: len(here)]).all()


@given(counts=counts, rows=integers(1, 12), steps=integers(1, 20))
def test_the_targets_of_a_step_are_those_of_its_rows_and_never_none(counts: list[int], rows: int, steps: int) -> None:
    plan = make_plan(np.array(counts), rows, steps, 1.0, 0)
    assert plan.num_steps == steps
    for step in range(steps):
        order = plan.rows_of_step(step)
        assert plan.targets_of_step(step) == sum(counts[row] for row in order if row != FILLER) > 0


@given(world=sampled_from([1, 2, 4]), device_batch=sampled_from([1, 2, 3]), num_micro=integers(1, 4))
def test_ranks_and_micro_batches_cut_up_a_step_and_lose_nothing(world: int, device_batch: int, num_micro: int) -> None:
    rows = np.arange(world * device_batch * num_micro) + 100
    parts = [part for rank in range(world) for part in micro_batches(rows, device_batch, rank, world)]
    assert {len(part) for part in parts} == {device_batch}
    assert sorted(np.concatenate(parts)) == list(rows)


def test_parts_of_an_epoch_are_whole_rows() -> None:
    plan = make_plan(np.ones(100, dtype=np.int64), 10, None, 1.1, 0)  # 1.1 * 100 is 110.00000000000001
    assert (plan.num_positions, plan.num_steps) == (110, 11)


def test_no_row_with_a_target_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of 3 rows has a target"):
        make_plan(np.zeros(3), 1, None, 1.0, 0)


ROWS = [
    [Doc([0, 5, 6, 7], [0, 0, 1, 1], source=2), Doc([0, 8, 9], [0, 0, 1], source=1)],  # 7 of 9 filled
    [Doc([0, 3, 3, 3, 3, 3, 3, 3, 3], [0] * 9, source=0)],  # full, trains nothing in sft
]


@pytest.fixture
def split(tmp_path: Path) -> object:
    return open_shards(write_build(tmp_path / "s", {"train": ROWS}, max_seq_len=8)).split("train")


def read(split: object, mode: str, isolated: bool = False, rows: tuple[int, ...] = (0,)) -> tuple[list, list]:
    batch = make_batch(split, np.array(rows), mode, isolated)
    targets, used = torch.full((len(rows) * 8,), -1), batch.labels >= 0
    targets[batch.positions[used].long()] = batch.labels[used].long()
    assert isolated or (read_batch(split, np.array(rows), mode)[1].ravel() == targets.numpy()).all()
    return batch.inputs.tolist(), targets.view(-1, 8).tolist()


def test_mid_targets_are_the_filled_positions(split: object) -> None:
    assert read(split, "mid") == ([[0, 5, 6, 7, 0, 8, 9, 0]], [[5, 6, 7, 0, 8, 9, -1, -1]])


def test_sft_targets_are_the_masked_positions(split: object) -> None:
    assert read(split, "sft") == ([[0, 5, 6, 7, 0, 8, 9, 0]], [[-1, 6, 7, -1, -1, 9, -1, -1]])


def test_isolated_documents_do_not_predict_the_next_ones_start(split: object) -> None:
    assert read(split, "mid", isolated=True)[1] == [[5, 6, 7, -1, 8, 9, -1, -1]]


def test_a_filler_row_is_padding_without_targets(split: object) -> None:
    inputs, targets = read(split, "mid", rows=(FILLER, 1))
    assert inputs == [[0] * 8, [0, 3, 3, 3, 3, 3, 3, 3]]
    assert targets == [[-1] * 8, [3] * 8]


@pytest.mark.parametrize(("mode", "isolated"), [("mid", False), ("mid", True), ("sft", False), ("sft", True)])
def test_counts_known_before_a_step_are_the_targets_that_are_read(build: Path, mode: str, isolated: bool) -> None:
    train = open_shards(build).split("train")
    batch = make_batch(train, np.arange(train.num_rows), mode, isolated)
    found = torch.bincount(batch.positions[batch.labels >= 0] // 16, minlength=train.num_rows)
    assert (found.numpy() == row_targets(train, mode, isolated)).all()


def test_documents_and_sources_of_positions_are_those_of_docs(split: object) -> None:
    lengths, sources, numbers = read_documents(split, np.array([0, FILLER, 1]))
    at = [np.repeat(each, lengths).reshape(3, 9).tolist() for each in (numbers, sources)]
    assert at[0] == [[0, 0, 0, 0, 1, 1, 1, 2, 2], [0] * 9, [0] * 9]
    assert at[1] == [[2, 2, 2, 2, 1, 1, 1, 0, 0], [0] * 9, [0] * 9]


def test_a_batch_names_position_label_and_source_of_each_target(split: object) -> None:
    batch = make_batch(split, np.array([0, 1]), "sft", isolated=False)
    used = batch.labels >= 0
    assert batch.positions[used].tolist() == [1, 2, 5]
    assert batch.labels[used].tolist() == [6, 7, 9]
    assert batch.sources[used].tolist() == [2, 2, 1]


def test_a_targets_source_is_that_of_the_document_it_is_in(split: object) -> None:
    batch = make_batch(split, np.array([0]), "mid", isolated=False)
    assert batch.sources[batch.labels >= 0].tolist() == [2, 2, 2, 1, 1, 1]  # bos of the second is its own


def test_a_batch_without_targets_has_a_chunk_of_none(split: object) -> None:
    batch = make_batch(split, np.array([1]), "sft", isolated=False)
    assert len(batch.labels) > 0
    assert (batch.labels == -1).all()


def test_prefetching_gives_the_same_batches_and_passes_errors_on(split: object) -> None:
    def rows() -> Iterator[Array]:
        yield np.array([1])
        yield np.array([0])
        yield np.array([7])  # there is none

    batches = prefetch(split, rows(), "mid", False, torch.device("cpu"))
    assert next(batches).inputs.tolist() == [[0, 3, 3, 3, 3, 3, 3, 3]]
    assert next(batches).inputs.tolist() == [[0, 5, 6, 7, 0, 8, 9, 0]]
    with pytest.raises(IndexError, match="row 7"):
        next(batches)


def test_sft_without_a_readable_mask_is_refused(build: Path, tmp_path: Path, error_of: object) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(build, broken)
    next(broken.glob("train-*.mask.npy")).unlink()
    assert "mask.npy not found" in error_of("--shards", broken, "--mode", "sft", "--out", tmp_path / "o")  # type: ignore[operator]


def test_memory_does_not_grow_over_a_pass_through_large_shards(tmp_path: Path) -> None:
    startup = runpy.run_path(str(ROOT / "bench" / "startup.py"))
    startup["write_sparse_build"](tmp_path, 20_000)  # 82 MB of tokens
    split = open_shards(tmp_path).split("train")
    order = np.random.default_rng(0).permutation(20_000).reshape(-1, 32)
    stream = prefetch(split, iter(order), "sft", False, torch.device("cpu"))
    for _ in range(10):
        next(stream)
    before = anonymous_mb()
    assert sum(1 for _ in stream) == 20_000 // 32 - 10
    assert anonymous_mb() - before < 16  # mapped files are the page cache's, and given back when memory is short


def anonymous_mb() -> float:
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.split("Anonymous:")[1].split()[0]) / 1024
