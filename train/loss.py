"""
From the hidden state to the loss and its gradient, without ever holding the logits.

    x (K, d): positions that train    chunk: 64 MB       z = lm_head(x) (C, V), then d z, in the same memory
    [ . . . . . . . . . . . . . ] ->  [ . . . . ]     -> [ . . . . . . . ]  -> losses (C,), d x (C, d), d lm_head (V, d)

Logits of 32 x 2048 positions and 32,768 tokens are 8.6 GB in float32, their gradient as much again. Here the logits of a
chunk become losses and gradients in the forward, in one buffer that the next chunk uses again; the backward only
multiplies by the incoming scalar. Positions without a target (SFT: most) never meet lm_head.

With t = tanh(z / 15), loss = log(sum(exp(15 t))) - 15 t[label] and d loss / d z = (softmax - onehot) * (1 - t^2). As 15 t
lies within +-15, exp needs no maximum first: sums stay under 65,536 * e^15 = 2e11.
Price: the gradients are made even if nobody asks for them, unless grad mode is off.

Legend: K positions that train, C of a chunk, V vocabulary, d width.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.model import GPT, SOFTCAP

CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}  # logits at a time: enough to keep a matrix product busy
BLOCK_LEN = 32  # rows a pointwise pass without a compiler
ROUND_TO = 32  # the loader fills K up to a multiple of this

Sums = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor, Tensor], None]


def squash(z: Tensor) -> Tensor:
    """tanh(z / 15) in float32 or wider, made of one exp: within 2e-7, and 2.5 times as fast as tanh on a CPU"""
    return 1 - 2 / (torch.exp((2 / SOFTCAP) * z.to(torch.promote_types(z.dtype, torch.float32))) + 1)


def exp_sums(z: Tensor) -> Tensor:
    """z (C, V) -> (C,) sum of exp(15 t)"""
    return torch.exp(SOFTCAP * squash(z)).sum(dim=-1)


def slope(z: Tensor, scale: Tensor) -> None:
    """z (C, V), scale (C,) = 1 / sum -> softmax * (1 - t^2), written over z. One pass: t is made again, not kept."""
    t = squash(z)
    z.copy_(torch.exp(SOFTCAP * t) * scale[:, None] * (1 - t * t))


def exp_sums_in_blocks(z: Tensor) -> Tensor:
    """The same without a compiler: 32 rows at a time stay in a CPU's cache, and their temporaries in its heap"""
    return torch.cat([exp_sums(block) for block in torch.split(z, BLOCK_LEN)])


def slope_in_blocks(z: Tensor, scale: Tensor) -> None:
    for block, block_scale in zip(torch.split(z, BLOCK_LEN), torch.split(scale, BLOCK_LEN), strict=True):
        slope(block, block_scale)


def chunks(x: Tensor, num_vocab: int) -> Iterator[slice]:
    chunk_len = max(1, CHUNK_BYTES[x.device.type] // (num_vocab * x.element_size()))
    return (slice(start, min(start + chunk_len, len(x))) for start in range(0, len(x), chunk_len))


def only_losses(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """x (K, d), weight (V, d), labels (K,) -> losses (K,), with no gradient"""
    losses = []
    for chunk in chunks(x, len(weight)):
        logits = SOFTCAP * torch.tanh((x[chunk] @ weight.to(x.dtype).T).float() / SOFTCAP)
        losses.append(F.cross_entropy(logits, labels[chunk], ignore_index=-1, reduction="none"))
    return torch.cat(losses)


class Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        labels: Tensor,
        exp_sums: Sums = exp_sums_in_blocks,
        slope: Slope = slope_in_blocks,
    ) -> tuple[Tensor, Tensor]:
        """x (K, d), weight (V, d), labels (K,), -1 where nothing trains -> sum of the losses, losses (K,)"""
        wide, w = torch.promote_types(x.dtype, torch.float32), weight.to(x.dtype)
        x_grad, w_grad, w_part = torch.empty_like(x), torch.zeros_like(weight), None
        losses, buffer = torch.empty(len(x), dtype=wide, device=x.device), None
        for chunk in chunks(x, len(weight)):
            here, at = labels[chunk], labels[chunk].clamp(min=0)
            row, trains = torch.arange(len(here), device=x.device), (here >= 0).to(wide)
            z = torch.mm(x[chunk], w.T, out=None if buffer is None else buffer[: len(here)])  # (C, V)
            buffer = z if buffer is None else buffer
            t_label, sums = squash(z[row, at]), exp_sums(z)
            losses[chunk] = trains * (torch.log(sums) - SOFTCAP * t_label)
            slope(z, trains / sums)
            z[row, at] -= (trains * (1 - t_label * t_label)).to(z.dtype)
            torch.mm(z, w, out=x_grad[chunk])
            if weight.dtype == x.dtype:
                w_grad.addmm_(z.T, x[chunk])
            else:  # bfloat16 products are summed up in float32
                w_part = torch.mm(z.T, x[chunk], out=w_part)
                w_grad.add_(w_part)
        ctx.save_for_backward(x_grad, w_grad)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x_grad, w_grad = ctx.saved_tensors
        return x_grad * grads[0], w_grad * grads[0], None, None, None


class BatchLoss(nn.Module):
    """
    What DDP wraps: a batch in, the sum of its losses (to go backward from) and the loss of each target (to report) out.

    `positions` (K,) are the flat positions that train and `labels` (K,) their targets, as `loader.Batch` has them.
    """

    def __init__(self, model: GPT, compiled: bool) -> None:
        super().__init__()
        self.model = model
        self.hidden, self.kernels = model.hidden, (exp_sums_in_blocks, slope_in_blocks)
        if compiled:  # chunks differ in length: dynamic, or they would be compiled again
            self.hidden = torch.compile(model.hidden, dynamic=False)
            self.kernels = (torch.compile(exp_sums, dynamic=True), torch.compile(slope, dynamic=True))

    def forward(self, inputs: Tensor, positions: Tensor, labels: Tensor, docs: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.hidden(inputs, docs).flatten(0, 1).index_select(0, positions)  # (K, d)
        labels, weight, num_vocab = labels.long(), self.model.lm_head.weight, self.model.config.vocab_size
        if len(weight) > num_vocab:  # 2026-07 pads it
            weight = weight[:num_vocab]
        if not torch.is_grad_enabled():
            losses = only_losses(x, weight, labels)
            return losses.sum(), losses
        loss: tuple[Tensor, Tensor] = Loss.apply(x, weight, labels, *self.kernels)  # type: ignore[no-untyped-call]
        return loss
