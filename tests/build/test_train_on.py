"""--train-on is of every entry that does not say it: own chats, own tasks, shipped conversations, generated ones."""

from pathlib import Path
from typing import Any

import pytest

from prep.tokenizer.load import load_tokenizer
from tests.conftest import build_mixture, chat, write_lines

OWN_TASK = """
def row(row):
    return [{"role": "user", "content": row["q"]}, {"role": "assistant", "content": row["a"]}]
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_lines(folder / "mine.jsonl", [{"messages": [*chat("a", "b")["messages"], *chat("c", "d")["messages"]]}] * 4)
    write_lines(folder / "rows.jsonl", [{"q": "a", "a": "b"}] * 4)
    write_lines(folder / "identity.jsonl", [chat("Who are you?", "A model.")["messages"]] * 4)
    (folder / "own.py").write_text(OWN_TASK, encoding="utf-8")
    return folder


def trained(folder: Path, train_on: str, chat: str | None = None) -> dict[str, int]:
    """Loss tokens of each source; the entry of own chats may say for itself what trains"""
    entries: list[dict[str, Any]] = [
        {"task": "chat", "path": "mine.jsonl", **({"train_on": chat} if chat else {})},
        {"task": "own.py:row", "path": "rows.jsonl"},
        *({"task": name, "size": 8} for name in ("arithmetic", "spelling_bee", "simple_spelling", "facts")),
        {"task": "identity", "path": "identity.jsonl"},
    ]
    options = {"train_on": train_on, "max_seq_len": 256}
    _, manifest, _ = build_mixture(folder, {"train": entries}, load_tokenizer(), f"out-{train_on}-{chat}", **options)
    return {source["name"]: source["trainable_tokens"] for source in manifest["splits"]["train"]["sources"]}


def test_none_of_them_trains_or_all_do(sources: Path) -> None:
    assert set(trained(sources, "none").values()) == {0}
    assert min(trained(sources, "all").values()) > 0


def test_last_is_less_where_there_are_several_turns_and_an_entry_says_it_for_itself(sources: Path) -> None:
    every, last, own = trained(sources, "all"), trained(sources, "last"), trained(sources, "last", chat="all")
    assert last["chat"] * 2 == every["chat"] == own["chat"]
    assert last["arithmetic"] == every["arithmetic"]  # one turn each
