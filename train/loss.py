"""
From the hidden state to the loss and its gradient, without ever holding the logits.

    x (K, d): positions that train    chunk of C = 256    logits (C, V)    losses (C,)
    [ . . . . . . . . . . . . . ] ->  [ . . . . ]      -> [         ]   -> d logits (C, V) -> d x (C, d)
                                       x lm_head                                           -> d lm_head (V, d), summed

Logits of 32 x 2048 positions and 32,768 tokens are 8.6 GB in float32, their gradient as much again. Here each chunk's
logits, losses and both gradients are made in the forward, and the chunk is forgotten: the backward only multiplies by
the incoming scalar. Positions without a target (SFT: most) never meet lm_head.

Softcapped logits lie within +-15, so exp cannot overflow and needs no maximum: sum <= 65,536 * e^15 = 2e11.
Price: the gradients are made in the forward even if nobody asks for them; without grad mode they are not.

Legend: P positions, K positions that train, filled up to whole chunks, C of a chunk, V vocabulary, d width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.model import GPT, SOFTCAP

CHUNK_LEN = 256  # positions a chunk; 32 MB of float32 logits at V = 32,768

Kernel = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def chunk_losses(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """
    z = lm_head(x) (C, V), before the softcap, and labels (C,), -1: none -> losses (C,), d loss / d z (C, V).

    With t = tanh(z / 15), loss = log(sum(exp(15 t))) - 15 t[label], and d loss / d z = (softmax - onehot) * (1 - t^2).
    """
    t = torch.tanh((z if z.dtype == torch.float64 else z.float()) / SOFTCAP)
    e = torch.exp(SOFTCAP * t)
    sums = e.sum(dim=-1)
    trains = labels >= 0
    is_label = torch.arange(z.size(-1), device=z.device) == labels[:, None]
    picked = torch.where(is_label, t, 0.0).sum(dim=-1)
    losses = torch.where(trains, torch.log(sums) - SOFTCAP * picked, 0.0)
    softmax = e * torch.where(trains, 1 / sums, 0.0)[:, None]
    return losses, ((softmax - is_label.to(t.dtype)) * (1 - t * t)).to(z.dtype)


def only_losses(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """x (C, d), weight (V, d), labels (C,) -> losses (C,), with no gradient"""
    logits = SOFTCAP * torch.tanh((x @ weight.to(x.dtype).T).float() / SOFTCAP)
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")


def chunks(num_positions: int) -> list[slice]:
    return [slice(start, start + CHUNK_LEN) for start in range(0, num_positions, CHUNK_LEN)]


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
        """x (K, d), weight (V, d), labels (K,) -> sum of the losses, losses (K,)"""
        w = weight.to(x.dtype)
        x_grad, w_grad = torch.empty_like(x), torch.zeros_like(weight)
        losses = torch.empty(len(x), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        for here in chunks(len(x)):
            losses[here], z_grad = kernel(x[here] @ w.T, labels[here])
            torch.mm(z_grad, w, out=x_grad[here])
            w_grad.addmm_(z_grad.T, x[here]) if w_grad.dtype == x.dtype else w_grad.add_(z_grad.T @ x[here])
        ctx.save_for_backward(x_grad, w_grad)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_grad, w_grad = ctx.saved_tensors
        return x_grad * grads[0], w_grad * grads[0], None, None


class BatchLoss(nn.Module):
    """
    What DDP wraps: a batch in, the sum of its losses (to go backward from) and the loss of each target (to report) out.

    `positions` (K,) are the flat positions that train and `labels` (K,) their targets, as `loader.Batch` has them.
    """

    def __init__(self, model: GPT, compiled: bool) -> None:
        super().__init__()
        self.model = model
        self.hidden = torch.compile(model.hidden, dynamic=False) if compiled else model.hidden
        self.kernel: Kernel = torch.compile(chunk_losses, dynamic=False) if compiled else chunk_losses

    def forward(self, inputs: Tensor, positions: Tensor, labels: Tensor, docs: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.hidden(inputs, docs).flatten(0, 1).index_select(0, positions)  # (K, d)
        weight = self.model.lm_head.weight[: self.model.config.vocab_size]  # 2026-07 pads it
        if not torch.is_grad_enabled():
            losses = torch.cat([only_losses(x[at], weight, labels[at]) for at in chunks(len(x))])
            return losses.sum(), losses
        loss: tuple[Tensor, Tensor] = _Loss.apply(x, weight, labels, self.kernel)  # type: ignore[no-untyped-call]
        return loss
