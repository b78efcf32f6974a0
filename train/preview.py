"""
`--dry-run`: everything of a run but its training, from the numbers the run itself will use.

    steps      13 of 131,072 tokens: 64 rows, the last one 18 and 46 of padding
    targets    a step: 40,212 to 129,870, mean 121,345
    lr         1.00 at 0 %, 1.00 at 50 %, 1.00 at 80 %, 0.38 at the last step
    first row  <|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>[4<|assistant_end|>]     [..] trains
"""

import base64

import numpy as np

from prep.shard import Shards
from train.distributed import Ranks
from train.loader import FILLER, read_batch
from train.optimizer import memory_bytes
from train.schedule import lr_multiplier
from train.setup import Run

SHOWN_TOKENS = 200  # of each row


def preview(run: Run, ranks: Ranks) -> str:
    config, plan, model, T = run.config, run.plan, run.model.config, run.split.max_seq_len
    steps = range(plan.num_steps)
    targets = [plan.targets_of_step(step) for step in steps]
    num_rows = [int((plan.rows_of_step(step) != FILLER).sum()) for step in (0, plan.num_steps - 1)]
    trained, num_tokens = sum(targets), plan.num_steps * plan.rows_per_step * T
    at = {part: min(int(part * plan.num_steps), plan.num_steps - 1) for part in (0, 0.5, 0.8, 1)}
    rates = [
        f"{lr_multiplier(step, plan.num_steps, config.warmdown_ratio, config.lr_frac):.4g} at {part:.0%}"
        for part, step in at.items()
    ]
    weights = sum(weight.numel() for weight in run.model.parameters())
    # what a micro-batch keeps of each position and layer for the backward: about 34 numbers a channel
    activations = 34 * run.device_batch * T * model.n_embd * model.n_layer * run.model.transformer.wte.weight.itemsize
    state, gib = memory_bytes(run.model), 2**30
    lines = {
        "model": f"{weights:,} weights, depth {model.n_layer}, width {model.n_embd}, vocabulary {model.vocab_size:,}",
        "steps": f"{plan.num_steps} of {plan.rows_per_step * T:,} tokens: {num_rows[0]} rows, {num_rows[1]} in the last",
        "targets": f"a step: {min(targets):,} to {max(targets):,}, mean {trained / len(targets):,.0f}; {trained:,} in all",
        "waste": f"{1 - trained / num_tokens:.2%} of all positions train nothing",
        "lr": "times " + ", ".join(rates),
        "ranks": f"{ranks.world_size} x {run.device_batch} rows x "
        f"{plan.rows_per_step // (ranks.world_size * run.device_batch)} micro-batches",
        "memory": f"about {state / gib:.2f} GiB of weights, gradients and moments, {activations / gib:.2f} of activations",
        "writes to": str(run.root),
    }
    text = "\n".join(f"{name:<10} {value}" for name, value in lines.items())
    rows = plan.rows_of_step(0)[:3]
    shown = decode_rows(run.shards, run, rows)
    return text + "".join(f"\n\nrow {row} [trains]\n{row_text}" for row, row_text in zip(rows, shown, strict=True))


def decode_rows(shards: Shards, run: Run, rows: np.ndarray) -> list[str]:
    """The first tokens of some rows as text, what trains in brackets"""
    pieces = read_pieces(shards)
    inputs, targets = read_batch(run.split, rows, run.config.mode)
    out = []
    for row_inputs, row_targets in zip(inputs, targets, strict=True):
        text, open_ = pieces.get(int(row_inputs[0]), b"?"), False
        for token, target in zip(row_inputs[1:SHOWN_TOKENS], row_targets, strict=False):
            if (target >= 0) != open_:
                text, open_ = text + (b"[" if target >= 0 else b"]"), target >= 0
            text += pieces.get(int(token), b"?")
        out.append((text + (b"]" if open_ else b"")).decode(errors="replace"))
    return out


def read_pieces(shards: Shards) -> dict[int, bytes]:
    """{id: bytes} of the build's tokenizer"""
    lines = (shards.root / "tokenizer.tiktoken").read_bytes().split(b"\n")
    pieces = {int(rank): base64.b64decode(piece) for piece, _, rank in (line.partition(b" ") for line in lines) if rank}
    special = shards.manifest["tokenizer"]["special_tokens"]
    return pieces | {number: name.encode() for name, number in special.items()}
