"""
Train on finished shards: mid-training and SFT, the same loop.

    torchrun train/mid.py --shards shards/mid                                  # mid: every token is a target
    torchrun train/mid.py --shards shards/mid --mode sft --base runs/mid       # sft: only the assistant's tokens are
    torchrun --nproc-per-node 8 train/mid.py --shards shards/mid --base d20    # 8 ranks, from nanochat's base model

`train` is the loop. Everything about a step is known before the first one: its rows, the number of targets that its loss
is divided by, its learning rate. So a run can be stopped and resumed with any number of ranks, and gives the same losses.
It writes to runs/<name of the shards>/mid_checkpoints/d<depth>/ (sft: chatsft_checkpoints).
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict

import torch

from prep.arrays import Array
from prep.screen import Lasting, guarded_streams
from prep.shard.steps import micro_batches
from train.card import full_message, is_full
from train.checkpoint import remove_run, save_checkpoint
from train.config import parse_args
from train.distributed import Ranks, no_sync_unless, start_ranks
from train.evaluate import SourceSums, evaluate
from train.loader import prefetch
from train.loss import BatchLoss
from train.meta import steps_in
from train.metrics import Metrics, nonfinite_message, peak_flops, ratios, step_record, summary
from train.optimizer import set_step
from train.preview import preview
from train.schedule import is_due, lr_multiplier
from train.setup import Run, set_up
from train.stops import StopRequest


def train(run: Run, ranks: Ranks, metrics: Metrics) -> int:
    """The loop. Returns the step that it ended before, of which there is a checkpoint."""
    config = run.config
    plan = run.plan
    names = run.split.source_names
    stop_requested = StopRequest()
    loss_of = BatchLoss(run.model, run.compiled)
    net = ranks.wrap(loss_of)
    num_micro = plan.rows_per_step // (run.device_batch * ranks.world_size)
    batches = prefetch(run.split, rows_to_train(run, ranks), config.mode, config.isolated, ranks.device)
    peak = peak_tokens_per_second(run, ranks)
    for step in range(run.first_step, plan.num_steps):
        evaluation = evaluate(run, loss_of, ranks, 0) if step == 0 and not config.eval_at_end else {}
        started = time.perf_counter()
        num_targets = plan.targets_of_step(step)
        lrm = lr_multiplier(step, plan.num_steps, config.warmdown_ratio, config.lr_frac)
        set_step(run.optimizers, step, lrm)

        sums = SourceSums(len(names), ranks.device)
        for micro in range(num_micro):
            batch = next(batches)
            with no_sync_unless(net, last=micro == num_micro - 1):
                loss_sum, losses = net(batch.inputs, batch.positions, batch.labels, batch.docs)
                # divided by the targets of the whole step, which every rank knows; DDP averages
                (loss_sum * (ranks.world_size / num_targets)).backward()
            sums.add(batch.sources, losses, batch.labels >= 0)
        (nats, counts), stop = ranks.sum_and_stop(sums.values, bool(stop_requested or metrics.problem))
        loss = sum(nats) / num_targets
        if not math.isfinite(loss):
            raise ValueError(nonfinite_message(run, step, nats, steps_in(run.root)))
        for optimizer in run.optimizers:
            optimizer.step()
        net.zero_grad(set_to_none=True)

        seconds = time.perf_counter() - started
        record = step_record(run, step, lrm, loss, ratios(names, nats, counts), seconds, peak)
        if is_due(step + 1, plan.num_steps if config.eval_at_end else config.eval_every, plan.num_steps):
            evaluation |= evaluate(run, loss_of, ranks, step + 1)
        if run.exam is not None and is_due(step + 1, config.eval_tasks_every, plan.num_steps):
            evaluation |= run.exam(step + 1)
        metrics.write(record | evaluation)
        if stop or is_due(step + 1, config.save_every, plan.num_steps):
            save(run, step + 1, metrics, ranks)
        if stop:
            return step + 1
    return plan.num_steps


def rows_to_train(run: Run, ranks: Ranks) -> Iterator[Array]:
    """(B,) row numbers of each micro-batch of this rank, from the first step to the last"""
    for step in range(run.first_step, run.plan.num_steps):
        yield from micro_batches(run.plan.rows_of_step(step), run.device_batch, ranks.rank, ranks.world_size)


def peak_tokens_per_second(run: Run, ranks: Ranks) -> float:
    """What all devices could do at full speed; 0 if their speed is not known"""
    if ranks.device.type != "cuda":
        return 0.0
    flops_per_token = run.model.config.flops_per_token(run.split.max_seq_len)
    return peak_flops(torch.cuda.get_device_name()) * ranks.world_size / flops_per_token


def save(run: Run, step: int, metrics: Metrics, ranks: Ranks) -> None:
    """Rank 0 writes a checkpoint, the others wait. ValueError if a weight is not finite, or shards were written over."""
    run.files.check(ranks)
    if ranks.rank == 0:
        if not all(weight.isfinite().all() for weight in run.model.parameters()):
            raise ValueError(f"the update of step {step - 1} left weights that are not finite: it is not saved")
        meta = run.checkpoint_meta(metrics.records[-1].get("val_bpb"))
        ranks.say(f"saved {save_checkpoint(run.root, step, run.model, run.optimizers, meta)}")
    ranks.wait_for_rank_0(f"save {step}")


@guarded_streams(Lasting)
def main(argv: Sequence[str] | None = None) -> None:
    config = parse_args(argv)
    with start_ranks(config.device) as ranks, ExitStack() as locks:
        run = set_up(config, ranks, None if config.dry_run else locks)
        if config.dry_run:
            ranks.say(preview(run, ranks))
        else:
            start(run, ranks)


def start(run: Run, ranks: Ranks) -> None:
    """A run from its first step or from where it was stopped, to its end or a stop signal."""
    config = run.config
    metrics = Metrics(run.root / "metrics.jsonl", ranks.rank == 0)
    metrics.connect(config.logger or "wandb", config.run, asdict(config))
    if config.resume == "never" and ranks.rank == 0:
        remove_run(run.root)
        metrics.clear()
    metrics.keep(run.first_step, ranks.say)
    if run.first_step:
        how = "resuming" if run.first_step < run.plan.num_steps else "nothing is left to train:"
        ranks.say(f"{how} {run.root} at step {run.first_step} of {run.plan.num_steps}")
    try:
        last_step = train(run, ranks, metrics)
    except Exception as error:
        if is_full(error):
            raise ValueError(full_message(error, run.device_batch)) from None
        raise
    metrics.close(last_step)
    ranks.say(summary(run, metrics, last_step))


if __name__ == "__main__":
    main()
