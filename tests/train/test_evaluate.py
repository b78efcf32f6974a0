"""Bits per byte: the definition on a literal example, and what it must not depend on."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_model import random_model

from prep.shard import open_shards
from prep.shard.steps import row_targets
from train.distributed import Ranks
from train.evaluate import bits_per_byte, evaluate, sums_by_source
from train.loss import BatchLoss

ONE_RANK = Ranks(0, 1, torch.device("cpu"), None)


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


@pytest.mark.parametrize("mode", ["mid", "sft"])
def test_batch_size_and_order_do_not_matter(build: Path, mode: str) -> None:
    split, net = open_shards(build).split("val"), BatchLoss(random_model(), compiled=False)
    rows = np.flatnonzero(row_targets(split, mode, False))
    expected = evaluate(net, split, rows, mode, False, 1, ONE_RANK)
    for device_batch in (2, 5, 16):
        got = evaluate(net, split, rows[::-1], mode, False, device_batch, ONE_RANK)
        assert got[0] == pytest.approx(expected[0], rel=1e-6)
        assert got[1] == pytest.approx(expected[1], rel=1e-6)


def test_sft_evaluates_what_it_trains_only(build: Path) -> None:
    split, net = open_shards(build).split("val"), BatchLoss(random_model(), compiled=False)
    rows = np.arange(split.num_rows)
    mid, sft = (evaluate(net, split, rows, mode, False, 4, ONE_RANK)[0] for mode in ("mid", "sft"))
    assert mid != sft
