"""Source rows are read again from where build.json says that they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from prep.build.record import find_inputs
from prep.inspect.origin import Origins
from prep.shard import open_shards
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, write_lines


@pytest.fixture
def root(tmp_path: Path, toy: Tokenizer) -> Path:
    write_lines(tmp_path / "a.jsonl", [chat("q", "an answer")] * 3)
    return build_mixture(tmp_path, {"name": "own", "train": [{"task": "chat", "path": "a.jsonl"}]}, toy)[0]


def rewrite(root: Path, inputs: Any) -> None:
    (root / "build.json").write_text(json.dumps(json.loads((root / "build.json").read_text()) | {"inputs": inputs}))


def test_a_row_is_found_where_the_mixture_file_is_gone(root: Path, tmp_path: Path) -> None:
    for path in tmp_path.glob("*.toml"):
        path.unlink()
    row = Origins(open_shards(root).split("train"), find_inputs(root, None, None, None)).row(0)
    assert json.loads(row) == chat("q", "an answer")


@pytest.mark.parametrize("inputs", [{}, None, 5, {"mixture": None}])
def test_no_mixture_is_guessed(root: Path, inputs: Any) -> None:
    rewrite(root, inputs)
    with pytest.raises(FileNotFoundError, match=r"does not say what .* was built from: give --mixture"):
        find_inputs(root, None, None, None)


def test_a_recorded_mixture_that_cannot_be_read_names_its_file(root: Path) -> None:
    rewrite(root, {"mixture": {"seed": "many"}})
    with pytest.raises(ValueError, match=r"the mixture in .*build.json: seed = 'many' found"):
        find_inputs(root, None, None, None)
