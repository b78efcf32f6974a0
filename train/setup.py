"""
Everything before the first step: shards opened, steps planned, model loaded, guards passed.

    --shards --mode --total-batch-size ...  ->  Run(plan, model, optimizers, first_step, ...)  ->  the loop in mid.py

What can be refused is refused here, in one line: a mask that is not there, a batch that does not come out even, another
tokenizer than the model's, another run in the same place, ranks that see different shards.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from prep.arrays import Array
from prep.shard import Manifest, Shards, Split, check_files, open_shards
from prep.shard.steps import DEVICE_BATCH_LIMIT, REFERENCE_BATCH, StepPlan, choose_device_batch, plan_steps, row_targets
from train.checkpoint import BASES, STAGES, Meta, find_checkpoint, find_run, load_model, load_optimizers, read_meta
from train.config import IDENTITY, Config
from train.distributed import Ranks
from train.model import GPT
from train.optimizer import build_optimizers
from train.sizes import DEPTHS, config_of_depth

EVAL_TOKENS = 20 * REFERENCE_BATCH  # nanochat's


@dataclass(frozen=True)
class Run:
    """A run that is set up. `root` is where its checkpoints are, `identity` what makes another run of it."""

    config: Config
    shards: Shards
    split: Split
    plan: StepPlan
    device_batch: int
    eval_rows: Array
    root: Path
    identity: dict[str, Any]
    first_step: int
    model: GPT
    optimizers: tuple[Optimizer, ...]
    compiled: bool

    def checkpoint_meta(self, val_bpb: float | None) -> Meta:
        """What a checkpoint says of its run, beside step and model_config: nanochat's keys, and midprep's own."""
        return {
            "val_bpb": val_bpb,
            "user_config": asdict(self.config),
            "device_batch_size": self.device_batch,
            "max_seq_len": self.split.max_seq_len,
            "total_batch_size": self.plan.rows_per_step * self.split.max_seq_len,
            "midprep": {"identity": self.identity, "tokenizer_sha256": self.split.manifest["tokenizer"]["sha256"]},
        }


def set_up(config: Config, ranks: Ranks) -> Run:
    shards, split = open_build(config)
    manifest, on_gpu = shards.manifest, ranks.device.type == "cuda"
    plan, device_batch = plan_run(config, split, ranks)
    base = None if config.base is None else find_checkpoint(config.base, config.base_step, BASES[config.mode])
    depth = int(read_meta(*base)["model_config"]["n_layer"]) if base else config.depth or DEPTHS[ranks.device.type]
    if base and config.depth not in (None, depth):
        raise ValueError(f"--depth {config.depth}, but --base {base[0]} has {depth} layers: leave --depth out")
    root = Path(config.out or f"runs/{shards.root.resolve().name}") / STAGES[config.mode] / f"d{depth}"
    identity = {name: getattr(config, name) for name in IDENTITY} | {"depth": depth, "shards": manifest["fingerprint"]}
    identity |= {"rows_per_step": plan.rows_per_step, "num_steps": plan.num_steps, "base": base and name_of(*base)}
    if base and base[0].resolve() == root.resolve():
        raise ValueError(f"--base {base[0]} is where this run would write its own checkpoints: give another --out")
    first_step = find_run(root, identity, config.resume)
    flags = json.dumps([asdict(replace(config, shards="")), identity, device_batch])
    same = {"flags": flags, "shards": json.dumps(manifest, sort_keys=True)}
    ranks.check_same(**same, **{"checkpoints in --out (a file system that all nodes see)": str(first_step)})

    source = (root, first_step) if first_step else base
    if source:
        model, meta = load_model(*source, device=ranks.device)
        check_model(model, meta, manifest, source[0])
        ranks.say(f"model: depth {depth} of {source[0]}, step {source[1]}")
    else:
        model = GPT(config_of_depth(depth, split.max_seq_len, manifest["vocab_size"]))
        model.init_weights(config.seed)
        model.to(ranks.device)
        ranks.say(f"model: depth {depth} from scratch (--depth, --base)")
    model.set_dtype(getattr(torch, config.dtype if config.dtype != "auto" else "bfloat16" if on_gpu else "float32"))
    optimizers = build_optimizers(model, config)
    if source and (first_step or config.base_optimizer):
        load_optimizers(*source, optimizers)
    return Run(
        config=config, shards=shards, split=split, plan=plan, device_batch=device_batch, root=root, identity=identity,
        eval_rows=plan_evaluation(config, shards, plan, ranks), first_step=first_step, model=model,
        optimizers=optimizers, compiled=on_gpu if config.compile is None else config.compile,
    )  # fmt: skip


def name_of(root: Path, step: int) -> str:
    """The same for the same checkpoint, however its path is written; another one for one that was trained again"""
    return f"step {step}, {hashlib.sha256((root / f'meta_{step:06d}.json').read_bytes()).hexdigest()[:12]}"


def open_build(config: Config) -> tuple[Shards, Split]:
    shards = open_shards(config.shards)
    split = shards.split(config.split)
    if config.mode == "sft":
        _ = split.masks  # refused here where it is not there, and not in the middle of a run
    if config.verify:
        for problem in check_files(shards.root, shards.manifest):
            raise ValueError(f"{problem}: build {shards.root} again, or go on without --verify")
    return shards, split


def plan_run(config: Config, split: Split, ranks: Ranks) -> tuple[StepPlan, int]:
    """(plan, rows a micro-batch)"""
    total, epochs = config.total_batch_size, config.num_epochs
    plan = plan_steps(split, config.mode, total, epochs, config.seed, config.num_iterations, config.isolated)
    num_rows, T, G = len(plan.row_ids), split.max_seq_len, plan.rows_per_step
    if num_rows < split.num_rows:
        ranks.say(f"{split.num_rows - num_rows:,} of {split.num_rows:,} rows have no target in {config.mode}: skipped")
    limit = DEVICE_BATCH_LIMIT if ranks.device.type == "cuda" else 8
    device_batch = choose_device_batch(G, ranks.world_size, T, config.device_batch_size, limit)
    ranks.say(f"{num_rows:,} rows x {T}, {G * T:,} tokens a step: {plan.num_steps} steps")
    return plan, device_batch


def plan_evaluation(config: Config, shards: Shards, plan: StepPlan, ranks: Ranks) -> Array:
    """Rows of the val split that an evaluation reads; none where there is nothing to evaluate on."""
    if config.eval_every == 0 or (config.val_split == "val" and "val" not in shards.splits):
        ranks.say("no evaluation" + (f": {shards.root} has no {config.val_split}" if config.eval_every else ""))
        return np.empty(0, dtype=np.int64)
    val, _ = shards.split(config.val_split), shards.token_bytes  # refused here where it is not there
    tokens = config.eval_tokens or min(EVAL_TOKENS, plan.num_steps * plan.rows_per_step * val.max_seq_len // 10)
    return np.flatnonzero(row_targets(val, config.mode, config.isolated))[: max(1, -(-tokens // val.max_seq_len))]


def check_model(model: GPT, meta: Meta, manifest: Manifest, where: Path) -> None:
    """A model is trained on the tokenizer it knows, or not at all."""
    theirs, ours = meta.get("midprep", {}).get("tokenizer_sha256"), manifest["tokenizer"]
    if theirs not in (None, ours["sha256"]):
        found = f"was trained with tokenizer {theirs[:12]}, the shards hold {ours['sha256'][:12]} ({ours['name']})"
    elif model.config.vocab_size != manifest["vocab_size"]:
        found = f"has a vocabulary of {model.config.vocab_size:,}, the shards {manifest['vocab_size']:,}"
    else:
        return
    raise ValueError(f"{where} {found}: build the shards with the model's tokenizer")
