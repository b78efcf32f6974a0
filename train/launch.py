"""
The launch table: all that can be known of a run before a GPU is booked.

    shards/mid train: 12,149 rows x 2,048, 1 epoch, 262,144 tokens a step (128 rows)
                     mid          sft
    steps             95           95
    targets a step   min, mean, max
    ...
    ranks  rows  accumulation  memory a rank  hours      and the torchrun line of each

Steps, rows, targets and learning rates are the trainer's own arithmetic (prep.shard.steps, train.schedule). Weights, FLOPs and
checkpoints are counted for the model of train/model.py without building it; a test compares them with it. Memory is an
estimate: what eager bfloat16 training keeps, counted once with hooks; torch.compile needs less.

Legend: S steps, G rows a step, T positions, V vocabulary, d width, L layers.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.shard import Split, open_shards
from prep.shard.steps import MODES, StepPlan, device_batch, plan_steps, step_sums
from train.config import ACTIVATIONS_PER_POSITION, CHUNK_BYTES, DEPTHS, Config
from train.schedule import LR_FRAC, lr_multiplier

DEFAULTS, DEPTH = Config(), DEPTHS["cuda"]  # the trainer's
RANKS_PER_NODE = 8


@dataclass(frozen=True)
class Model:
    """Counts of a model from scratch on a GPU: embeddings in bfloat16, everything else float32 masters."""

    depth: int
    max_seq_len: int
    vocab_size: int

    @property
    def width(self) -> int:
        return 64 * self.depth

    @property
    def head_weights(self) -> int:
        """Of lm_head, and of wte as well"""
        return self.vocab_size * self.width

    @property
    def matrix_weights(self) -> int:
        """Of all layers: q, k, v, projection, and an MLP of four times the width"""
        return 12 * self.depth * self.width**2

    @property
    def weights(self) -> int:
        return 2 * self.head_weights + self.matrix_weights

    @property
    def flops_per_token(self) -> int:
        """Forward and backward: 6 a weight that multiplies, and attention"""
        return 6 * (self.head_weights + self.matrix_weights) + 12 * self.width * self.depth * self.max_seq_len

    @property
    def checkpoint_bytes(self) -> int:
        """Weights, AdamW's two moments of wte and lm_head, Muon's one of the matrices"""
        return (2 + 4) * self.head_weights * 3 + 4 * self.matrix_weights * 2

    def memory_bytes(self, batch: int) -> int:
        """Of one rank with `batch` rows a micro-batch: weights, gradients, moments; activations; the chunked loss"""
        state = (2 + 4) * self.head_weights * 4 + 4 * self.matrix_weights * 3
        positions = batch * self.max_seq_len
        activations = self.depth * positions * self.width * 2 * ACTIVATIONS_PER_POSITION + 2 * self.matrix_weights
        loss = (2 + 4) * self.head_weights + CHUNK_BYTES["cuda"] + 4 * positions * self.width
        return state + activations + loss


def read_plan(
    root: Path,
    split_name: str,
    total_batch_size: int | None,
    device_batch_size: int | None,
    world_sizes: list[int],
    epochs: float,
    depth: int | None,
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """The launch table as plain values. ValueError where a step does not come out even for any world size."""
    split = open_shards(root).split(split_name)
    if depth is not None and depth < 1:
        raise ValueError(f"--depth {depth} found, wanted 1 or more.")
    if tokens_per_second is not None and tokens_per_second <= 0:
        raise ValueError(f"--tokens-per-second {tokens_per_second} found, wanted more than 0.")
    if not world_sizes or min(world_sizes) < 1:
        raise ValueError("--world-size names no number of ranks, or one below 1: give one or several, as 1,2,4,8.")
    model = Model(depth or DEPTH, split.max_seq_len, split.manifest["vocab_size"])
    first = plan_steps(split, "mid", total_batch_size, epochs, DEFAULTS.seed)
    batch = first.rows_per_step * split.max_seq_len
    modes: dict[str, Any] = {}
    for mode in MODES:
        if mode == "mid" or split.rows["num_trainable"].any():
            steps = first if mode == "mid" else plan_steps(split, mode, batch, epochs, DEFAULTS.seed)
            modes[mode] = describe_mode(split, steps, mode, model)
    launches = [
        launch(root, split, first.rows_per_step, world_size, device_batch_size, epochs, model, modes, tokens_per_second)
        for world_size in world_sizes
    ]
    if all("error" in one for one in launches):
        raise ValueError(launches[0]["error"])
    return {
        "root": str(root),
        "split": split_name,
        "rows": split.num_rows,
        "max_seq_len": split.max_seq_len,
        "epochs": epochs,
        "total_batch_size": batch,
        "rows_per_step": first.rows_per_step,
        "model": {
            "depth": model.depth,
            "width": model.width,
            "vocab_size": model.vocab_size,
            "weights": model.weights,
            "flops_per_token": model.flops_per_token,
            "checkpoint_bytes": model.checkpoint_bytes,
        },
        "modes": modes,
        "tokens_per_second": tokens_per_second,
        "launches": launches,
    }


def describe_mode(split: Split, steps: StepPlan, mode: str, model: Model) -> dict[str, Any]:
    """What a run of one mode does, whatever it runs on"""
    targets, S = step_sums(steps, steps.num_targets), steps.num_steps
    few = np.flatnonzero(targets < targets.mean() / 2)
    tokens = S * steps.rows_per_step * split.max_seq_len
    checkpoints = S // DEFAULTS.save_every + (S % DEFAULTS.save_every > 0)
    return {
        "rows": len(steps.row_ids),
        "rows_skipped": split.num_rows - len(steps.row_ids),
        "steps": S,
        "tokens": tokens,
        "targets": int(targets.sum()),
        "targets_per_step": {
            "min": int(targets.min()), "mean": round(float(targets.mean()), 1), "max": int(targets.max()),
        },
        "steps_with_few_targets": {"under": round(float(targets.mean() / 2), 1), "number": len(few), "first": few[:5].tolist()},
        "filler_rows": S * steps.rows_per_step - steps.num_positions,
        "untrained_share": round(1 - int(targets.sum()) / tokens, 6),
        "padding_share": round(1 - filled_targets(split, steps) / tokens, 6),
        "warmdown_start": warmdown_start(S),
        "last_lr_multiplier": lr_multiplier(S - 1, S, DEFAULTS.warmdown_ratio, LR_FRAC[mode]),
        "evaluations": 1 + S // DEFAULTS.eval_every + (S % DEFAULTS.eval_every > 0),
        "checkpoints": checkpoints,
        "checkpoint_bytes": checkpoints * model.checkpoint_bytes,
        "flops": float(model.flops_per_token * tokens),
    }  # fmt: skip


def filled_targets(split: Split, steps: StepPlan) -> int:
    """Positions of all steps that hold a filled target; the others are padding, or rows that fill up the last step"""
    filled = split.rows["num_targets"][steps.row_ids].astype(np.int64)
    return int(step_sums(steps, filled).sum())


def warmdown_start(num_steps: int) -> int:
    """
    The first step whose learning rate is not full any more; the number of steps where there is none.

    >>> warmdown_start(20), warmdown_start(95), warmdown_start(1)
    (17, 77, 1)
    """
    at = max(0, int(num_steps * (1 - DEFAULTS.warmdown_ratio)) - 1)
    while at < num_steps and lr_multiplier(at, num_steps, DEFAULTS.warmdown_ratio, 1.0) >= 1.0:
        at += 1
    return at


def launch(
    root: Path,
    split: Split,
    rows_per_step: int,
    world_size: int,
    wanted: int | None,
    epochs: float,
    model: Model,
    modes: dict[str, Any],
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """One line of the table: a number of ranks; {"world_size", "error"} where a step does not come out even"""
    try:
        batch = device_batch(rows_per_step, world_size, split.max_seq_len, wanted)
    except ValueError as error:
        return {"world_size": world_size, "error": str(error)}
    speed = tokens_per_second * world_size if tokens_per_second else None
    return {
        "world_size": world_size,
        "device_batch_size": batch,
        "accumulation": rows_per_step // (world_size * batch),
        "tokens_per_micro_batch": batch * split.max_seq_len,
        "memory_bytes": model.memory_bytes(batch),
        "hours": {mode: round(one["tokens"] / speed / 3600, 4) for mode, one in modes.items()} if speed else None,
        "commands": {
            mode: command(root, split, rows_per_step, world_size, batch, epochs, model.depth, mode) for mode in modes
        },
    }


def command(
    root: Path, split: Split, rows_per_step: int, world_size: int, batch: int, epochs: float, depth: int, mode: str
) -> str:
    """The torchrun line; an SFT run starts from what the mid run before it wrote"""
    nodes, per_node = 1, world_size
    if world_size > RANKS_PER_NODE and world_size % RANKS_PER_NODE == 0:
        nodes, per_node = world_size // RANKS_PER_NODE, RANKS_PER_NODE
    words = ["torchrun", *(["--nnodes", str(nodes), "--rdzv-backend", "c10d"] if nodes > 1 else [])]
    words += ["--rdzv-endpoint", "HOST:29500"] if nodes > 1 else []
    words += ["--nproc-per-node", str(per_node)]
    words += ["train/mid.py"] if Path("train/mid.py").is_file() else ["-m", "train.mid"]  # in a checkout, and anywhere
    words += ["--shards", str(root)]
    words += ["--split", split.name] if split.name != "train" else []
    words += ["--mode", "sft", "--base", f"runs/{root.resolve().name}"] if mode == "sft" else ["--depth", str(depth)]
    words += ["--num-epochs", f"{epochs:g}"] if epochs != 1 else []
    words += ["--total-batch-size", str(rows_per_step * split.max_seq_len), "--device-batch-size", str(batch)]
    return shlex.join(words)
