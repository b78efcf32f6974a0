"""The loss without logits against the plain one, and the denominators of a step."""

import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import step_gradient
import torch
import torch.nn.functional as F
from conftest import command, environment
from test_model import random_model
from torch import Tensor

import train.loss
from prep.shard import open_shards
from prep.shard.batches import read_batch
from prep.shard.steps import FILLER, row_targets
from train.loader import make_batch
from train.loss import BatchLoss, Loss
from train.model import SOFTCAP

torch.manual_seed(0)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of 224 positions at a time: several chunks, the last one shorter"""
    monkeypatch.setitem(train.loss.CHUNK_BYTES, "cpu", 224 * 50 * 4)


def plain_losses(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    logits = SOFTCAP * torch.tanh(x @ weight.T / SOFTCAP)
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")


def example(dtype: torch.dtype, num: int = 3 * 512, spread: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = spread * torch.randn(num, 16, dtype=dtype), torch.randn(50, 16, dtype=dtype)
    labels = torch.randint(-1, 50, (num,))
    labels[-7:] = -1
    return x.requires_grad_(), weight.requires_grad_(), labels


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_losses_and_gradients_are_the_plain_ones(dtype: torch.dtype, tolerance: float) -> None:
    x, weight, labels = example(dtype)
    total, losses = Loss.apply(x, weight, labels)
    expected = plain_losses(x, weight, labels)
    torch.testing.assert_close(losses, expected, atol=tolerance * 10, rtol=tolerance)
    got = torch.autograd.grad(total * 0.37, (x, weight))
    for grad, wanted in zip(got, torch.autograd.grad(expected.sum() * 0.37, (x, weight)), strict=True):
        assert ((grad - wanted).norm() / wanted.norm()).item() < tolerance


def test_bfloat16_gradients_of_all_chunks_are_summed_up_in_float32() -> None:
    x, weight, labels = example(torch.bfloat16, spread=1.0)
    master = weight.detach().float().requires_grad_()
    total, _ = Loss.apply(x, master, labels)
    total.backward()
    exact = weight.detach().double().requires_grad_()
    plain_losses(x.detach().double(), exact, labels).sum().backward()
    assert master.grad is not None
    assert exact.grad is not None
    assert master.grad.dtype == torch.float32
    assert ((master.grad - exact.grad).norm() / exact.grad.norm()).item() < 1e-2


def test_a_padded_vocabulary_has_the_loss_of_the_real_one() -> None:
    model = random_model(window_pattern="L", vocab_size=70)
    idx, labels = torch.randint(70, (2, 16)), torch.randint(70, (32,))
    total, _ = BatchLoss(model, compiled=False)(idx, torch.arange(32), labels, None)
    wanted = F.cross_entropy(model(idx).flatten(0, 1), labels, reduction="sum")
    torch.testing.assert_close(total, wanted, atol=1e-3, rtol=1e-5)


def test_an_evaluation_multiplies_once_a_chunk_and_keeps_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, labels = example(torch.float32)
    products, mm = list[int](), torch.mm
    monkeypatch.setattr(torch, "mm", lambda *args, **kwargs: products.append(1) or mm(*args, **kwargs))
    with torch.no_grad():
        _, losses = Loss.apply(x.detach(), weight, labels)
    assert len(products) == -(-len(labels) // 224)
    assert not losses.requires_grad


def test_gradients_pass_gradcheck() -> None:
    x, weight, labels = example(torch.float64, num=6)
    assert torch.autograd.gradcheck(lambda x, w: Loss.apply(x, w, labels)[0], (x, weight))


def test_the_largest_logits_do_not_overflow() -> None:
    x, weight, labels = example(torch.float32, spread=1e4)
    total, _ = Loss.apply(x, weight, labels)
    total.backward()
    assert math.isfinite(total.item())
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_positions_without_a_target_have_no_loss_and_exactly_no_gradient() -> None:
    x, weight, labels = example(torch.float32)
    total, losses = Loss.apply(x, weight, torch.full_like(labels, -1))
    total.backward()
    assert losses.abs().max() == 0
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad.abs().max() == weight.grad.abs().max() == 0


def test_losses_without_gradients_are_the_same() -> None:
    x, weight, labels = example(torch.float32)
    torch.testing.assert_close(Loss.apply(x.detach(), weight, labels)[1], plain_losses(x, weight, labels))


# ---- a step ----


def plain_gradients(build: Path, mode: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The mean over all targets of one batch, through the full logits and PyTorch's own cross entropy"""
    split, model = open_shards(build).split("train"), random_model().to(dtype)
    inputs, targets = read_batch(split, np.flatnonzero(row_targets(split, mode, False))[:8], mode)
    logits = SOFTCAP * torch.tanh(model.lm_head(model.hidden(torch.from_numpy(inputs))) / SOFTCAP)
    F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten().long(), ignore_index=-1).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def check_gradients(path: Path, expected: dict[str, Tensor], tolerance: float) -> None:
    got = torch.load(path, weights_only=True)
    assert got.keys() == expected.keys()
    for name in got:
        assert ((got[name] - expected[name]).norm() / expected[name].norm()).item() < tolerance, name


@pytest.mark.parametrize("mode", ["mid", "sft"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_the_loops_gradient_is_that_of_one_big_batch_however_it_is_cut(
    build: Path, tmp_path: Path, mode: str, dtype: str, tolerance: float
) -> None:
    expected = plain_gradients(build, mode, getattr(torch, dtype))
    for device_batch in (1, 2, 4, 8):
        path = tmp_path / f"{device_batch}.pt"
        step_gradient.main(str(build), mode, dtype, str(path), str(device_batch))
        check_gradients(path, expected, tolerance)


@pytest.mark.parametrize(
    ("ranks", "mode", "dtype", "tolerance"),
    [
        pytest.param(ranks, mode, dtype, tolerance, marks=[] if (ranks, dtype) == (2, "float64") else pytest.mark.slow)
        for ranks in (1, 2, 4, 8)
        for mode in ("mid", "sft")
        for dtype, tolerance in (("float64", 1e-6), ("float32", 1e-5))
    ],
)
def test_the_loops_gradient_is_that_of_one_big_batch_for_any_number_of_ranks(
    build: Path, tmp_path: Path, ranks: int, mode: str, dtype: str, tolerance: float
) -> None:
    flags = [str(build), mode, dtype, str(tmp_path / "grads.pt")]
    launch = command(ranks=max(ranks, 2))
    launch[-2:] = [str(ranks), str(Path(__file__).with_name("step_gradient.py")), *flags]
    done = subprocess.run(launch, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    check_gradients(tmp_path / "grads.pt", plain_gradients(build, mode, getattr(torch, dtype)), tolerance)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.parametrize("pattern", [None, "L"])
def test_compiled_hidden_states_are_those_of_the_model(pattern: str | None) -> None:
    torch.manual_seed(0)
    model = random_model(window_pattern=pattern, sequence_len=512)
    idx = torch.randint(60, (2, 512))
    rotary = model.rotary(512)
    compiled = torch.compile(model.hidden, dynamic=False)(idx, None, rotary=rotary)
    torch.testing.assert_close(compiled, model.hidden(idx), atol=2e-5, rtol=0)


def test_a_batch_of_fillers_adds_nothing(build: Path) -> None:
    split, model = open_shards(build).split("train"), random_model()
    batch = make_batch(split, np.full(4, FILLER), "mid", isolated=False)
    total, _ = BatchLoss(model, compiled=False)(batch.inputs, batch.positions, batch.labels, None)
    total.backward()
    assert total.item() == 0
    assert all(weight.grad.abs().max() == 0 for weight in model.parameters() if weight.grad is not None)


@pytest.mark.parametrize("mode", ["mid", "sft"])
def test_an_isolated_row_has_the_loss_of_its_conversations_one_by_one(build: Path, tmp_path: Path, mode: str) -> None:
    from shards_factory import random_rows, write_build

    packed = random_rows(3, 6, 32)
    alone = [[doc] for row in packed for doc in row]
    root = write_build(tmp_path / "b", {"train": packed, "val": alone}, max_seq_len=32)
    model = random_model(window_pattern="SL")
    sums = {}
    for name in ("train", "val"):
        split = open_shards(root).split(name)
        batch = make_batch(split, np.arange(split.num_rows), mode, isolated=name == "train")
        sums[name] = BatchLoss(model, compiled=False)(batch.inputs, batch.positions, batch.labels, batch.docs)[0].item()
    assert sums["train"] == pytest.approx(sums["val"], rel=1e-5)
