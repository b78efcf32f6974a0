"""docs/manifest.md lists every key that a build writes, at its level, and none that no build writes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prep.conversations.conversation import REASONS
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, write_lines

PAGE = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text(encoding="utf-8")
SIZES = {"max_repeats": 2, "min_tokens": 4, "max_tokens": 90, "min_trained_tokens": 2, "max_trained_tokens": 80}


def documented(heading: str) -> set[str]:
    """The keys in the table below a heading"""
    text = re.split(r"^#+ ", PAGE.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def build_two(folder: Path, tokenizer: Tokenizer) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(manifest, build.json) of a mixture that uses every key of an entry, and of a plain one"""
    calls = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 2}'}}]}
    write_lines(folder / "calls.jsonl", [{"messages": [{"role": "user", "content": "2?"}, calls]}])
    write_lines(folder / "text.jsonl", [{"text": "Oslo."}])
    context = {"role": "assistant", "content": "b", "train": False}
    odd = [{**chat("a", ""), "id": 1}, {"messages": [{"role": "boss", "content": "a"}]}]
    odd += [{"messages": [{"role": "user", "content": "a"}, context]}]
    write_lines(folder / "odd.jsonl", [{**row, "good": True} for row in [*odd, *[chat("q", "r")] * 30]])
    write_lines(folder / "chat.jsonl", [chat(f"{i}?", str(i)) for i in range(40)])
    write_lines(folder / "copy" / "ann" / "chats" / "data" / "train.jsonl", [chat(f"{i}!", str(i)) for i in range(9)])
    everything = {
        "mix": {"by": "trained_tokens", "dedup": "exact", "drop_overlap": "exact"},
        "train": [
            {"task": "chat", "path": "calls.jsonl", "layout": "tools"},
            {"task": "text", "path": "text.jsonl", "excess": "drop"},
            {
                "task": "chat",
                "path": "odd.jsonl",
                "reasoning": "drop",
                "typed_tokens": "reject",
                "where": {"good": True},
            },
            {"task": "chat", "path": "chat.jsonl", "name": "a", "proportion": 0.2, **SIZES},
            {"task": "chat", "hub": "ann/chats", "choose": 4},
            {"task": "arithmetic", "size": 8, "repeat": 1.5},
        ],
        "val": [{"task": "chat", "path": "chat.jsonl", "stop": 2}],
    }
    plain = {"train": [{"task": "arithmetic", "size": 8}]}
    builds = [build_mixture(folder, everything, tokenizer, "everything", folder / "copy", max_seq_len=160)]
    builds.append(build_mixture(folder, plain, tokenizer, "plain", max_seq_len=160))
    return [(manifest, json.loads((root / "build.json").read_text(encoding="utf-8"))) for root, manifest, _ in builds]


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory, toy: Tokenizer) -> dict[str, set[str]]:
    """{heading: the keys that the builds have at that level}"""
    found: dict[str, set[str]] = {}

    def note(heading: str, *objects: dict[str, Any]) -> None:
        found.setdefault(heading, set()).update(*objects)

    for manifest, record in build_two(tmp_path_factory.mktemp("reference"), toy):
        mixture, splits = manifest["mixture"], manifest["splits"].values()
        entries = [entry for split in manifest["splits"] for entry in mixture[split]]
        sources = [source for split in splits for source in split["sources"]]
        shards = [shard for split in splits for shard in split["shards"]]
        files = [file for owner in (manifest, *splits, *shards) for file in owner["files"].values()]
        note("## Top level", manifest)
        note("## `mixture`", mixture)
        note("## `mixture.mix`", mixture.get("mix", {}))
        note("## An entry", *entries)
        note("## `tokenizer`", manifest["tokenizer"])
        note("## A split", *splits)
        note("## `duplicates`", *(split.get("duplicates", {}) for split in splits))
        note("## A source", *sources)
        note("## `share`", *(source.get("share", {}) for source in sources))
        note("## `overlap`", *(source.get("overlap", {}) for source in sources))
        note("## A shard", *shards)
        note("## A file", *files)
        note("## build.json", record)
        note("### `inputs`", record["inputs"])
        note("### A pass", *record["passes"].values())
    return found


def test_every_key_that_a_build_writes_is_documented_at_its_level_and_no_other(levels: dict[str, set[str]]) -> None:
    allowed = {"## A source": documented("## An entry"), "## build.json": {"cluster"}}  # with Ray
    for heading, keys in levels.items():
        expected = documented(heading)
        assert keys - expected - allowed.get(heading, set()) == set(), f"not below {heading} of docs/manifest.md"
        assert expected - keys - allowed.get(heading, set()) == set(), f"below {heading}, but no build writes it"
    assert levels["## A source"] >= documented("## An entry")


def test_every_reason_for_which_a_row_is_rejected_is_documented() -> None:
    section = PAGE.split("## Reasons in `rejected`")[1].split("## Example")[0]
    assert set(REASONS) - {""} == set(re.findall(r"`([^`]+)`", section.split("Those on the left")[0])) - {"drop"}


def test_the_example_is_valid_json_with_documented_keys() -> None:
    example = json.loads(re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0])
    assert set(example) == documented("## Top level")
    assert set(example["mixture"]["train"][0]) <= documented("## An entry")
    assert set(example["splits"]["train"]) <= documented("## A split")
