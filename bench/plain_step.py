"""
The step that `train/loss.py` is compared with, as nanochat does it: all logits in float32, softcap by tanh, PyTorch's
cross entropy, everything in one compiled graph. Same model, same data, same optimizers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.model import GPT, SOFTCAP


class PlainLoss(nn.Module):
    """inputs (B, T), targets (B, T), -1 without a target -> mean loss over the targets"""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.model.lm_head(self.model.hidden(inputs))[..., : self.model.config.vocab_size].float()
        logits = SOFTCAP * torch.tanh(logits / SOFTCAP)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
