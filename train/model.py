"""
GPT, in both generations of nanochat: the same names, shapes and numbers, so that checkpoints travel both ways.

    idx (B, T) -> wte -> norm -> [smear] -> n_layer x (x + attn(norm(x)); x + mlp(norm(x))) -> [backout] -> norm -> x
    logits (B, T, V) = 15 * tanh(lm_head(x) / 15)

2025-12 is that without the brackets. What 2026-07 adds is behind `config.is_2026` or in a block marked "2026-07". Matrices
are float32 masters; activations have the dtype of wte, and each Linear casts its weight to it (bfloat16 on a GPU, without
autocast).

Legend: B rows of a batch, T positions, V vocabulary, d width, H heads, D head dim.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask, flex_attention

from train.cache import Cache
from train.sizes import GATE_WIDTH, SMEAR_WIDTH, ModelConfig

SOFTCAP = 15.0  # logits stay within +-15


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, T, H, D)"""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], dim=-1).to(x.dtype)


def visible(T: int, window: int, docs: Tensor | None, device: torch.device) -> Any:
    """
    Which keys a query sees, (1 or B, 1, T, T) bool. None: all up to itself, which has a fast path. A BlockMask for
    documents on a GPU, where flex_attention skips blocks that no query sees.
    """
    if docs is None and window >= T - 1:
        return None

    def rule(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = (i - j >= 0) & (i - j <= window)
        return seen if docs is None else seen & (docs[b, i] == docs[b, j])

    make = create_block_mask if docs is not None and device.type == "cuda" else create_mask
    return make(rule, 1 if docs is None else len(docs), None, T, T, device=device.type)


class Linear(nn.Linear):
    """The weight is cast to the dtype of the activations."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        d = config.n_embd
        self.c_q = Linear(d, d, bias=False)
        self.c_proj = Linear(d, d, bias=False)
        self.c_k = Linear(d, config.kv_width, bias=False)
        self.c_v = Linear(d, config.kv_width, bias=False)
        if config.has_value_embed(layer):
            self.ve_gate = Linear(GATE_WIDTH, config.n_kv_head, bias=False)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor, seen: Any, value_embed: Tensor | None, cache: Any) -> Tensor:
        B, T, _ = h.shape
        q = self.c_q(h).view(B, T, self.config.n_head, -1)  # (B, T, H, D)
        k = self.c_k(h).view(B, T, self.config.n_kv_head, -1)
        v = self.c_v(h).view(B, T, self.config.n_kv_head, -1)
        if value_embed is not None:  # 2026-07: each kv head adds a gated embedding of the token
            gate = 3 * torch.sigmoid(self.ve_gate(h[..., :GATE_WIDTH]))  # (B, T, H_kv)
            v = v + gate[..., None] * value_embed.view_as(v)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        if self.config.is_2026:
            q, k = 1.2 * q, 1.2 * k
        if cache is not None:
            k, v = cache.add(self.layer, k, v)  # those of all tokens so far
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D)
        grouped = self.config.n_head != self.config.n_kv_head
        if isinstance(seen, BlockMask):
            y: Tensor = flex_attention(q, k, v, block_mask=seen, enable_gqa=grouped)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, enable_gqa=grouped)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(B, T, -1))
        return out


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        d = config.n_embd
        self.attn = Attention(config, layer)
        self.mlp: Any = nn.ModuleDict({"c_fc": Linear(d, 4 * d, bias=False), "c_proj": Linear(4 * d, d, bias=False)})

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        x = x + self.attn(norm(x), *context)
        out: Tensor = x + self.mlp.c_proj(F.relu(self.mlp.c_fc(norm(x))).square())
        return out


class GPT(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        rows = config.padded_vocab_size
        blocks = [Block(config, layer) for layer in range(config.n_layer)]
        wte = nn.Embedding(rows, config.n_embd)
        self.transformer: Any = nn.ModuleDict({"wte": wte, "h": nn.ModuleList(blocks)})
        self.lm_head = Linear(config.n_embd, rows, bias=False)
        if config.is_2026:
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
            self.smear_gate = Linear(SMEAR_WIDTH, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
            self.backout_lambda = nn.Parameter(torch.zeros(1))
            layers = [layer for layer in range(config.n_layer) if config.has_value_embed(layer)]
            self.value_embeds = nn.ModuleDict({str(layer): nn.Embedding(rows, config.kv_width) for layer in layers})
        assert sum(weight.numel() for weight in self.parameters()) == sum(config.weights())

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Random weights, the same for a seed on every device: they are drawn on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if name == "lm_head.weight" or name.endswith("c_proj.weight"):
                weight.zero_()
            elif name == "transformer.wte.weight":
                weight.normal_(generator=generator)
            elif weight.ndim == 2:
                num_out, num_in = weight.shape if "embeds" not in name else weight.shape[::-1]
                weight.normal_(std=min(1.0, math.sqrt(num_out / num_in)) / math.sqrt(num_in), generator=generator)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Cast the embeddings, which activations follow; all other weights stay float32 masters."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.to(dtype=dtype)

    def forward(self, idx: Tensor, cache: Cache | None = None) -> Tensor:
        """idx (B, T) -> logits (B, T, V) float32. With a cache, idx holds the next T tokens of each row only."""
        return self.logits(self.hidden(idx, cache=cache))

    def new_cache(self, num_rows: int, max_len: int) -> Cache:
        """For rows of up to `max_len` tokens"""
        return Cache(self.config, num_rows, max_len, self.transformer.wte.weight)

    def logits(self, x: Tensor) -> Tensor:
        """Hidden states (..., d) -> (..., V) float32"""
        logits = self.lm_head(x)[..., : self.config.vocab_size].float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP)

    def rotary(self, T: int, docs: Tensor | None = None, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
        """
        cos and sin, (1 or B, T, 1, D / 2), of T positions; with `docs` (B, T) they start at 0 in each document, with a cache
        they go on from what each row has.
        """
        config, wte = self.config, self.transformer.wte.weight
        positions = torch.arange(T, device=wte.device) if cache is None else cache.positions(T)
        if docs is not None:
            positions = positions - torch.searchsorted(docs, docs, right=False)  # (B, T), docs ascend
        part = torch.arange(0, config.head_dim, 2, device=wte.device, dtype=torch.float32) / config.head_dim
        angles = positions.view(-1, T, 1, 1).float() * (100_000.0 if config.is_2026 else 10_000.0) ** -part
        dtype = wte.dtype if config.is_2026 else torch.bfloat16
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def hidden(self, idx: Tensor, docs: Tensor | None = None, cache: Cache | None = None, rotary: Any = None) -> Tensor:
        """
        idx (B, T) -> (B, T, d) for lm_head. Documents, if `docs` (B, T) numbers them, are isolated, from position 0. A cache
        gets the T tokens; where rows end in padding, `Cache.shorten` takes it off again.
        """
        config = self.config
        T = idx.size(1)
        x = norm(self.transformer.wte(idx))
        cos, sin = rotary or self.rotary(T, docs, cache)
        windows = {config.window(layer) for layer in range(config.n_layer)}
        if cache is None or not cache.longest:
            seen = {window: visible(T, window, docs, idx.device) for window in windows}
        else:
            seen = {window: cache.visible(T, window) for window in windows}
        if config.is_2026:
            x = x0 = self.smear(x, docs, cache)
        for layer, block in enumerate(self.transformer.h):
            if config.is_2026:
                x = self.resid_lambdas[layer].to(x.dtype) * x + self.x0_lambdas[layer].to(x.dtype) * x0
            value_embed = self.value_embeds[str(layer)](idx) if config.has_value_embed(layer) else None
            x = block(x, cos, sin, seen[config.window(layer)], value_embed, cache)
            if layer == config.n_layer // 2:
                kept = x
        if config.is_2026:
            x = x - self.backout_lambda.to(x.dtype) * kept
        if cache is not None:
            cache.grow(T)
        return norm(x)

    def smear(self, x: Tensor, docs: Tensor | None, cache: Cache | None) -> Tensor:
        """2026-07: each token gets a gated part of the token before it, if there is one."""
        first = torch.zeros_like(x[:, :1]) if cache is None else cache.last_x[:, -1:]
        before = torch.cat([first, x[:, :-1]], dim=1)  # (B, T, d)
        if cache is not None:
            cache.last_x = x
        gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(self.smear_gate(x[..., :SMEAR_WIDTH]))  # (B, T, 1)
        if docs is not None:
            gate = gate * (docs == torch.roll(docs, 1, dims=1))[..., None]
        return x + gate * before
