"""
Ranks: one process on a laptop, or as many as torchrun starts.

    rank 0  --+                      gradients are averaged by DDP; what is printed is summed by `Ranks.sum`
    rank 1  --+-- store: who failed first says so, the others end quietly

Ranks must see the same flags and the same shards: `check_same` compares a hash of each before the first step.
An error of the user's is one line on stderr and exit code 1; a bug keeps its traceback. Either is shown once.
"""

import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    rank: int
    world_size: int
    device: torch.device

    def say(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all ranks, the same on each."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def sum_and_stop(self, values: Tensor, stop: bool) -> tuple[Any, bool]:
        """Sums of `values` over all ranks as (nested) lists, and whether any rank was told to stop: one collective."""
        stop_flag = values.new_full((1,), float(stop))
        sums = self.sum(torch.cat([values.flatten(), stop_flag])).cpu()
        return sums[:-1].view_as(values).tolist(), bool(sums[-1])

    def barrier(self) -> None:
        """Wait until every rank is here. NCCL's own barrier would not make the host wait."""
        self.sum(torch.zeros(1, device=self.device)).item()

    def wrap(self, net: nn.Module) -> nn.Module:
        """With several ranks, a module whose backward averages the gradients over them."""
        return DistributedDataParallel(net, gradient_as_bucket_view=True) if self.world_size > 1 else net

    def check_same(self, **hashes: str) -> None:
        """ValueError where a rank was started with something else than rank 0."""
        everyone = [hashes] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(everyone, hashes)
        for rank, theirs in enumerate(everyone):
            for what, value in theirs.items():
                if value != everyone[0][what]:
                    raise ValueError(f"rank {rank} has other {what} than rank 0: start every rank with the same {what}")


def no_sync_unless(net: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Gradients are averaged over the ranks once per step, with its last micro-batch."""
    if last or not isinstance(net, DistributedDataParallel):
        return nullcontext()
    no_sync: AbstractContextManager[None] = net.no_sync()
    return no_sync


def stop_signals() -> list[float]:
    """Filled by SIGTERM and Ctrl-C: the loop ends after its step, with a checkpoint. One five seconds later ends it at once."""
    seen: list[float] = []

    def note(number: int, frame: Any) -> None:
        os.write(2, b"" if seen else b"told to stop: after this step, with a checkpoint\n")
        seen.append(time.monotonic())
        if seen[-1] > seen[0] + 5:  # not the second: Slurm and torchrun may both send
            leave(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return seen


@contextmanager
def start_ranks(device_name: str) -> Iterator[Ranks]:
    """Join the other ranks, if torchrun started some; an error ends the process as the head of this file says."""
    store: Any = None
    try:
        device, rank, world_size = torch.device("cpu"), 0, int(os.environ.get("WORLD_SIZE", "1"))
        if device_name != "cpu" and torch.cuda.is_available():
            device, num_gpus = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), torch.cuda.device_count()
            if (num_ranks := int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) > num_gpus:  # every rank finds it
                raise ValueError(
                    f"{num_ranks} ranks and {num_gpus} GPUs on a machine: give --nproc-per-node {num_gpus}"
                )
            torch.cuda.set_device(device)
            torch.set_float32_matmul_precision("high")  # TF32, as nanochat
        elif device_name == "cuda":
            raise ValueError("--device cuda: no CUDA device was found; use --device cpu, or a CUDA build of torch")
        if world_size > 1:
            store, rank, world_size = next(rendezvous("env://"))
            # torchrun keeps the store when it restarts ranks: without a prefix they would find addresses of dead ones
            store = PrefixStore(f"midprep/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            backend = "nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
            threading.Thread(target=end_with_others, args=(store,), daemon=True).start()
        yield Ranks(rank, world_size, device)
        if world_size > 1:
            leave(0)
    except KeyboardInterrupt:  # before the loop, which ends with a checkpoint
        leave(130) if store is not None else sys.exit(130)
    except Exception as error:
        if shows_first(store):
            lost = world_size > 1 and re.search("closed by peer|reset by peer|remote process exited", str(error))
            if lost or isinstance(error, (ValueError, OSError)):
                print(f"error: {f'another rank is gone ({lost[0]})' if lost else error}", file=sys.stderr, flush=True)
            else:
                traceback.print_exc()
        leave(1) if store is not None else sys.exit(1)


def end_with_others(store: Any) -> None:
    """A rank that waits for others on a GPU hears no signal: this thread sees in the store that one has failed."""
    with suppress(Exception):  # the store goes away at the end
        while not store.check(["midprep/error"]):
            time.sleep(1)
        time.sleep(1)  # whoever failed says why first
        leave(1)


def leave(code: int) -> None:
    """End now. Tearing down a process group waits for ranks that wait for this one, and gloo's threads can abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def shows_first(store: Any) -> bool:
    """True for the first rank that asks. Without a store, for rank 0 of this machine."""
    if store is None:
        return os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        return bool(store.add("midprep/error", 1) == 1)
    except Exception:
        return False  # the store went away: another rank ended the run
