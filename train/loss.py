"""
From the hidden state to the loss and its gradient, without ever holding the logits.

    x (K, d): positions that train    chunk: 64 MB      z = lm_head(x) (C, V)   in place, 32 rows at a time: z -> d z
    [ . . . . . . . . . . . . . ] ->  [ . . . . ]   -> [ . . . . . . . . ]  -> losses (C,), d x (C, d), d lm_head (V, d)

Logits of 32 x 2048 positions and 32,768 tokens are 8.6 GB in float32, their gradient as much again. Here the logits of a
chunk become losses and gradients in the forward, in one buffer that is used again by the next chunk; the backward only
multiplies by the incoming scalar. Positions without a target (SFT: most) never meet lm_head.

With t = tanh(z / 15), loss = log(sum(exp(15 t))) - 15 t[label] and d loss / d z = (softmax - onehot) * (1 - t^2). As 15 t
lies within +-15, exp needs no maximum first: sums stay under 65,536 * e^15 = 2e11.
Price: the gradients are made even if nobody asks for them, unless grad mode is off.

Legend: P positions, K positions that train (filled up to whole blocks), C of a chunk, R of a block, V vocabulary, d width.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.model import GPT, SOFTCAP

CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}  # logits at a time: enough to keep a matrix product busy
BLOCK_LEN = {"cpu": 32, "cuda": 4096}  # rows a pointwise pass: on a CPU what stays in its cache
ROUND_TO = 32  # K is a multiple of this, so that compiled code meets one shape of block

Squash = Callable[[Tensor], tuple[Tensor, Tensor]]
Slope = Callable[[Tensor, Tensor, Tensor], None]


def squash(z: Tensor) -> tuple[Tensor, Tensor]:
    """z (R, V) -> t (R, V) = tanh(z / 15) in float32 or wider, and the sums (R,) of exp(15 t)"""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    t = 1 - 2 / (torch.exp((2 / SOFTCAP) * z) + 1)  # a tanh of one exp: within 2e-7, and 2.5 times as fast
    return t, torch.exp(SOFTCAP * t).sum(dim=-1)


def slope(t: Tensor, scale: Tensor, z: Tensor) -> None:
    """t (R, V), scale (R,) = 1 / sum -> z (R, V) = softmax * (1 - t^2), written over the logits"""
    z.copy_(torch.exp(SOFTCAP * t) * scale[:, None] * (1 - t * t))


def pieces(length: int, piece_len: int) -> Iterator[slice]:
    return (slice(start, min(start + piece_len, length)) for start in range(0, length, piece_len))


def only_losses(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """x (K, d), weight (V, d), labels (K,) -> losses (K,), with no gradient"""
    losses = []
    for chunk in pieces(len(x), BLOCK_LEN[x.device.type]):
        logits = SOFTCAP * torch.tanh((x[chunk] @ weight.to(x.dtype).T).float() / SOFTCAP)
        losses.append(F.cross_entropy(logits, labels[chunk], ignore_index=-1, reduction="none"))
    return torch.cat(losses)


class Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, squash: Squash = squash, slope: Slope = slope
    ) -> tuple[Tensor, Tensor]:
        """x (K, d), weight (V, d), labels (K,), -1 where nothing trains -> sum of the losses, losses (K,)"""
        wide, device, num_vocab = torch.promote_types(x.dtype, torch.float32), x.device.type, len(weight)
        w = weight.to(x.dtype)
        x_grad, w_grad, w_part = torch.empty_like(x), torch.zeros_like(weight), None
        losses = torch.empty(len(x), dtype=wide, device=x.device)
        chunk_len = max(1, CHUNK_BYTES[device] // (num_vocab * x.element_size() * ROUND_TO)) * ROUND_TO
        buffer = torch.empty(min(chunk_len, len(x)), num_vocab, dtype=x.dtype, device=x.device)
        for chunk in pieces(len(x), chunk_len):
            here, at = labels[chunk], labels[chunk].clamp(min=0)
            row, trains = torch.arange(len(here), device=x.device), (here >= 0).to(wide)
            z = torch.mm(x[chunk], w.T, out=buffer[: len(here)])  # (C, V)
            t_label, sums = torch.tanh(z[row, at].to(wide) / SOFTCAP), torch.empty_like(losses[chunk])
            for block in pieces(len(here), BLOCK_LEN[device]):
                t, sums[block] = squash(z[block])
                slope(t, trains[block] / sums[block], z[block])
            losses[chunk] = trains * (torch.log(sums) - SOFTCAP * t_label)
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
        self.hidden, self.kernels = model.hidden, (squash, slope)
        if compiled:
            dynamic = model.lm_head.weight.device.type == "cuda"  # blocks differ there
            self.hidden = torch.compile(model.hidden, dynamic=False)
            self.kernels = (torch.compile(squash, dynamic=dynamic), torch.compile(slope, dynamic=dynamic))

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
