"""
What goes wrong with a graphics card, in one line each.

    CUDA out of memory ...              the GPU is full (...): give --device-batch-size 16 or less, this run has 32
    a card, and a CPU build of torch    there is an NVIDIA GPU, but torch 2.13.0+cpu was built without CUDA: ...
    a card that torch cannot use        there is an NVIDIA GPU, but torch 2.13.0+cu130 does not see it: ...
"""

import re
from pathlib import Path

import torch

NODES = "/dev/nvidia[0-9]*"  # what NVIDIA's driver makes on Linux, one for each card that this process may use
# of an allocator, CUDA or NCCL; of cuBLAS; of the machine's own memory
FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")


def is_full(error: BaseException) -> bool:
    """Whether memory ran out: not all that says so is a torch.OutOfMemoryError"""
    is_error = isinstance(error, torch.OutOfMemoryError)
    return is_error or (isinstance(error, RuntimeError) and any(words in str(error) for words in FULL))


def full_message(error: BaseException, device_batch: int | None = None) -> str:
    """One line; `device_batch` is the rows per micro-batch of the run, once it has any"""
    sentences = re.split(r"\.\s|\n", str(error))[:3]  # what was asked for, and what the card has
    reason = " ".join("; ".join(sentences).split())[:240].rstrip(".")
    return f"memory is full ({reason}): {advice(device_batch)}"


def advice(device_batch: int | None) -> str:
    if device_batch is None:
        return "the model does not fit; `midprep plan` says what it needs, and so does --dry-run"
    if device_batch == 1:
        return "--device-batch-size is 1 already; take a smaller model, or shards with shorter rows"
    # the largest that divides what the run has, so that it divides a step too
    smaller = next(size for size in range(device_batch // 2, 0, -1) if device_batch % size == 0)
    return f"give --device-batch-size {smaller} or less, this run has {device_batch}"


def unused_card() -> str | None:
    """Why torch does not use the card that is there; None where there is none, or it is used"""
    nodes = Path(NODES)
    if torch.cuda.is_available() or not any(nodes.parent.glob(nodes.name)):
        return None
    if torch.version.cuda is None:
        reason, mend = "was built without CUDA", "install a CUDA build (https://pytorch.org/get-started/locally)"
    else:
        reason = f"(CUDA {torch.version.cuda}) does not see it"
        mend = "look at what nvidia-smi says of its driver, and at CUDA_VISIBLE_DEVICES"
    return f"there is an NVIDIA GPU, but torch {torch.__version__} {reason}: {mend}"
