"""
Bits per byte on the val split: a loss that does not depend on the vocabulary.

    target    "Hel"  "lo"  <|user_end|>  "Hi"      masked
    nats       2.1    0.9      0.4        1.7        -           bpb = (2.1 + 0.9 + 1.7) / ln 2 / (3 + 2 + 2) = 0.97
    bytes       3      2        0          2         -

Targets without bytes (special tokens) and masked ones count neither above nor below the line. Sums are kept by source
in float64 and added up over ranks, so batch size, ranks and order do not matter and the sources give the whole.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prep.shard.steps import FILLER, micro_batches
from train.distributed import Ranks
from train.loader import prefetch
from train.loss import BatchLoss
from train.setup import Run


def ratios(names: Sequence[str], over: Sequence[float], under: Sequence[float], unit: float = 1.0) -> dict[str, float]:
    """{name: sum over / sum under / unit} of what occurs; sources that share a name are taken together."""
    sums: dict[str, tuple[float, float]] = {}
    for name, a, b in zip(names, over, under, strict=True):
        a_before, b_before = sums.get(name, (0.0, 0.0))
        sums[name] = a_before + a, b_before + b
    return {name: a / b / unit for name, (a, b) in sums.items() if b}


def bits_per_byte(nats: Tensor, num_bytes: Tensor, names: Sequence[str]) -> tuple[float, dict[str, float]]:
    """nats, num_bytes (S,) by source -> bits per byte, whole and by name"""
    whole = float(nats.sum() / num_bytes.sum()) / math.log(2) if num_bytes.sum() else 0.0
    return whole, ratios(names, nats.tolist(), num_bytes.tolist(), math.log(2))


def sums_by_source(losses: Tensor, labels: Tensor, sources: Tensor, token_bytes: Tensor, num_sources: int) -> Tensor:
    """losses, labels, sources (K,) -> nats and bytes (2, S) float64 of the targets that have bytes"""
    num_bytes = torch.where(labels >= 0, token_bytes[labels.clamp(min=0)], 0)
    sums = torch.zeros(2, num_sources, dtype=torch.float64, device=losses.device)
    sums[0].index_add_(0, sources, torch.where(num_bytes > 0, losses, 0.0).double())
    sums[1].index_add_(0, sources, num_bytes.double())
    return sums


@torch.no_grad()
def evaluate(run: Run, net: BatchLoss, ranks: Ranks, step: int) -> dict[str, Any]:
    """Bits per byte of the run's rows of its val split, whole and by source, as the metrics name them; {} without rows"""
    if not len(run.eval_rows):
        return {}
    config, val = run.config, run.shards.split(run.config.val_split)
    names, num_ranks, device = val.source_names, ranks.world_size, ranks.device
    token_bytes = torch.from_numpy(run.shards.token_bytes.astype(np.int64)).to(device)
    padded = np.pad(run.eval_rows, (0, -len(run.eval_rows) % (num_ranks * run.device_batch)), constant_values=FILLER)
    mine = micro_batches(padded, run.device_batch, ranks.rank, num_ranks)
    sums = torch.zeros(2, len(names), dtype=torch.float64, device=device)
    for batch in prefetch(val, iter(mine), config.mode, config.isolated, device):
        _, losses = net(batch.inputs, batch.positions, batch.labels, batch.docs)
        sums += sums_by_source(losses, batch.labels, batch.sources, token_bytes, len(names))
    nats, num_bytes = ranks.sum(sums).cpu()
    bpb, by_source = bits_per_byte(nats, num_bytes, names)
    each = (f"{name} {value:.4f}" for name, value in by_source.items())
    ranks.say(" ".join([f"val bpb after {step} steps: {bpb:.4f} |", *each]))
    return {"val_bpb": bpb, "val_bpb_by_source": by_source}
