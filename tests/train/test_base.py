"""Where a run starts: the tokenizer of a base by its content, a base that moved or went on, a model of shorter rows."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from conftest import TINY, losses, run_here
from shards_factory import random_rows, write_build
from test_checkpoint import contents, write

from prep.same_tokenizer import tokenizer_sha256
from prep.shard import write_manifest
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS
from train.metrics import peak_flops
from train.sizes import ModelConfig, config_of_depth

ErrorOf = Callable[..., str]
RANKS = {bytes([byte]): byte for byte in range(256)}
SPECIAL = {text: 256 + number for number, text in enumerate(SPECIAL_TOKENS)}
ONE_STEP = ["--num-iterations", 1, "--total-batch-size", 128, "--eval-every", 0, "--device", "cpu"]
SIZES = {"vocab_size": 265, "n_layer": 1, "n_head": 1, "n_kv_head": 1, "n_embd": 64}


def write_home(home: Path, ranks: dict[bytes, int] = RANKS, special: dict[str, int] = SPECIAL) -> Path:
    """A home of nanochat's with this tokenizer and a base model d1 of 265 tokens"""
    from test_model import random_model

    state = dict(random_model(**SIZES, sequence_len=16).state_dict())
    write(home / "base_checkpoints" / "d1", state, {**SIZES, "sequence_len": 16})
    encoding = tiktoken.Encoding("rustbpe", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
    (home / "tokenizer").mkdir()
    (home / "tokenizer" / "tokenizer.pkl").write_bytes(pickle.dumps(encoding))
    return home


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that notes the tokenizer RANKS, PATTERN, SPECIAL, of 265 ids"""
    rows = random_rows(0, 8, 16, vocab_size=265)
    root = write_build(tmp_path_factory.mktemp("builds") / "s", {"train": rows}, max_seq_len=16, vocab_size=265)
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["tokenizer"] = {
        "name": "toy",
        "sha256": tokenizer_sha256(RANKS, PATTERN, SPECIAL),
        "special_tokens": SPECIAL,
    }
    write_manifest(root, {name: value for name, value in manifest.items() if name != "sha256"})
    return root


# ---- the tokenizer ----

SWAPPED = {**RANKS, b"a": 98, b"b": 97}


def test_a_base_of_nanochats_is_taken_with_its_own_tokenizer_and_nothing_is_said(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = write_home(tmp_path / "home")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(home))
    for number, base in enumerate(("d1", home / "base_checkpoints" / "d1", home)):
        run_here("--shards", shards, "--base", base, "--out", tmp_path / str(number), *ONE_STEP)
    assert "could not be checked" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [{"ranks": SWAPPED}, {"special": {**SPECIAL, SPECIAL_TOKENS[0]: 257, SPECIAL_TOKENS[1]: 256}}],
    ids=["ranks", "special tokens"],
)
def test_a_base_of_another_tokenizer_of_the_same_size_is_refused_by_name(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: ErrorOf, other: dict[str, Any]
) -> None:
    home = write_home(tmp_path / "home", **other)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(home))
    (tmp_path / "link").symlink_to(home / "base_checkpoints" / "d1")
    for base in ("d1", "", home, home / "base_checkpoints" / "d1", tmp_path / "link"):
        error = error_of("--shards", shards, "--base", base, "--out", tmp_path / "out", *ONE_STEP)
        assert f"was trained with the tokenizer of {home.resolve()}/tokenizer/tokenizer.pkl, the shards have" in error
        assert "(toy): build the shards with --tokenizer" in error


def test_a_tokenizer_that_lacks_special_tokens_is_the_one_that_the_build_completed(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], error_of: ErrorOf
) -> None:
    fewer = dict(list(SPECIAL.items())[:-1])
    run_here(
        "--shards", shards, "--base", write_home(tmp_path / "a", special=fewer), "--out", tmp_path / "o", *ONE_STEP
    )
    assert "could not be checked" not in capsys.readouterr().out
    more = {**SPECIAL, "<|more|>": 265}
    home = write_home(tmp_path / "b", special=more)
    assert "was trained with the tokenizer of" in error_of("--shards", shards, "--base", home, *ONE_STEP)


def test_a_meta_whose_midprep_was_taken_away_is_checked_by_the_home(
    shards: Path, tmp_path: Path, error_of: ErrorOf
) -> None:
    home = write_home(tmp_path / "home", ranks=SWAPPED)
    run_here("--shards", shards, "--out", home, "--depth", 1, *ONE_STEP)
    path = home / "mid_checkpoints" / "d1" / "meta_000001.json"
    meta = json.loads(path.read_text())
    del meta["midprep"]
    path.write_text(json.dumps(meta))
    flags = ["--shards", shards, "--mode", "sft", "--base", home, "--out", tmp_path / "out", *ONE_STEP]
    assert "was trained with the tokenizer of" in error_of(*flags)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "a tokenizer.pkl was looked for at"),
        (b"no pickle", "nothing in it was run"),
        (pickle.dumps(tiktoken.Encoding), "refused, nothing in it was run"),
    ],
    ids=["missing", "damaged", "not one"],
)
def test_a_tokenizer_that_cannot_be_compared_is_said_once(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    home = write_home(tmp_path / "home")
    path = home / "tokenizer" / "tokenizer.pkl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    flags = ["--shards", shards, "--base", home, "--out", tmp_path / "out", *ONE_STEP]
    run_here(*flags)
    lines = [line for line in capsys.readouterr().out.splitlines() if "could not be checked" in line]
    assert len(lines) == 1
    assert reason in lines[0]
    run_here(*flags)  # finished: of the base nothing is read
    assert "could not be checked" not in capsys.readouterr().out


# ---- a base that moved, or went on ----


@pytest.fixture
def started(build: Path, tmp_path: Path) -> tuple[list[Any], Path, list[float]]:
    """Flags of an SFT run that was stopped at step 2 of 6, the directory of its base, the losses of the whole run"""
    run_here("--shards", build, "--out", tmp_path / "base", *TINY, "--num-iterations", 2)
    flags = [
        flag for flag in ("--shards", build, *TINY, "--mode", "sft", "--save-every", 2) if flag not in ("--depth", "1")
    ]
    flags += ["--base", tmp_path / "base"]
    run_here(*flags, "--out", tmp_path / "run")
    whole = losses(tmp_path / "run", "chatsft_checkpoints")
    root = tmp_path / "run" / "chatsft_checkpoints" / "d1"
    for path in [*root.glob("*_000004*"), *root.glob("*_000006*")]:
        path.unlink()
    return [*flags, "--out", tmp_path / "run"], tmp_path / "base", whole


def run_losses(flags: list[Any]) -> list[float]:
    return losses(Path(flags[-1]), "chatsft_checkpoints")


@pytest.mark.parametrize("remove", [shutil.rmtree, lambda path: path.rename(path.with_name("moved"))])
def test_a_run_goes_on_without_its_base(
    started: Any, remove: Callable[[Path], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    flags, base, whole = started
    remove(base)
    capsys.readouterr()
    run_here(*flags)
    assert f"was not found: going on with {flags[-1]}/chatsft_checkpoints/d1, which began from step 2," in (
        capsys.readouterr().out
    )
    assert run_losses(flags) == whole


def test_a_run_goes_on_where_its_base_moved_and_the_new_path_is_given(started: Any) -> None:
    flags, base, whole = started
    base.rename(base.with_name("moved"))
    flags[flags.index(base)] = base.with_name("moved")
    run_here(*flags)
    assert run_losses(flags) == whole


def test_a_run_goes_on_from_a_base_that_got_a_newer_step(started: Any, error_of: ErrorOf) -> None:
    flags, base, whole = started
    root = base / "mid_checkpoints" / "d1"
    for path in root.glob("*_000002*"):
        shutil.copy(path, root / path.name.replace("000002", "000009"))
    meta = json.loads((root / "meta_000009.json").read_text())
    (root / "meta_000009.json").write_text(json.dumps({**meta, "step": 9}))
    error = error_of(*flags[:-2], "--base-step", 9, *flags[-2:])
    assert "holds a run with base step 2, " in error  # asked for by name: another run
    run_here(*flags)
    assert run_losses(flags) == whole


def test_a_run_goes_on_where_its_base_is_damaged(
    started: Any, error_of: ErrorOf, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, base, whole = started
    root = base / "mid_checkpoints" / "d1"
    shutil.copy(root / "model_000002.pt", root / "model_000009.pt")
    (root / "meta_000009.json").write_text('{"step": 9, "model_con')  # being written
    assert "meta_000009.json is not a meta" in error_of(*flags[:-1], base.with_name("other"))
    assert "meta_000009.json is not a meta" in error_of(*flags[:-2], "--resume", "never", *flags[-2:])
    capsys.readouterr()
    run_here(*flags)
    assert f"--base {base} is damaged: going on with {flags[-1]}/chatsft_checkpoints/d1" in capsys.readouterr().out
    assert run_losses(flags) == whole


def test_a_run_goes_on_where_a_nearer_stage_got_a_checkpoint(started: Any) -> None:
    flags, base, whole = started
    (base / "mid_checkpoints").rename(base / "base_checkpoints")
    shutil.copytree(base / "base_checkpoints", base / "mid_checkpoints")
    path = base / "mid_checkpoints" / "d1" / "meta_000002.json"
    path.write_text(path.read_text() + "\n")  # another checkpoint of the same step
    run_here(*flags)
    assert run_losses(flags) == whole


def test_a_run_goes_on_where_of_a_home_only_the_run_itself_is_left(
    build: Path, tmp_path: Path, error_of: ErrorOf, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2)
    (tmp_path / "mid_checkpoints").rename(tmp_path / "base_checkpoints")
    flags = ["--shards", build, *TINY, "--save-every", 2, "--out", tmp_path]
    run_here(*flags, "--base", tmp_path)
    whole = losses(tmp_path)
    root = tmp_path / "mid_checkpoints" / "d1"
    for path in root.glob("*_000006*"):
        path.unlink()
    shutil.rmtree(tmp_path / "base_checkpoints")
    assert "is where this run would write its own checkpoints" in error_of(*flags, "--base", root)
    capsys.readouterr()
    run_here(*flags, "--base", tmp_path)
    assert f"--base {tmp_path} was not found: going on with {root}, which began from step 2," in capsys.readouterr().out
    assert losses(tmp_path) == whole


def test_a_base_that_is_there_without_the_noted_checkpoint_is_refused(started: Any, error_of: ErrorOf) -> None:
    flags, base, _ = started
    path = base / "mid_checkpoints" / "d1" / "meta_000002.json"
    path.write_text(path.read_text() + "\n")
    assert "holds a run with base step 2, " in error_of(*flags)
    shutil.rmtree(base)
    error = error_of(*flags[:-2], "--base-step", 9, *flags[-2:])
    assert "no checkpoint (model_*.pt with its meta_*.json) in" in error
    assert "no checkpoint" in error_of(*flags[:-2], "--resume", "never", *flags[-2:])


def test_without_its_base_one_of_several_runs_is_taken_by_depth_only(
    started: Any, build: Path, error_of: ErrorOf
) -> None:
    flags, base, whole = started
    two = base.with_name("two")
    run_here("--shards", build, "--out", two, *TINY[2:], "--num-iterations", 2, "--depth", 2)
    others = list(flags)
    others[others.index(base)] = two
    run_here(*others)
    shutil.rmtree(base)
    shutil.rmtree(two)
    error = error_of(*flags)
    assert "has several runs with a base (d1, d2): give --depth to continue one" in error
    run_here(*flags[:-2], "--depth", 1, *flags[-2:])
    assert [record["loss"] for record in records_of(flags, 1)] == whole


def records_of(flags: list[Any], depth: int) -> list[dict[str, Any]]:
    path = Path(flags[-1]) / "chatsft_checkpoints" / f"d{depth}" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_runs_from_scratch_are_not_taken_for_those_of_a_base(build: Path, tmp_path: Path, error_of: ErrorOf) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY)
    assert "no checkpoint" in error_of("--shards", build, "--out", tmp_path, *TINY[2:], "--base", tmp_path / "gone")


# ---- what is said ----


def test_another_dtype_is_said_when_a_run_goes_on(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--save-every", 2]
    run_here(*flags, "--dtype", "bfloat16")
    for path in (tmp_path / "mid_checkpoints" / "d1").glob("*_000006*"):
        path.unlink()
    capsys.readouterr()
    run_here(*flags, "--dtype", "bfloat16", "--dry-run")
    assert "--dtype is" not in capsys.readouterr().out
    run_here(*flags)
    assert "--dtype is float32, the run had bfloat16 so far" in capsys.readouterr().out
    run_here("--shards", build, "--out", tmp_path, *TINY, "--mode", "sft", "--base", tmp_path, "--dtype", "bfloat16")
    assert "--dtype is" not in capsys.readouterr().out  # a base is no run that goes on


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("ckpt_2026-07", "rows of 128 tokens, the model was made for 64: no layer sees further back than 64 tokens"),
        ("ckpt_2025-12", "rows of 128 tokens, the model was made for 64: it has no windows"),
    ],
)
def test_rows_longer_than_the_model_was_made_for_are_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, meaning: str
) -> None:
    state, config = contents(name)
    base = write(tmp_path / "base", state, config)
    for row_len, times in ((128, 1), (64, 0)):
        rows = random_rows(0, 4, row_len, vocab_size=512)
        shards = write_build(tmp_path / f"s{row_len}", {"train": rows}, max_seq_len=row_len, vocab_size=512)
        run_here("--shards", shards, "--base", base, "--out", tmp_path / f"o{row_len}", "--dry-run", "--device", "cpu")
        assert capsys.readouterr().out.count(meaning) == times


@pytest.mark.parametrize("sequence_len", [512, 2048, 4096])
def test_flops_are_those_of_the_rows(sequence_len: int) -> None:
    config = config_of_depth(12, sequence_len, 32768)
    assert config.flops_per_token(2048) == config_of_depth(12, 2048, 32768).flops_per_token()
    windows = ModelConfig(**{**vars(config), "window_pattern": "SL"})
    seen = sum(min(windows.window(layer), 2048) for layer in range(12))
    assert windows.flops_per_token(2048) - config.flops_per_token(2048) == (
        12 * 768 * (seen - 12 * 2048) + 6 * (windows.weights().matrices - config.weights().matrices + 24)
    )


def test_mfu_is_by_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from train.mid import peak_tokens_per_second

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    config = config_of_depth(12, 512, 32768)
    run: Any = SimpleNamespace(model=SimpleNamespace(config=config), split=SimpleNamespace(max_seq_len=2048))
    ranks: Any = SimpleNamespace(device=torch.device("cuda"), world_size=2)
    expected = 2 * peak_flops("H100") / config_of_depth(12, 2048, 32768).flops_per_token()
    assert peak_tokens_per_second(run, ranks) == expected
