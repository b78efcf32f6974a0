"""Where the sources of a build are: what the user gives, what build.json records, what its command line says; no guess."""

import json
from pathlib import Path
from typing import Any

import pytest

from prep.inspect.origin import Origins, recorded_inputs
from prep.shard import open_shards
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, write_lines

TOML = {"name": "own", "seed": 42, "train": [{"task": "chat", "path": "a.jsonl"}]}


@pytest.fixture
def root(tmp_path: Path, toy: Tokenizer) -> Path:
    write_lines(tmp_path / "a.jsonl", [chat("q", "an answer")] * 3)
    return build_mixture(tmp_path, TOML, toy)[0]


def rewrite(root: Path, **values: Any) -> None:
    record = json.loads((root / "build.json").read_text()) | values
    record = {key: value for key, value in record.items() if value is not None}
    (root / "build.json").write_text(json.dumps(record))


def names(root: Path, *given: Any) -> tuple[str, Path | None, Path | None]:
    inputs = recorded_inputs(root, *(given or (None, None, None)))
    return inputs.mixture.name, inputs.data_root, inputs.identity


def test_what_is_given_wins_over_what_is_recorded(root: Path) -> None:
    recorded = {"mixture": "sample", "mixture_toml": None, "data_root": "/hub", "identity": "/me.jsonl"}
    rewrite(root, inputs=recorded)
    assert names(root) == ("sample", Path("/hub"), Path("/me.jsonl"))
    assert names(root, "default", Path("other"), None) == ("mid", Path("other"), Path("/me.jsonl"))
    (root / "build.json").unlink()
    assert names(root, "sample", None, None) == ("sample", None, None)


def test_a_mixture_that_was_no_file_is_read_from_its_copy(root: Path, tmp_path: Path) -> None:
    empty = {"mixture": None, "data_root": None, "identity": None}
    rewrite(root, inputs=empty | {"mixture_toml": TOML}, directory=str(tmp_path))
    split = open_shards(root).split("train")
    shown = Origins(split, recorded_inputs(root, None, None, None)).row(0)
    assert json.loads(shown) == chat("q", "an answer")
    rewrite(root, inputs=empty | {"mixture": str(tmp_path / "gone.toml"), "mixture_toml": TOML}, directory="/")
    assert Origins(split, recorded_inputs(root, None, None, None)).row(0) == shown
    rewrite(root, inputs=empty | {"mixture_toml": {"seed": "many"}})
    with pytest.raises(ValueError, match=r"the mixture in .*build.json: seed = 'many' found"):
        recorded_inputs(root, None, None, None)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/bin/midprep", "build"], ("mid", None, None)),
        (["prep/__main__.py", "build", "--mixture=sample", "--data-root", "hub"], ("sample", Path("/x/hub"), None)),
        (["my.py", "--mixture", "sample", "--identity", "sample"], ("sample", None, Path("/x/sample"))),
    ],
)
def test_an_older_build_is_read_from_its_command_line(root: Path, command: list[str], expected: Any) -> None:
    rewrite(root, inputs=None, command=command, directory="/x")
    assert names(root) == expected


@pytest.mark.parametrize("command", [["my.py"], [], ["-c"], ["pytest", "build"], ["midprep", "verify"]])
def test_no_mixture_is_guessed(root: Path, command: list[str]) -> None:
    inputs = {"mixture": None, "mixture_toml": None, "data_root": None, "identity": None}
    for recorded in (inputs, {}, None, 5):
        rewrite(root, inputs=recorded, command=command)
        with pytest.raises(ValueError, match=r"does not say which mixture .*: give it with --mixture") as error:
            recorded_inputs(root, None, None, None)
        assert "\n" not in str(error.value)
