"""
Train on finished shards: mid-training and SFT, the same loop.

    torchrun train/mid.py --shards shards/mid                                  # mid: every token trains
    torchrun train/mid.py --shards shards/mid --mode sft --base runs/mid       # sft: only what the assistant says
    torchrun --nproc-per-node 8 train/mid.py --shards shards/mid --base d20    # 8 ranks, from nanochat's base model

`train` is the loop. All of a run is known before its first step: which rows each step trains, how many targets it
divides by, its learning rate. So a run can be stopped and go on with any number of ranks, and gives the same losses.
Everything it writes lies in runs/<name of the shards>/mid_checkpoints/d<depth>/ (sft: chatsft_checkpoints).
"""

import hashlib
import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from prep.arrays import Array
from prep.files import Lock
from prep.shard.steps import FILLER, micro_batches
from train.checkpoint import remove_run, save_checkpoint, steps_in
from train.config import parse_args
from train.distributed import Ranks, start_ranks, stop_signals
from train.evaluate import evaluate, ratios
from train.loader import prefetch
from train.loss import BatchLoss
from train.metrics import Metrics, peak_flops
from train.optimizer import set_step
from train.preview import preview
from train.records import closing_table, from_to, measured_bpb
from train.schedule import lr_multiplier
from train.setup import Run, set_up


def train(run: Run, ranks: Ranks, metrics: Metrics) -> None:
    """The loop."""
    config, plan, split, device = run.config, run.plan, run.split, ranks.device
    G, names, stop = plan.rows_per_step, split.source_names, stop_signals()
    loss_of = BatchLoss(run.model, run.compiled)
    net = DistributedDataParallel(loss_of, gradient_as_bucket_view=True) if ranks.world_size > 1 else loss_of
    num_micro = G // (run.device_batch * ranks.world_size)
    batches = prefetch(split, rows_to_train(run, ranks), config.mode, config.isolated, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    peak = peak_flops(name) * ranks.world_size / run.model.flops_per_token()
    for step in range(run.first_step, plan.num_steps):
        before = evaluate(run, loss_of, ranks, 0) if step == 0 else {}
        started, num_targets = time.perf_counter(), plan.targets_of_step(step)
        lrm = lr_multiplier(step, plan.num_steps, config.warmdown_ratio, config.lr_frac)
        set_step(run.optimizers, step, lrm)

        sums = torch.zeros(3, len(names), dtype=torch.float64, device=device)
        nats, counts, stops = sums  # by source, and in the same all-reduce: was a rank told to stop?
        for micro in range(num_micro):
            batch = next(batches)
            # gradients travel with the last micro-batch only
            with net.no_sync() if isinstance(net, DistributedDataParallel) and micro < num_micro - 1 else nullcontext():
                loss_sum, losses = net(batch.inputs, batch.positions, batch.labels, batch.docs)
                # divided by the targets of the whole step, which no rank has to ask the others for; DDP averages
                (loss_sum * (ranks.world_size / num_targets)).backward()
            nats.index_add_(0, batch.sources, losses.double())
            counts.index_add_(0, batch.sources, (batch.labels >= 0).double())
        stops += bool(stop)
        nats_by, counts_by, stopping = ranks.sum(sums).tolist()
        loss = sum(nats_by) / num_targets
        if not math.isfinite(loss):
            raise ValueError(nonfinite_message(run, step, loss, names, nats_by))
        for optimizer in run.optimizers:
            optimizer.step()
        net.zero_grad(set_to_none=True)

        dt, done, is_last = time.perf_counter() - started, step + 1, step + 1 == plan.num_steps
        record: dict[str, Any] = {"step": step, "num_steps": plan.num_steps, "loss": loss, "lrm": lrm, "dt": dt}
        speed = G * split.max_seq_len / dt
        record |= {"tokens_per_second": speed, "mfu": 100 * speed / peak if peak else 0.0}
        record |= {"num_targets": num_targets, "loss_by_source": ratios(names, nats_by, counts_by)}
        record |= {"rows_sha256": hashlib.sha256(plan.rows_of_step(step).tobytes()).hexdigest()[:16]}
        record |= {f"{name}_before": value for name, value in before.items()}
        if config.eval_every and (is_last or done % config.eval_every == 0):
            record |= evaluate(run, loss_of, ranks, done)
        metrics.write(record)
        if is_last or any(stopping) or done % config.save_every == 0:
            save(run, done, metrics, ranks)
        if any(stopping):
            return


def rows_to_train(run: Run, ranks: Ranks) -> Iterator[Array]:
    for step in range(run.first_step, run.plan.num_steps):
        yield from micro_batches(run.plan.rows_of_step(step), run.device_batch, ranks.rank, ranks.world_size)


def nonfinite_message(run: Run, step: int, loss: float, names: Sequence[str], nats: Sequence[float]) -> str:
    rows = run.plan.rows_of_step(step)
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    bad = ", ".join(sorted({name for name, value in zip(names, nats, strict=True) if not math.isfinite(value)}))
    kept = f"step {steps_in(run.root)[-1]} is kept in {run.root}" if steps_in(run.root) else "none was written yet"
    return f"loss is {loss} at step {step} (rows {shown} of {run.split.name}; sources {bad}): last checkpoint: {kept}"


def save(run: Run, step: int, metrics: Metrics, ranks: Ranks) -> None:
    if ranks.rank == 0:
        if not all(weight.isfinite().all() for weight in run.model.parameters()):
            raise ValueError(f"the update of step {step - 1} left weights that are not finite: it is not saved")
        T, G = run.split.max_seq_len, run.plan.rows_per_step
        meta = {"val_bpb": metrics.records[-1].get("val_bpb"), "user_config": asdict(run.config)}
        meta |= {"device_batch_size": run.device_batch, "max_seq_len": T, "total_batch_size": G * T}
        meta["midprep"] = {"identity": run.identity, "tokenizer_sha256": run.split.manifest["tokenizer"]["sha256"]}
        ranks.say(f"saved {save_checkpoint(run.root, step, run.model, run.optimizers, meta)}")
    ranks.sum(torch.zeros(1, device=ranks.device)).item()  # no rank goes on before it is written


def say_how_it_ended(run: Run, metrics: Metrics) -> None:
    config, num_steps, step = run.config, run.plan.num_steps, steps_in(run.root)[-1]
    num_fillers = int((run.plan.rows_of_step(step - 1) == FILLER).sum())
    num_tokens = (step * run.plan.rows_per_step - num_fillers) * run.split.max_seq_len
    bpb, how = measured_bpb(metrics.records), "finished" if step == num_steps else "stopped"
    rows = {"steps": f"{step} of {num_steps}", "tokens": f"{num_tokens:,}"}
    rows |= {"time": f"{metrics.total_seconds / 60:.2f}m", "checkpoint": f"{run.root}/model_{step:06d}.pt"}
    rows |= {"val bpb": from_to(bpb) + " before the first step" * (len(bpb) == 1)} if bpb else {}
    lines = [f"  {name:<12}{value}" for name, value in (rows | {"metrics": str(metrics.path)}).items()]
    print("\n".join([f"\n{config.mode} run {how}", *lines, *closing_table(metrics.records)]))
    if how == "stopped":
        but = " without --resume never" * (config.resume == "never")
        print(f"\ngo on with the same command{but}: it continues at step {step}")
    elif config.mode == "mid":
        words = ["torchrun", sys.argv[0], "--shards", config.shards, "--mode", "sft", "--base", str(run.root)]
        print("\nnext:", shlex.join(words + (["--out", config.out] if config.out else [])))
    else:
        home = shlex.quote(str(run.root.resolve().parents[1]))
        if not (run.root.resolve().parents[1] / "tokenizer" / "tokenizer.pkl").is_file():
            print(f"\nnext: midprep tokenizer export {home}/tokenizer --tokenizer {shlex.quote(config.shards)}")
        print(f"\nnext, in nanochat: NANOCHAT_BASE_DIR={home} python -m scripts.chat_cli -i sft")


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_args(argv)
    with start_ranks(config.device) as ranks:
        run = set_up(config, ranks)
        if config.dry_run:
            return ranks.say(preview(run, ranks))
        refusal = f"another process trains in {run.root}", "give another --out"
        with Lock(run.root / ".lock", *refusal) if ranks.rank == 0 else nullcontext():
            metrics = Metrics(run.root / "metrics.jsonl", ranks.rank == 0)
            metrics.connect(config.logger or "wandb", config.run, asdict(config))
            if config.resume == "never" and ranks.rank == 0:
                remove_run(run.root)
            metrics.keep(run.first_step)
            if run.first_step:
                how = "resuming" if run.first_step < run.plan.num_steps else "nothing is left to train:"
                ranks.say(f"{how} {run.root} at step {run.first_step} of {run.plan.num_steps}")
            train(run, ranks, metrics)
            metrics.close()
            return say_how_it_ended(run, metrics) if ranks.rank == 0 else None


if __name__ == "__main__":
    main()
