"""Groups of both generations, and 20 steps of nanochat."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import FIXTURES
from test_model import random_model

from train.checkpoint import load_model
from train.config import Config
from train.model import GPT
from train.optimizer import Muon, build_optimizers, orthogonal, set_step
from train.schedule import lr_multiplier


def groups(model: GPT) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """{name: (lr times (d / 768)^0.5, betas)} of every weight"""
    names = {id(weight): name for name, weight in model.named_parameters()}
    adamw, muon = build_optimizers(model)
    out = {}
    for optimizer in (adamw, muon):
        for group in optimizer.param_groups:
            for weight in group["params"]:
                out[names[id(weight)]] = (group["lr"], group.get("betas"))
    return out


def test_groups_of_2025() -> None:
    model = random_model()
    found, scale = groups(model), (64 / 768) ** -0.5
    assert found.pop("lm_head.weight") == (0.004 * scale, (0.8, 0.95))
    assert found.pop("transformer.wte.weight") == (0.2 * scale, (0.8, 0.95))
    assert set(found.values()) == {(0.02, None)}
    assert all(name.startswith("transformer.h.") for name in found)


def test_weight_decay_is_adamws_alone() -> None:
    adamw, muon = build_optimizers(random_model(), Config(weight_decay=0.1))
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.1}
    assert {group["weight_decay"] for group in muon.param_groups} == {0.0}


def test_groups_of_2026() -> None:
    model = random_model(window_pattern="SL")
    found, scale = groups(model), (64 / 768) ** -0.5
    assert found["value_embeds.0.weight"] == (0.2 * scale * 0.5, (0.8, 0.95))
    assert found["resid_lambdas"] == (0.005, (0.8, 0.95))
    assert found["x0_lambdas"] == (0.5, (0.96, 0.95))
    assert {found[name] for name in ("smear_gate.weight", "smear_lambda", "backout_lambda")} == {(0.2, (0.8, 0.95))}
    assert found["transformer.h.2.attn.ve_gate.weight"] == (0.02, None)
    assert found.keys() == dict(model.named_parameters()).keys()


def test_twenty_steps_have_nanochats_losses() -> None:
    expected = json.loads((FIXTURES / "ckpt_2025-12" / "expected.json").read_text())["train"]
    ids = np.load(FIXTURES / "ids_modulo_512.npy").astype(np.int64)
    B, T, num_micro = expected["B"], expected["T"], expected["grad_accum"]
    model, _ = load_model(FIXTURES / "ckpt_2025-12")
    optimizers, losses = build_optimizers(model), []
    for step in range(20):
        set_step(optimizers, step, lr_multiplier(step, 20, 0.2, 1.0))
        losses.append(0.0)
        for micro in range(num_micro):
            start = (step * num_micro + micro) * B * T
            inputs, targets = (torch.from_numpy(ids[at : at + B * T]).view(B, T) for at in (start, start + 1))
            loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()) / num_micro
            loss.backward()
            losses[-1] += loss.item()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
    assert losses[:3] == pytest.approx(expected["losses"][:3], abs=1e-3)
    assert losses == pytest.approx(expected["losses"], abs=2e-2)


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (1, 12)])
def test_orthogonal_brings_every_singular_value_near_1(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(x, (3.4445, -4.7750, 2.0315), 5))
    assert ((values > 0.5) & (values < 1.3)).all()
    assert (orthogonal(torch.zeros(shape), (3.4445, -4.7750, 2.0315), 5) == 0).all()


def test_muon_in_float32_is_torchs_within_the_rounding_of_bfloat16() -> None:
    start, grads = torch.randn(32, 16), [torch.randn(32, 16) for _ in range(3)]
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.nn.Parameter(start.clone())
        muon = Muon([weight], lr=0.02, weight_decay=0.0, adjust_lr_fn="original")
        muon.defaults["dtype"] = dtype
        for grad in grads:
            weight.grad = grad.clone()
            muon.step()
        results.append(weight.detach() - start)
    assert ((results[0] - results[1]).norm() / results[1].norm()).item() < 0.02
