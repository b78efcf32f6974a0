"""Bits per byte: the definition on a literal example, and what it must not depend on."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from shards_factory import random_rows, write_build
from test_model import random_model

from prep.shard import open_shards
from prep.shard.steps import plan_steps, row_targets
from train.config import Config
from train.distributed import Ranks
from train.evaluate import bits_per_byte, evaluate, sums_by_source
from train.loss import BatchLoss
from train.setup import EVAL_TOKENS, plan_evaluation

ONE_RANK = Ranks(0, 1, torch.device("cpu"))


def test_a_literal_example() -> None:
    #                       "Hel" "lo" end  "Hi" masked
    nats = torch.tensor([2.1, 0.9, 0.4, 1.7, 9.9])
    labels = torch.tensor([1, 2, 0, 3, -1])
    token_bytes = torch.tensor([0, 3, 2, 2])
    sources = torch.tensor([0, 0, 0, 1, 1])
    sums = sums_by_source(nats, labels, sources, token_bytes, num_sources=3)
    whole, by_source = bits_per_byte(sums[0], sums[1], ["chat", "maths", "unseen"])
    assert whole == pytest.approx((2.1 + 0.9 + 1.7) / math.log(2) / 7)
    assert by_source == pytest.approx({"chat": 3.0 / math.log(2) / 5, "maths": 1.7 / math.log(2) / 2})


def test_sources_give_the_whole_and_those_of_one_name_are_taken_together() -> None:
    nats, num_bytes = torch.tensor([3.0, 5.0, 2.0]), torch.tensor([2.0, 4.0, 1.0])
    whole, by_source = bits_per_byte(nats, num_bytes, ["a", "b", "a"])
    assert by_source == pytest.approx({"a": 5 / 3 / math.log(2), "b": 5 / 4 / math.log(2)})
    assert whole == pytest.approx((by_source["a"] * 3 + by_source["b"] * 4) / 7)


def bpb(build: Path, mode: str, rows: Any, device_batch: int, isolated: bool = False) -> dict[str, Any]:
    torch.manual_seed(0)
    config = SimpleNamespace(mode=mode, isolated=isolated, val_split="val")
    files = SimpleNamespace(check=lambda ranks: None)
    run: Any = SimpleNamespace(
        config=config, shards=open_shards(build), eval_rows=rows, device_batch=device_batch, files=files
    )
    return evaluate(run, BatchLoss(random_model(), compiled=False), ONE_RANK, 1)


@pytest.mark.parametrize("mode", ["mid", "sft"])
def test_batch_size_and_order_do_not_matter(build: Path, mode: str) -> None:
    rows = np.flatnonzero(row_targets(open_shards(build).split("val"), mode, False))
    expected = bpb(build, mode, rows, 1)
    for device_batch in (2, 5, 16):
        got = bpb(build, mode, rows[::-1], device_batch)
        assert got["val_bpb"] == pytest.approx(expected["val_bpb"], rel=1e-6)
        assert got["val_bpb_by_source"] == pytest.approx(expected["val_bpb_by_source"], rel=1e-6)


def test_sft_evaluates_what_it_trains_only(build: Path) -> None:
    mid, sft = (bpb(build, mode, np.arange(9), 4)["val_bpb"] for mode in ("mid", "sft"))
    assert mid != sft


def test_isolated_documents_are_evaluated_as_if_alone(tmp_path: Path) -> None:
    rows = random_rows(3, 6, 16)
    packed = write_build(tmp_path / "packed", {"train": rows, "val": rows}, max_seq_len=16)
    single = [[doc] for row in rows for doc in row]
    alone = write_build(tmp_path / "alone", {"train": single, "val": single}, max_seq_len=16)
    found = bpb(packed, "mid", np.arange(6), 4, isolated=True)["val_bpb"]
    assert found == pytest.approx(bpb(alone, "mid", np.arange(len(single)), 4)["val_bpb"], rel=1e-6)
    assert found != pytest.approx(bpb(packed, "mid", np.arange(6), 4)["val_bpb"], rel=1e-6)


@pytest.mark.parametrize(("tokens", "wanted"), [(16, 1), (17, 2), (1, 1), (10_000, 9)])
def test_an_evaluation_reads_so_many_tokens_of_rows_with_targets(build: Path, tokens: int, wanted: int) -> None:
    shards = open_shards(build)
    for mode in ("mid", "sft"):
        config = Config(mode=mode, eval_tokens=tokens)
        plan = plan_steps(shards.split("train"), mode, 128, 1.0, 42)
        rows = plan_evaluation(config, shards, plan, ONE_RANK)
        with_targets = np.flatnonzero(row_targets(shards.split("val"), mode, False))
        assert rows.tolist() == with_targets[:wanted].tolist()


def test_by_default_an_evaluation_reads_what_nanochats_does() -> None:
    assert EVAL_TOKENS == 20 * 524_288
