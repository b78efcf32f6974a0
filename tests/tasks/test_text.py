"""Plain text: bos and text, every token a target in mid, none in sft; documents longer than a row are cut into rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from prep.check.verify import problems
from prep.shard import open_shards
from tests.conftest import build_mixture, chat, toy_tokenizer, write_lines

TOY = toy_tokenizer()
TEXTS = ["Oslo is in Norway.", "<|bos|> é", "x" * 100]


def written(folder: Path, suffix: str) -> Path:
    rows = [{"text": text, "id": i} for i, text in enumerate(TEXTS)]
    path = folder / f"docs.{suffix}"
    if suffix == "jsonl":
        return write_lines(path, rows)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, path) if suffix == "parquet" else pyarrow.feather.write_feather(table, path)
    return path


def documents(root: Path) -> list[tuple[str, int, int]]:
    """(text, tokens, loss tokens) of each document, in the order of the source"""
    split = open_shards(root).split("train")
    out = []
    for row in range(split.num_rows):
        tokens, mask = split.read_tokens(np.array([row]))[0], split.read_mask(np.array([row]))[0]
        place = 0
        for number in range(*split.doc_range(row)):
            length, index = int(split.docs["length"][number]), int(split.docs["index"][number])
            here = slice(place, place + length)
            out.append((index, TOY.decode(tokens[here].tolist()), length, int(mask[here].sum())))
            place += length
    return [(text, length, trained) for _, text, length, trained in sorted(out)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "feather"])
@pytest.mark.parametrize("keys", [{}, {"train_on": "all"}])
def test_a_document_is_bos_and_its_text(tmp_path: Path, suffix: str, keys: dict[str, Any]) -> None:
    entries = [{"task": "text", "path": written(tmp_path, suffix).name, **keys}]
    root, manifest, _ = build_mixture(tmp_path, {"train": entries}, TOY, max_seq_len=128)
    wanted = [(f"<|bos|>{text}", len(text.encode()) + 1) for text in TEXTS]
    assert documents(root) == [(text, length, (length - 1) * bool(keys)) for text, length in wanted]
    (source,) = manifest["splits"]["train"]["sources"]
    assert (source["left_aside"], source["train_on"]) == ({"id": 3}, keys.get("train_on", "none"))
    assert list(problems(root)) == []


@pytest.mark.parametrize("strategy", ["truncate", "drop", "split", "raise"])
def test_documents_are_cut_into_rows_whatever_becomes_of_conversations(tmp_path: Path, strategy: str) -> None:
    write_lines(tmp_path / "chat.jsonl", [chat("a", "b" * (10 if strategy == "raise" else 60))])
    entries = [{"task": "text", "path": written(tmp_path, "jsonl").name}, {"task": "chat", "path": "chat.jsonl"},
               {"task": "chat", "path": "chat.jsonl", "name": "other"}]  # fmt: skip
    write_lines(tmp_path / "chat.jsonl", [chat("a", "b" * (10 if strategy == "raise" else 60)), chat("c", "d")])
    root, manifest, _ = build_mixture(
        tmp_path, {"train": entries}, TOY, max_seq_len=32, excess_length_strategy=strategy
    )
    source, other, _ = manifest["splits"]["train"]["sources"]
    assert (source["extra_pieces"], source["truncated"], source["rejected"]) == (3, 0, {})
    assert source["total_tokens"] == sum(len(text.encode()) + 1 for text in TEXTS) + 3  # each piece begins with bos
    assert (other["truncated"], bool(other["rejected"])) == (strategy == "truncate", strategy == "drop")
    assert list(problems(root)) == []


@pytest.mark.parametrize(("excess", "counts"), [("truncate", (1, 0)), ("drop", (0, 1))])
def test_an_entry_may_truncate_or_drop_its_documents(tmp_path: Path, excess: str, counts: tuple[int, int]) -> None:
    entries = [{"task": "text", "path": written(tmp_path, "jsonl").name, "excess": excess}]
    root, manifest, _ = build_mixture(tmp_path, {"train": entries}, TOY, max_seq_len=32)
    (source,) = manifest["splits"]["train"]["sources"]
    assert (source["truncated"], source["rejected"].get("too long", 0)) == counts
    assert list(problems(root)) == []


def test_wrapped_takes_documents_whole(tmp_path: Path) -> None:
    entries = [{"task": "text", "path": written(tmp_path, "jsonl").name}]
    options = {"max_seq_len": 32, "packing": "wrapped", "max_tokens": 40}
    root, manifest, _ = build_mixture(tmp_path, {"train": entries}, TOY, **options)
    assert manifest["splits"]["train"]["total_tokens"] == sum(len(text.encode()) + 1 for text in TEXTS)
    assert list(problems(root)) == []


def test_shares_slices_and_filters_work_as_for_chats(tmp_path: Path) -> None:
    write_lines(tmp_path / "many.jsonl", [{"body": f"text {i}", "good": i % 2 == 0} for i in range(100)])
    write_lines(tmp_path / "chat.jsonl", [chat(f"{i}?", str(i)) for i in range(100)])
    entry = {"task": "text", "path": "many.jsonl", "columns": {"body": "text"}, "where": {"good": True}, "start": 10}
    entries = [{**entry, "proportion": 0.1}, {"task": "chat", "path": "chat.jsonl"}]
    root, manifest, _ = build_mixture(tmp_path, {"train": entries}, TOY, max_seq_len=64)
    source = manifest["splits"]["train"]["sources"][0]
    assert source["rejected"] == {"left out by where": 45}
    assert source["share"]["got"] == pytest.approx(0.1, abs=0.02)
    assert list(problems(root)) == []


def test_text_that_is_none_is_rejected_with_a_reason(tmp_path: Path) -> None:
    write_lines(tmp_path / "t.jsonl", [{"text": "a"}, {"text": ""}, {"text": None}, {"text": 7}, {"other": "x"}, "x"])
    entries = [{"task": "text", "path": "t.jsonl"}]
    _, manifest, _ = build_mixture(tmp_path, {"train": entries}, TOY, max_rejected=1.0)
    (source,) = manifest["splits"]["train"]["sources"]
    assert source["rejected"] == {"missing field": 2, "no messages": 1, "content is not text": 1, "invalid JSON": 1}


def test_plain_text_as_chats_names_the_task(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='task = "text"'):
        build_mixture(tmp_path, {"train": [{"task": "chat", "path": written(tmp_path, "jsonl").name}]}, TOY)
