"""
What users rely on, in one file of hashes: tests/golden.json, which `python -m tests.golden` writes anew.

    builds     {name of a build: {file: first 16 digits of its sha256}}     build.json, which holds the time, aside
    blocks     hash of the cache of rendered blocks: names and contents
    losses     20 of mid and 20 of sft, on a build of the sample mixture
    options    {command: {option: [default, type, ...]}} of midprep, and of train/mid.py
    choices    {option: the words that it accepts}
    keys       {command: the keys of its --json, nested}

A commit that moves or renames leaves all of it as it is. One that changes bytes bumps a version, writes the file anew and
says why. Everything is asked of the commands, so the maker outlives the modules.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).with_name("golden.json")
FIXTURES = ROOT / "tests" / "fixtures" / "golden"  # mixtures, and the data that they read

BUILDS: dict[str, list[str]] = {
    "sample": ["--mixture", "sample"],
    "truncate": ["--mixture", "sample", "--max-seq-len", "96"],
    "split": ["--mixture", "sample", "--max-seq-len", "96", "--excess-length-strategy", "split"],
    "drop": ["--mixture", "sample", "--max-seq-len", "96", "--excess-length-strategy", "drop"],
    "bfd": ["--mixture", "sample", "--max-seq-len", "96", "--packing", "bfd"],
    "wrapped": ["--mixture", "sample", "--max-seq-len", "96", "--packing", "wrapped"],
    "wrapped_cut": ["--mixture", "sample", "--max-seq-len", "200", "--packing", "wrapped", "--max-tokens", "150"],
    "own_data": ["--mixture", "own_data.toml", "--max-seq-len", "128", "--max-rejected", "0.5"],
    "hub": ["--mixture", "hub.toml", "--max-seq-len", "256", "--data-root", "copies"],
    "shares": ["--mixture", "shares.toml", "--max-seq-len", "256", "--without", "gsm8k", "--data-root", "copies"],
    "grams": ["--mixture", "grams.toml", "--max-seq-len", "128", "--workers", "2", "--encoder", "tiktoken"],
}
RAISE = ["--mixture", "sample", "--max-seq-len", "96", "--excess-length-strategy", "raise"]
TRAIN = (
    "--device cpu --depth 1 --total-batch-size 480 --device-batch-size 5 --num-iterations 20 --eval-every 10 "
    "--eval-tokens 960"
)


def environment(folder: Path) -> dict[str, str]:
    return {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
        "NANOCHAT_BASE_DIR": "none",
    }


def run(command: list[str], folder: Path, wanted: int = 0) -> str:
    """stdout of a command in a directory with a cache of its own"""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | environment(folder) | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == wanted, f"{' '.join(command)}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def midprep(folder: Path, *arguments: str, wanted: int = 0) -> str:
    return run([sys.executable, "-m", "prep", *arguments], folder, wanted)


def look(folder: Path, *arguments: str) -> str | None:
    """
    stdout of a command that only looks, None where it fails; in this process, as half a hundred of them would mostly start
    Python
    """
    from typer.testing import CliRunner

    from prep.cli.main import app

    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, list(arguments), env=environment(folder))
    return done.stdout if done.exit_code == 0 else None


def short_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def make_builds(folder: Path) -> dict[str, Any]:
    """Build everything of BUILDS into `folder`"""
    shutil.copytree(FIXTURES, folder, dirs_exist_ok=True)
    out: dict[str, Any] = {}
    for name, arguments in BUILDS.items():
        midprep(folder, "build", "-q", "-o", name, *arguments)
        files = sorted(path for path in (folder / name).iterdir() if path.name != "build.json")
        out[name] = {path.name: short_hash(path) for path in files}
    midprep(folder, "build", "-o", "raise", *RAISE, wanted=1)
    return out


def hash_blocks(folder: Path) -> str:
    """Names and contents of all rendered blocks: what an older checkout has cached is found again while this stays"""
    blocks = sorted((folder / "cache" / "midprep" / "runs").glob("*/*.run"))
    assert len(blocks) > 20
    return hashlib.sha256("".join(f"{path.name} {short_hash(path)}\n" for path in blocks).encode()).hexdigest()


def make_losses(folder: Path) -> dict[str, list[float]]:
    """Losses of 20 steps of mid on the build `bfd`, and of sft from what they give"""
    trainer = [sys.executable, str(ROOT / "train" / "mid.py"), "--shards", "bfd", "--out", "run", *TRAIN.split()]
    run([*trainer, "--mode", "mid"], folder)
    run([*trainer, "--mode", "sft", "--base", "run"], folder)
    stages = {"mid": "mid_checkpoints", "sft": "chatsft_checkpoints"}
    out = {}
    for mode, stage in stages.items():
        lines = (folder / "run" / stage / "d1" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        out[mode] = [json.loads(line)["loss"] for line in lines]
    return out


def list_options() -> dict[str, Any]:
    """Names, defaults and types of every option and argument"""
    import typer.main

    from prep.cli.main import app
    from train.config import Config

    def kind(option: Any) -> str:
        described = getattr(option, "type_descriptor", None)
        return str(getattr(described, "annotation", described)) + (
            f" from {option.min}" if option.min is not None else ""
        )

    def describe(command: Any, name: str) -> None:
        for child, sub in getattr(command, "commands", {}).items():
            describe(sub, f"{name} {child}".strip())
        params = [p for p in command.params if p.name not in ("help", "install_completion", "show_completion")]
        out[name] = {" ".join(p.opts): [str(p.default), kind(p), p.multiple, p.required] for p in params if p.opts}

    out: dict[str, Any] = {}
    describe(typer.main.get_command(app), "")
    out["train/mid.py"] = {
        f.name: [str(f.default), f.metadata["kind"].__name__, f.metadata["choices"]] for f in fields(Config)
    }
    return json.loads(json.dumps(out))


def list_choices(folder: Path) -> dict[str, list[str]]:
    """Which of some words each option that takes words accepts"""
    build, row = ["build", "--mixture", "sample", "--dry-run", "--max-seq-len", "600"], ["try", "own/parts.jsonl"]
    words = {
        "--packing": (build, "ordered bfd wrapped best"), "--excess-length-strategy": (build, "truncate split drop raise cut"),
        "--encoder": (build, "auto tiktoken fastokens fast"), "--engine": (build, "local remote"),
        "--layout": (["try", "own/alpaca.jsonl"], "alpaca alpacas"), "--train-on": (row, "all last none first"),
        "--consecutive": (row, "reject merge join"), "--tools": (row, "parts text json"),
        "--mode": (["show", "sample", "--step", "0"], "mid sft base"),
        "--format": (["tokenizer", "export", "exported"], "nanochat hf gguf"),
    }  # fmt: skip
    return {
        option: [word for word in tried.split() if look(folder, *command, option, word) is not None]
        for option, (command, tried) in words.items()
    }


def keys_of(value: Any) -> Any:
    """The keys of nested objects; of the things in a list those of all together"""
    if isinstance(value, dict):
        return {key: keys_of(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        merged: dict[str, Any] = {}
        for item in value:
            merged |= keys_of(item) if isinstance(item, dict) else {}
        return [merged] if merged else []
    return None


def list_keys(folder: Path) -> dict[str, Any]:
    """The keys of every --json, asked of the builds and the run in `folder`"""
    commands = [
        "stats own_data --json", "stats sample --build --json", "stats truncate split --json", "verify sample --json",
        "show own_data --json", "show own_data --step 0 --world-size 1 --json", "show wrapped --conversation 3 --json",
        "show sample --random 2 --origin --json", "plan truncate --json", "report bfd -o page.html --json --run run",
        "overlap grams --json", "watch run --json", "tasks --json", "mixtures --json", "doctor --json",
        "tokenizer info --json", "try own/talks.jsonl --json",
    ]  # fmt: skip
    return {command: keys_of(json.loads(look(folder, *command.split()) or "")) for command in commands}


def make(folder: Path) -> dict[str, Any]:
    return {
        "builds": make_builds(folder),
        "blocks": hash_blocks(folder),
        "losses": make_losses(folder),
        "options": list_options(),
        "choices": list_choices(folder),
        "keys": list_keys(folder),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        FILE.write_text(json.dumps(make(Path(made)), indent=1) + "\n", encoding="utf-8")
