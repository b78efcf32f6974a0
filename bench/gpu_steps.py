"""
What is timed on a GPU: steps of one model, ours and the plain one, and a clock that does not stop before the GPU does.

    Steps       one model, its optimizers and one batch; ours() and plain() are whole steps of it
    seconds_of  several functions in turn, medians; on CUDA between two events, so that launching is not what is timed
    peak_of     bytes at the peak of a function, of all that lives on the device

Legend: B rows of a batch, T positions, K positions with a target.
"""

import gc
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from bench.gpu_place import Place
from bench.plain_step import PlainLoss
from prep.shard.batches import read_batch
from train.card import is_full
from train.loader import make_batch
from train.loss import BatchLoss
from train.metrics import peak_flops
from train.model import GPT
from train.optimizer import build_optimizers, set_step
from train.sizes import config_of_depth

WARM_UP, REPEATS = 3, 7
MOST_ROWS = 32


class Figure(NamedTuple):
    """A line of a table and of results/gpu-<name>.json"""

    what: str
    value: float
    unit: str
    aim: str = ""


class Steps:
    def __init__(self, place: Place, depth: int, mode: str, rows: int, isolated: bool = False) -> None:
        size = place.size
        self.device = place.device
        self.model = GPT(config_of_depth(depth, size.max_seq_len, size.vocab_size))
        self.model.init_weights(0)
        self.model.to(place.device).set_dtype(torch.bfloat16)
        self.optimizers = build_optimizers(self.model)
        self.num_tokens = rows * size.max_seq_len
        row_ids = np.arange(rows)
        self.batch = make_batch(place.split, row_ids, mode, isolated).to(place.device)
        inputs, targets = (torch.from_numpy(np.array(each)) for each in read_batch(place.split, row_ids, mode))
        self.inputs, self.targets = inputs.to(place.device), targets.long().to(place.device)
        self.num_targets = int((targets >= 0).sum())
        self.net = BatchLoss(self.model, compiled=place.is_cuda)
        plain = PlainLoss(self.model)
        self.plain_net = torch.compile(plain, dynamic=False) if place.is_cuda else plain

    def ours(self) -> None:
        batch = self.batch
        loss, _ = self.net(batch.inputs, batch.positions, batch.labels, batch.docs)
        (loss / self.num_targets).backward()
        self.update()

    def plain(self) -> None:
        self.plain_net(self.inputs, self.targets).backward()
        self.update()

    def update(self) -> None:
        set_step(self.optimizers, 0, 1e-3)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=True)

    def mfu(self, seconds: float) -> float:
        """Per cent of what the card could do; 0 where that is not known"""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else ""
        flops = self.model.config.flops_per_token() * self.num_tokens
        return 100 * flops / seconds / peak_flops(name) if peak_flops(name) else 0.0


def largest_steps(place: Place, depth: int, mode: str) -> tuple[Steps, int]:
    """Steps with the largest batch that both hold, and its rows. ValueError where not even one row fits."""
    rows = MOST_ROWS if place.is_cuda else place.size.rows
    while rows:
        steps = fitting(place, depth, mode, rows)
        if steps is not None:
            return steps, rows
        free(place.device)
        rows //= 2
    raise ValueError(f"not even one row of {place.size.max_seq_len} fits at depth {depth}")


def fitting(place: Place, depth: int, mode: str, rows: int) -> Steps | None:
    """Steps after one of each kind; None if memory ran out"""
    try:
        steps = Steps(place, depth, mode, rows)
        steps.ours()
        steps.plain()
    except RuntimeError as error:
        if not is_full(error):
            raise
        return None
    return steps


def free(device: torch.device) -> None:
    """What earlier measurements left behind"""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def seconds_of(
    functions: dict[str, Callable[[], object]], device: torch.device, repeats: int = REPEATS
) -> dict[str, float]:
    """Median seconds of each function; they take turns"""
    for _ in range(WARM_UP):
        for function in functions.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds_once(function, device))
    return {name: statistics.median(each) for name, each in times.items()}


def seconds_once(function: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        function()
        return time.perf_counter() - started
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000


def peak_of(function: Callable[[], object], device: torch.device) -> int:
    """0 where no allocator counts"""
    if device.type != "cuda":
        function()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated())
