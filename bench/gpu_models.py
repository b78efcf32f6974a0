"""
Proofs about one forward and backward: the same numbers on the device as on the CPU, and by every path that a run may take.

    logits     both generations: float32 on the device against float32 on the CPU, and bfloat16 against float32
    compiled   torch.compile against eager: losses and gradients
    loss       the chunked loss against plain cross entropy with softcap, in float64: value and gradients
    isolated   documents of one row, each against itself alone: by mask, by flex_attention, by varlen_attn

Legend: B rows of a batch, T positions, V vocabulary, H heads, D head dim, K positions with a target.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, create_mask

import train.loss
import train.model
from bench.gpu_place import (
    GENERATIONS,
    Check,
    NotRun,
    Place,
    Result,
    gradient_difference,
    gradients,
    largest_difference,
)
from train.loader import Batch
from train.loss import BatchLoss, Kernel, Loss, slope, slope_in_blocks
from train.model import GPT, SOFTCAP

EXACT, ROUNDED = 1e-4, 2e-2  # of the largest value: float32, bfloat16
GRADIENTS = 1e-3  # some are sums of many values that cancel out


def logits(place: Place) -> Iterator[Result]:
    batch = place.batch()
    for generation in GENERATIONS:
        model = place.model(generation)
        wanted = logits_and_losses(model, batch)
        for dtype, bound in ((torch.float32, EXACT), (torch.bfloat16, ROUNDED)):
            got = logits_and_losses(place.move(model, dtype), batch.to(place.device))
            how = f"{place.name} {str(dtype).removeprefix('torch.')} against cpu float32"
            yield Check(f"logits {generation}: {how}", bound, largest_difference(got[0], wanted[0]))
            yield Check(f"losses {generation}: {how}", bound, largest_difference(got[1], wanted[1]))


@torch.no_grad()
def logits_and_losses(model: GPT, batch: Batch) -> tuple[Tensor, Tensor]:
    """(B, T, V), (K,)"""
    _, losses = BatchLoss(model, compiled=False)(batch.inputs, batch.positions, batch.labels, batch.docs)
    return model(batch.inputs), losses


def compiled(place: Place) -> Iterator[Result]:
    batch = place.batch("sft").to(place.device)
    for generation in GENERATIONS:
        torch.compiler.reset()
        model = place.move(place.model(generation, place.size.compiled_depth))
        found = []
        for is_compiled in (True, False):
            total, losses = BatchLoss(model, is_compiled)(batch.inputs, batch.positions, batch.labels, batch.docs)
            total.backward()
            found.append((losses, gradients(model)))
        (got, got_grads), (wanted, wanted_grads) = found
        yield Check(f"losses {generation}: compiled against eager", EXACT, largest_difference(got, wanted))
        difference = gradient_difference(got_grads, wanted_grads)
        yield Check(f"gradients {generation}: compiled against eager", GRADIENTS, difference)


def loss(place: Place) -> Iterator[Result]:
    size = place.size
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(-1, size.vocab_size, (size.loss_positions,), generator=generator)
    labels[-7:] = -1
    x = torch.randn(size.loss_positions, 64, generator=generator)
    weight = torch.randn(size.vocab_size, 64, generator=generator) / 4
    kernels: dict[str, tuple[Kernel, Kernel]] = {
        "eager": (slope_in_blocks, Tensor.add_),
        "compiled": (torch.compile(slope), torch.compile(Tensor.add_)),
    }
    for dtype, bound in ((torch.float32, EXACT), (torch.bfloat16, ROUNDED)):
        hidden = x.to(dtype)
        wanted = loss_and_gradients(plain_losses, hidden.double(), weight.to(dtype).double(), labels, place.device)
        # several chunks, the last one shorter
        chunk_bytes = {place.name: size.chunk * size.vocab_size * hidden.element_size()}
        for how, functions in kernels.items():
            with patch.dict(train.loss.CHUNK_BYTES, chunk_bytes):
                got = loss_and_gradients(chunked_losses(functions), hidden, weight, labels, place.device)
            name = f"{how} in {str(dtype).removeprefix('torch.')}"
            for part, a, b in zip(("losses", "gradient of x", "gradient of lm_head"), got, wanted, strict=True):
                yield Check(f"chunked loss, {name}: {part}", bound, largest_difference(a, b))


def chunked_losses(functions: tuple[Kernel, Kernel]) -> Callable[..., Tensor]:
    def losses(x: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = Loss.apply(x, weight, labels, *functions)  # type: ignore[no-untyped-call]
        return result

    return losses  # type: ignore[return-value]


def plain_losses(x: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = SOFTCAP * torch.tanh(x @ weight.T / SOFTCAP)
    losses = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    return losses.sum(), losses


def loss_and_gradients(
    function: Callable[..., tuple[Tensor, Tensor]], x: Tensor, weight: Tensor, labels: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(K,), (K, d), (V, d) of a loss that is multiplied by a number, as the loop does"""
    x, weight = (each.to(device).requires_grad_() for each in (x, weight))
    total, losses = function(x, weight, labels.to(device))
    return losses, *torch.autograd.grad(total * 0.37, (x, weight))


# ---- isolated documents ----


def isolated(place: Place) -> Iterator[Result]:
    batch = place.batch(isolated=True)
    inputs, docs = batch.inputs, batch.docs
    assert docs is not None
    mixing = torch.randn(*inputs.shape, place.size.depth * 64, generator=torch.Generator().manual_seed(3))
    for generation in GENERATIONS:
        model = place.model(generation)
        wanted = states_and_gradients(model, document_by_document, inputs, docs, mixing)
        moved = place.move(model)
        here = [each.to(place.device) for each in (inputs, docs, mixing)]
        for name, make in (("mask", create_mask), ("flex_attention", create_block_mask)):
            is_flex = name == "flex_attention"
            chosen = ", which runs choose here" if is_flex == place.is_cuda else ""
            # flex_attention is compiled on a GPU, as in a run, and has no backward on a CPU
            has_gradients = place.is_cuda or not is_flex
            torch.compiler.reset()
            hidden = torch.compile(GPT.hidden, dynamic=False) if place.is_cuda and is_flex else GPT.hidden
            with patch.multiple(train.model, create_mask=make, create_block_mask=make), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*flex_attention.*without torch.compile")
                got = states_and_gradients(moved, hidden, *here, has_gradients)
            what = f"isolated {generation} by {name}{chosen}"
            yield Check(f"{what}: states", EXACT, largest_difference(got[0], wanted[0]))
            if has_gradients:
                yield Check(f"{what}: gradients", GRADIENTS, gradient_difference(got[1], wanted[1]))
    yield from isolated_by_varlen(place, docs)


def states_and_gradients(
    model: GPT,
    hidden: Callable[[GPT, Tensor, Tensor], Tensor],
    inputs: Tensor,
    docs: Tensor,
    mixing: Tensor,
    has_gradients: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden states (B, T, d), and the gradients of their sum with weights `mixing` (B, T, d)"""
    with torch.set_grad_enabled(has_gradients):
        states = hidden(model, inputs, docs)
    if has_gradients:
        (states * mixing).sum().backward()
    return states.detach(), gradients(model)


def document_by_document(model: GPT, inputs: Tensor, docs: Tensor) -> Tensor:
    """(B, T, d): each document is a row of its own, under causal attention"""
    rows = []
    for row, numbers in zip(inputs, docs, strict=True):
        lengths = torch.unique_consecutive(numbers, return_counts=True)[1].tolist()
        rows.append(torch.cat([model.hidden(piece[None]) for piece in row.split(lengths)], dim=1))
    return torch.cat(rows)


def isolated_by_varlen(place: Place, docs: Tensor) -> Iterator[Result]:
    """varlen_attn alone, in bfloat16: no run chooses it, `gpu_bench.py --only isolated` measures what it would give"""
    what = "isolated attention by varlen_attn, which no run chooses"
    attention = varlen(place.device)
    if isinstance(attention, str):
        yield NotRun(what, attention)
        return
    B, T = docs.shape
    q, k, v = torch.randn(3, B * T, 2, 64, generator=torch.Generator().manual_seed(4)).to(torch.bfloat16)
    starts = document_starts(docs)
    got = attention(*(each.to(place.device) for each in (q, k, v)), starts.to(place.device), T)
    alone = [
        F.scaled_dot_product_attention(*(part.transpose(0, 1).float() for part in parts), is_causal=True)
        for parts in zip(*(each.split(starts.diff().tolist()) for each in (q, k, v)), strict=True)
    ]
    yield Check(what, ROUNDED, largest_difference(got, torch.cat(alone, dim=1).transpose(0, 1)))


def document_starts(docs: Tensor) -> Tensor:
    """docs (B, T) -> (N + 1,) int32 where each document of the flat batch starts, and the end"""
    first = torch.ones_like(docs, dtype=torch.bool)
    first[:, 1:] = docs[:, 1:] != docs[:, :-1]
    starts = first.flatten().nonzero().flatten()
    return torch.cat([starts, starts.new_tensor([docs.numel()])]).to(torch.int32)


def varlen(device: torch.device) -> Callable[..., Tensor] | str:
    """q, k, v (B * T, H, D), starts (N + 1,), T -> (B * T, H, D), causal; or why there is none"""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen (2.10 and newer)"
    if device.type != "cuda":
        return "it runs on CUDA only"
    # 2.10 has is_causal, 2.11 and newer a window
    has_window = "window_size" in inspect.signature(varlen_attn).parameters
    how = {"window_size": (-1, 0)} if has_window else {"is_causal": True}

    def attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int) -> Tensor:
        out: Tensor = varlen_attn(q, k, v, starts, starts, longest, longest, **how)
        return out

    return attention
