"""
`--dry-run`: everything of a run but its training, from the numbers the run itself will use.

    steps      13 of 131,072 tokens: 64 rows, the last 18
    targets    1,577,485; a step 40,212 to 129,870, mean 121,345
    row 0, what trains in brackets: <|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>[[4<|assistant_end|>]]
"""

import numpy as np

from prep.shard.steps import FILLER, step_sums
from train.config import ACTIVATIONS_PER_POSITION, CHUNK_BYTES
from train.distributed import Ranks
from train.loader import make_batch
from train.optimizer import memory_bytes
from train.schedule import lr_multiplier
from train.setup import Run

SHOWN_TOKENS = 200  # of each row


def preview(run: Run, ranks: Ranks) -> str:
    config, plan, model = run.config, run.plan, run.model.config
    T, G, N, B = run.split.max_seq_len, plan.rows_per_step, ranks.world_size, run.device_batch
    targets = step_sums(plan, plan.num_targets)  # (S,)
    last = plan.num_steps - 1
    num_filled = int((plan.rows_of_step(last) != FILLER).sum())
    shape = (plan.num_steps, config.warmdown_ratio, config.lr_frac)
    lr = {part: lr_multiplier(min(int(part * plan.num_steps), last), *shape) for part in (0, 0.5, 0.8, 1)}
    num_weights = sum(weight.numel() for weight in run.model.parameters())
    channels = B * T * model.n_embd * model.n_layer
    kept = (
        ACTIVATIONS_PER_POSITION * channels * run.model.transformer.wte.weight.itemsize + CHUNK_BYTES[ranks.device.type]
    )
    lines = [
        ("model", f"{num_weights:,} weights, depth {model.n_layer}, width {model.n_embd}"),
        ("steps", f"{plan.num_steps} of {G * T:,} tokens: {G} rows, the last {num_filled}"),
        ("targets", f"{targets.sum():,}; a step {targets.min():,} to {targets.max():,}, mean {targets.mean():,.0f}"),
        ("untrained", f"{1 - targets.sum() / (plan.num_steps * G * T):.2%} of all positions train nothing"),
        ("lr", "times " + ", ".join(f"{value:.4g} at {part:.0%}" for part, value in lr.items())),
        ("ranks", f"{N} x {B} rows x {G // (N * B)} micro-batches"),
        ("memory", f"about {memory_bytes(run.model) / 2**30:.2f} GiB of state, {kept / 2**30:.2f} GiB of activations"),
        ("writes to", str(run.root)),
    ]
    return "\n".join([*(f"{name:<10} {value}" for name, value in lines), *first_rows(run)])


def first_rows(run: Run) -> list[str]:
    """The first micro-batch as text, the first tokens of each row, what trains in brackets"""
    pieces, marks, out = run.shards.vocabulary(), {1: b"[[", -1: b"]]", 0: b""}, []
    rows = [row for row in run.plan.rows_of_step(0)[: run.device_batch].tolist() if row != FILLER]
    batch = make_batch(run.split, np.array(rows), run.config.mode, run.config.isolated)
    trains = np.zeros(batch.inputs.shape, dtype=np.int64)
    np.put(trains, batch.positions[batch.labels >= 0], 1)
    for row, ids, targets in zip(rows, batch.inputs, trains, strict=True):
        change = np.diff(np.concatenate([[0, 0], targets]))  # of each token: it trains, unlike the one before
        pairs = list(zip(ids.tolist(), change.tolist(), strict=False))[:SHOWN_TOKENS]
        text = b"".join(marks[c] + pieces.get(token, b"?") for token, c in pairs).decode(errors="replace")
        shown = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)  # drives no terminal
        out.append(f"\nrow {row}, what trains in brackets:\n{shown}")
    return out
