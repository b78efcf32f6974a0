"""
From the hidden state to the loss and its gradient, without ever holding all logits.

    x (K, d), all with a target       chunk: 64 MB       z = lm_head(x) (C, V), then d z, in the same memory
    [ . . . . . . . . . . . . . ] ->  [ . . . . ]     -> [ . . . . . . . ]  -> losses (C,), d x (C, d), d lm_head (V, d)

Logits of 32 x 2048 positions and 32,768 tokens are 8.6 GB in float32, their gradient as much again. Here the logits of a
chunk become losses and gradients in the forward, in one buffer that the next chunk reuses; the backward only
multiplies by the incoming scalar. Positions without a target (sft: most) never pass through lm_head.

With t = tanh(z / 15), loss = log(sum(exp(15 t))) - 15 t[label] and d loss / d z = (softmax - onehot) * (1 - t^2). As 15 t
lies within +-15, exp needs no maximum first: sums stay under 65,536 * e^15 = 2e11. So z becomes exp(15 t) * (1 - t^2) and is
summed in one pass; the divisor of softmax, one number per row, is applied on the d-wide sides of the two products.
Price: the gradients are made in the forward even if there is no backward, except where x needs none (an evaluation).

Legend: K positions with a target, C of a chunk, V vocabulary, d width.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from train.model import GPT, SOFTCAP
from train.sizes import CHUNK_BYTES

BLOCK_LEN = 32  # rows per pointwise pass without a compiler
ROUND_TO = 32  # the loader fills K up to a multiple of this
LOG2_E = math.log2(math.e)

Kernel = Callable[..., Any]


def squash(z: Tensor) -> Tensor:
    """
    tanh(z / 15) in float32 or wider, from one exp: within 2e-7, and 2.5 times as fast as tanh on a CPU. exp2 and not exp:
    Inductor's CPU code writes the result of an exp that is used twice into memory.
    """
    return 1 - 2 / (torch.exp2((2 * LOG2_E / SOFTCAP) * z.to(torch.promote_types(z.dtype, torch.float32))) + 1)


def slope(z: Tensor) -> Tensor:
    """z (C, V) becomes exp(15 t) * (1 - t^2) -> (C,) sums of exp(15 t)"""
    t = squash(z)
    e = torch.exp2((SOFTCAP * LOG2_E) * t)
    z.copy_(e * (1 - t * t))
    return e.sum(dim=-1)


def slope_in_blocks(z: Tensor) -> Tensor:
    """The same without a compiler: 32 rows at a time stay in a CPU's cache, and their temporaries in its heap"""
    return torch.cat([slope(block) for block in torch.split(z, BLOCK_LEN)])


def chunks(x: Tensor, num_vocab: int) -> Iterator[slice]:
    chunk_len = max(ROUND_TO, CHUNK_BYTES[x.device.type] // (num_vocab * x.element_size()) // ROUND_TO * ROUND_TO)
    return (slice(start, min(start + chunk_len, len(x))) for start in range(0, len(x), chunk_len))


class Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, slope: Kernel = slope_in_blocks, add: Kernel = Tensor.add_
    ) -> tuple[Tensor, Tensor]:
        """x (K, d), weight (V, d), labels (K,), -1 without a target -> sum of the losses, losses (K,)"""
        wide = torch.promote_types(x.dtype, torch.float32)
        w = weight.to(x.dtype)
        needs_grad = ctx.needs_input_grad[0]  # not in an evaluation
        x_grad = torch.empty_like(x)
        w_grad = torch.zeros_like(weight[: needs_grad * len(weight)])
        w_part = None
        losses = torch.empty(len(x), dtype=wide, device=x.device)
        buffer = None
        for chunk in chunks(x, len(weight)):
            label = labels[chunk].clamp(min=0)
            has_target = (labels[chunk] >= 0).to(wide)
            row = torch.arange(len(label), device=x.device)
            z = torch.mm(x[chunk], w.T, out=None if buffer is None else buffer[: len(label)])  # (C, V)
            buffer = z if buffer is None else buffer
            t = squash(z[row, label])
            torch._dynamo.mark_dynamic(z, 0)  # chunks differ in length only
            sums = slope(z)
            losses[chunk] = has_target * (torch.log(sums) - SOFTCAP * t)
            if not needs_grad:
                continue
            z[row, label] = ((1 - t * t) * (torch.exp(SOFTCAP * t) - sums)).to(z.dtype)
            scale = (has_target / sums)[:, None]
            x_grad[chunk] = torch.mm(z, w) * scale
            x_scaled = (x[chunk] * scale).to(x.dtype)
            if weight.dtype == x.dtype:
                w_grad.addmm_(z.T, x_scaled)
            else:  # bfloat16 products are summed up in float32
                w_part = torch.mm(z.T, x_scaled, out=w_part)
                add(w_grad, w_part)
        ctx.save_for_backward(x_grad, w_grad)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return *(grad * grads[0] for grad in ctx.saved_tensors), None, None, None


class BatchLoss(nn.Module):
    """What DDP wraps: from a `loader.Batch` to the sum of its losses, for the backward, and the loss of each target (K,)."""

    def __init__(self, model: GPT, compiled: bool) -> None:
        super().__init__()
        self.model = model
        self.hidden = model.hidden
        self.kernels: tuple[Kernel, Kernel] = (slope_in_blocks, Tensor.add_)
        if compiled:  # a compiled sum of float32 and bfloat16 does not copy the latter
            self.hidden = torch.compile(model.hidden, dynamic=False)
            self.kernels = (torch.compile(slope), torch.compile(Tensor.add_))

    def forward(self, inputs: Tensor, positions: Tensor, labels: Tensor, docs: Tensor | None) -> tuple[Tensor, Tensor]:
        # not in the compiled part, which would not round the tables to bfloat16
        rotary = self.model.rotary(inputs.size(1), docs)
        x = self.hidden(inputs, docs, rotary=rotary).flatten(0, 1).index_select(0, positions)  # (K, d)
        weight = self.model.lm_head.weight
        if len(weight) > self.model.config.vocab_size:  # 2026-07 pads it
            weight = weight[: self.model.config.vocab_size]
        loss: tuple[Tensor, Tensor] = Loss.apply(x, weight, labels.long(), *self.kernels)  # type: ignore[no-untyped-call]
        return loss
