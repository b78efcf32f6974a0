"""
What generation keeps of earlier tokens, allocated once: keys and values of every layer, and what 2026-07 smears.

    room for 8     row 0   k k k k k . . .      lengths 5 3: rows may differ; padding is not seen by any later token,
                   row 1   k k k p p . . .      and the next tokens replace it

One token of depth 12 (6 heads of 128) takes 2 * 12 * 768 values, 37 KB in bfloat16. A row that ended leaves by `keep`, which
moves the others together.

Legend: B rows of a batch, T the next tokens of each, H_kv heads of keys and values, D head dim, d width.
"""

import torch
from torch import Tensor

from train.sizes import ModelConfig


class Cache:
    """
    `keys` and `values` (n_layer, B, max_len, H_kv, D) of the `lengths` (B,) tokens that each row has; `last_x` (B, 1 or T, d)
    ends with what 2026-07 smears into the next token. Dtype and device are those of `like`.
    """

    def __init__(self, config: ModelConfig, num_rows: int, max_len: int, like: Tensor) -> None:
        # zeros: a weight of 0 times what was never written has to be 0
        shape = (config.n_layer, num_rows, max_len, config.n_kv_head, config.head_dim)
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        self.last_x = like.new_zeros(num_rows, 1, config.n_embd)
        self.lengths = torch.zeros(num_rows, dtype=torch.int64, device=like.device)
        self.longest = 0  # of the lengths, or more: known without asking the device

    def positions(self, T: int) -> Tensor:
        """(B, T) of the next T tokens"""
        return self.lengths[:, None] + torch.arange(T, device=self.lengths.device)

    def visible(self, T: int, window: int) -> Tensor:
        """Which keys the next T tokens see, (B, 1, T, longest + T) bool"""
        back = self.positions(T)[..., None] - torch.arange(self.longest + T, device=self.lengths.device)
        return ((back >= 0) & (back <= window))[:, None]

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k, v (B, T, H_kv, D) of the next T tokens -> those of all tokens so far, (B, longest + T, H_kv, D)"""
        B, T = k.shape[:2]
        place = torch.arange(B, device=k.device)[:, None], self.positions(T)
        self.keys[layer][place], self.values[layer][place] = k, v
        end = self.longest + T
        return self.keys[layer, :B, :end], self.values[layer, :B, :end]

    def grow(self, T: int) -> None:
        self.lengths = self.lengths + T
        self.longest += T

    def shorten(self, by: Tensor) -> None:
        """Take off the last `by` (B,) of the tokens that came last: they are padding"""
        self.lengths = self.lengths - by
        if self.last_x.size(1) > 1:  # nothing is smeared in 2025-12
            last = self.last_x.size(1) - 1 - by
            self.last_x = self.last_x[torch.arange(len(by), device=by.device), last][:, None]

    def keep(self, rows: list[int]) -> None:
        """Go on with these of the rows only, at least one, in ascending order; the others have ended"""
        for stored in (self.keys, self.values):
            for layer in stored:  # one at a time: what is moved is copied once
                layer[: len(rows), : self.longest] = layer[rows, : self.longest]
        self.last_x, self.lengths = self.last_x[rows], self.lengths[rows]
        self.longest = int(self.lengths.max())
