"""Both generations against what nanochat itself computed, and against a plain attention written out here."""

import json

import numpy as np
import pytest
import torch
from conftest import FIXTURES
from torch import Tensor

import train.model
from train.checkpoint import load_model
from train.model import GPT, visible
from train.sizes import ModelConfig, config_of_depth

GENERATIONS = ["ckpt_2025-12", "ckpt_2026-07"]


def random_model(seed: int = 0, **changes: object) -> GPT:
    """A small model whose every weight matters: none is left at 0 or 1."""
    config = {"sequence_len": 32, "vocab_size": 60, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 64}
    model = GPT(ModelConfig(**{**config, **changes}))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3 if weight.ndim == 2 else 0.7, generator=generator)
    return model


@pytest.mark.parametrize("name", GENERATIONS)
def test_logits_are_nanochats(name: str) -> None:
    model, _ = load_model(FIXTURES / name)
    expected = np.load(FIXTURES / name / "forward.npz")
    with torch.no_grad():
        logits = model(torch.from_numpy(expected["idx"]))
    assert logits.dtype == torch.float32
    assert np.abs(logits.numpy() - expected["logits"]).max() < 1e-5


@pytest.mark.parametrize("name", GENERATIONS)
def test_flops_per_token_are_nanochats(name: str) -> None:
    model, _ = load_model(FIXTURES / name)
    assert (
        model.config.flops_per_token() == json.loads((FIXTURES / name / "expected.json").read_text())["flops_per_token"]
    )


@pytest.mark.parametrize("pattern", [None, "L", "SL", "SSL"])
@pytest.mark.parametrize("pieces", [[1] * 40, [7, 1, 1, 20, 11], [40]])
def test_generation_with_a_cache_gives_the_logits_of_the_whole(pattern: str | None, pieces: list[int]) -> None:
    model = random_model(window_pattern=pattern, sequence_len=16)
    idx, cache, parts = torch.randint(60, (2, 40)), model.new_cache(2, 40), []
    with torch.no_grad():
        for piece in idx.split(pieces, dim=1):
            parts.append(model(piece, cache))
        torch.testing.assert_close(torch.cat(parts, dim=1), model(idx), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", GENERATIONS)
def test_generation_from_a_checkpoint_gives_the_logits_of_the_whole(name: str) -> None:
    model, _ = load_model(FIXTURES / name)
    expected = np.load(FIXTURES / name / "forward.npz")
    cache = model.new_cache(*expected["idx"].shape)
    with torch.no_grad():
        parts = [model(piece, cache) for piece in torch.from_numpy(expected["idx"]).split([5] + [1] * 59, dim=1)]
    assert np.abs(torch.cat(parts, dim=1).numpy() - expected["logits"]).max() < 1e-5


def test_windows_of_a_pattern() -> None:
    config = ModelConfig(2048, 60, 6, 4, 4, 64, "SSL")
    assert [config.window(layer) for layer in range(6)] == [512, 512, 2048, 512, 512, 2048]
    assert ModelConfig(1000, 60, 2, 4, 4, 64, "S").window(0) == 256  # 250, rounded up to a multiple of 128
    assert ModelConfig(1000, 60, 2, 4, 4, 64, "S").window(1) == 1000  # the last layer sees all


def test_2025_12_sees_all_however_long_the_rows_are() -> None:
    short, idx = random_model(sequence_len=16), torch.randint(60, (1, 40))
    long = random_model(sequence_len=64)
    long.load_state_dict(short.state_dict())
    torch.testing.assert_close(short(idx), long(idx))


def test_a_window_sees_itself_and_that_many_before() -> None:
    seen = visible(4, 2, None, torch.device("cpu"))
    assert seen is not None
    assert seen[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1]]
    assert visible(4, 3, None, torch.device("cpu")) is None


def test_value_embeds_are_on_every_second_layer_and_on_the_last() -> None:
    assert [layer for layer in range(5) if ModelConfig(8, 8, 5, 1, 1, 64, "L").has_value_embed(layer)] == [0, 2, 4]
    assert [layer for layer in range(4) if ModelConfig(8, 8, 4, 1, 1, 64, "L").has_value_embed(layer)] == [1, 3]


def test_a_padded_vocabulary_gives_logits_of_the_real_one() -> None:
    model = random_model(window_pattern="L", vocab_size=70)
    assert model.transformer.wte.weight.shape == (128, 64)
    assert model(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 70)


def test_sizes_of_a_depth() -> None:
    config = config_of_depth(3, 2048, 100)
    assert (config.n_layer, config.n_embd, config.n_head, config.n_kv_head) == (3, 192, 2, 2)
    assert config.to_meta() == {
        "sequence_len": 2048, "vocab_size": 100, "n_layer": 3, "n_head": 2, "n_kv_head": 2, "n_embd": 192,
    }  # fmt: skip


def test_a_depth_whose_width_does_not_divide_among_its_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="--depth 5 is width 320, not a multiple of 3 heads: give an even depth"):
        config_of_depth(5, 2048, 100)


def test_first_weights_are_as_the_spec_says_and_the_same_for_a_seed() -> None:
    model, again = GPT(config_of_depth(2, 16, 500)), GPT(config_of_depth(2, 16, 500))
    model.init_weights(7)
    again.init_weights(7)
    for (name, weight), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, other)
        if name == "lm_head.weight" or "c_proj" in name:
            assert weight.abs().max() == 0
    assert model.transformer.wte.weight.std().item() == pytest.approx(1, rel=0.02)
    fc = model.transformer.h[0].mlp.c_fc.weight  # (512, 128): min(1, 2) / sqrt(128)
    assert fc.std().item() == pytest.approx(128**-0.5, rel=0.02)


@pytest.mark.parametrize("pattern", [None, "SL"])
def test_isolated_documents_have_the_hidden_states_of_documents_alone(pattern: str | None) -> None:
    model = random_model(window_pattern=pattern)
    pieces = [torch.randint(60, (1, n)) for n in (5, 1, 9, 3)]
    docs = torch.tensor([[0] * 5 + [1] + [2] * 9 + [3] * 3], dtype=torch.int32)
    with torch.no_grad():
        packed: Tensor = model.hidden(torch.cat(pieces, dim=1), docs)
        alone = torch.cat([model.hidden(piece) for piece in pieces], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*flex_attention.*without torch.compile")
def test_the_attention_for_gpus_sees_what_the_plain_one_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    model, idx = random_model(window_pattern="SL", sequence_len=128), torch.randint(60, (2, 128))
    docs = torch.tensor([[0] * 50 + [1] * 78, [0] * 128], dtype=torch.int32)
    with torch.no_grad():
        expected = model.hidden(idx, docs)
        monkeypatch.setattr(train.model, "create_mask", train.model.create_block_mask)
        torch.testing.assert_close(model.hidden(idx, docs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
def test_documents_are_isolated_on_a_gpu_as_on_a_cpu() -> None:
    model, idx = random_model(window_pattern="SL", sequence_len=128), torch.randint(60, (2, 128))
    docs = torch.tensor([[0] * 50 + [1] * 78, [0] * 128], dtype=torch.int32)
    with torch.no_grad():
        expected = model.hidden(idx, docs)
        got = model.cuda().hidden(idx.cuda(), docs.cuda())
    torch.testing.assert_close(got.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_bfloat16_activations_leave_the_matrices_float32() -> None:
    model = random_model(window_pattern="L")
    model.set_dtype(torch.bfloat16)
    assert model.hidden(torch.zeros(1, 3, dtype=torch.int64)).dtype == torch.bfloat16
    kinds = {name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16}
    assert kinds == {"transformer.wte.weight", "value_embeds.0.weight", "value_embeds.2.weight"}
