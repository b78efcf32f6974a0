"""What the tests of inference share: random models of both generations, and a small one that knows three conversations."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prep.render.reference import render_conversation
from prep.tokenizer.tokenizer import Tokenizer
from train.checkpoint import save_checkpoint
from train.model import GPT
from train.sizes import ModelConfig

KNOWN: list[tuple[str, Any]] = [
    ("Hi", "Hello! ☺"),
    ("2+3?", [
        {"type": "text", "text": "That is "}, {"type": "python", "text": "2+3"},
        {"type": "python_output", "text": "5"}, {"type": "text", "text": "5.\n#### 5"},
    ]),
    ("Bell?", "\x1b]0;owned\x07<script>alert(1)</script>"),
]  # fmt: skip


def random_model(seed: int = 0, vocab_size: int = 265, **changes: Any) -> GPT:
    """A small model whose every weight matters: none is left at 0 or 1."""
    config = {"sequence_len": 64, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 64}
    model = GPT(ModelConfig(**{**config, "vocab_size": vocab_size, **changes}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3 if weight.ndim == 2 else 0.7, generator=generator)
    return model


def question(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="session")
def parrot(toy: Tokenizer) -> GPT:
    """A model that has learned the conversations of KNOWN by heart; its context is 128"""
    model = GPT(ModelConfig(128, toy.vocab_size, 2, 2, 2, 64))
    model.init_weights(0)
    rows = [
        render_conversation([*question(asked), {"role": "assistant", "content": answer}], toy)[0]
        for asked, answer in KNOWN
    ]
    longest = max(map(len, rows))
    idx = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(150):
        logits = model(idx[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="session")
def run_of_parrot(parrot: GPT, toy: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint as a run has it, which names shards that hold its tokenizer"""
    folder = tmp_path_factory.mktemp("parrot")
    (folder / "shards").mkdir()
    toy.write(folder / "shards")
    meta = {"user_config": {"shards": str(folder / "shards")}}
    save_checkpoint(folder / "run" / "mid_checkpoints" / "d2", 7, parrot, (), meta)
    return folder / "run"
