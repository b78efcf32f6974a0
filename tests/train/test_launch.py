"""plan: what it says of a launch is what the trainer does."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.cli.main import app
from prep.mixture.mixture import parse_mixture
from prep.shard import open_shards
from prep.shard.steps import StepPlan, plan_steps
from prep.tokenizer.load import load_tokenizer
from train import launch as launching
from train.launch import memory_bytes, warmdown_start
from train.schedule import lr_multiplier
from train.sizes import CHUNK_BYTES, config_of_depth

T = 64
MIXTURE = {"seed": 42, "train": [{"task": "simple_spelling", "size": 600}, {"task": "arithmetic", "size": 100}]}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    options = BuildOptions(max_seq_len=T, cache_dir=folder / "cache", workers=1, quiet=True)
    build(make_job(parse_mixture(MIXTURE, "test", folder, "tiny"), load_tokenizer(), options), folder / "tiny")
    return folder / "tiny"


def plan(root: Path, *words: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan", str(root), "--json", *map(str, words)], catch_exceptions=False)
    value: dict[str, Any] = json.loads(result.stdout)
    return value


@pytest.mark.parametrize("mode", ["mid", "sft"])
@pytest.mark.parametrize(("batch", "epochs"), [(None, 1.0), (T * 16, 2.5), (T * 1024, 1.0)])
def test_steps_targets_and_micro_batches_are_the_trainers(
    root: Path, mode: str, batch: int | None, epochs: float
) -> None:
    import torch

    from train.config import Config
    from train.distributed import Ranks
    from train.setup import plan_run

    shown = plan(root, "--epochs", epochs, *(["--total-batch-size", batch] if batch else []), "--world-size", "1,2")
    config = Config(shards=str(root), mode=mode, total_batch_size=batch, num_epochs=epochs)
    theirs, _ = plan_run(config, open_shards(root).split("train"), Ranks(0, 1, torch.device("cpu")))
    ours = shown["modes"][mode]
    targets = [theirs.targets_of_step(step) for step in range(theirs.num_steps)]
    assert (ours["steps"], ours["rows"], shown["rows_per_step"]) == (
        theirs.num_steps, len(theirs.row_ids), theirs.rows_per_step,
    )  # fmt: skip
    per_step = ours["targets_per_step"]
    assert (per_step["min"], per_step["max"], ours["targets"]) == (min(targets), max(targets), sum(targets))
    assert per_step["mean"] == pytest.approx(np.mean(targets), abs=0.06)
    few = [step for step, number in enumerate(targets) if number < np.mean(targets) / 2]
    assert (ours["steps_with_few_targets"]["number"], ours["steps_with_few_targets"]["first"]) == (len(few), few[:5])
    for launch in shown["launches"]:
        batch_size = launch["device_batch_size"]
        exact = replace(config, total_batch_size=shown["total_batch_size"], device_batch_size=batch_size)
        ranks = Ranks(1, launch["world_size"], torch.device("cpu"))
        again, device_batch = plan_run(exact, open_shards(root).split("train"), ranks)
        assert device_batch * launch["world_size"] * launch["accumulation"] == again.rows_per_step
        assert again.num_steps == ours["steps"]


@pytest.mark.parametrize("pattern", [None, "L", "SSL"])
@pytest.mark.parametrize("depth", [4, 6, 12])
def test_weights_flops_and_bytes_are_those_of_the_model(depth: int, pattern: str | None) -> None:
    import torch

    from train.model import GPT, Linear

    config = replace(config_of_depth(depth, T, 5000), window_pattern=pattern)
    with torch.device("meta"):
        model = GPT(config)
    model.set_dtype(torch.bfloat16)
    sizes = {name: weight.numel() * weight.element_size() for name, weight in model.named_parameters()}
    moments = sum(size * (1 if "transformer.h." in name else 2) for name, size in sizes.items())
    multiplied = sum(module.weight.numel() for module in model.modules() if isinstance(module, Linear))
    attention = 12 * config.n_embd * sum(min(config.window(layer), T) for layer in range(depth))
    assert sum(config.weights()) == sum(weight.numel() for weight in model.parameters())
    assert config.flops_per_token() == 6 * multiplied + attention
    assert config.weights().checkpoint_bytes(2) == sum(sizes.values()) + moments
    assert config.weights().state_bytes(2) == 2 * sum(sizes.values()) + moments
    assert memory_bytes(config, 0, T) >= config.weights().state_bytes(2) + CHUNK_BYTES["cuda"]


def test_memory_is_close_to_what_autograd_keeps() -> None:
    import torch

    from train.model import GPT

    config = config_of_depth(4, 128, 1000)
    model = GPT(config)
    model.set_dtype(torch.bfloat16)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model.hidden(torch.zeros((4, 128), dtype=torch.long))
    activations = config.activation_bytes(4 * 128, 2, compiled=False)
    copies = 2 * config.weights().matrices  # of the matrices, in bfloat16
    assert out.shape == (4, 128, 256)
    assert activations + copies == pytest.approx(sum(kept.values()), rel=0.05)


def test_warm_down_begins_where_the_learning_rate_last_is_full() -> None:
    for num_steps in range(1, 200):
        rates = [lr_multiplier(step, num_steps, 0.2, 1.0) for step in range(num_steps)]
        assert warmdown_start(num_steps) == next((i for i, rate in enumerate(rates) if rate < 1), num_steps)


def test_each_launch_has_a_line_that_the_trainer_understands(root: Path) -> None:
    from train.config import parse_args

    shown = plan(root, "--epochs", 2, "--depth", 4, "--total-batch-size", T * 32, "--world-size", "1,2,16,3")
    words = {one["world_size"]: shlex.split(one["commands"]["mid"]) for one in shown["launches"] if "commands" in one}
    assert list(words) == [1, 2, 16]
    assert words[2][:4] == ["torchrun", "--nproc-per-node", "2", "train/mid.py"]
    assert words[16][:7] == [
        "torchrun", "--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500",
    ]  # fmt: skip
    config = parse_args(words[2][4:])
    assert (config.shards, config.depth, config.num_epochs, config.total_batch_size) == (str(root), 4, 2.0, T * 32)
    sft = parse_args(shlex.split(shown["launches"][0]["commands"]["sft"])[4:])
    assert (sft.mode, sft.base, sft.depth) == ("sft", "runs/tiny", None)
    assert "not a multiple of 3 ranks" in shown["launches"][3]["error"]


def test_hours_are_tokens_over_the_speed_of_all_ranks(root: Path) -> None:
    shown = plan(root, "--world-size", "1,2", "--tokens-per-second", 1000)
    tokens = shown["modes"]["mid"]["tokens"]
    assert [one["hours"]["mid"] for one in shown["launches"]] == [
        round(tokens / 3.6e6, 4), round(tokens / 7.2e6, 4),
    ]  # fmt: skip


def test_the_table_has_all_of_it_and_mistakes_are_one_line(root: Path) -> None:
    result = CliRunner().invoke(app, ["plan", str(root), "--total-batch-size", str(T * 4), "--world-size", "1,2,4,8"])
    for words in ("warm-down", "checkpoints", "FLOPs", "memory per rank", "torchrun --nproc-per-node 4", "4 rows"):
        assert words in result.stdout
    for words, message in {
        ("--total-batch-size", 100): "is not a multiple of rows of 64 tokens: give 64 or 128",
        ("--total-batch-size", T * 4, "--world-size", "3"): "not a multiple of 3 ranks",
        ("--world-size", "two"): "wanted whole numbers",
        ("--epochs", 0): "wanted more than 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            plan(root, *words)


def test_every_number_of_the_table_has_a_unit(root: Path) -> None:
    words = ["--world-size", "1,2", "--tokens-per-second", "1000", "--total-batch-size", str(T * 4)]
    lines = CliRunner().invoke(app, ["plan", str(root), *words]).stdout.splitlines()
    units = "rows?|steps|targets|tokens|times|of|KiB|MiB|GiB|FLOPs|ranks?|s|min|h|empty|skipped"
    table = [line for line in lines[3:] if line[:1].strip() and not line.startswith(("memory", "hours", "no row"))]
    facts = [cell for line in table for cell in re.split(r"\s{2,}", line.strip())[1:] if cell not in ("mid", "sft")]
    assert len(facts) >= 30
    number = re.compile(r"[~\d][\d,.e+]*(?:%| )")
    for cell in (re.sub(r" \(step [\d, .]+\)", "", fact) for fact in facts):
        if not cell.startswith("from step "):
            assert re.fullmatch(rf"({number.pattern} ?({units})[^\d]*)+", cell), cell
    assert "micro-batches" in "".join(lines)


def test_a_very_long_run_is_planned_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "MOST_STEPS", 100)
    few, many = (plan(root, "--num-epochs", epochs) for epochs in (1, 10**9))
    for mode in ("mid", "sft"):
        assert many["modes"][mode]["targets"] == 10**9 * few["modes"][mode]["targets"]
        assert many["modes"][mode]["steps"] > 10**7


def test_of_a_run_that_goes_round_and_round_few_epochs_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every epoch is permuted, however few rows it has: of 1e8 steps a million took over a minute"""
    from shards_factory import random_rows, write_build

    looked: list[StepPlan] = []
    plain = launching.step_sums
    monkeypatch.setattr(launching, "step_sums", lambda first, values: looked.append(first) or plain(first, values))
    split = open_shards(write_build(tmp_path / "s", {"train": random_rows(0, 3, 8)}, max_seq_len=8)).split("train")
    for num_steps, most in ((10**11, launching.MOST_EPOCHS), (50, 600)):
        plan = plan_steps(split, "mid", 32 * 8, 1.0, 42, num_iterations=num_steps)
        facts = launching.describe_mode(split, plan, launching.config_of_depth(1, 8, 60), launching.DEFAULTS, 2)
        assert facts["steps"] == num_steps
        assert looked.pop().num_positions <= most * 3


# ---- the model of a checkpoint ----


@pytest.mark.parametrize("name", ["ckpt_2025-12", "ckpt_2026-07"])
def test_a_plan_for_a_base_is_for_its_model_and_has_lines_that_start_from_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conftest import FIXTURES
    from shards_factory import random_rows, write_build

    from train.checkpoint import load_model
    from train.config import parse_args

    shards = write_build(tmp_path / "s", {"train": random_rows(0, 64, 32, vocab_size=512)}, 32, vocab_size=512)
    home = tmp_path / "home" / "base_checkpoints" / "d4"
    shutil.copytree(FIXTURES / name, home)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "home"))
    model, _ = load_model(home)
    for base in ("d4", home, tmp_path / "home"):
        shown = plan(shards, "--base", base)
        assert shown["model"]["depth"] == 4
        assert shown["model"]["vocab_size"] == 512
        assert shown["model"]["weights"] == sum(weight.numel() for weight in model.parameters())
        assert shown["model"]["flops_per_token"] == model.config.flops_per_token(32)
        launch = shown["launches"][0]
        assert launch["memory_bytes"] == memory_bytes(model.config, launch["device_batch_size"], 32)
        lines = {mode: parse_args(shlex.split(line)[4:]) for mode, line in launch["commands"].items()}
        assert (lines["mid"].base, lines["mid"].depth) == (str(home), None)
        assert lines["sft"].base == (str(home) if model.config.is_2026 else "runs/s")
    with pytest.raises(ValueError, match=r"--depth 6, but --base .*d4 has 4 layers: leave --depth out"):
        plan(shards, "--base", home, "--depth", 6)


def test_a_plan_for_a_base_refuses_what_the_trainer_refuses(root: Path, tmp_path: Path) -> None:
    from conftest import FIXTURES

    with pytest.raises(ValueError, match="has a vocabulary of 512, the shards 32,768"):
        plan(root, "--base", FIXTURES / "ckpt_2025-12")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        plan(root, "--base", tmp_path)
