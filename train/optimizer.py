"""
Two optimizers: AdamW for the embeddings and lm_head, Muon for every matrix in between.

    lm_head   AdamW  0.004 * (d / 768)^-0.5            transformer.h.*  Muon  0.02, momentum 0.85 -> 0.95
    wte       AdamW  0.2   * (d / 768)^-0.5
    2026-07 adds to AdamW: value_embeds at half of wte's rate, resid_lambdas 0.005, x0_lambdas 0.5 with betas
    (0.96, 0.95), smear and backout 0.2

Muon is torch.optim.Muon. In a float32 run its Newton-Schulz steps are also float32: in bfloat16 they turn the last bit
of a gradient (another number of ranks) into 1e-4 of loss within 30 steps, in float32 into 1e-7.

Every rank holds the whole state and makes the same update, so a checkpoint needs one file and fits any number of ranks.
Price: memory for AdamW's two moments and Muon's one on each rank, and every rank computes Muon's matrix products.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from train.config import Config
from train.model import GPT
from train.schedule import muon_momentum

BETAS = (0.8, 0.95)
EPS = 1e-10


class Muon(torch.optim.Muon):
    """torch's, except for the dtype of the Newton-Schulz steps, `defaults["dtype"]`."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
                buffer = self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]).to(self.defaults["dtype"])
                update = orthogonal(update, group["ns_coefficients"], group["ns_steps"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.size(0) / p.size(1)) ** 0.5)


def orthogonal(x: Tensor, coefficients: tuple[float, float, float], num_steps: int) -> Tensor:
    """x (m, n) -> about U V^T of its singular value decomposition U S V^T, in the dtype of x"""
    a, b, c = coefficients
    y = x.T if x.size(0) > x.size(1) else x
    y = y / y.norm().clamp(min=1e-7)
    for _ in range(num_steps):
        gram = y @ y.T
        y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.T if x.size(0) > x.size(1) else y


def build_optimizers(model: GPT, rates: Config = Config()) -> tuple[AdamW, Muon]:
    """Groups carry `initial_lr`, which `set_step` multiplies."""
    scale = (model.config.n_embd / 768) ** -0.5
    embedding_lr = rates.embedding_lr * scale
    adam: list[dict[str, Any]] = [
        {"params": [model.lm_head.weight], "lr": rates.unembedding_lr * scale},
        {"params": [model.transformer.wte.weight], "lr": embedding_lr},
    ]
    if model.config.is_2026:
        adam += [
            {"params": list(model.value_embeds.parameters()), "lr": embedding_lr * 0.5},
            {"params": [model.resid_lambdas], "lr": 0.005},
            {"params": [model.x0_lambdas], "lr": 0.5, "betas": (0.96, 0.95)},
            {"params": [model.smear_gate.weight, model.smear_lambda, model.backout_lambda], "lr": 0.2},
        ]
    adamw = AdamW(adam, betas=BETAS, eps=EPS, weight_decay=rates.weight_decay, fused=True)
    matrices = list(model.transformer.h.parameters())
    # one group per size of matrix, as in nanochat: the order decides which state belongs to which matrix
    groups = [{"params": [p for p in matrices if p.numel() == size]} for size in {p.numel() for p in matrices}]
    muon = Muon(groups, lr=rates.matrix_lr, momentum=0.95, weight_decay=0.0, adjust_lr_fn="original")
    muon.defaults["dtype"] = model.transformer.wte.weight.dtype
    for group in adamw.param_groups + muon.param_groups:
        group["initial_lr"] = group["lr"]
    return adamw, muon


def set_step(optimizers: tuple[Optimizer, ...], step: int, lrm: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * lrm
            if isinstance(optimizer, Muon):
                group["momentum"] = muon_momentum(step)
