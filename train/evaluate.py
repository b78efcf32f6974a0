"""
Losses by source, and bits per byte on the val split: a loss that does not depend on the vocabulary.

    target    "Hel"  "lo"  <|user_end|>  "Hi"      masked
    nats       2.1    0.9      0.4        1.7        -           bpb = (2.1 + 0.9 + 1.7) / ln 2 / (3 + 2 + 2) = 0.97
    bytes       3      2        0          2         -

Targets without bytes (special tokens) and masked ones count neither as nats nor as bytes. Sums are kept by source in
float64 and added up over ranks: batch size, ranks and order do not matter, and the sources add up to the whole.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prep.arrays import Array
from prep.shard import Shards, Split
from prep.shard.steps import FILLER, micro_batches
from train.distributed import Ranks
from train.loader import prefetch
from train.loss import BatchLoss
from train.metrics import ratios
from train.model import GPT
from train.records import Record
from train.setup import Run


def bits_per_byte(nats: Tensor, num_bytes: Tensor, names: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """nats, num_bytes (S,) by source -> bits per byte, of all and by name; None where no target has bytes"""
    bpb = float(nats.sum() / num_bytes.sum()) / math.log(2) if num_bytes.sum() else None
    return bpb, ratios(names, nats.tolist(), num_bytes.tolist(), math.log(2))


class SourceSums:
    """`values` (2, S) float64: losses and weights of targets, added up by source."""

    def __init__(self, num_sources: int, device: torch.device) -> None:
        self.values = torch.zeros(2, num_sources, dtype=torch.float64, device=device)

    def add(self, sources: Tensor, losses: Tensor, weights: Tensor) -> None:
        """sources, losses, weights (K,)"""
        self.values[0].index_add_(0, sources, losses.double())
        self.values[1].index_add_(0, sources, weights.double())


def sums_by_source(losses: Tensor, labels: Tensor, sources: Tensor, token_bytes: Tensor, num_sources: int) -> Tensor:
    """losses, labels, sources (K,) -> nats and bytes (2, S) float64 of the targets that have bytes"""
    num_bytes = torch.where(labels >= 0, token_bytes[labels.clamp(min=0)], 0)
    sums = SourceSums(num_sources, losses.device)
    sums.add(sources, torch.where(num_bytes > 0, losses, 0.0), num_bytes)
    return sums.values


@torch.no_grad()
def sums_of_rows(
    net: BatchLoss, split: Split, rows: Iterable[Array], token_bytes: Tensor, mode: str, isolated: bool
) -> Tensor:
    """nats and bytes (2, S) float64 by source, of micro-batches of row numbers, on the device of `token_bytes` (V,)"""
    sums = torch.zeros(2, len(split.source_names), dtype=torch.float64, device=token_bytes.device)
    for batch in prefetch(split, iter(rows), mode, isolated, token_bytes.device):
        _, losses = net(batch.inputs, batch.positions, batch.labels, batch.docs)
        sums += sums_by_source(losses, batch.labels, batch.sources, token_bytes, sums.size(1))
    return sums


@torch.no_grad()
def evaluate(run: Run, net: BatchLoss, ranks: Ranks, steps_done: int) -> Record:
    """
    Bits per byte of the run's rows of its val split, of all and by source, named as in a record; {} without rows or bytes.
    Before the first step the names end in "_before".
    """
    if not len(run.eval_rows):
        return {}
    run.files.check(ranks)
    config = run.config
    val = run.shards.split(config.val_split)
    token_bytes = torch.from_numpy(run.shards.token_bytes.astype(np.int64)).to(ranks.device)
    num_fillers = -len(run.eval_rows) % (ranks.world_size * run.device_batch)
    padded = np.pad(run.eval_rows, (0, num_fillers), constant_values=FILLER)
    own_rows = micro_batches(padded, run.device_batch, ranks.rank, ranks.world_size)
    sums = sums_of_rows(net, val, own_rows, token_bytes, config.mode, config.isolated)
    nats, num_bytes = ranks.sum(sums).cpu()
    bpb, by_source = bits_per_byte(nats, num_bytes, val.source_names)
    if bpb is None:
        ranks.say(f"val bpb after {steps_done} steps: none, no target of {val.name} that was read has bytes")
        return {}
    each = " ".join(f"{name} {value:.4f}" for name, value in by_source.items())
    ranks.say(f"val bpb after {steps_done} steps: {bpb:.4f} | {each}")
    suffix = "" if steps_done else "_before"
    return {f"val_bpb{suffix}": bpb, f"val_bpb_by_source{suffix}": by_source}


def evaluate_shards(model: GPT, shards: Shards, num_tokens: int, batch_size: int, ranks: Ranks) -> dict[str, Any]:
    """
    Bits per byte of the val split of a build, of all and by source, over its first rows up to `num_tokens`: every token is a
    target, as in mid.
    """
    val = shards.split("val")
    num_rows = min(val.num_rows, max(1, num_tokens // val.max_seq_len))
    token_bytes = torch.from_numpy(shards.token_bytes.astype(np.int64)).to(ranks.device)
    batches = np.array_split(np.arange(num_rows), -(-num_rows // batch_size))
    own_rows = batches[ranks.rank :: ranks.world_size]
    nats, num_bytes = ranks.sum(sums_of_rows(BatchLoss(model, False), val, own_rows, token_bytes, "mid", False)).cpu()
    bits, by_source = bits_per_byte(nats, num_bytes, val.source_names)
    return {"all": bits, "by_source": by_source, "rows": num_rows}
