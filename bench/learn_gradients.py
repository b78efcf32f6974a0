"""
Denominators: how far the mean of micro-batch means is from the gradient of the step, where masks are uneven.

    micro-batch   targets   sum of losses        the step's own   (2.2 + 900) / (1 + 300) = 3.00
    1                   1             2.2        mean of means    (2.2 / 1 + 900 / 300) / 2 = 2.60
    2                 300             900        so one target of the first weighs as much as all 300 of the second

Distance: |mean of means - own| / |own| over all weights together, of steps of 8 rows in sft. Nothing is trained.
"""

import json
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.learn_page import table
from bench.learn_recipe import DEPTH, MAX_SEQ_LEN, TOKENS_PER_STEP, base_documents
from prep.arrays import Array
from prep.shard import Shards, Split
from prep.shard.steps import plan_steps
from train.loader import make_batch
from train.loss import BatchLoss
from train.model import GPT
from train.sizes import config_of_depth

MICRO_BATCHES = (1, 2, 4)  # rows of each
NUM_STEPS = 12
NUM_ANSWERS = 400


def write_uneven(out: Path) -> Path:
    """A mixture of long questions with short answers and short questions with long ones, as multiple choice beside chat"""
    with open(out / "uneven.jsonl", "w", encoding="utf-8") as file:
        documents = base_documents()[: NUM_ANSWERS * 4]
        for i, document in enumerate(
            map(" ".join, zip(documents[::2], documents[1::2], strict=True))
        ):  # one fills a row
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


def gradients_of_rows(net: BatchLoss, split: Split, row_ids: Array) -> tuple[Tensor, Array]:
    """(G, W) gradient of the summed losses of each row, over all W weights, and (G,) targets of each"""
    grads, counts = [], []
    for row in row_ids:
        batch = make_batch(split, row[None], "sft", True)
        net.zero_grad(set_to_none=True)
        loss_sum, _ = net(batch.inputs, batch.positions, batch.labels, batch.docs)
        loss_sum.backward()
        grads.append(torch.cat([weight.grad.flatten() for weight in net.parameters() if weight.grad is not None]))
        counts.append(int((batch.labels >= 0).sum()))
    return torch.stack(grads), np.array(counts)


def distance(grads: Tensor, counts: Array, num_rows: int) -> float:
    """
    From the sum over all targets, divided by their number, to the mean of the means of micro-batches of `num_rows` rows

    >>> round(distance(torch.tensor([[2.2], [900.0]]), np.array([1, 300]), 1), 3)  # 2.60 for 3.00
    0.133
    """
    own = grads.sum(dim=0) / int(counts.sum())
    targets = torch.from_numpy(counts.reshape(-1, num_rows).sum(axis=1))
    means = grads.view(-1, num_rows, grads.size(1)).sum(dim=1) / targets[:, None]  # (micro-batches, W)
    return float((means.mean(dim=0) - own).norm() / own.norm())


def measure(models: dict[str, GPT], builds: dict[str, Shards], num_steps: int = NUM_STEPS) -> str:
    """The table: a line for each build and size of micro-batch, a column for each model"""
    rows = []
    for build, shards in builds.items():
        split = shards.split("train")
        plan = plan_steps(split, "sft", TOKENS_PER_STEP, 1.0, 42, None, True)
        steps = range(min(num_steps, plan.num_steps - 1))  # the last may be part filled
        by_model = {
            name: [gradients_of_rows(BatchLoss(model, False), split, plan.rows_of_step(step)) for step in steps]
            for name, model in models.items()
        }
        for num_rows in MICRO_BATCHES:
            counts = [c.reshape(-1, num_rows).sum(axis=1) for _, c in next(iter(by_model.values()))]
            cells = [build, str(num_rows), f"{statistics.median(c.min() / c.mean() for c in counts):.2f}"]
            for steps_of in by_model.values():
                found = [distance(grads, targets, num_rows) for grads, targets in steps_of]
                cells.append(f"{statistics.median(found):.1%} ({min(found):.1%} to {max(found):.1%})")
            rows.append(cells)
    head = ["rows", "rows of a micro-batch", "fewest targets over the mean", *(f"distance, {name}" for name in models)]
    return table(head, rows)
