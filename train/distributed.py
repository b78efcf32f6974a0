"""
Ranks: one process on a laptop, or as many as torchrun starts.

    rank 0  --+                      gradients are averaged by DDP; what is printed is summed by `Ranks.sum`
    rank 1  --+-- store: the rank that fails first prints its error, the others end quietly

Ranks must see the same flags and the same shards: `check_same` compares them before the first step. A user's error is one
line on stderr and exit code 1; a bug keeps its traceback. Either is printed once.
"""

import os
import re
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
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from train.card import full_message, is_full, unused_card


@dataclass(frozen=True)
class Ranks:
    rank: int
    world_size: int
    device: torch.device
    store: Store | None = None

    def say(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all ranks, in place, the same on each."""
        if dist.is_initialized():
            dist.all_reduce(values)
        return values

    def sum_and_stop(self, values: Tensor, stop: bool) -> tuple[Any, bool]:
        """Sums of `values` over all ranks as (nested) lists, and whether any rank has to stop: one collective."""
        stop_flag = values.new_full((1,), float(stop))
        sums = self.sum(torch.cat([values.flatten(), stop_flag])).cpu()
        return sums[:-1].view_as(values).tolist(), bool(sums[-1])

    def wait_for_rank_0(self, where: str) -> None:
        """
        Wait until rank 0 is here too, as long as it takes: it writes checkpoints, of any size to any disk, and a collective
        gives up after 10 minutes (NCCL). `where` is the name of one place, once in a run.
        """
        if self.store is None:
            return
        with suppress(RuntimeError):  # the store is gone with torchrun: the next collective waits
            if self.rank == 0:
                self.store.set(f"midprep/{where}", "")
            while not self.store.check([f"midprep/{where}"]):
                time.sleep(0.1)

    def gather(self, value: Any) -> list[Any]:
        """A value of every rank, on every rank"""
        values = [value] * self.world_size
        if dist.is_initialized():
            dist.all_gather_object(values, value)
        return values

    def wrap(self, net: nn.Module) -> nn.Module:
        """With several ranks (a process group), a module whose backward averages the gradients over them."""
        return DistributedDataParallel(net, gradient_as_bucket_view=True) if dist.is_initialized() else net

    def check_same(self, **values: str) -> None:
        """ValueError if a rank was started with another value than rank 0."""
        by_rank = self.gather(values)
        for rank, of_rank in enumerate(by_rank):
            for name, value in of_rank.items():
                if value != by_rank[0][name]:
                    raise ValueError(f"rank {rank} has other {name} than rank 0: start every rank with the same {name}")


def no_sync_unless(net: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Gradients are averaged over the ranks once per step, with its last micro-batch."""
    if last or not isinstance(net, DistributedDataParallel):
        return nullcontext()
    no_sync: AbstractContextManager[None] = net.no_sync()
    return no_sync


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Gloo of torch 2.9 prints to stdout whom it is connected to, which would stand in what --json prints"""
    try:
        kept = os.dup(1)
    except OSError:  # closed
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def start_ranks(device_name: str) -> Iterator[Ranks]:
    """Join the other ranks, if torchrun started several; an error ends the process as the head of this file says."""
    store: Store | None = None
    rank, world_size = 0, 1
    try:
        device = choose_device(device_name)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            store, rank, world_size = next(rendezvous("env://"))
            # torchrun keeps the store when it restarts ranks: without a prefix they would find addresses of dead ones
            store = PrefixStore(f"midprep/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            backend = "nccl" if device.type == "cuda" else "gloo"
            with stdout_to_stderr():
                dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
            threading.Thread(target=end_with_others, args=(store,), daemon=True).start()
        yield Ranks(rank, world_size, device, store)
        if store is not None:
            leave(0)
    except KeyboardInterrupt:  # before the loop, which ends with a checkpoint
        end(130, store)
    except Exception as error:
        if is_first_to_fail(store):
            print_error(error)
        end(1, store)


def choose_device(name: str) -> torch.device:
    """The CPU, or this rank's GPU. ValueError if there is none for it."""
    if name == "cpu" or not torch.cuda.is_available():
        if name == "cuda":
            found = unused_card() or "no CUDA device was found; use --device cpu, or a CUDA build of torch"
            raise ValueError(f"--device cuda: {found}")
        return torch.device("cpu")
    num_gpus = torch.cuda.device_count()
    num_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if num_ranks > num_gpus:
        raise ValueError(f"{num_ranks} ranks and {num_gpus} GPUs on a machine: give --nproc-per-node {num_gpus}")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high")  # TF32, as nanochat
    return device


def print_error(error: Exception) -> None:
    lost = re.search("closed by peer|reset by peer|remote process exited", str(error))
    if lost and os.environ.get("WORLD_SIZE", "1") != "1":
        print(f"error: another rank ended ({lost[0]})", file=sys.stderr, flush=True)
    elif is_full(error):
        print(f"error: {full_message(error)}", file=sys.stderr, flush=True)
    elif isinstance(error, (ValueError, OSError)):
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exc()


def end_with_others(store: Store) -> None:
    """A rank that waits for others on a GPU receives no signal: this thread sees in the store that one has failed."""
    with suppress(Exception):  # the store goes away at the end
        while not store.check(["midprep/error"]):
            time.sleep(1)
        time.sleep(1)  # until the error is printed
        leave(1)


def end(code: int, store: Store | None) -> None:
    if store is not None:
        leave(code)
    sys.exit(code)


def leave(code: int) -> None:
    """End now. Tearing down a process group waits for ranks that wait for this one, and gloo's threads can abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_first_to_fail(store: Store | None) -> bool:
    """True for the first rank that asks. Without a store, for rank 0 of this machine."""
    if store is None:
        return os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        return bool(store.add("midprep/error", 1) == 1)
    except Exception:
        return False  # the store went away: another rank ended the run
