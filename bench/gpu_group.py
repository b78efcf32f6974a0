"""
Run by gpu.py under torchrun: the trainer in a process group even where there is one rank, which `train/mid.py` does without.

    torchrun --nproc-per-node 1 bench/gpu_group.py --shards DIR --device cuda ...      flags of train/mid.py
"""

import sys
from contextlib import ExitStack

import torch
import torch.distributed as dist

from train.config import parse_args
from train.distributed import Ranks, choose_device
from train.mid import start
from train.setup import set_up


def main() -> None:
    config = parse_args(sys.argv[1:])
    device = choose_device(config.device)
    torch.set_float32_matmul_precision("highest")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), device)
    with ExitStack() as locks:
        start(set_up(config, ranks, locks), ranks)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
