"""
`--dry-run`: everything about a run but its training, from the numbers that the run itself will use.

    steps               13
    targets             1,577,485
    per step, mean      121,345
    ...
    row 0, targets in [[ ]]: <|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>[[4<|assistant_end|>]]
"""

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from prep.shard.steps import FILLER
from prep.text import size, visible
from train.distributed import Ranks
from train.launch import FACTS, describe_mode
from train.loader import make_batch
from train.setup import Run
from train.sizes import CHUNK_BYTES

SHOWN_TOKENS = 200  # of each row


def preview(run: Run, ranks: Ranks) -> str:
    config = run.config
    plan = run.plan
    model = run.model.config
    itemsize = run.model.transformer.wte.weight.itemsize
    facts = describe_mode(run.split, plan, model, config, itemsize)
    state = model.weights().state_bytes(itemsize)
    activations = model.activation_bytes(run.device_batch * run.split.max_seq_len, itemsize, run.compiled)
    memory = state + activations + CHUNK_BYTES[ranks.device.type]
    num_micro = plan.rows_per_step // (ranks.world_size * run.device_batch)
    lines = {
        "model": f"{sum(model.weights()):,} weights, depth {model.n_layer}, width {model.n_embd}",
        **{name: fact(facts) for name, fact in FACTS.items()},
        "lr multiplier": f"{config.lr_frac:g}, in the last step {facts['last_lr_multiplier']:.4g}",
        "ranks": f"{ranks.world_size} x {run.device_batch} rows x {num_micro} micro-batches",
        "memory per rank": f"about {size(memory)}, {size(state)} of it state",
        "writes to": str(run.root),
    }
    return "\n".join([*(f"{name:<20}{value}" for name, value in lines.items()), *first_rows(run)])


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
