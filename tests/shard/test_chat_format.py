"""A build in nanochat's format with the tokenizer of another family is not handed out without a word."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prep.cli.main import app
from prep.inspect.build_text import built_lines
from prep.shard.batches import PackedDataset
from prep.shard.chat_format import NANOCHAT_TOKENS, format_notice
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer
from tests.conftest import build_mixture, chat, write_lines

OWN = ("<|begin_of_text|>", "<|eot_id|>")


def build(folder: Path, *own: str) -> Path:
    names = [*own, *SPECIAL_TOKENS]
    ranks = {bytes([i]): i for i in range(256)}
    tokenizer = Tokenizer("llama", ranks, PATTERN, {name: 256 + i for i, name in enumerate(names)})
    write_lines(folder / "a.jsonl", [chat("Hi", "a")] * 9)
    root, manifest, _ = build_mixture(
        folder, {"train": [{"task": "chat", "path": "a.jsonl"}]}, tokenizer, max_seq_len=64
    )
    assert any("llama has special tokens of its own" in line for line in built_lines(root, manifest, True)) == bool(own)
    return root


def verify(root: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["verify", str(root), *options])
    assert done.exit_code == 0
    return done.stdout


def test_the_tokens_of_the_format_are_those_of_the_tokenizer() -> None:
    assert frozenset(SPECIAL_TOKENS) == NANOCHAT_TOKENS


def test_with_nanochats_own_tokens_there_is_nothing_to_say(tmp_path: Path) -> None:
    root = build(tmp_path)
    assert len(PackedDataset(root)) > 0  # a warning would be an error here
    assert verify(root) == f"{root} is sound.\n"
    assert json.loads(verify(root, "--json"))["notice"] is None


def test_with_those_of_another_family_build_verify_and_data_set_say_so(tmp_path: Path) -> None:
    root = build(tmp_path, *OWN)
    with pytest.warns(
        UserWarning, match=r"of its own \(<\|begin_of_text\|>, <\|eot_id\|>\); this build is in nanochat's"
    ):
        assert len(PackedDataset(root)) > 0
    sound, but = verify(root).splitlines()
    assert sound == f"{root} is sound."
    assert but.startswith("But: tokenizer llama")
    assert json.loads(verify(root, "--json"))["notice"] == but.removeprefix("But: ")


def test_many_tokens_are_counted_not_listed() -> None:
    tokens = {f"<|reserved_{i}|>": i for i in range(250)}
    notice = format_notice({"tokenizer": {"name": "x", "special_tokens": tokens}})
    assert "<|reserved_2|> and 247 more" in (notice or "")
