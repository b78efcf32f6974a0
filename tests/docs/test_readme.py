"""The README's commands exist and do what it says; those that need a network or a GPU are at least real commands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import midprep_command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [line.strip() for line in README.splitlines() if line.startswith("    ")]
INLINE = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", README)
COMMANDS = [
    command.split("#")[0].strip().removeprefix("$ ").replace("\n", " ")
    for command in [*BLOCKS, *INLINE]
    if re.match(r"(\$ )?(midprep|make|torchrun|python) ", command)
]
NEEDS = (
    "--mixture default",
    "--data-root",
    "DIR",
    "FILE",
    "corpus.txt",
    "mine.toml",
    "torchrun",
    "make ",
    "-o report",
    "runs/sample",
)


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) > 12
    assert sum(not any(need in command for need in NEEDS) for command in COMMANDS) >= 5


def run(command: str, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    assert program == "midprep"
    return subprocess.run(
        midprep_command(*arguments),
        cwd=cwd, env=os.environ | {"XDG_CACHE_HOME": str(cache)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def test_the_commands_that_need_no_network_run_and_print_what_it_shows(folder: Path) -> None:
    shown = "\n".join(line.rstrip() for line in BLOCKS)
    for command in COMMANDS:
        if any(need in command for need in NEEDS):
            continue
        done = run(command, folder, folder / "cache")
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if f"$ {command}" in shown:
            for line in done.stdout.strip().splitlines():
                assert line.strip() in shown, f"{command} prints {line!r}, the README does not"


def test_every_command_and_option_of_midprep_exists(folder: Path) -> None:
    helps: dict[str, str] = {}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program != "midprep":
            continue
        words = (
            [word for word in arguments[:2] if re.fullmatch(r"[a-z]+", word)]
            if arguments[0] == "tokenizer"
            else arguments[:1]
        )
        name = " ".join(words)
        helps.setdefault(name, run(f"midprep {name} --help", folder, folder / "cache").stdout)
        assert "Usage" in helps[name], command
        for option in (word for word in arguments if re.match(r"--?[a-z]", word)):
            assert option in helps[name], f"{option} of {command}"


def test_every_option_of_the_trainer_exists() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "train" / "mid.py"), "--help"], capture_output=True, text=True, timeout=120
    )
    trainer = " ".join(
        command for command in [*COMMANDS, *INLINE] if "train.mid" in command or command.startswith("--mode")
    )
    options = set(re.findall(r"--[a-z-]+", trainer)) - {
        "--nproc-per-node",
        "--nnodes",
        "--rdzv-backend",
        "--rdzv-endpoint",
    }
    assert "--shards" in options
    assert not [option for option in options if option not in found.stdout]


def test_every_target_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    assert {"demo", "test"} <= targets
    assert not [target for target in targets if f"\n{target}:" not in makefile]


def test_every_file_it_names_is_there() -> None:
    for name in re.findall(r"\]\(([^)]+)\)", README):
        assert name.startswith("https://") or (ROOT / name).exists(), name
