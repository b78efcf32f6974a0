"""Run by test_loss, alone or under torchrun: the gradient with which the loop itself ends a step of 8 rows, saved by rank 0."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from test_model import random_model

from train.config import parse_args
from train.distributed import start_ranks
from train.metrics import Metrics
from train.mid import train
from train.setup import set_up


class Keeper:
    """An optimizer that keeps what it is to step along"""

    param_groups: tuple[Any, ...] = ()

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.grads: dict[str, torch.Tensor] = {}

    def step(self) -> None:
        self.grads = {name: weight.grad.clone() for name, weight in self.model.named_parameters()}

    def state_dict(self) -> dict[str, Any]:
        return {}


def main(shards: str, mode: str, dtype: str, out: str, device_batch: str = "1") -> None:
    torch.set_num_threads(1)
    folder = Path(out).with_suffix("")
    flags = f"--depth 1 --num-iterations 1 --eval-every 0 --device cpu --device-batch-size {device_batch}".split()
    total = ["--total-batch-size", str(8 * 16), "--init-lr-frac", "1"]
    config = parse_args(["--shards", shards, "--mode", mode, "--out", str(folder), *flags, *total])
    with start_ranks("cpu") as ranks:
        run = set_up(config, ranks)
        model = random_model().to(getattr(torch, dtype))
        keeper = Keeper(model)
        run.root.mkdir(parents=True, exist_ok=True)
        metrics = Metrics(run.root / "metrics.jsonl", ranks.rank == 0)
        train(replace(run, model=model, optimizers=(keeper,)), ranks, metrics)  # type: ignore[arg-type]
        if ranks.rank == 0:
            torch.save(keeper.grads, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
