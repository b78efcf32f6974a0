"""A checkpoint is what it was when it was saved: damaged, swapped and malformed ones are refused in one line."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FIXTURES, TINY, environment, losses, run_here
from test_checkpoint import changed, contents, trained, write
from test_model import GENERATIONS, random_model
from torch import Tensor

from train.checkpoint import load_model, load_optimizers, save_checkpoint
from train.model import GPT
from train.optimizer import build_optimizers
from train.sizes import config_of_depth

ErrorOf = Callable[..., str]


@pytest.fixture(scope="module")
def finished(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps with checkpoints at 2, 4 and 6"""
    out = tmp_path_factory.mktemp("finished")
    run_here("--shards", build, "--out", out, *TINY, "--save-every", 2)
    return out


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """The same run, as if killed after step 4; the directory of its checkpoints"""
    shutil.copytree(finished, tmp_path / "run")
    root = tmp_path / "run" / "mid_checkpoints" / "d1"
    for path in root.glob("*_000006*"):
        path.unlink()
    return root


def flip(path: Path, record: str, at: float = 0.5) -> None:
    """Flip one bit of a record of a file of torch.save"""
    with zipfile.ZipFile(path) as archive:
        (entry,) = [entry for entry in archive.infolist() if entry.filename.endswith(record)]
    data = bytearray(path.read_bytes())
    names = int.from_bytes(data[entry.header_offset + 26 : entry.header_offset + 28], "little")
    extra = int.from_bytes(data[entry.header_offset + 28 : entry.header_offset + 30], "little")
    data[entry.header_offset + 30 + names + extra + int(entry.file_size * at)] ^= 0x40
    path.write_bytes(data)


def edit(root: Path, step: int, change: Callable[[dict[str, Any]], Any]) -> None:
    path = root / f"meta_{step:06d}.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def resume(build: Path, root: Path) -> list[Any]:
    return ["--shards", build, "--out", root.parents[1], *TINY, "--save-every", 2]


# ---- damage ----


@pytest.mark.parametrize(
    ("name", "record", "tensor"),
    [
        ("model_000004.pt", "data/0", "transformer.wte.weight"),
        ("model_000004.pt", "data/1", r"transformer.h.0.attn.c_q.weight"),
        ("model_000004.pt", "data.pkl", "record 'archive/data.pkl'"),
        ("optim_000004_rank0.pt", "data/1", "0.state.0.exp_avg"),
        ("optim_000004_rank0.pt", "data/2", "0.state.0.exp_avg_sq"),
    ],
)
def test_a_flipped_bit_is_refused_by_the_name_of_its_tensor(
    build: Path, stopped: Path, error_of: ErrorOf, name: str, record: str, tensor: str
) -> None:
    flip(stopped / name, record)
    error = error_of(*resume(build, stopped))
    assert f"{name} is damaged: {tensor} has another CRC-32" in error
    assert "to resume from the checkpoint before" in error


def test_what_the_error_says_to_do_gives_the_losses_of_the_whole_run(
    build: Path, finished: Path, stopped: Path, error_of: ErrorOf
) -> None:
    flip(stopped / "model_000004.pt", "data/0")
    error_of(*resume(build, stopped))
    (stopped / "meta_000004.json").unlink()
    run_here(*resume(build, stopped))
    assert losses(stopped.parents[1]) == losses(finished)


def test_a_base_with_a_flipped_bit_is_refused_with_and_without_a_note(
    build: Path, stopped: Path, tmp_path: Path, error_of: ErrorOf
) -> None:
    flip(stopped / "model_000004.pt", "data/0")
    flags = ["--shards", build, "--out", tmp_path / "out", "--device", "cpu", "--base", stopped]
    assert "transformer.wte.weight has another CRC-32" in error_of(*flags)
    edit(stopped, 4, lambda meta: meta.pop("midprep"))
    assert "transformer.wte.weight has another CRC-32" in error_of(*flags)
    edit(stopped, 2, lambda meta: meta.pop("midprep"))
    flip(stopped / "optim_000002_rank0.pt", "data/1")
    error = error_of(*flags, "--base-step", 2, "--base-optimizer")
    assert "0.state.0.exp_avg has another CRC-32" in error


@pytest.mark.parametrize("name", ["model_%06d.pt", "optim_%06d_rank0.pt"])
def test_a_whole_file_of_another_step_is_refused(build: Path, stopped: Path, error_of: ErrorOf, name: str) -> None:
    shutil.copy(stopped / (name % 2), stopped / (name % 4))
    assert f"{name % 4} is not the file that its meta was written for" in error_of(*resume(build, stopped))


def test_files_that_are_cut_emptied_or_swapped_for_others_are_refused(tmp_path: Path) -> None:
    state, config = contents("ckpt_2025-12")
    path = write(tmp_path / "d4", state, config) / "model_000010.pt"
    data = path.read_bytes()
    for damaged in (b"", data[:100], data[: len(data) // 2], data[:-30], b"\x80\x02}q\x00.", data[1:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model_000010\.pt is not a file of plain tensors \(") as error:
            load_model(tmp_path / "d4")
        assert "\n" not in str(error.value)
    path.write_bytes(data)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[-1], b"again")
    with pytest.raises(ValueError, match="a record occurs twice"):
        load_model(tmp_path / "d4")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # 50 MB of zeros in 50 kB
        archive.writestr("archive/data/0", bytes(50_000_000))
    with pytest.raises(ValueError, match="a record is compressed"):
        load_model(tmp_path / "d4")


def test_what_cannot_be_read_is_not_called_damaged(
    build: Path, stopped: Path, error_of: ErrorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk or memory that fails says nothing of the file: nobody is told to remove its meta"""

    def fail(error: Exception) -> Any:
        def raise_it(*arguments: Any, **options: Any) -> None:
            raise error

        return raise_it

    no_memory = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
    for place, error, reason in (
        ("train.tensors.zipfile.ZipFile", OSError(5, "Input/output error"), "Input/output error"),
        ("train.tensors.torch.load", no_memory, "not enough memory for its tensors"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail(error))
            line = error_of(*resume(build, stopped))
        assert f"model_000004.pt cannot be read ({reason}): it may be whole, so mend that" in line
    path = stopped / "optim_000004_rank0.pt"
    path.unlink()
    os.mkfifo(path)
    assert f"{path} cannot be read (no regular file)" in error_of(*resume(build, stopped))


# ---- metas that cannot be true ----


def garble(keys: dict[str, Any], name: str) -> None:
    keys[name[:-1] + "~"] = keys.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.update(step=3), "says step 3, its name 4"),
        (lambda meta: meta.update(step="4"), "says step '4', its name 4"),
        (lambda meta: garble(meta, "step"), "has no step"),
        (lambda meta: garble(meta["midprep"], "identity"), "has no identity of its run"),
        (lambda meta: meta["midprep"].update(identity=[]), "has no identity of its run"),
        (lambda meta: meta.update(midprep=None), "has no identity of its run"),
        (lambda meta: garble(meta["midprep"]["identity"], "shards"), "has 'shard~' in its identity"),
        (lambda meta: meta["midprep"]["identity"].pop("matrix_lr"), "has no 'matrix_lr' in its identity"),
        (lambda meta: garble(meta["midprep"], "version"), "has 'versio~' in midprep"),
        (lambda meta: meta["midprep"].update(version=99), "has version 99 of midprep's keys"),
        (lambda meta: meta["midprep"].pop("records_sha256"), "has no 'records_sha256' in midprep"),
        (lambda meta: meta["midprep"]["records_sha256"].pop("optim"), "has None for records_sha256 of optim"),
        (lambda meta: meta["midprep"].pop("config_sha256"), "has no 'config_sha256' in midprep"),
        (lambda meta: meta["midprep"].update(config_sha256=5), "has 5 for config_sha256, wanted 64 hexadecimal digits"),
        (lambda meta: meta["model_config"].update(sequence_len=8), "has another model_config than it was written with"),
        (lambda meta: meta["model_config"].update(window_pattern="L"), "has another model_config than it was written"),
        (lambda meta: meta["midprep"].update(tokenizer_sha256="ab"), "has 'ab' for tokenizer_sha256"),
        (lambda meta: meta["model_config"].update(n_head=0), "has n_head 0, wanted a positive whole number"),
    ],
)
def test_a_meta_that_cannot_be_true_is_refused(
    build: Path, stopped: Path, tmp_path: Path, error_of: ErrorOf, change: Callable[[Any], Any], message: str
) -> None:
    edit(stopped, 4, change)
    assert message in error_of(*resume(build, stopped))
    error = error_of("--shards", build, "--base", stopped, "--out", tmp_path / "out", "--device", "cpu")
    assert message in error


def version_1(meta: dict[str, Any]) -> None:
    for name in ("version", "dtype", "records_sha256", "config_sha256"):
        del meta["midprep"][name]
    del meta["midprep"]["identity"]["eval_tokens"]


def version_2(meta: dict[str, Any]) -> None:
    meta["midprep"]["version"] = 2
    del meta["midprep"]["config_sha256"]


@pytest.mark.parametrize("older", [version_1, version_2])
def test_a_meta_of_a_version_before_resumes(
    build: Path, finished: Path, stopped: Path, older: Callable[[dict[str, Any]], None]
) -> None:
    edit(stopped, 4, older)
    run_here(*resume(build, stopped))
    assert losses(stopped.parents[1]) == losses(finished)


# ---- malformed ----

WTE = (512, 64)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda: torch.zeros(1).expand(WTE), r"is one element repeated \(stride 0\)"),
        (lambda: torch.zeros(1, 64).expand(WTE), r"is one element repeated \(stride 0\)"),
        (lambda: torch.zeros(600).as_strided(WTE, (1, 1)), "is larger than what is stored of it"),
        (lambda: torch.zeros(WTE, dtype=torch.int64), "is int64, wanted a dense float tensor"),
        (lambda: torch.zeros(WTE, dtype=torch.bool), "is bool, wanted"),
        (lambda: torch.zeros(WTE, dtype=torch.complex64), "is complex64, wanted"),
        (lambda: torch.zeros(WTE, dtype=torch.float8_e4m3fn), "is float8_e4m3fn, wanted"),
        (lambda: torch.zeros(WTE).to_sparse(), "is sparse_coo, wanted"),
        (lambda: torch.zeros(WTE, device="meta"), r"is without data \(device meta\)"),
    ],
)
def test_a_tensor_that_is_no_plain_weight_is_refused(
    tmp_path: Path, tensor: Callable[[], Tensor], message: str
) -> None:
    root = write(tmp_path / "d4", changed("ckpt_2025-12", lm_head__weight=tensor()), contents("ckpt_2025-12")[1])
    with pytest.raises(ValueError, match=f"lm_head.weight {message}") as error:
        load_model(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", GENERATIONS)
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_head": 0}, "n_head 0, wanted a positive whole number"),
        ({"n_embd": 64.5}, "n_embd 64.5, wanted a positive"),
        ({"n_embd": "64"}, "n_embd '64', wanted a positive"),
        ({"n_kv_head": True}, "n_kv_head True, wanted a positive"),
        ({"sequence_len": -64}, "sequence_len -64, wanted a positive"),
        ({"vocab_size": 10**400}, "vocab_size 1000.*, wanted a positive"),
        ({"n_layer": 10**9}, r"n_layer is 1000000000 in its meta, its keys have 4"),
        ({"n_layer": 3}, r"n_layer is 3 in its meta, its keys have 4"),
        ({"n_embd": 1 << 30}, r"wte.weight is \(512, 64\), .* it is \(512, 1073741824\)"),
        ({"vocab_size": (1 << 31) - 1}, r"wte.weight is \(512, 64\)"),
        ({"n_head": 5}, "width 64 cannot be divided among 5 heads"),
        ({"n_head": 64, "n_kv_head": 64}, "width 64 cannot be divided among 64 heads"),
        ({"n_kv_head": 3}, "among 4 heads, 3 of keys"),
        ({"window_pattern": 7}, "window_pattern 7, wanted letters"),
    ],
)
def test_sizes_that_no_model_has_are_refused_before_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, config: dict[str, Any], message: str
) -> None:
    state, sizes = contents(name)
    root = write(tmp_path / "d4", state, {**sizes, **config})
    monkeypatch.setattr("train.checkpoint.GPT", lambda config: pytest.fail("a model was made"))
    with pytest.raises(ValueError, match=message) as error:
        load_model(root)
    assert "\n" not in str(error.value)


def test_names_that_are_no_text_or_occur_twice_are_refused(tmp_path: Path) -> None:
    state, config = contents("ckpt_2025-12")
    root = write(tmp_path / "a", {**state, 7: torch.ones(1)}, config)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="is not a state dict"):
        load_model(root)
    root = write(tmp_path / "b", {**state, "module.lm_head.weight": torch.ones(1)}, config)
    with pytest.raises(ValueError, match=r"lm_head.weight occurs twice, .* \(module.lm_head.weight\)"):
        load_model(root)


@pytest.mark.parametrize("name", ["model_000004.pt", "optim_000004_rank0.pt"])
def test_a_file_that_holds_itself_is_refused(build: Path, stopped: Path, error_of: ErrorOf, name: str) -> None:
    edit(stopped, 4, lambda meta: meta.pop("midprep"))
    itself: list[Any] = []
    itself.append(itself)
    torch.save({"x": itself} if "model" in name else itself, stopped / name)
    flags = ["--shards", build, "--out", stopped.with_name("out"), "--device", "cpu", "--base", stopped]
    error = error_of(*flags, "--base-optimizer")
    assert f"{name} is not a file of plain tensors (it holds itself, or is nested too deep)" in error


# ---- layout ----


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", GENERATIONS)
def test_every_weight_is_a_float32_tensor_of_its_own(tmp_path: Path, name: str, device: str) -> None:
    state, config = contents(name)
    dtypes = [torch.bfloat16, torch.float16, torch.float64, torch.float32]
    state = {key: value.to(dtypes[number % 4]) for number, (key, value) in enumerate(state.items())}
    state["transformer.wte.weight"] = state["lm_head.weight"]
    state["transformer.h.0.attn.c_q.weight"] = state["transformer.h.0.attn.c_q.weight"].T.contiguous().T
    model, _ = load_model(write(tmp_path / "d4", state, config), device=device)
    weights = dict(model.named_parameters())
    assert {(value.dtype, value.device.type, value.is_contiguous()) for value in weights.values()} == {
        (torch.float32, device, True)
    }
    assert len({value.untyped_storage()._cdata for value in weights.values()}) == len(weights)
    assert all(value.nbytes == value.untyped_storage().nbytes() for value in weights.values())
    if device == "cpu":
        assert all(torch.equal(value, state[key].float()) for key, value in weights.items())


@pytest.mark.slow
def test_loading_needs_memory_for_one_copy_of_the_model(tmp_path: Path) -> None:
    model = GPT(config_of_depth(8, 512, 32768))
    root = write(tmp_path / "d8", dict(model.state_dict()), model.config.to_meta())
    script = (
        "import resource, sys; from train.checkpoint import load_model\n"
        "def peak(): return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); load_model(sys.argv[1]); print(peak() - before)"
    )
    command = [sys.executable, "-c", script, str(root)]
    out = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
    weights = [weight.nbytes for weight in model.parameters()]
    assert int(out) < sum(weights) + 1.5 * max(weights)


def test_tied_weights_train_as_their_copies_do(build: Path, tmp_path: Path) -> None:
    state = dict(random_model(n_layer=1, n_head=1, n_kv_head=1).state_dict())
    config = {"sequence_len": 16, "vocab_size": 60, "n_layer": 1, "n_head": 1, "n_kv_head": 1, "n_embd": 64}
    for name, head in (("tied", state["transformer.wte.weight"]), ("apart", state["transformer.wte.weight"].clone())):
        base = write(tmp_path / "bases" / name, {**state, "lm_head.weight": head}, config)
        flags = ["--total-batch-size", 128, "--eval-every", 0, "--device", "cpu", "--num-iterations", 3]
        run_here("--shards", build, "--base", base, "--out", tmp_path / name, *flags)
    assert losses(tmp_path / "tied") == losses(tmp_path / "apart")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_are_float32_but_of_bfloat16_embeddings_and_share_nothing(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_model(window_pattern="L")
    save_checkpoint(tmp_path, 2, model, trained(model, 2), {})
    path = tmp_path / "optim_000002_rank0.pt"
    states = torch.load(path, weights_only=True)
    for state in states[0]["state"].values():
        state["exp_avg"] = state["exp_avg_sq"] = state["exp_avg"].double()  # one storage, another dtype
        state["step"] = 2
    for state in states[1]["state"].values():
        state["momentum_buffer"] = state["momentum_buffer"].half()
    torch.save(states, path)
    loaded, _ = load_model(tmp_path)
    loaded.set_dtype(dtype)
    optimizers = build_optimizers(loaded)
    load_optimizers(tmp_path, 2, optimizers)
    names = {value: name for name, value in loaded.named_parameters()}
    storages = []
    for optimizer in optimizers:
        for param, state in optimizer.state.items():
            embedding = "wte" in names[param] or "value_embeds" in names[param]
            moments = {key: value for key, value in state.items() if key != "step"}
            assert {value.dtype for value in moments.values()} == {dtype if embedding else torch.float32}
            assert all(value.is_contiguous() for value in moments.values())
            assert "step" not in state or (state["step"].dtype, float(state["step"])) == (torch.float32, 2.0)
            storages += [value.untyped_storage()._cdata for value in moments.values()]
    assert len(set(storages)) == len(storages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda states: states[0]["state"][0].pop("exp_avg_sq"), r"state 0 of AdamW is \['exp_avg', 'step'\], not"),
        (
            lambda states: states[1]["state"][0].update(more=torch.ones(1)),
            r"state 0 of Muon is \['momentum_buffer', 'more",
        ),
        (lambda states: states[1]["state"].update({0: 5}), "state 0 of Muon is int, not"),
        (lambda states: states[1]["state"][0].update(momentum_buffer=5), "momentum_buffer 0 of Muon is int, not"),
        (lambda states: states[0]["state"].update({"x": states[0]["state"].pop(0)}), "AdamW has state for 2 weights"),
        (lambda states: states[0]["state"][0].update(exp_avg=torch.zeros(1).expand(60, 64)), "stride 0"),
        (lambda states: states[0]["state"][0].update(exp_avg=torch.zeros(60, 64, dtype=torch.int64)), "is int64"),
        (lambda states: states[0]["state"][0].update(step="2"), "step 0 of AdamW is str, not"),
        (lambda states: states[0]["state"][0].update(step=10**400), "step 0 of AdamW is int, not"),
        (lambda states: states[0]["state"][0].update(step=torch.tensor(-1.0)), "step 0 of AdamW is -1.0, wanted"),
        (lambda states: states[0]["state"][0].update(step=torch.tensor(1j)), "step is complex64"),
        (lambda states: states[0].update(state=[]), "AdamW has state for 0 weights"),
    ],
)
def test_malformed_optimizer_states_are_refused(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    model = random_model()
    save_checkpoint(tmp_path, 2, model, trained(model, 1), {})
    states = torch.load(tmp_path / "optim_000002_rank0.pt", weights_only=True)
    change(states)
    torch.save(states, tmp_path / "optim_000002_rank0.pt")
    with pytest.raises(ValueError, match=message) as error:
        load_optimizers(tmp_path, 2, build_optimizers(model))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", GENERATIONS)
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_prefixes_of_wrappers_come_off(tmp_path: Path, name: str, prefix: str) -> None:
    state, config = contents(name)
    model, _ = load_model(write(tmp_path / "d4", {prefix + key: value for key, value in state.items()}, config))
    assert all(torch.equal(value, state[key]) for key, value in model.named_parameters())


def test_prefixes_within_names_come_off(tmp_path: Path) -> None:
    state, config = contents("ckpt_2026-07")
    written = {key.replace("transformer.h.1.", "transformer.h.1._orig_mod."): value for key, value in state.items()}
    model, _ = load_model(write(tmp_path / "d4", written, config))
    assert all(torch.equal(value, state[key]) for key, value in model.named_parameters())


def test_the_fixtures_themselves_have_no_note_and_load() -> None:
    for name in GENERATIONS:
        assert "midprep" not in load_model(FIXTURES / name)[1]
