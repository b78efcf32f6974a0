"""
Where proofs and measurements run: the device, how large the models and rows are, a folder, and what a proof returns.

    held      logits 2025-12: cuda float32 against cpu float32                        3.1e-06 of 1e-04
    FAILED    20 losses of sft: cuda against cpu                                      4.2e-02 of 1e-02
    not run   ranks: 2 and more cards: this machine has 1

Legend: B rows of a batch, T positions, V vocabulary, K positions with a target.
"""

import copy
import platform
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.gpu_shards import write_shards
from prep.shard import Split, open_shards
from train.loader import Batch, make_batch
from train.model import GPT
from train.sizes import config_of_depth

GENERATIONS = ("2025-12", "2026-07")
CPU = torch.device("cpu")


class Check(NamedTuple):
    """What was compared, the largest difference that is allowed, and the largest that was found"""

    what: str
    bound: float
    difference: float
    note: str = ""

    @property
    def held(self) -> bool:
        return self.difference <= self.bound  # False for nan

    def line(self) -> str:
        note = f"   {self.note}" if self.note else ""
        return f"{'held' if self.held else 'FAILED':<9} {self.what:<72} {self.difference:.1e} of {self.bound:.0e}{note}"


class NotRun(NamedTuple):
    """What cannot be proved on this machine, and why"""

    what: str
    why: str

    def line(self) -> str:
        return f"{'not run':<9} {self.what}: {self.why}"


Result = Check | NotRun


@dataclass(frozen=True)
class Size:
    """
    Rows of `max_seq_len`, a vocabulary, the depth of the models, rows of a step; for memory, depths and rows of a batch;
    for the loss, positions and how many of them are a chunk; the depth that is compiled; for measurements, depths and rows
    of a batch.
    """

    max_seq_len: int
    vocab_size: int
    depth: int
    rows: int
    depths: tuple[int, ...]
    memory_rows: int
    loss_positions: int
    chunk: int
    compiled_depth: int
    bench_depths: tuple[int, ...]
    bench_rows: int


SIZES = {
    "full": Size(2048, 32_768, 4, 2, (4, 8, 12), 8, 2048, 512, 4, (12, 20), 16),
    "tiny": Size(
        256, 512, 2, 2, (2, 3, 4), 2, 320, 128, 1, (1, 2), 2
    ),  # 256: short windows of 2026-07 are 128 at least
}
NUM_ROWS = {"train": 64, "val": 8}


@dataclass
class Place:
    """`folder` gets builds and runs, and is removed by whoever made it"""

    device: torch.device
    size: Size
    folder: Path

    @cached_property
    def shards(self) -> Path:
        return write_shards(self.folder / "shards", self.size.max_seq_len, self.size.vocab_size, NUM_ROWS)

    @cached_property
    def split(self) -> Split:
        return open_shards(self.shards).split("train")

    @property
    def name(self) -> str:
        return self.device.type

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def batch(self, mode: str = "mid", isolated: bool = False, rows: int | None = None) -> Batch:
        """The first rows, those of a step, on the CPU"""
        return make_batch(self.split, np.arange(rows or self.size.rows), mode, isolated)

    def model(self, generation: str, depth: int | None = None) -> GPT:
        """A model on the CPU in which every weight matters: none is left at 0 or 1. Logits have a deviation of 2."""
        size = self.size
        model = GPT(config_of_depth(depth or size.depth, size.max_seq_len, size.vocab_size, generation))
        model.init_weights(0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name == "lm_head.weight":
                    weight.normal_(std=2 * weight.size(1) ** -0.5, generator=generator)
                elif name.endswith("c_proj.weight"):
                    weight.normal_(std=weight.size(1) ** -0.5, generator=generator)
                elif weight.ndim == 1:  # what 2026-07 adds
                    weight.uniform_(0.2, 0.8, generator=generator)
        return model

    def move(self, model: GPT, dtype: torch.dtype = torch.float32) -> GPT:
        """A copy on the device, whose activations have this dtype"""
        moved = copy.deepcopy(model).to(self.device)
        moved.set_dtype(dtype)
        return moved


def largest_difference(got: Any, wanted: Any) -> float:
    """Of two tensors, as a part of the largest value that was wanted"""
    a, b = (torch.as_tensor(each).detach().to("cpu", torch.float64) for each in (got, wanted))
    if a.shape != b.shape:
        raise ValueError(f"shapes {tuple(a.shape)} and {tuple(b.shape)} are compared")
    return float((a - b).abs().max() / b.abs().max())


def gradients(model: GPT) -> dict[str, Tensor]:
    """The gradients of a model, which are removed from it"""
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return grads


def gradient_difference(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """
    The largest, over the weights, of the norm of the difference over the norm. Where that is less than what so many values of
    all gradients have on average, over that: some scalars of 2026-07 have a gradient of 0 but for rounding.
    """
    if got.keys() != wanted.keys() or not got:
        raise ValueError(f"gradients of {sorted(got.keys() ^ wanted.keys())} are on one side only")
    pairs = [(got[name].cpu().double(), wanted[name].cpu().double()) for name in got]
    squares = sum(float(b.square().sum()) for _, b in pairs) / sum(b.numel() for _, b in pairs)
    return max(float((a - b).norm()) / max(float(b.norm()), (squares * b.numel()) ** 0.5) for a, b in pairs)


def machine(device: torch.device) -> str:
    """Card, driver, torch: what a figure is worth without"""
    parts = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        cards = f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        parts = [cards, f"driver {driver_version()}", f"CUDA {torch.version.cuda}", *parts]
    else:
        parts = [f"{torch.get_num_threads()} threads of a CPU", *parts]
    return ", ".join(parts)


def driver_version(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Of NVIDIA's kernel module, as 570.86.15; "unknown" where it does not say"""
    words = path.read_text().split("\n")[0].split() if path.is_file() else []
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")
