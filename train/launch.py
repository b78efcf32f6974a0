"""
The launch table: all that can be known of a run before a GPU is booked.

    shards/mid train: 12,149 rows x 2,048, 1 epoch, 262,144 tokens per step (128 rows)
                     mid          sft
    steps             95 steps     95 steps
    per step, mean    261,019 targets ...
    ranks  per micro-batch  micro-batches  memory per rank  hours      and the torchrun line of each

Steps, rows, targets, learning rates and sizes are the trainer's own arithmetic (prep.shard.steps, train.schedule,
train.sizes). Memory is an estimate: what compiled bfloat16 training keeps, as the trainer does on a GPU.
"""

import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prep.shard import Split, open_shards
from prep.shard.steps import StepPlan, device_batch, plan_steps, step_sums, sum_of_run
from prep.text import duration, short, size
from train.config import Config
from train.schedule import lr_multiplier
from train.sizes import CHUNK_BYTES, DEPTHS, ModelConfig, config_of_depth

DEFAULTS = Config()  # the trainer's
RANKS_PER_NODE = 8
MOST_STEPS, MOST_ROWS, MOST_EPOCHS = 1_000_000, 50_000_000, 10_000  # whose targets are counted step by step: a second
BFLOAT16 = 2  # bytes

Facts = dict[str, Any]  # a part of `midprep plan --json`


@dataclass(frozen=True)
class Setting:
    """What is the same for any number of ranks; `device_batch_size` None: as the trainer chooses."""

    root: Path
    split: Split
    model: ModelConfig
    base: Path | None  # directory of the checkpoint that the model is from
    rows_per_step: int
    epochs: float
    device_batch_size: int | None
    tokens_per_second: float | None  # of one rank


def read_plan(
    root: Path,
    split_name: str,
    total_batch_size: int | None,
    device_batch_size: int | None,
    world_sizes: list[int],
    epochs: float,
    depth: int | None,
    tokens_per_second: float | None,
    base: str | None = None,
) -> Facts:
    """The launch table as plain values. ValueError if a step cannot be divided among any of the numbers of ranks."""
    split = open_shards(root).split(split_name)
    if depth is not None and depth < 1:
        raise ValueError(f"--depth {depth} found, wanted 1 or more.")
    if tokens_per_second is not None and tokens_per_second <= 0:
        raise ValueError(f"--tokens-per-second {tokens_per_second} found, wanted more than 0.")
    if not world_sizes or min(world_sizes) < 1:
        raise ValueError("--world-size has no number of ranks, or one below 1: give one or several, as 1,2,4,8.")
    base_root, model = None, config_of_depth(depth or DEPTHS["cuda"], split.max_seq_len, split.manifest["vocab_size"])
    if base is not None:
        from train.base import model_to_plan  # torch, which takes seconds

        base_root, model = model_to_plan(base, depth, Path(f"runs/{root.resolve().name}"), split.manifest)
    mid = plan_steps(split, "mid", total_batch_size, epochs, DEFAULTS.seed)
    tokens_per_step = mid.rows_per_step * split.max_seq_len
    plans = {"mid": mid}
    if split.rows["num_trainable"].any():
        plans["sft"] = plan_steps(split, "sft", tokens_per_step, epochs, DEFAULTS.seed)
    modes = {mode: describe_mode(split, plan, model, Config(mode=mode), BFLOAT16) for mode, plan in plans.items()}
    setting = Setting(root, split, model, base_root, mid.rows_per_step, epochs, device_batch_size, tokens_per_second)
    launches = [launch(setting, world_size, modes) for world_size in world_sizes]
    if all("error" in entry for entry in launches):
        raise ValueError(launches[0]["error"])
    return {
        "root": str(root),
        "split": split_name,
        "rows": split.num_rows,
        "max_seq_len": split.max_seq_len,
        "epochs": epochs,
        "total_batch_size": tokens_per_step,
        "rows_per_step": mid.rows_per_step,
        "model": {
            "depth": model.n_layer,
            "width": model.n_embd,
            "vocab_size": model.vocab_size,
            "weights": sum(model.weights()),
            "flops_per_token": model.flops_per_token(split.max_seq_len),
            "checkpoint_bytes": model.weights().checkpoint_bytes(BFLOAT16),
        },
        "modes": modes,
        "tokens_per_second": tokens_per_second,
        "launches": launches,
    }


def describe_mode(split: Split, plan: StepPlan, model: ModelConfig, config: Config, itemsize: int) -> Facts:
    """What a run of one mode does on any number of ranks; `itemsize` of activations, in bytes."""
    num_steps = plan.num_steps
    most_rows = min(MOST_ROWS, MOST_EPOCHS * len(plan.row_ids))
    looked_at = max(1, min(num_steps, MOST_STEPS, most_rows // plan.rows_per_step))
    first = replace(plan, num_steps=looked_at, num_positions=min(plan.num_positions, looked_at * plan.rows_per_step))
    targets = step_sums(first, plan.num_targets)  # (S,), of a very long run those of its beginning
    half = float(targets.mean() / 2)
    few = np.flatnonzero(targets < half)
    tokens = num_steps * plan.rows_per_step * split.max_seq_len
    filled = sum_of_run(plan, split.rows["num_targets"][plan.row_ids].astype(np.int64))
    num_targets = sum_of_run(plan, plan.num_targets.astype(np.int64))
    checkpoints = math.ceil(num_steps / config.save_every)
    return {
        "rows": len(plan.row_ids),
        "rows_skipped": split.num_rows - len(plan.row_ids),
        "steps": num_steps,
        "tokens": tokens,
        "targets": num_targets,
        "targets_per_step": {
            "min": int(targets.min()), "mean": round(float(targets.mean()), 1), "max": int(targets.max()),
        },
        "steps_with_few_targets": {"under": round(half, 1), "number": len(few), "first": few[:5].tolist()},
        "filler_rows": num_steps * plan.rows_per_step - plan.num_positions,
        "untrained_share": round(1 - num_targets / tokens, 6),
        "padding_share": round(1 - filled / tokens, 6),
        "warmdown_start": warmdown_start(num_steps, config.warmdown_ratio),
        "last_lr_multiplier": lr_multiplier(num_steps - 1, num_steps, config.warmdown_ratio, config.lr_frac),
        "evaluations": 1 + math.ceil(num_steps / config.eval_every) if config.eval_every else 0,
        "checkpoints": checkpoints,
        "checkpoint_bytes": checkpoints * model.weights().checkpoint_bytes(itemsize),
        "flops": float(model.flops_per_token(split.max_seq_len) * tokens),
    }  # fmt: skip


def warmdown_start(num_steps: int, warmdown_ratio: float = DEFAULTS.warmdown_ratio) -> int:
    """
    The first step whose learning rate is below its full value; the number of steps if there is none.

    >>> warmdown_start(20), warmdown_start(95), warmdown_start(1)
    (17, 77, 1)
    """
    start = max(0, int(num_steps * (1 - warmdown_ratio)) - 1)
    while start < num_steps and lr_multiplier(start, num_steps, warmdown_ratio, 1.0) >= 1.0:
        start += 1
    return start


def launch(setting: Setting, world_size: int, modes: Facts) -> Facts:
    """A line of the table, for a number of ranks; {"world_size", "error"} if a step cannot be divided among them."""
    max_seq_len = setting.split.max_seq_len
    try:
        batch = device_batch(setting.rows_per_step, world_size, max_seq_len, setting.device_batch_size)
    except ValueError as error:
        return {"world_size": world_size, "error": str(error)}
    hours = None
    if setting.tokens_per_second:
        tokens_per_hour = setting.tokens_per_second * world_size * 3600
        hours = {mode: round(facts["tokens"] / tokens_per_hour, 4) for mode, facts in modes.items()}
    return {
        "world_size": world_size,
        "device_batch_size": batch,
        "accumulation": setting.rows_per_step // (world_size * batch),
        "tokens_per_micro_batch": batch * max_seq_len,
        "memory_bytes": memory_bytes(setting.model, batch, max_seq_len),
        "hours": hours,
        "commands": {mode: command(setting, world_size, batch, mode) for mode in modes},
    }


def memory_bytes(model: ModelConfig, batch: int, row_len: int) -> int:
    """Of one rank with `batch` rows per micro-batch, in bfloat16 and compiled: state, activations, the chunked loss."""
    num_positions = batch * row_len
    weights = model.weights()
    copies = BFLOAT16 * weights.matrices  # of the masters, in the dtype of activations
    loss = (BFLOAT16 + 4) * weights.head + CHUNK_BYTES["cuda"] + 4 * num_positions * model.n_embd
    return (
        weights.state_bytes(BFLOAT16) + model.activation_bytes(num_positions, BFLOAT16, compiled=True) + copies + loss
    )


def command(setting: Setting, world_size: int, batch: int, mode: str) -> str:
    """The torchrun line. An SFT run starts from the mid run before it, or from a base that no mid comes after."""
    root, base = setting.root, setting.base
    split = setting.split
    words = ["torchrun"]
    per_node = world_size
    if world_size > RANKS_PER_NODE and world_size % RANKS_PER_NODE == 0:
        per_node = RANKS_PER_NODE
        num_nodes = str(world_size // RANKS_PER_NODE)
        words += ["--nnodes", num_nodes, "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500"]
    words += ["--nproc-per-node", str(per_node)]
    words += ["train/mid.py"] if Path("train/mid.py").is_file() else ["-m", "train.mid"]  # in a checkout, and anywhere
    words += ["--shards", str(root)]
    words += ["--split", split.name] if split.name != "train" else []
    if mode == "sft":
        is_ready = base is not None and (setting.model.is_2026 or base.parent.name == "mid_checkpoints")
        words += ["--mode", "sft", "--base", str(base) if is_ready else f"runs/{root.resolve().name}"]
    else:
        words += ["--depth", str(setting.model.n_layer)] if base is None else ["--base", str(base)]
    words += ["--num-epochs", f"{setting.epochs:g}"] if setting.epochs != 1 else []
    words += ["--total-batch-size", str(setting.rows_per_step * split.max_seq_len), "--device-batch-size", str(batch)]
    return shlex.join(words)


# ---- as text ----

FACTS: dict[str, Callable[[Facts], str]] = {
    "rows": lambda m: f"{m['rows']:,} rows" + (f" ({m['rows_skipped']:,} skipped)" if m["rows_skipped"] else ""),
    "steps": lambda m: f"{m['steps']:,} steps",
    "tokens": lambda m: f"{short(m['tokens'])} tokens",
    "targets": lambda m: f"{short(m['targets'])} targets",
    "per step, mean": lambda m: f"{m['targets_per_step']['mean']:,.0f} targets",
    "per step, least": lambda m: f"{m['targets_per_step']['min']:,} targets",
    "per step, most": lambda m: f"{m['targets_per_step']['max']:,} targets",
    "under half the mean": lambda m: steps_under_half(m["steps_with_few_targets"]),
    "without a target": lambda m: f"{m['untrained_share']:.2%} of tokens",
    "padding": lambda m: f"{m['padding_share']:.2%} of tokens",
    "filler rows": lambda m: f"{m['filler_rows']:,} rows",
    "warm-down": lambda m: f"from step {m['warmdown_start']:,}",
    "evaluations": lambda m: f"{m['evaluations']:,} times",
    "checkpoints": lambda m: f"{m['checkpoints']:,} times, {size(m['checkpoint_bytes'])}",
    "compute": lambda m: f"{m['flops']:.2e} FLOPs",
}


def steps_under_half(few: Facts) -> str:
    """Steps with less than half of the mean of targets: how many, and the first of them"""
    steps = ", ".join(map(str, few["first"])) + (", ..." if few["number"] > len(few["first"]) else "")
    return f"{few['number']:,} steps" + (f" (step {steps})" if few["number"] else "")


def plan_lines(plan: Facts) -> Iterator[str]:
    model = plan["model"]
    modes = plan["modes"]
    epochs = plan["epochs"]
    yield (
        f"{plan['root']} {plan['split']}: {plan['rows']:,} rows x {plan['max_seq_len']:,}, {epochs:g} "
        f"epoch{'s' * (epochs != 1)}, {plan['total_batch_size']:,} tokens per step ({plan['rows_per_step']:,} rows)"
    )
    yield (
        f"depth {model['depth']}: {short(model['weights'])} weights, {model['flops_per_token'] / 1e9:.2f} GFLOPs per token, "
        f"{size(model['checkpoint_bytes'])} per checkpoint"
    )
    yield ""
    yield f"{'':<20}" + "".join(f"{mode:>28}" for mode in modes)
    for name, fact in FACTS.items():
        yield f"{name:<20}" + "".join(f"{fact(facts):>28}" for facts in modes.values())
    if "sft" not in modes:
        yield "no row has a target in sft: mid only"
    yield ""
    hours = "".join(f"{f'{mode} takes':>12}" for mode in modes) if plan["tokens_per_second"] else ""
    yield f"{'ranks':>9} {'per micro-batch':>16} {'micro-batches':>14} {'memory per rank':>16}{hours}"
    for entry in plan["launches"]:
        ranks = f"{entry['world_size']:,} rank{'s' * (entry['world_size'] > 1)}"
        if "error" in entry:
            yield f"{ranks:>9}  {entry['error']}"
            continue
        hours = "".join(f"{duration(value):>12}" for value in (entry["hours"] or {}).values())
        rows = f"{entry['device_batch_size']:,} row{'s' * (entry['device_batch_size'] > 1)}"
        memory = f"~{size(entry['memory_bytes'])}"
        yield f"{ranks:>9} {rows:>16} {entry['accumulation']:>5,} per step {memory:>16}{hours}"
    yield "memory: an estimate for bfloat16 with torch.compile, not yet measured on a GPU; --no-compile needs more"
    if plan["tokens_per_second"]:
        yield f"hours: at {plan['tokens_per_second']:,.0f} tokens per second of one rank, if ranks scale linearly"
    for entry in plan["launches"]:
        for mode, line in entry.get("commands", {}).items():
            yield f"\n{entry['world_size']} {'rank' if entry['world_size'] == 1 else 'ranks'}, {mode}\n  {line}"
