"""Duplicates: the first in the order of the mixture stays, the others are counted, and nothing else goes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from prep.check.verify import problems
from prep.plan.filters import is_repeated
from prep.shard import open_shards
from prep.sources import source as sources
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, check_shards, write_lines


@given(lists(tuples(integers(0, 3), integers(0, 3)), max_size=40))
def test_all_but_the_first_of_equal_hashes_are_repeated(pairs: list[tuple[int, int]]) -> None:
    digests = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    assert is_repeated(digests).tolist() == [pair in pairs[:i] for i, pair in enumerate(pairs)]


MIXTURE: dict[str, Any] = {
    "mix": {"dedup": "exact"},
    "train": [
        {"task": "chat", "name": "a", "path": "a.jsonl", "repeat": 2},
        {"task": "chat", "name": "b", "path": "b.jsonl"},
    ],
    "val": [{"task": "chat", "name": "a", "path": "a.jsonl", "stop": 3}],
}


def kept(root: Path, split: str = "train") -> set[tuple[int, int, int]]:
    docs = open_shards(root).split(split).docs
    return set(zip(docs["source"].tolist(), docs["repeat"].tolist(), docs["index"].tolist(), strict=True))


@pytest.mark.parametrize("packing", ["bfd", "wrapped"])
def test_the_first_stays_and_the_rest_are_counted_by_source(tmp_path: Path, toy: Tokenizer, packing: str) -> None:
    write_lines(tmp_path / "a.jsonl", [chat("1", "x"), chat("2", "x"), chat("1", "x"), chat("3", "x"), chat("1", "y")])
    write_lines(tmp_path / "b.jsonl", [chat("4", "x"), chat("2", "x"), chat("4", "x"), chat("4", "x ")])
    root, manifest, _ = build_mixture(tmp_path, MIXTURE, toy, packing=packing, max_seq_len=64, max_rejected=0.0)
    a, b = manifest["splits"]["train"]["sources"]
    assert a["rejected"] == {"duplicate": 2}  # one row, in two copies
    assert b["rejected"] == {"duplicate": 2}
    assert (a["rows"], a["conversations"], b["rows"], b["conversations"]) == (10, 8, 4, 2)
    copies = {(0, copy, row) for copy in (0, 1) for row in (0, 1, 3, 4)}
    assert kept(root) == copies | {(1, 0, 0), (1, 0, 3)}
    assert manifest["splits"]["val"]["sources"][0]["rejected"] == {"duplicate": 1}
    assert manifest["splits"]["train"]["duplicates"] == {"left_out": 4}
    check_shards(root)
    assert list(problems(root)) == []


def test_without_dedup_everything_stays(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "a.jsonl", [chat("1", "x")] * 5)
    _, manifest, _ = build_mixture(tmp_path, {"train": [{"task": "chat", "path": "a.jsonl"}]}, toy)
    assert manifest["splits"]["train"]["conversations"] == 5
    assert "duplicates" not in manifest["splits"]["train"]


def test_blocks_and_workers_do_not_change_what_is_a_duplicate(
    tmp_path: Path, toy: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "a.jsonl", [chat(str(i % 23), "x") for i in range(60)])
    write_lines(tmp_path / "b.jsonl", [chat(str(i % 31), "x") for i in range(60)])
    one, manifest, _ = build_mixture(tmp_path, MIXTURE, toy, "one")
    assert [s["conversations"] for s in manifest["splits"]["train"]["sources"]] == [46, 8]
    monkeypatch.setattr(sources, "BLOCK_ROWS", 7)
    two, _, _ = build_mixture(tmp_path, MIXTURE, toy, "two", cache_dir=tmp_path / "other", workers=2)
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()


def test_an_order_without_duplicates_is_the_order_with_them_less_those(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "a.jsonl", [chat(str(i % 23), "x") for i in range(60)])
    write_lines(tmp_path / "b.jsonl", [chat(str(i % 31), "x") for i in range(60)])
    stream = []
    for name, mix in (("with", {}), ("without", {"dedup": "exact"})):
        root, _, _ = build_mixture(tmp_path, MIXTURE | {"mix": mix}, toy, name, packing="wrapped", max_seq_len=4096)
        docs = open_shards(root).split("train").docs
        stream.append(list(zip(docs["source"].tolist(), docs["repeat"].tolist(), docs["index"].tolist(), strict=True)))
    left = set(stream[1])
    assert [one for one in stream[0] if one in left] == stream[1]
