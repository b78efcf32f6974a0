"""Checkpoints both ways: what nanochat writes is read, what is written nanochat reads, and what is wrong is named."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FIXTURES, TINY, run_here
from shards_factory import random_rows, write_build
from test_model import GENERATIONS, random_model

from train.checkpoint import BASES, find_checkpoint, load_model, load_optimizers, save_checkpoint
from train.config import Config
from train.meta import steps_in
from train.model import GPT
from train.optimizer import build_optimizers, set_step

State = dict[str, torch.Tensor]


def write(root: Path, state: State, config: dict[str, Any], step: int = 10, **meta: Any) -> Path:
    """As nanochat writes one"""
    root.mkdir(parents=True, exist_ok=True)
    torch.save(state, root / f"model_{step:06d}.pt")
    text = json.dumps({"step": step, "val_bpb": 1.0, "model_config": config, "user_config": {}, **meta})
    (root / f"meta_{step:06d}.json").write_text(text)
    return root


def contents(name: str) -> tuple[State, dict[str, Any]]:
    root = FIXTURES / name
    state = torch.load(root / "model_000010.pt", weights_only=True)
    return state, json.loads((root / "meta_000010.json").read_text())["model_config"]


# ---- reading ----


@pytest.mark.parametrize("name", GENERATIONS)
def test_prefixed_keys_and_bfloat16_embeddings_are_read(tmp_path: Path, name: str) -> None:
    state, config = contents(name)
    wte = state["transformer.wte.weight"].bfloat16()
    written = {f"_orig_mod.{key}": value for key, value in {**state, "transformer.wte.weight": wte}.items()}
    model, _ = load_model(write(tmp_path / "d4", written, config))
    assert torch.equal(model.transformer.wte.weight, wte.float())


def test_missing_lambdas_count_as_1_and_0_and_a_missing_pattern_as_l(tmp_path: Path) -> None:
    state, config = contents("ckpt_2026-07")
    idx = torch.randint(512, (1, 50))
    whole = {**state, "resid_lambdas": torch.ones(4), "x0_lambdas": torch.zeros(4)}
    old = {key: value for key, value in state.items() if key not in ("resid_lambdas", "x0_lambdas")}
    bare = {key: value for key, value in config.items() if key != "window_pattern"}
    expected, _ = load_model(write(tmp_path / "a", whole, {**config, "window_pattern": "L"}))
    model, _ = load_model(write(tmp_path / "b", old, bare))
    assert model.config.window_pattern == "L"
    assert torch.equal(model(idx), expected(idx))


def test_the_largest_depth_and_its_largest_step_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, config = contents("ckpt_2025-12")
    for tag, step in (("d4", 900), ("d12", 5), ("d12", 20), ("d9", 30), ("other", 99)):
        write(tmp_path / "base_checkpoints" / tag, state, config, step)
    (tmp_path / "base_checkpoints" / "d12" / "model_000021.pt").write_bytes(b"half")  # no meta: does not count
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    base = tmp_path / "base_checkpoints"
    assert find_checkpoint("", None, BASES["mid"]) == (base / "d12", 20)
    assert find_checkpoint("d4", None, BASES["mid"]) == (base / "d4", 900)
    assert find_checkpoint("d12", 5, BASES["sft"]) == (base / "d12", 5)
    assert find_checkpoint(str(base / "other"), None, BASES["mid"]) == (base / "other", 99)
    assert find_checkpoint(str(tmp_path), None, BASES["mid"]) == (base / "d12", 20)
    (base / "d12" / "model_000020.pt").unlink()
    assert find_checkpoint("d12", None, BASES["mid"]) == (base / "d12", 5)  # a meta without its model does not count
    write(tmp_path / "mid_checkpoints" / "d12", state, config, 3)
    assert find_checkpoint("d12", None, BASES["sft"]) == (tmp_path / "mid_checkpoints" / "d12", 3)
    write(base / "d12", state, config, 20)
    with pytest.raises(FileNotFoundError, match=r"d12 has no step 7, it has: 5, 20$"):
        find_checkpoint("d12", 7, BASES["mid"])
    with pytest.raises(FileNotFoundError, match=r"d77 is not a directory"):
        find_checkpoint("d77", None, BASES["mid"])


def test_a_poisoned_checkpoint_runs_nothing(tmp_path: Path) -> None:
    class Poison:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "poisoned"),)

    _, config = contents("ckpt_2025-12")
    root = write(tmp_path / "d4", {}, config)
    for write_poison in (
        lambda path: torch.save({"x": Poison()}, path),
        lambda path: torch.save({"x": Poison()}, path, _use_new_zipfile_serialization=False),
        lambda path: path.write_bytes(pickle.dumps(Poison())),
    ):
        write_poison(root / "model_000010.pt")
        with pytest.raises(ValueError, match=r"model_000010\.pt is not a file of plain tensors") as error:
            load_model(root)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "poisoned").exists()


def changed(name: str, **keys: Any) -> State:
    """The fixture's state dict with some keys set, or removed (None)"""
    state = {**contents(name)[0], **{key.replace("__", "."): value for key, value in keys.items()}}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("name", "keys", "config", "message"),
    [
        ("ckpt_2025-12", {"lm_head__weight": None}, {}, "lm_head.weight is missing, in a model of 2025-12"),
        ("ckpt_2025-12", {"lm_head__bias": torch.ones(1)}, {}, r"lm_head.bias is \(1,\), in a model of 2025-12"),
        ("ckpt_2025-12", {"smear_lambda": torch.ones(1)}, {}, "backout_lambda is missing, in a model of 2026-07"),
        ("ckpt_2026-07", {"value_embeds__1__weight": None}, {}, "value_embeds.1.weight is missing"),
        ("ckpt_2026-07", {"value_embeds__0__weight": torch.ones(1)}, {}, "value_embeds.0.weight is"),
        ("ckpt_2026-07", {"backout_lambda": None}, {}, "backout_lambda is missing"),
        (
            "ckpt_2025-12",
            {},
            {"vocab_size": 600},
            r"transformer.wte.weight is \(512, 64\), in a model of 2025-12 with this config it is \(600, 64",
        ),
        ("ckpt_2025-12", {}, {"n_kv_head": 4}, "c_k.weight is"),
        ("ckpt_2025-12", {}, {"window_pattern": "SL"}, "window_pattern 'SL' is of 2026-07, but no key is"),
        ("ckpt_2026-07", {}, {"window_pattern": "XL"}, "window_pattern is 'XL', wanted letters S and L"),
        ("ckpt_2025-12", {}, {"rope_base": 5}, "model_config has 'rope_base'"),
        ("ckpt_2025-12", {}, {"n_head": None}, "model_config has no 'n_head'"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_named_in_one_line(
    tmp_path: Path, name: str, keys: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    found = {key: value for key, value in {**contents(name)[1], **config}.items() if value is not None}
    root = write(tmp_path / "d4", changed(name, **keys), found)
    with pytest.raises(ValueError, match=message) as error:
        load_model(root)
    assert "\n" not in str(error.value)


# ---- writing ----


@pytest.mark.parametrize("name", GENERATIONS)
def test_load_save_load_is_equal_to_the_bit(tmp_path: Path, name: str) -> None:
    model, _ = load_model(FIXTURES / name)
    save_checkpoint(tmp_path / "d4", 7, model, build_optimizers(model), {"val_bpb": 1.0})
    again, meta = load_model(tmp_path / "d4")
    state, config = contents(name)
    assert (meta["step"], meta["model_config"]) == (7, config)
    written = torch.load(tmp_path / "d4" / "model_000007.pt", weights_only=True)
    assert {key: (v.shape, v.dtype) for key, v in written.items()} == {k: (v.shape, v.dtype) for k, v in state.items()}
    for loaded in (written, dict(again.named_parameters())):
        assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_run_writes_the_files_and_fields_that_nanochat_reads(build: Path, tmp_path: Path) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY)
    root = tmp_path / "mid_checkpoints" / "d1"
    assert {path.name for path in root.iterdir()} == {
        "model_000006.pt", "meta_000006.json", "optim_000006_rank0.pt", "metrics.jsonl",
    }  # fmt: skip
    meta = json.loads((root / "meta_000006.json").read_text())
    assert {"step", "val_bpb", "model_config", "user_config", "device_batch_size", "max_seq_len"} < meta.keys()
    assert meta["model_config"] == {
        "sequence_len": 16, "vocab_size": 60, "n_layer": 1, "n_head": 1, "n_kv_head": 1, "n_embd": 64,
    }  # fmt: skip
    adamw, muon = torch.load(root / "optim_000006_rank0.pt", weights_only=True)
    assert [len(group["params"]) for group in adamw["param_groups"]] == [1, 1]
    assert adamw["state"][0]["exp_avg"].shape == (60, 64)  # lm_head first, then wte
    assert {"momentum_buffer"} == set(muon["state"][0])


def test_a_checkpoint_of_sft_goes_to_chatsft_checkpoints(build: Path, tmp_path: Path) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY)
    run_here("--shards", build, "--out", tmp_path, *TINY, "--mode", "sft", "--base", tmp_path)
    assert steps_in(tmp_path / "chatsft_checkpoints" / "d1")
    assert find_checkpoint(tmp_path, None, ("chatsft_checkpoints",))[0] == tmp_path / "chatsft_checkpoints" / "d1"


def test_a_write_that_is_cut_short_leaves_the_last_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model()
    optimizers = build_optimizers(model)
    save_checkpoint(tmp_path, 5, model, optimizers, {})
    monkeypatch.setattr("train.checkpoint.json.dumps", lambda *args, **kwargs: 1 / 0)  # killed before the meta
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(tmp_path, 6, model, optimizers, {})
    assert (tmp_path / "model_000006.pt").exists()
    assert find_checkpoint(tmp_path) == (tmp_path, 5)


# ---- optimizer state ----


def trained(model: GPT, num_steps: int) -> tuple[Any, Any]:
    optimizers = build_optimizers(model)
    for step in range(num_steps):
        model(torch.arange(20)[None]).square().mean().backward()
        set_step(optimizers, step, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
    return optimizers


@pytest.mark.parametrize("pattern", [None, "SL"])
def test_optimizer_state_comes_back_to_the_bit(tmp_path: Path, pattern: str | None) -> None:
    model = random_model(window_pattern=pattern)
    optimizers = trained(model, 2)
    save_checkpoint(tmp_path, 2, model, optimizers, {})
    rates = Config(embedding_lr=0.1, unembedding_lr=0.002, matrix_lr=0.01)
    fresh = build_optimizers(model, rates)
    load_optimizers(tmp_path, 2, fresh)
    wanted = [group["lr"] for optimizer in build_optimizers(model, rates) for group in optimizer.param_groups]
    assert [group["lr"] for optimizer in fresh for group in optimizer.param_groups] == wanted  # not the file's
    for ours, theirs in zip(fresh, optimizers, strict=True):
        for group in ours.param_groups:
            for p in group["params"]:
                assert ours.state[p].keys() == theirs.state[p].keys()
                assert all(torch.equal(ours.state[p][key], theirs.state[p][key]) for key in ours.state[p])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "optim_000002_rank1.pt").touch(), "is one of several parts"),
        (lambda root: torch.save({"state": {}}, root / "optim_000002_rank0.pt"), r"does not hold \[AdamW, Muon\]"),
        (lambda root: (root / "optim_000002_rank0.pt").unlink(), "not found"),
        (
            lambda root: save_checkpoint(root, 2, big := random_model(n_embd=128), trained(big, 1), {}),
            r"exp_avg 0 of AdamW is \(60, 128\), not \(60, 64\)",
        ),
        (
            lambda root: save_checkpoint(root, 2, deep := random_model(n_layer=4), trained(deep, 1), {}),
            "Muon has state for 24 weights, the model has 18",
        ),
        (
            lambda root: torch.save([{"state": {}, "param_groups": []}] * 2, root / "optim_000002_rank0.pt"),
            "AdamW has state for 0 weights",
        ),
    ],
)
def test_optimizer_state_that_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, break_it: Callable[[Path], Any], message: str
) -> None:
    model = random_model()
    save_checkpoint(tmp_path, 2, model, trained(model, 1), {})
    break_it(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_optimizers(tmp_path, 2, build_optimizers(model))


# ---- base and shards ----


def test_a_base_of_either_generation_is_trained_on(tmp_path: Path) -> None:
    rows = random_rows(0, 8, 64, vocab_size=512)
    shards = write_build(tmp_path / "s", {"train": rows, "val": rows[:2]}, max_seq_len=64, vocab_size=512)
    for name in GENERATIONS:
        out = tmp_path / name
        run_here("--shards", shards, "--base", FIXTURES / name, "--out", out, "--num-iterations", 2, "--device", "cpu")
        model, meta = load_model(out)
        assert meta["model_config"] == contents(name)[1]
        assert not torch.equal(model.lm_head.weight, contents(name)[0]["lm_head.weight"])


def test_a_base_of_another_vocabulary_or_tokenizer_is_refused(
    build: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    out = ["--out", tmp_path / "out"]
    error = error_of("--shards", build, "--base", FIXTURES / "ckpt_2025-12", *out)
    assert "has a vocabulary of 512, the shards 60: build the shards with the model's tokenizer" in error
    run_here("--shards", build, "--out", tmp_path / "mid", *TINY)
    rows = random_rows(0, 8, 16)
    other = write_build(tmp_path / "other", {"train": rows, "val": rows}, max_seq_len=16, tokenizer="another")
    error = error_of("--shards", other, "--base", tmp_path / "mid", *out, "--device", "cpu")
    assert "was trained with tokenizer" in error
    assert "(another)" in error


def test_a_directory_that_nanochat_wrote_is_never_written_into(
    build: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    shutil.copytree(FIXTURES / "ckpt_2025-12", tmp_path / "mid_checkpoints" / "d1")
    for resume in ("auto", "never"):
        error = error_of("--shards", build, "--out", tmp_path, "--resume", resume, *TINY)
        assert "holds checkpoints that midprep did not write: give another --out" in error
