"""Bits per byte: the definition on a literal example, and what it must not depend on."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_model import random_model

from prep.shard import open_shards
from prep.shard.steps import row_targets
from train.distributed import Ranks
from train.evaluate import bits_per_byte, evaluate, sums_by_source
from train.loss import BatchLoss

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


def bpb(build: Path, mode: str, rows: Any, device_batch: int) -> dict[str, Any]:
    torch.manual_seed(0)
    config = SimpleNamespace(mode=mode, isolated=False, val_split="val")
    run: Any = SimpleNamespace(config=config, shards=open_shards(build), eval_rows=rows, device_batch=device_batch)
    return evaluate(run, BatchLoss(random_model(), compiled=False), ONE_RANK, 0)


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
