"""
`--dry-run`: everything about a run but its training, from the numbers that the run itself will use.

    steps      13 of 131,072 tokens: 64 rows, the last 18
    targets    1,577,485; per step 40,212 to 129,870, mean 121,345
    row 0, targets in [[ ]]: <|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>[[4<|assistant_end|>]]
"""

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from prep.shard.steps import FILLER, step_sums
from prep.text import visible
from train.distributed import Ranks
from train.loader import make_batch
from train.schedule import lr_multiplier
from train.setup import Run
from train.sizes import CHUNK_BYTES

SHOWN_TOKENS = 200  # of each row


def preview(run: Run, ranks: Ranks) -> str:
    config = run.config
    plan = run.plan
    model = run.model.config
    T = run.split.max_seq_len
    G = plan.rows_per_step
    last = plan.num_steps - 1
    targets = step_sums(plan, plan.num_targets)  # (S,)
    num_filled = int((plan.rows_of_step(last) != FILLER).sum())
    rates = []
    for part in (0, 0.5, 0.8, 1):
        step = min(int(part * plan.num_steps), last)
        rate = lr_multiplier(step, plan.num_steps, config.warmdown_ratio, config.lr_frac)
        rates.append(f"{rate:.4g} at {part:.0%}")
    num_micro = G // (ranks.world_size * run.device_batch)
    itemsize = run.model.transformer.wte.weight.itemsize
    state = model.state_bytes(itemsize) / 2**30
    activations = model.activation_bytes(run.device_batch * T, itemsize) + CHUNK_BYTES[ranks.device.type]
    facts = {
        "model": f"{model.num_weights:,} weights, depth {model.n_layer}, width {model.n_embd}",
        "steps": f"{plan.num_steps} of {G * T:,} tokens: {G} rows, the last {num_filled}",
        "targets": f"{targets.sum():,}; per step {targets.min():,} to {targets.max():,}, mean {targets.mean():,.0f}",
        "no target": f"{1 - targets.sum() / (plan.num_steps * G * T):.2%} of all positions",
        "lr": f"times {', '.join(rates)}",
        "ranks": f"{ranks.world_size} x {run.device_batch} rows x {num_micro} micro-batches",
        "memory": f"about {state:.2f} GiB of state, {activations / 2**30:.2f} GiB of activations",
        "writes to": str(run.root),
    }
    return "\n".join([*(f"{name:<10} {value}" for name, value in facts.items()), *first_rows(run)])


def first_rows(run: Run) -> Iterator[str]:
    """The first micro-batch as text: the first tokens of each row, targets in [[ ]]; [[ and ]] of the data get backslashes"""
    vocabulary = run.shards.vocabulary()
    rows = [row for row in run.plan.rows_of_step(0)[: run.device_batch].tolist() if row != FILLER]
    batch = make_batch(run.split, np.array(rows), run.config.mode, run.config.isolated)
    is_target = np.zeros((len(rows), run.split.max_seq_len + 1), dtype=bool)
    row, position = np.divmod(batch.positions[batch.labels >= 0].numpy(), run.split.max_seq_len)
    is_target[row, position + 1] = True
    for row, tokens, marks in zip(rows, batch.inputs.tolist(), is_target.tolist(), strict=True):
        text = ""
        shown = list(zip(tokens, marks, strict=False))[:SHOWN_TOKENS]
        for marked, pairs in groupby(shown, key=lambda pair: pair[1]):
            part = b"".join(vocabulary.get(token, b"?") for token, _ in pairs).decode(errors="replace")
            part = visible(part).replace("[[", r"\[\[").replace("]]", r"\]\]")
            text += f"[[{part}]]" if marked else part
        yield f"\nrow {row}, targets in [[ ]]:\n{text}"
