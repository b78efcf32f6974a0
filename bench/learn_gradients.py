"""
Denominators: how far the mean of micro-batch means is from the gradient of the step, where masks are uneven.

    micro-batch   targets   sum of losses        the step's own   (2.2 + 900) / (1 + 300) = 3.00
    1                   1             2.2        mean of means    (2.2 / 1 + 900 / 300) / 2 = 2.60
    2                 300             900        so one target of the first weighs as much as all 300 of the second

Distance: |mean of means - own| / |own| over all weights together, of steps of 8 rows in sft. Nothing is trained.
"""

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.learn_page import table
from bench.learn_recipe import DEPTH, MAX_SEQ_LEN, ROWS_PER_STEP, TOKENS_PER_STEP, base_documents
from prep.shard import Shards
from prep.shard.steps import plan_steps
from train.loader import make_batch
from train.loss import BatchLoss
from train.model import GPT
from train.sizes import config_of_depth

MICRO_BATCHES = (1, 2, 4)  # rows of each
NUM_STEPS = 16
NUM_ANSWERS = 400


def write_uneven(out: Path) -> Path:
    """A mixture of long questions with short answers and short questions with long ones, as multiple choice beside chat"""
    with open(out / "uneven.jsonl", "w", encoding="utf-8") as file:
        for i, document in enumerate(base_documents()[: NUM_ANSWERS * 2]):
            question, answer = (f"Read this. {document}", "Done.") if i % 2 else ("Write something.", document)
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages}) + "\n")
    path = out / "uneven.toml"
    path.write_text('name = "uneven"\n[[train]]\ntask = "chat"\npath = "uneven.jsonl"\n', encoding="utf-8")
    return path


def new_model(vocab_size: int) -> GPT:
    """Weights from scratch, those of lm_head drawn too: they begin as zeros, and nothing else would have a gradient"""
    model = GPT(config_of_depth(DEPTH, MAX_SEQ_LEN, vocab_size))
    model.init_weights(42)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    return model


def gradient(net: BatchLoss, batches: list[tuple[Tensor, ...]], divisors: list[float]) -> Tensor:
    """Of the sum over micro-batches of their summed losses, each over its divisor"""
    net.zero_grad(set_to_none=True)
    for batch, divisor in zip(batches, divisors, strict=True):
        loss_sum, _ = net(batch[0], batch[1], batch[2], batch[4])
        (loss_sum / divisor).backward()
    grads = [weight.grad.flatten() for weight in net.parameters() if weight.grad is not None]
    return torch.cat(grads)


def distances(net: BatchLoss, shards: Shards, num_rows: int, num_steps: int) -> Iterator[tuple[float, float]]:
    """Of each step (distance, least share of a micro-batch's targets in the mean share)"""
    split = shards.split("train")
    plan = plan_steps(split, "sft", TOKENS_PER_STEP, 1.0, 42, None, True)
    for step in range(min(num_steps, plan.num_steps - 1)):  # the last may be part filled
        rows = np.split(plan.rows_of_step(step), ROWS_PER_STEP // num_rows)
        batches = [make_batch(split, row_ids, "sft", True) for row_ids in rows]
        counts = [int((batch.labels >= 0).sum()) for batch in batches]
        own = gradient(net, batches, [plan.targets_of_step(step)] * len(batches))
        means = gradient(net, batches, [count * len(batches) for count in counts])
        yield float((means - own).norm() / own.norm()), min(counts) * len(counts) / sum(counts)


def measure(models: dict[str, GPT], builds: dict[str, Shards], num_steps: int = NUM_STEPS) -> str:
    """The table; a line for each build and size of micro-batch"""
    started, rows = time.monotonic(), []
    for build, shards in builds.items():
        for num_rows in MICRO_BATCHES:
            cells = []
            for model in models.values():
                found, shares = zip(*distances(BatchLoss(model, False), shards, num_rows, num_steps), strict=True)
                cells.append(f"{statistics.median(found):.1%} ({min(found):.1%} to {max(found):.1%})")
            rows.append([build, str(num_rows), f"{statistics.median(shares):.2f}", *cells])
    print(f"{time.monotonic() - started:.0f} s", flush=True)
    head = ["rows", "rows of a micro-batch", "fewest targets over the mean", *(f"distance, {name}" for name in models)]
    return table(head, rows)
