"""`make gpu` on the CPU at tiny size: its proofs hold, each fails where something is wrong, with torch and numpy alone."""

import random
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, environment
from torch import Tensor

import train.loss
import train.model
import train.setup
from bench import gpu_models, gpu_needs, gpu_place, gpu_runs, gpu_trainer
from bench.gpu import PROOFS, prove
from bench.gpu_place import CPU, SIZES, Check, NotRun, Place
from bench.gpu_shards import SOURCES, write_shards
from prep.shard import check_files, open_shards
from train.loss import BatchLoss
from train.model import GPT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own

# as on a machine where none of these is installed
WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        is_missing = {{name, name.partition(".")[0]}} & {names!r}
        return None if is_missing else PathFinder.find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(CPU, SIZES["tiny"], tmp_path)


def other_dependencies() -> set[str]:
    """What midprep requires but torch and numpy; jinja2 is torch's own"""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"].values()
    words = [*project["dependencies"], *(word for words in optional for word in words)]
    names = {word.split(";")[0].split(">")[0].split("=")[0].split("<")[0].strip() for word in words}
    return names - {"numpy", "torch", "jinja2"} | {"train.inference"}


def test_all_is_proved_on_the_cpu_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    names = other_dependencies()
    assert {"pyarrow", "polars", "datasets", "tiktoken", "orjson", "xxhash", "typer", "rich"} <= names
    (tmp_path / "sitecustomize.py").write_text(WITHOUT.format(names=names))
    env = environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    missing = subprocess.run(
        [sys.executable, "-c", "import rich"], env=env, capture_output=True, text=True, check=False
    )
    assert "No module named 'rich'" in missing.stderr
    command = ["make", "--no-print-directory", "gpu", "DEVICE=cpu", "SIZE=tiny", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith(f"all {len(PROOFS)} proofs hold, tiny on cpu (")
    assert [line.split(":")[0].strip() for line in lines if line.startswith("          ")] == list(PROOFS)
    assert not [line for line in lines if line.startswith("FAILED")]
    not_run = [line for line in lines if line.startswith("not run")]
    assert all(": " in line for line in not_run)
    assert len(not_run) == 2  # varlen_attn and the peak need CUDA
    assert sum(line.startswith("held") for line in lines) > 40


# ---- a proof that cannot fail proves nothing ----


def noise_on_the_device(patch: pytest.MonkeyPatch) -> None:
    move = Place.move

    def noisy(place: Place, model: GPT, dtype: torch.dtype = torch.float32) -> GPT:
        moved = move(place, model, dtype)
        with torch.no_grad():
            moved.lm_head.weight.mul_(1.001)
        return moved

    patch.setattr(Place, "move", noisy)


def compiler_that_rounds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "compile", lambda function, **_: lambda *args, **kwargs: function(*args, **kwargs) * 1.001)


def another_softcap(patch: pytest.MonkeyPatch) -> None:
    squash = train.loss.squash
    patch.setattr(train.loss, "squash", lambda z: squash(z * 1.01))


def documents_that_see_each_other(patch: pytest.MonkeyPatch) -> None:
    visible = train.model.visible
    patch.setattr(train.model, "visible", lambda T, window, docs, device: visible(T, window, None, device))


def another_flag(name: str, *flags: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """One of the runs that are compared is of other flags"""

    def change(patch: pytest.MonkeyPatch) -> None:
        train_run = gpu_trainer.train_run

        def changed(place: Place, device: torch.device, run_name: str, *more: Any, **options: Any) -> Any:
            return train_run(place, device, run_name, *more, *(flags if run_name == name else ()), **options)

        patch.setattr(gpu_runs, "train_run", changed)

    return change


def moments_that_are_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(train.setup, "load_optimizers", lambda *_: None)


def weights_without_a_seed(patch: pytest.MonkeyPatch) -> None:
    init_weights = GPT.init_weights
    patch.setattr(GPT, "init_weights", lambda model, seed: init_weights(model, random.SystemRandom().getrandbits(32)))


def mean_of_means(patch: pytest.MonkeyPatch) -> None:
    forward = BatchLoss.forward

    def mean(net: BatchLoss, inputs: Tensor, positions: Tensor, labels: Tensor, docs: Tensor | None) -> Any:
        loss_sum, losses = forward(net, inputs, positions, labels, docs)
        return 500 * loss_sum / (labels >= 0).sum(), losses

    patch.setattr(BatchLoss, "forward", mean)


def ranks_of_another_seed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        gpu_runs,
        "torchrun_run",
        lambda place, num, script, *more: gpu_trainer.train_run(place, CPU, "torchrun", *more, "--seed", 43),
    )


def full_card_that_is_a_traceback(patch: pytest.MonkeyPatch) -> None:
    code = gpu_runs.SMALL_CARD["cpu"]
    patch.setitem(gpu_runs.SMALL_CARD, "cpu", f"{code}; import train.card; train.card.FULL = ()")


def card_that_nobody_looks_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("train.distributed.unused_card", lambda: None)


def activations_that_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("train.sizes.ACTIVATIONS_PER_POSITION", 18)


WRONG: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "logits": noise_on_the_device,
    "compiled": compiler_that_rounds,
    "loss": another_softcap,
    "isolated": documents_that_see_each_other,
    "losses": another_flag("got", "--matrix-lr", 0.03),
    "resume": moments_that_are_lost,
    "repeatable": weights_without_a_seed,
    "accumulation": mean_of_means,
    "ranks": ranks_of_another_seed,
    "full": full_card_that_is_a_traceback,
    "cpu_build": card_that_nobody_looks_for,
    "memory": activations_that_are_forgotten,
}


@pytest.mark.parametrize("name", PROOFS)
def test_a_proof_fails_where_something_is_wrong(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG[name](monkeypatch)
    assert any(isinstance(result, Check) and not result.held for result in PROOFS[name](place))


@pytest.mark.parametrize(("peak", "held"), [(1.0, [True, True]), (0.8, [True, False]), (1.1, [False, True])])
def test_peak_memory_is_held_against_the_plan_on_both_sides(
    peak: float, held: list[bool], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "is_cuda", True)
    monkeypatch.setattr(gpu_runs, "train_run", lambda *_: None)
    monkeypatch.setattr(gpu_runs, "memory_bytes", lambda *_: 10**9)
    for name, value in (("memory_allocated", 0), ("reset_peak_memory_stats", 0), ("max_memory_allocated", peak * 1e9)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    results = list(gpu_runs.memory(place))
    assert [result.held for result in results if isinstance(result, Check)] == held * len(place.size.depths)
    assert "COMPILED_ACTIVATIONS_PER_POSITION would be" in results[0].line()


@pytest.mark.parametrize("has_window", [True, False])
def test_varlen_is_called_as_each_torch_has_it(has_window: bool, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, is_causal: bool) -> Tensor:
        parts = zip(*(each.split(starts.diff().tolist()) for each in (q, k, v)), strict=True)
        heads = [[part.transpose(0, 1) for part in each] for each in parts]
        out = [F.scaled_dot_product_attention(*each, is_causal=is_causal).transpose(0, 1) for each in heads]
        return torch.cat(out)

    def newer(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1)):  # type: ignore[no-untyped-def]
        return attention(q, k, v, cu_seq_q, window_size == (-1, 0))

    def older(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):  # type: ignore[no-untyped-def]
        return attention(q, k, v, cu_seq_q, is_causal)

    module = SimpleNamespace(varlen_attn=newer if has_window else older)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    found = gpu_models.varlen(torch.device("cuda"))
    monkeypatch.setattr(gpu_models, "varlen", lambda device: found)
    docs = place.batch(isolated=True).docs
    assert docs is not None
    (result,) = gpu_models.isolated_by_varlen(place, docs)
    assert result.held  # type: ignore[union-attr]
    monkeypatch.setattr(gpu_models, "document_starts", lambda docs: torch.tensor([0, docs.numel()]))
    whole = gpu_models.varlen(torch.device("cuda"))(
        *torch.randn(3, docs.numel(), 2, 64), torch.tensor([0, docs.numel()]), 8
    )
    assert whole.shape == (docs.numel(), 2, 64)


# ---- the command ----


def test_what_fails_and_what_cannot_run_are_told_apart(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(place: Place) -> Any:
        yield Check("first", 1.0, 0.5)
        raise RuntimeError("no kernel image")

    monkeypatch.setitem(PROOFS, "logits", broken)
    monkeypatch.setitem(PROOFS, "loss", lambda place: iter([Check("nan", 1.0, float("nan"))]))
    monkeypatch.setitem(PROOFS, "full", lambda place: iter([NotRun("cards", "this machine has one")]))
    assert prove(place, ["logits", "loss", "full"]) == ["logits", "loss"]
    said = capsys.readouterr()
    assert "no kernel image" in said.err
    assert "FAILED    logits: ended in the error above" in said.out
    assert "FAILED    nan " in said.out
    assert "not run   cards: this machine has one" in said.out


def test_differences_are_of_the_largest_value_and_shapes_have_to_agree() -> None:
    assert gpu_place.largest_difference(torch.tensor([1.0, 8.5]), torch.tensor([1.0, 10.0])) == 0.15
    with pytest.raises(ValueError, match="shapes"):
        gpu_place.largest_difference(torch.ones(3), torch.ones(3, 1))
    with pytest.raises(ValueError, match="on one side only"):
        gpu_place.gradient_difference({"a": torch.ones(1)}, {"b": torch.ones(1)})


@pytest.mark.parametrize(("what", "version"), [("Python", "3.10.9"), ("torch", "2.8.0+cu126")])
def test_what_is_too_old_is_one_line(what: str, version: str) -> None:
    with pytest.raises(SystemExit, match=rf"error: {what} .* found, .* or newer is needed"):
        gpu_needs.refuse_old(what, version)
    gpu_needs.refuse_old(what, {"Python": "3.11.0", "torch": "2.13.0+cpu"}[what])


def test_without_a_card_the_command_says_so_in_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    for script in ("gpu.py", "gpu_bench.py"):
        command = [sys.executable, str(ROOT / "bench" / script)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: --device cuda: ")


def test_the_driver_is_read_from_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "version"
    assert gpu_place.driver_version(path) == "unknown"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Fri Jan 24\nGCC version: 12\n")
    assert gpu_place.driver_version(path) == "570.86.15"
    path.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n")
    assert gpu_place.driver_version(path) == "580.65.06"


# ---- its shards ----


def test_the_shards_are_a_build_whose_counts_are_right(tmp_path: Path) -> None:
    roots = [write_shards(tmp_path / name, 128, 300, {"train": 40, "val": 9}) for name in ("a", "b")]
    shards = open_shards(roots[0])
    assert shards.manifest == open_shards(roots[1]).manifest
    assert list(check_files(shards.root, shards.manifest)) == []
    for split in shards.splits.values():
        tokens, mask = (read(np.arange(split.num_rows)) for read in (split.read_tokens, split.read_mask))
        filled = np.arange(129) < split.rows["num_tokens"][:, None]
        assert (split.rows["num_tokens"] < 129).sum() == split.num_rows // 8
        assert (split.rows["num_trainable"] == mask[:, 1:].sum(axis=1)).all()
        assert split.docs["length"].sum() == filled.sum() == split.entry["total_tokens"]
        assert split.docs["trainable"].sum() == mask.sum() == split.entry["trainable_tokens"]
        assert not mask[~filled].any()
        ends = np.cumsum(split.docs["length"].astype(int))
        assert (tokens[filled][ends[:-1]] == 0).all()  # every document begins with bos
        assert not mask[filled][ends[:-1]].any()
        assert tokens.max() < 300
    assert 0.3 < shards.split("train").entry["trainable_tokens"] / (40 * 129) < 0.8
    assert len(set(shards.split("train").docs["source"].tolist())) == len(SOURCES)
