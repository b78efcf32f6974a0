"""
The shape of a model and what follows from it, without torch: weights, FLOPs, bytes. GPT asserts that it has these weights.

    depth 12, V 32,768: width 768, 6 heads    wte and lm_head 25.2M each + 12 layers x 7.1M = 135.3M weights

Embeddings have the dtype of activations (`itemsize`: bfloat16 2, float32 4), all other weights are float32 masters. AdamW
keeps two moments of embeddings, lm_head and scalars, Muon keeps one of the matrices of the layers.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

DEPTHS = {"cpu": 4, "cuda": 12}  # of a model from scratch
CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}  # logits at a time: enough to keep a matrix product busy
# values kept for the backward, per position, layer and channel: 22.6 to 23.1 measured in bfloat16, 18.5 in float32
ACTIVATIONS_PER_POSITION = 23
# the same with torch.compile, on a GPU: estimated from 18.4 to 18.7 on a CPU, until `make gpu ONLY=memory` has measured it
COMPILED_ACTIVATIONS_PER_POSITION = 19
VOCAB_MULTIPLE = 64  # 2026-07 pads wte, lm_head and value_embeds to a multiple of this many rows
WINDOW_PATTERN = "SSSL"  # 2026-07: of a model from scratch, three layers of short windows for one of long
SMEAR_WIDTH, GATE_WIDTH = 24, 12  # 2026-07: channels that its two gates look at


class Weights(NamedTuple):
    """Numbers of weights by how they are trained: AdamW has all but the matrices of the layers."""

    embeddings: int  # wte, value_embeds
    head: int
    matrices: int
    scalars: int

    def state_bytes(self, itemsize: int) -> int:
        """Weights, gradients and moments, which every rank holds"""
        return self._bytes(itemsize, adamw=4, muon=3)

    def checkpoint_bytes(self, itemsize: int) -> int:
        """Weights and moments"""
        return self._bytes(itemsize, adamw=3, muon=2)

    def _bytes(self, itemsize: int, adamw: int, muon: int) -> int:
        return adamw * (itemsize * self.embeddings + 4 * (self.head + self.scalars)) + muon * 4 * self.matrices


@dataclass(frozen=True)
class ModelConfig:
    """`model_config` of a checkpoint's meta. A window_pattern makes it a model of 2026-07."""

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    window_pattern: str | None = None

    @property
    def is_2026(self) -> bool:
        return self.window_pattern is not None

    @property
    def generation(self) -> str:
        return "2026-07" if self.is_2026 else "2025-12"

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def kv_width(self) -> int:
        return self.n_kv_head * self.head_dim

    @property
    def padded_vocab_size(self) -> int:
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE if self.is_2026 else self.vocab_size

    def window(self, layer: int) -> int:
        """How far back this layer sees, itself not counted: position i sees j with 0 <= i - j <= window."""
        pattern = self.window_pattern or "L"
        if pattern[layer % len(pattern)] == "L" or layer == self.n_layer - 1:
            return self.sequence_len if self.is_2026 else 1 << 30  # 2025-12 has no windows
        return -(-(self.sequence_len // 4) // 128) * 128

    def has_value_embed(self, layer: int) -> bool:
        return self.is_2026 and layer % 2 == (self.n_layer - 1) % 2

    def to_meta(self) -> dict[str, Any]:
        """The fields that nanochat of this generation reads, and no other: it passes them to its own config."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def weights(self) -> Weights:
        d = self.n_embd
        rows = self.padded_vocab_size
        num_value_embeds = sum(self.has_value_embed(layer) for layer in range(self.n_layer))
        layer = 2 * d * d + 2 * d * self.kv_width + 8 * d * d  # queries and output, keys and values, the MLP
        gates = num_value_embeds * GATE_WIDTH * self.n_kv_head
        return Weights(
            embeddings=rows * (d + num_value_embeds * self.kv_width),
            head=rows * d,
            matrices=self.n_layer * layer + gates,
            # two lambdas per layer, smear's gate and lambda, backout's lambda
            scalars=2 * self.n_layer + SMEAR_WIDTH + 2 if self.is_2026 else 0,
        )

    def flops_per_token(self, row_len: int | None = None) -> int:
        """
        Forward and backward: 6 per weight of a matrix product, and attention over what each layer sees of rows of `row_len`
        tokens, by default `sequence_len`
        """
        weights = self.weights()
        multiplied = weights.head + weights.matrices + (SMEAR_WIDTH if self.is_2026 else 0)
        num_seen = sum(min(self.window(layer), row_len or self.sequence_len) for layer in range(self.n_layer))
        return 6 * multiplied + 12 * self.n_embd * num_seen

    def activation_bytes(self, num_positions: int, itemsize: int, compiled: bool) -> int:
        """An estimate of what is kept for the backward of a micro-batch"""
        values = COMPILED_ACTIVATIONS_PER_POSITION if compiled else ACTIVATIONS_PER_POSITION
        return values * num_positions * self.n_embd * self.n_layer * itemsize


def config_of_depth(depth: int, sequence_len: int, vocab_size: int, generation: str | None = None) -> ModelConfig:
    """Depth 12 is width 768 with 6 heads. A generation that is not given is the first."""
    num_heads = math.ceil(64 * depth / 128)
    if 64 * depth % num_heads:
        raise ValueError(
            f"--depth {depth} is width {64 * depth}, not a multiple of {num_heads} heads: give an even depth"
        )
    pattern = WINDOW_PATTERN if generation == "2026-07" else None
    return ModelConfig(sequence_len, vocab_size, depth, num_heads, num_heads, 64 * depth, pattern)
