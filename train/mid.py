"""
Train on finished shards: mid-training and SFT, the same loop.

    torchrun train/mid.py --shards shards/mid                                  # mid: every token trains
    torchrun train/mid.py --shards shards/mid --mode sft --base runs/mid       # sft: only what the assistant says
    torchrun --nproc-per-node 8 train/mid.py --shards shards/mid --base d20    # 8 ranks, from nanochat's base model

`main` sets up, `train` is the loop. All of a run is known before its first step: which rows each step trains, how many
targets it divides by, its learning rate. So a run can be stopped and go on with any number of ranks, and gives the same
losses. Everything it writes lies in runs/<shards>/mid_checkpoints/d<depth>/ (or chatsft_checkpoints).
"""

import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from prep.shard import Array, Manifest, Shards, Split, check_files, open_shards
from train.checkpoint import (
    STAGES,
    find_base,
    find_checkpoint,
    load_model,
    load_optimizers,
    read_meta,
    remove_run,
    save_checkpoint,
    steps_in,
)  # fmt: skip
from train.config import IDENTITY, Config, parse_args
from train.distributed import Ranks, StopFlag, start_ranks
from train.evaluate import evaluate, ratios, source_names
from train.loader import Plan, make_plan, micro_batches, prefetch, row_targets
from train.loss import BatchLoss
from train.metrics import Metrics, peak_flops, summary
from train.model import GPT, config_of_depth
from train.optimizer import build_optimizers, set_step
from train.schedule import REFERENCE_BATCH, choose_device_batch, default_rows_per_step, lr_multiplier

EVAL_TOKENS = 20 * REFERENCE_BATCH  # nanochat's


@dataclass(frozen=True)
class Run:
    """A run that is set up: what the loop needs."""

    config: Config
    split: Split
    plan: Plan
    device_batch: int
    eval_rows: Array
    root: Path  # where its checkpoints are
    identity: dict[str, Any]
    first_step: int
    model: GPT
    optimizers: tuple[Optimizer, ...]
    compiled: bool


def train(run: Run, shards: Shards, ranks: Ranks, metrics: Metrics) -> str:
    """The loop. Returns how it ended: "finished" or "stopped"."""
    config, plan, split, model, device = run.config, run.plan, run.split, run.model, ranks.device
    T, G, names, stop = split.max_seq_len, plan.rows_per_step, source_names(split), StopFlag()
    loss_of = BatchLoss(model, run.compiled)
    net = ranks.wrap(loss_of)
    num_micro = G // (run.device_batch * ranks.world_size)
    batches = prefetch(split, rows_to_train(run, ranks), config.mode, config.isolated, device.type == "cuda")
    peak, flops = peak_flops(device) * ranks.world_size, model.flops_per_token()
    val_bpb: float | None = None

    def evaluate_now() -> dict[str, Any]:
        val = shards.split(config.val_split)
        bpb, by_source = evaluate(loss_of, val, run.eval_rows, config.mode, config.isolated, run.device_batch, ranks)
        ranks.say(f"val bpb: {bpb:.4f} | " + " ".join(f"{name} {value:.4f}" for name, value in by_source.items()))
        return {"val_bpb": bpb, "val_bpb_by_source": by_source}

    before = evaluate_now() if run.first_step == 0 and len(run.eval_rows) else {}
    for step in range(run.first_step, plan.num_steps):
        started = time.perf_counter()
        num_targets = plan.targets_of_step(step)
        lrm = lr_multiplier(step, plan.num_steps, config.warmdown_ratio, config.lr_frac)
        set_step(run.optimizers, step, lrm)

        sums = torch.zeros(2 * len(names) + 1, dtype=torch.float64, device=device)  # nats, targets by source; stop?
        nats, counts = sums[: len(names)], sums[len(names) : -1]
        for micro in range(num_micro):
            batch = next(batches).to(device)
            with ranks.syncing(net, is_last=micro == num_micro - 1):
                loss_sum, losses = net(batch.inputs, batch.positions, batch.labels, batch.docs)
                # divided by the targets of the whole step, which no rank has to ask the others for; DDP averages
                (loss_sum * (ranks.world_size / num_targets)).backward()
            nats.index_add_(0, batch.sources, losses.double())
            counts.index_add_(0, batch.sources, (batch.labels >= 0).double())
        sums[-1] = stop.is_set
        *totals, num_stopping = ranks.sum(sums).tolist()
        nats_by, counts_by = totals[: len(names)], totals[len(names) :]
        loss = sum(nats_by) / num_targets
        if not math.isfinite(loss):
            raise ValueError(nonfinite_message(run, step, loss, names, nats_by))
        for optimizer in run.optimizers:
            optimizer.step()
        net.zero_grad(set_to_none=True)

        dt = time.perf_counter() - started
        speed = G * T / dt
        record = {"step": step, "num_steps": plan.num_steps, "loss": loss, "lrm": lrm, "dt": dt}
        record |= {"tokens_per_second": speed, "mfu": 100 * flops * speed / peak if peak else 0.0}
        record |= {"num_targets": num_targets, "loss_by_source": ratios(names, nats_by, counts_by)}
        record |= {"rows_sha256": rows_hash(plan.rows_of_step(step))}
        record |= {f"{name}_before": value for name, value in before.items()}
        before, done = {}, step + 1
        is_last, stopping = done == plan.num_steps, num_stopping > 0
        if len(run.eval_rows) and (is_last or done % config.eval_every == 0):
            record |= (evaluation := evaluate_now())
            val_bpb = evaluation["val_bpb"]
        metrics.write(record)
        if is_last or stopping or done % config.save_every == 0:
            save(run, done, val_bpb, metrics.total_seconds, ranks)
        if stopping and not is_last:
            return "stopped"
    return "finished"


def rows_to_train(run: Run, ranks: Ranks) -> Iterator[Array]:
    for step in range(run.first_step, run.plan.num_steps):
        yield from micro_batches(run.plan.rows_of_step(step), run.device_batch, ranks.rank, ranks.world_size)


def rows_hash(rows: Array) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]


def nonfinite_message(run: Run, step: int, loss: float, names: Sequence[str], nats: Sequence[float]) -> str:
    rows = run.plan.rows_of_step(step)
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    bad = sorted({name for name, value in zip(names, nats, strict=True) if not math.isfinite(value)})
    kept = f"step {steps_in(run.root)[-1]} is kept in {run.root}" if steps_in(run.root) else "none was written yet"
    where = f"rows {shown} of {run.split.name}; sources {', '.join(bad)}"
    return f"loss is {loss} at step {step} ({where}): last checkpoint: {kept}"


def save(run: Run, step: int, val_bpb: float | None, seconds: float, ranks: Ranks) -> None:
    if ranks.rank == 0:
        config, manifest = run.config, run.split.manifest
        meta = {
            "val_bpb": val_bpb,
            "user_config": asdict(config),
            "device_batch_size": run.device_batch,
            "max_seq_len": run.split.max_seq_len,
            "total_batch_size": run.plan.rows_per_step * run.split.max_seq_len,
            "midprep": {
                "identity": run.identity,
                "num_steps": run.plan.num_steps,
                "tokenizer_sha256": manifest["tokenizer"]["sha256"],
                "total_seconds": seconds,
            },
        }
        if run.first_step == 0 and config.resume == "never":
            remove_run(run.root, step)
        path = save_checkpoint(run.root, step, run.model, run.optimizers, meta)
        ranks.say(f"saved {path}")
    ranks.barrier()


# ---- setting up ----


def open_build(config: Config) -> tuple[Shards, Split]:
    """The shards, after the checks that need nothing else."""
    shards = open_shards(config.shards)
    split = shards.split(config.split)
    if config.mode == "sft":
        _ = split.masks  # refused here where it is not there, and not in the middle of a run
    if config.verify:
        for problem in check_files(shards.root, shards.manifest):
            raise ValueError(f"{problem}: build {shards.root} again, or without --verify")
    return shards, split


def plan_run(config: Config, split: Split, ranks: Ranks) -> tuple[Plan, int]:
    """(plan, rows a micro-batch)"""
    T, counts = split.max_seq_len, row_targets(split, config.mode, config.isolated)
    num_skipped = int((counts == 0).sum())
    if num_skipped:
        ranks.say(f"{num_skipped:,} of {split.num_rows:,} rows have no target in {config.mode}: skipped")
    rows_per_step = default_rows_per_step((split.num_rows - num_skipped) * config.num_epochs, T)
    if config.total_batch_size is not None:
        rows_per_step = config.total_batch_size // T
        if rows_per_step * T != config.total_batch_size or rows_per_step == 0:
            near = sorted({max(rows_per_step, 1) * T, (rows_per_step + 1) * T})
            raise ValueError(
                f"--total-batch-size {config.total_batch_size} is no multiple of rows of {T} tokens: "
                f"give {' or '.join(map(str, near))}"
            )
    elif rows_per_step * T * 2 <= REFERENCE_BATCH:
        ranks.say(f"few rows: {rows_per_step * T:,} tokens a step instead of {REFERENCE_BATCH:,} (--total-batch-size)")
    limit = 32 if ranks.device.type == "cuda" else 8
    device_batch = choose_device_batch(rows_per_step, ranks.world_size, T, config.device_batch_size, limit)
    plan = make_plan(counts, rows_per_step, config.num_iterations, config.num_epochs, config.seed)
    ranks.say(f"{len(plan.row_ids):,} rows x {T}, {rows_per_step * T:,} tokens a step: {plan.num_steps} steps")
    return plan, device_batch


def plan_evaluation(config: Config, shards: Shards, plan: Plan, ranks: Ranks) -> Array:
    """Rows of the val split that an evaluation reads; none where there is nothing to evaluate on."""
    if config.eval_every == 0 or config.val_split not in shards.splits:
        ranks.say("no evaluation" + ("" if config.eval_every == 0 else f": {shards.root} has no {config.val_split}"))
        return np.empty(0, dtype=np.int64)
    val = shards.split(config.val_split)
    T = val.max_seq_len
    tokens = config.eval_tokens or min(EVAL_TOKENS, plan.num_steps * plan.rows_per_step * T // 10)
    rows = np.flatnonzero(row_targets(val, config.mode, config.isolated))
    return rows[: max(1, -(-tokens // T))]


def find_run(root: Path, identity: dict[str, Any], resume: str) -> int:
    """The step to go on from: that of the last whole checkpoint of the same run, or 0."""
    steps = steps_in(root)
    if not steps:
        return 0
    meta = read_meta(root, steps[-1])
    if "midprep" not in meta:
        raise ValueError(f"{root} holds checkpoints that midprep did not write: give another --out")
    if resume == "never":
        return 0
    for name, value in identity.items():
        theirs = meta["midprep"]["identity"].get(name)
        if theirs != value:
            raise ValueError(
                f"{root} holds a run with {name} {theirs}, this one has {value}: give another --out, or "
                f"--resume never to replace it"
            )
    return steps[-1]


def check_model(model: GPT, meta: dict[str, Any], manifest: Manifest, where: Path) -> None:
    """A model is trained on the tokenizer it knows, or not at all."""
    theirs = meta.get("midprep", {}).get("tokenizer_sha256")
    if theirs is not None and theirs != manifest["tokenizer"]["sha256"]:
        raise ValueError(
            f"{where} was trained with tokenizer {theirs[:12]}, the shards hold {manifest['tokenizer']['sha256'][:12]} "
            f"({manifest['tokenizer']['name']}): build the shards with the model's tokenizer"
        )
    if model.config.vocab_size != manifest["vocab_size"]:
        raise ValueError(
            f"{where} has a vocabulary of {model.config.vocab_size:,}, the shards {manifest['vocab_size']:,}: "
            f"build the shards with the model's tokenizer"
        )


def can_compile(config: Config, ranks: Ranks) -> bool:
    """On a GPU; on a CPU only if asked, as compiling takes longer there than most runs gain by it."""
    wanted = config.compile if config.compile is not None else ranks.device.type == "cuda"
    if wanted and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++", "clang++")):
        ranks.say("no C++ compiler was found: running without torch.compile")
        return False
    return wanted


def set_up(config: Config, shards: Shards, split: Split, ranks: Ranks) -> Run:
    manifest = shards.manifest
    plan, device_batch = plan_run(config, split, ranks)
    eval_rows = plan_evaluation(config, shards, plan, ranks)
    base = find_base(config.base, config.base_step, config.mode) if config.base is not None else None
    default_depth = 12 if ranks.device.type == "cuda" else 4
    depth = int(read_meta(*base)["model_config"]["n_layer"]) if base else config.depth or default_depth
    root = Path(config.out or f"runs/{shards.root.resolve().name}") / STAGES[config.mode] / f"d{depth}"

    identity = {name: getattr(config, name) for name in IDENTITY} | {"depth": depth, "shards": manifest["fingerprint"]}
    identity |= {"rows_per_step": plan.rows_per_step, "num_steps": plan.num_steps}
    first_step = find_run(root, identity, config.resume)
    ranks.check_same(
        flags=json.dumps([identity, first_step, device_batch]), shards=json.dumps(manifest, sort_keys=True)
    )

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
    auto = "bfloat16" if ranks.device.type == "cuda" else "float32"
    model.set_dtype(getattr(torch, auto if config.dtype == "auto" else config.dtype))
    optimizers = build_optimizers(
        model, config.embedding_lr, config.unembedding_lr, config.matrix_lr, config.weight_decay
    )
    if source and (first_step or config.base_optimizer):
        load_optimizers(*source, optimizers)
    return Run(
        config, split, plan, device_batch, eval_rows, root, identity, first_step, model, optimizers,
        can_compile(config, ranks),
    )  # fmt: skip


def say_how_it_ended(how: str, run: Run, metrics: Metrics, ranks: Ranks) -> None:
    config, plan, out = run.config, run.plan, run.root.parent.parent
    root, step = find_checkpoint(run.root)
    num_tokens = step * plan.rows_per_step * run.split.max_seq_len
    rows = [("steps", f"{step} of {plan.num_steps}"), ("tokens", f"{num_tokens:,}")]
    rows += [("time", f"{metrics.total_seconds / 60:.2f}m"), ("checkpoint", str(root / f"model_{step:06d}.pt"))]
    rows += [("metrics", str(metrics.path))]
    bpb = [record[key] for record in metrics.records for key in ("val_bpb_before", "val_bpb") if key in record]
    if bpb:
        rows.append(("val bpb", f"{bpb[0]:.4f} -> {bpb[-1]:.4f}"))
    ranks.say(f"\n{config.mode} run {how}\n" + summary(metrics.records, rows))
    if how == "stopped":
        ranks.say(f"\ngo on with the same command: it continues at step {step}")
    elif config.mode == "mid":
        ranks.say(f"\nnext: torchrun train/mid.py --shards {config.shards} --mode sft --base {out}")
    else:
        ranks.say(f"\nnext, in a nanochat checkout: NANOCHAT_BASE_DIR={out} python -m scripts.chat_cli -i sft")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_args(argv)
    with start_ranks(config.device) as ranks:
        shards, split = open_build(config)
        run = set_up(config, shards, split, ranks)
        metrics = Metrics(run.root / "metrics.jsonl", run.first_step, ranks.rank == 0)
        metrics.connect(config.logger, config.run, asdict(config))
        if run.first_step:
            metrics.total_seconds = read_meta(run.root, run.first_step)["midprep"]["total_seconds"]
            ranks.say(f"resuming {run.root} at step {run.first_step} of {run.plan.num_steps}")
        how = train(run, shards, ranks, metrics)
        metrics.close()
        say_how_it_ended(how, run, metrics, ranks)


if __name__ == "__main__":
    main(sys.argv[1:])
