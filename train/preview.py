"""
`--dry-run`: everything of a run but its training, from the numbers the run itself will use.

    steps      13 of 131,072 tokens: 64 rows, the last one 18 and 46 of padding
    targets    a step: 40,212 to 129,870, mean 121,345
    lr         1.00 at 0 %, 1.00 at 50 %, 1.00 at 80 %, 0.38 at the last step
    first row  <|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>[4<|assistant_end|>]     [..] trains
"""

import base64

import numpy as np

from train.distributed import Ranks
from train.loader import read_batch
from train.optimizer import memory_bytes
from train.plan import FILLER
from train.schedule import lr_multiplier
from train.setup import Run

SHOWN_TOKENS = 200  # of each row


def preview(run: Run, ranks: Ranks) -> str:
    config, plan, model, T = run.config, run.plan, run.model.config, run.split.max_seq_len
    targets = [plan.targets_of_step(step) for step in range(plan.num_steps)]
    last = plan.num_steps - 1
    num_filled = int((plan.rows_of_step(last) != FILLER).sum())
    share = 1 - sum(targets) / (plan.num_steps * plan.rows_per_step * T)
    shape = (plan.num_steps, config.warmdown_ratio, config.lr_frac)
    lr = {part: lr_multiplier(min(int(part * plan.num_steps), last), *shape) for part in (0, 0.5, 0.8, 1)}
    weights = list(run.model.parameters())
    # for the backward each layer keeps about 34 numbers a position and channel
    kept = 34 * run.device_batch * T * model.n_embd * model.n_layer * run.model.transformer.wte.weight.itemsize
    num_micro = plan.rows_per_step // (ranks.world_size * run.device_batch)
    lines = [
        (
            "model",
            f"{sum(weight.numel() for weight in weights):,} weights, depth {model.n_layer}, width {model.n_embd}",
        ),
        (
            "steps",
            f"{plan.num_steps} of {plan.rows_per_step * T:,} tokens: {plan.rows_per_step} rows, the last {num_filled}",
        ),
        ("targets", f"{sum(targets):,}; a step {min(targets):,} to {max(targets):,}, mean {np.mean(targets):,.0f}"),
        ("padding", f"{share:.2%} of all positions train nothing"),
        ("lr", "times " + ", ".join(f"{value:.4g} at {part:.0%}" for part, value in lr.items())),
        ("ranks", f"{ranks.world_size} x {run.device_batch} rows x {num_micro} micro-batches"),
        ("memory", f"about {memory_bytes(run.model) / 2**30:.2f} GiB of state, {kept / 2**30:.2f} GiB of activations"),
        ("writes to", str(run.root)),
    ]
    return "\n".join([*(f"{name:<10} {value}" for name, value in lines), *first_rows(run)])


def first_rows(run: Run) -> list[str]:
    """The first micro-batch as text, the first tokens of each row, what trains in brackets"""
    text, special = (
        (run.shards.root / "tokenizer.tiktoken").read_bytes(),
        run.split.manifest["tokenizer"]["special_tokens"],
    )
    pieces = {
        int(rank): base64.b64decode(piece) for piece, rank in (line.split() for line in text.splitlines() if line)
    }
    pieces |= {number: name.encode() for name, number in special.items()}
    rows, out = run.plan.rows_of_step(0)[: run.device_batch], []
    for row, ids, targets in zip(rows, *read_batch(run.split, rows, run.config.mode), strict=True):
        trains = np.concatenate([[False], targets >= 0])[:SHOWN_TOKENS]
        marks = {1: b"[", -1: b"]", 0: b""}
        change = np.diff(trains.astype(int), prepend=0)
        shown = b"".join(marks[int(c)] + pieces.get(int(token), b"?") for token, c in zip(ids, change, strict=False))
        out.append(f"\nrow {row}, what trains in brackets:\n{shown.decode(errors='replace')}")
    return out
