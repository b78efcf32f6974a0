"""Run by test_loss under torchrun: gradients of one step of 8 rows, as the loop makes them, saved by rank 0."""

import sys
from contextlib import nullcontext

import torch
from test_model import random_model
from torch.nn.parallel import DistributedDataParallel

from prep.shard import open_shards
from prep.shard.steps import make_plan, micro_batches, row_targets
from train.distributed import start_ranks
from train.loader import make_batch
from train.loss import BatchLoss


def main(shards: str, mode: str, dtype: str, out: str) -> None:
    torch.set_num_threads(1)
    split = open_shards(shards).split("train")
    with start_ranks("cpu") as ranks:
        model = random_model().to(getattr(torch, dtype))
        net = loss_of = BatchLoss(model, compiled=False)
        if ranks.world_size > 1:
            net = DistributedDataParallel(loss_of, gradient_as_bucket_view=True)
        plan = make_plan(row_targets(split, mode, False)[:7], 8, None, 1.0, 0)
        parts = micro_batches(plan.rows_of_step(0), 1, ranks.rank, ranks.world_size)
        for number, part in enumerate(parts):
            batch = make_batch(split, part, mode, isolated=False)
            waits = ranks.world_size > 1 and number < len(parts) - 1
            with net.no_sync() if waits else nullcontext():
                total, _ = net(batch.inputs, batch.positions, batch.labels, None)
                (total * (ranks.world_size / plan.targets_of_step(0))).backward()
        if ranks.rank == 0:
            torch.save({name: weight.grad for name, weight in model.named_parameters()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
