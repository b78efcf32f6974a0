"""
Everything before the first step: shards opened, steps planned, the run's directory locked, model loaded, guards passed.

    --shards --mode --total-batch-size ...  ->  Run(plan, model, optimizers, first_step, ...)  ->  the loop in mid.py

What can be refused is refused here, in one line: a missing mask, a step that cannot be divided among the ranks, another
tokenizer than the model's, another run in the same place, ranks that see different shards.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from prep.arrays import Array
from prep.cpu import has_amx
from prep.files import Lock
from prep.shard import Shards, Split, check_files, open_shards
from prep.shard.steps import DEVICE_BATCH_LIMIT, REFERENCE_BATCH, StepPlan, device_batch, plan_steps, row_targets
from train.base import Start, check_tokenizer, check_vocabulary, find_start, notice_of_length
from train.card import unused_card
from train.checkpoint import Checkpoint, find_run, load_model, load_optimizers
from train.config import RUN_CONFIG, Config
from train.distributed import Ranks
from train.inherit import inherit
from train.meta import Meta
from train.model import GPT
from train.opened import OpenFiles
from train.optimizer import build_optimizers
from train.records import Record
from train.sizes import DEPTHS, config_of_depth

EVAL_TOKENS = 20 * REFERENCE_BATCH  # nanochat's


@dataclass(frozen=True)
class Run:
    """A run that is set up. Its checkpoints are in `root`; a run with another `run_config` is another run."""

    config: Config
    shards: Shards
    split: Split
    plan: StepPlan
    device_batch: int
    eval_rows: Array
    root: Path
    run_config: dict[str, Any]
    first_step: int
    model: GPT
    optimizers: tuple[Optimizer, ...]
    compiled: bool
    files: OpenFiles
    exam: Callable[[int], Record] | None  # steps done -> right answers, for the record

    def checkpoint_meta(self, val_bpb: float | None) -> Meta:
        """What a checkpoint says of its run, beside step and model_config: nanochat's keys, and midprep's own."""
        return {
            "val_bpb": val_bpb,
            "user_config": asdict(self.config),
            "device_batch_size": self.device_batch,
            "max_seq_len": self.split.max_seq_len,
            "total_batch_size": self.plan.rows_per_step * self.split.max_seq_len,
            "midprep": {
                "identity": self.run_config,
                "tokenizer_sha256": self.split.manifest["tokenizer"]["sha256"],
                "dtype": str(self.model.transformer.wte.weight.dtype).removeprefix("torch."),
            },
        }


def set_up(config: Config, ranks: Ranks, locks: ExitStack | None = None) -> Run:
    """With `locks`, rank 0 holds the run's directory until they are closed, from before any rank reads it."""
    shards, split, files = open_build(config)
    ranks.check_same(
        flags=json.dumps(asdict(replace(config, shards=""))), shards=json.dumps(shards.manifest, sort_keys=True)
    )
    out = Path(config.out or f"runs/{shards.root.resolve().name}")
    start = find_start_locked(config, out, ranks, locks)
    config = inherit(config, start, ranks.say)
    plan, batch = plan_run(config, split, ranks)
    run_config = make_run_config(config, shards, plan, start)
    first_step = find_run(start.root, run_config, config.resume)
    ranks.check_same(
        flags=str(batch),
        **{"base": json.dumps(run_config), "checkpoints in --out (a file system that all nodes see)": str(first_step)},
    )
    checkpoint = (start.root, first_step) if first_step else start.base
    compiled = is_compiled(config, ranks)
    if compiled and ranks.device.type == "cpu":
        be_deterministic()
    model = make_model(config, ranks, split, start, checkpoint)
    optimizers = build_optimizers(model, config)
    if checkpoint and (first_step or config.base_optimizer):
        load_optimizers(*checkpoint, optimizers)
    return Run(
        config=config, shards=shards, split=split, plan=plan, device_batch=batch, root=start.root, run_config=run_config,
        eval_rows=plan_evaluation(config, shards, plan, ranks), first_step=first_step, model=model,
        optimizers=optimizers, compiled=compiled, files=files,
        exam=plan_exam(config, shards, start, model, ranks),
    )  # fmt: skip


def find_start_locked(config: Config, out: Path, ranks: Ranks, locks: ExitStack | None) -> Start:
    """
    What the run starts from, looked for once nobody else can write its directory: a process that looks earlier may miss
    steps, or another run, of one that is about to leave. A first look tells rank 0 which directory it is.
    """
    depth = DEPTHS[ranks.device.type]
    root = None
    if locks is not None and ranks.rank == 0:
        root = find_start(config, out, depth, lambda text: None).root
        locks.enter_context(Lock(root / ".lock", f"another process trains in {root}", "give another --out"))
    ranks.wait_for_rank_0("lock")
    start = find_start(config, out, depth, ranks.say)
    if root not in (None, start.root):
        raise ValueError(f"--base {config.base} meant {root}, and means {start.root} now: start again")
    return start


def open_build(config: Config) -> tuple[Shards, Split, OpenFiles]:
    shards = open_shards(config.shards)
    split = shards.split(config.split)
    is_evaluated = config.eval_every > 0 or config.eval_at_end
    files = OpenFiles(shards, config.mode, split, shards.splits.get(config.val_split) if is_evaluated else None)
    if config.verify:
        for problem in check_files(shards.root, shards.manifest):
            raise ValueError(f"{problem}: build {shards.root} again, or run without --verify")
    return shards, split, files


def plan_run(config: Config, split: Split, ranks: Ranks) -> tuple[StepPlan, int]:
    """The steps of the run, and rows per micro-batch."""
    plan = plan_steps(
        split,
        config.mode,
        config.total_batch_size,
        config.num_epochs,
        config.seed,
        config.num_iterations,
        config.isolated,
    )
    num_rows = len(plan.row_ids)
    if num_rows < split.num_rows:
        ranks.say(f"{split.num_rows - num_rows:,} of {split.num_rows:,} rows have no target in {config.mode}: skipped")
    limit = DEVICE_BATCH_LIMIT if ranks.device.type == "cuda" else 8
    batch = device_batch(plan.rows_per_step, ranks.world_size, split.max_seq_len, config.device_batch_size, limit)
    num_tokens = plan.rows_per_step * split.max_seq_len
    ranks.say(f"{num_rows:,} rows x {split.max_seq_len}, {num_tokens:,} tokens per step: {plan.num_steps} steps")
    return plan, batch


def plan_evaluation(config: Config, shards: Shards, plan: StepPlan, ranks: Ranks) -> Array:
    """Rows of the val split that an evaluation reads; none if there is nothing to evaluate on."""
    is_on = config.eval_every > 0 or config.eval_at_end
    if not is_on or (config.val_split == "val" and "val" not in shards.splits):
        ranks.say("no evaluation" + (f": {shards.root} has no {config.val_split}" if is_on else ""))
        return np.empty(0, dtype=np.int64)
    val = shards.split(config.val_split)
    tokens = config.eval_tokens or min(EVAL_TOKENS, plan.num_steps * plan.rows_per_step * val.max_seq_len // 10)
    rows = np.flatnonzero(row_targets(val, config.mode, config.isolated))
    if not len(rows):
        ranks.say(f"no evaluation: none of the {val.num_rows:,} rows of {val.name} has a target in {config.mode}")
    return rows[: max(1, -(-tokens // val.max_seq_len))]


def plan_exam(config: Config, shards: Shards, start: Start, model: GPT, ranks: Ranks) -> Callable[[int], Record] | None:
    """The questions of --eval-tasks-every: the one place where the trainer imports train.inference, and so more of prep."""
    if not config.eval_tasks_every:
        return None
    from train.inference.exam import make_exam

    return make_exam(shards, start.root, model, ranks)


def make_run_config(config: Config, shards: Shards, plan: StepPlan, start: Start) -> dict[str, Any]:
    """What a run must share with a checkpoint to resume from it, by name ("identity" in a checkpoint's meta)."""
    return {name: getattr(config, name) for name in RUN_CONFIG} | {
        "depth": start.depth,
        "shards": shards.manifest["fingerprint"],
        "rows_per_step": plan.rows_per_step,
        "num_steps": plan.num_steps,
        "base": start.base_name,
    }


def make_model(config: Config, ranks: Ranks, split: Split, start: Start, checkpoint: Checkpoint | None) -> GPT:
    """The model of a checkpoint, or one from scratch, on this rank's device."""
    default_dtype = "bfloat16" if ranks.device.type == "cuda" else "float32"
    dtype = default_dtype if config.dtype == "auto" else config.dtype
    if checkpoint:
        model, meta = load_model(*checkpoint, device=ranks.device)
        check_tokenizer(meta, split.manifest, checkpoint[0], ranks.say)
        check_vocabulary(model.config, split.manifest, checkpoint[0])
        ranks.say(f"model: depth {start.depth} of {checkpoint[0]}, step {checkpoint[1]}")
        dtype_before = meta.get("midprep", {}).get("dtype", dtype)
        if checkpoint[0] == start.root and dtype_before != dtype:
            ranks.say(
                f"--dtype is {dtype}, the run had {dtype_before} so far: its losses will differ a little from here on"
            )
    else:
        vocab_size = split.manifest["vocab_size"]
        model = GPT(config_of_depth(start.depth, split.max_seq_len, vocab_size, config.generation))
        model.init_weights(config.seed)
        model.to(ranks.device)
        ranks.say(f"model: depth {start.depth} from scratch, generation {model.config.generation} (--depth, --base)")
    if notice := notice_of_length(model.config, split.max_seq_len):
        ranks.say(notice)
    for notice in notices_of_speed(dtype, ranks.device.type, is_compiled(config, ranks)):
        ranks.say(notice)
    if config.device == "auto" and (notice := unused_card()):
        ranks.say(f"training on the CPU: {notice}")
    model.set_dtype(getattr(torch, dtype))
    return model


def is_compiled(config: Config, ranks: Ranks) -> bool:
    return ranks.device.type == "cuda" if config.compile is None else config.compile


def be_deterministic() -> None:
    """Compiled for several threads of a CPU, gradients of rows of a table are added up in any order: not so by this"""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it


def notices_of_speed(dtype: str, device: str, compiled: bool) -> Iterator[str]:
    if dtype == "bfloat16" and device == "cpu" and not has_amx():
        yield "bfloat16 is slower than float32 on this CPU, which has no AMX: leave out --dtype"
    if compiled:
        yield "the first step and the first evaluation compile the model, which takes a while (--no-compile)"
