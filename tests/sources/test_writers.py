"""What Arrow adds is not data, and a directory is what its writer says: the same rows, by every writer, are the same build."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prep.conversations.layouts import Layout
from prep.conversations.rows import plain_rows
from prep.inspect.preview import preview
from prep.sources.files import find_files
from prep.sources.tables import plain_form
from tests.conftest import build_mixture, toy_tokenizer, write_lines

Row = dict[str, Any]

TOY = toy_tokenizer()
ROW = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"}]}


def says(role: str, content: Any, **fields: Any) -> Row:
    return {"role": role, "content": content, **fields}


def calls(name: str, arguments: Any) -> Row:
    return says("assistant", None, tool_calls=[{"id": name, "function": {"name": name, "arguments": arguments}}])


ROWS: dict[str, list[Row]] = {
    "messages": [{**ROW, "source": "café"}, {"messages": [says("system", "Short."), *ROW["messages"]]}],
    "texts of calls": [
        {
            "messages": [
                says("user", "Go."),
                calls("move", '{"x": 0, "y": 1}'),
                says("tool", "ok"),
                says("assistant", "There."),
            ]
        },
        {
            "messages": [
                says("user", "Turn."),
                calls("turn", '{"degrees": 5}'),
                says("tool", "ok"),
                says("assistant", "Done."),
            ]
        },
    ],
    "calls": [
        {
            "messages": [
                says("user", "Go."),
                calls("move", {"x": 0, "y": 1}),
                says("tool", "ok"),
                says("assistant", "There."),
            ]
        },
        {
            "messages": [
                says("user", "Turn."),
                calls("turn", {"degrees": 5}),
                says("tool", "ok"),
                says("assistant", "Done."),
            ]
        },
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}], "system": "Count."},
        {"conversations": [{"from": "human", "value": "3+3?"}, {"from": "gpt", "value": "6"}]},
    ],
    "alpaca": [
        {"instruction": "Translate.", "input": "Hund", "output": "dog", "history": [["Cat?", "Katze"]]},
        {"instruction": "Again.", "input": "", "output": "dog again"},
    ],
    "a column that the first row has not": [
        ROW,
        {**ROW, "system": "Short."},
        {"messages": [*ROW["messages"], says("user", "Again?", name=None), says("assistant", "Hi.", train=False)]},
    ],
    "parts": [
        {
            "messages": [
                says("user", [{"type": "text", "text": text}]),
                says("assistant", [{"type": "text", "text": "!"}]),
            ]
        }
        for text in ("Hi", "")
    ],
    "flags": [{"messages": [*ROW["messages"], says("user", "Again?"), says("assistant", "No.", train=False)]}, ROW],
}


def filled(rows: list[Row]) -> list[Row]:
    """With all columns in each row: pyarrow and datasets take those of the first"""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def with_types(rows: list[Row], folder: Path) -> Path:
    """An Arrow file of views, large lists and dictionaries"""

    def other(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_struct(kind):
            return pa.struct([(inner.name, other(inner.type)) for inner in kind])
        if pa.types.is_list(kind):
            return pa.large_list(other(kind.value_type))
        return pa.string_view() if pa.types.is_string(kind) else kind

    table = pa.Table.from_pylist(filled(rows))
    table = table.cast(pa.schema([(field.name, other(field.type)) for field in table.schema]))
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    return folder / "a.arrow"


def as_json(rows: list[Row], folder: Path) -> Path:
    """Parquet whose columns are arrow.json"""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [pa.array([json.dumps(row[name]) if name in row else None for row in rows]) for name in names]
    storage = [pa.ExtensionArray.from_storage(pa.json_(), column) for column in columns]
    pq.write_table(pa.table(storage, names=list(names)), folder / "a.parquet")
    return folder / "a.parquet"


def written(write: Callable[[Path], object], path: Path) -> Path:
    write(path)
    return path


def save(data: Any, path: Path) -> Path:
    data.save_to_disk(str(path))
    (path / "cache-1234.arrow").write_bytes(b"what datasets' own caches hold")
    return path


WRITERS: dict[str, Callable[[list[Row], Path], Path]] = {
    "JSON array": lambda rows, folder: written(lambda path: path.write_text(json.dumps(rows)), folder / "a.json"),
    "Parquet": lambda rows, folder: written(
        lambda path: pq.write_table(pa.Table.from_pylist(filled(rows)), path), folder / "a.parquet"
    ),
    "polars Parquet": lambda rows, folder: written(pl.DataFrame(rows).write_parquet, folder / "a.parquet"),
    "polars IPC": lambda rows, folder: written(pl.DataFrame(rows).write_ipc, folder / "a.arrow"),
    "datasets": lambda rows, folder: save(datasets.Dataset.from_list(filled(rows)), folder / "saved"),
    "datasets, a dict": lambda rows, folder: save(
        datasets.DatasetDict({"train": datasets.Dataset.from_list(filled(rows))}), folder / "saved"
    ),
    "other types": with_types,
    "arrow.json": as_json,
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


@pytest.mark.parametrize("kind", ROWS)
def test_rows_are_the_same_whoever_wrote_them(tmp_path: Path, kind: str) -> None:
    found = {}
    write_lines(tmp_path / "a.jsonl", ROWS[kind])
    for number, (name, write) in enumerate([("lines", None), *WRITERS.items()]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write(ROWS[kind], folder) if write else tmp_path / "a.jsonl"
        mixture = {"train": [{"task": "chat", "path": str(path), "name": "c"}]}
        _, manifest, _ = build_mixture(folder, mixture, TOY, max_seq_len=256, max_rejected=1.0)
        split = manifest["splits"]["train"]
        (source,) = split["sources"]
        found[name] = [split["shards"][0]["files"], source["rejected"], source.get("left_aside")]
    assert {name: each == found["lines"] for name, each in found.items()} == dict.fromkeys(found, True)


@pytest.mark.parametrize("order", [1, -1])
def test_columns_are_those_of_all_files(tmp_path: Path, order: int) -> None:
    """Each row in a file of its own is the build of all of them in one, in any order, for each kind of file"""
    rows = [
        ROW,
        {**ROW, "system": "Short.", "id": 1},
        {"messages": [*ROW["messages"], says("user", "Again?"), says("assistant", "No.", train=False)]},
        {"id": 2, **ROWS["parts"][0]},
        *ROWS["calls"],
        {"id": 3},  # and no messages
        {"messages": None},
    ]
    first, *others = rows
    rows = [first, *others[::order]]
    write_lines(tmp_path / "all.jsonl", rows)
    found = {}
    for name in ("lines", "Parquet", "datasets", "other types", "arrow.json"):
        for number, row in enumerate(rows):
            if name != "lines":
                (tmp_path / name / str(number)).mkdir(parents=True)
                WRITERS[name]([row], tmp_path / name / str(number))
        path = {"datasets": "datasets/*/saved/data-*", "other types": "other types/*/*", "lines": "all.jsonl"}.get(
            name, f"{name}/*/*.parquet"
        )
        mixture = {"train": [{"task": "chat", "path": path, "name": "c"}]}
        _, manifest, _ = build_mixture(tmp_path, mixture, TOY, f"out {name}", max_seq_len=256, max_rejected=1.0)
        split = manifest["splits"]["train"]
        (source,) = split["sources"]
        found[name] = [split["shards"][0]["files"], source["rejected"], source.get("left_aside")]
    assert {name: each == found["lines"] for name, each in found.items()} == dict.fromkeys(found, True)


def test_one_form_of_what_arrow_has_several_types_for() -> None:
    table = pa.table(
        {
            "fixed": pa.array([["a", "b"]], pa.list_(pa.string(), 2)),
            "bytes": pa.array([b"caf\xc3\xa9"]),
            "lists": [{"role": ["user", "assistant"], "content": ["q", "a"]}],
            "uneven": [{"role": ["user"], "content": ["q", "a"]}],
            "other": [{"scores": [1, 2], "names": ["x", "y"]}],
        }
    )
    assert plain_form(table).to_pylist() == [
        {
            "fixed": ["a", "b"],
            "bytes": "café",
            "lists": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "uneven": None,
            "other": {"scores": [1, 2], "names": ["x", "y"]},
        }
    ]
    maps = pa.table({"arguments": pa.array([[("x", 1), ("y", None)]], pa.map_(pa.string(), pa.int64())), "id": [None]})
    assert [json.loads(line) for line in plain_form(maps)["line"].to_pylist()] == [{"arguments": {"x": 1, "y": None}}]


def table_of(kind: str) -> pa.Table:
    """ROW's messages, then none, then ROW's again"""
    messages, turns = ROW["messages"], pa.array(ROW["messages"])
    lists = pa.array([messages, None, messages])
    fields = {name: [turn[name] for turn in messages] for name in messages[0]}
    structs = pa.StructArray.from_arrays(
        [turns.field("role").dictionary_encode(), turns.field("content")], ["role", "content"]
    )
    return pa.table(
        {
            "messages": {
                "fixed lists": pa.array([messages, None, messages], pa.list_(turns.type, 2)),
                "list views": pa.ListViewArray.from_arrays(
                    [0, 0, 0], [2, 0, 2], turns, mask=pa.array([False, True, False])
                ),
                "a dictionary of lists": pa.DictionaryArray.from_arrays(pa.array([0, None, 0]), lists.slice(0, 1)),
                "dictionaries in lists": pa.LargeListArray.from_arrays([0, 2, 2], structs),
                "a struct of lists": pa.array([fields, None, fields]),
                "maps": pa.array(
                    [[list(turn.items()) for turn in messages], None], pa.list_(pa.map_(pa.string(), pa.string()))
                ),
            }[kind]
        }
    )


@pytest.mark.parametrize(
    "kind",
    ["fixed lists", "list views", "a dictionary of lists", "dictionaries in lists", "a struct of lists", "maps"],
)
def test_lists_of_every_kind_keep_every_turn_and_what_is_null(kind: str) -> None:
    table = table_of(kind)
    expected = {
        "dictionaries in lists": [ROW["messages"], []],
        "maps": [ROW["messages"], None],
    }.get(kind, [ROW["messages"], None, ROW["messages"]])
    for start in (0, 1):
        rows = plain_rows(plain_form(table.slice(start)))
        assert [row.get("messages") for row in rows] == expected[start:]


def test_json_inside_of_structs_and_lists_is_read_as_json() -> None:
    def stored(texts: list[str | None]) -> pa.Array:
        return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts))

    turns = pa.StructArray.from_arrays(
        [pa.array(["user", "assistant"]), stored(['[{"type": "text", "text": "Hi"}]', '"5"'])], ["role", "content"]
    )
    calls = pa.StructArray.from_arrays([stored(['{"x": 0, "y": null}', None])], ["arguments"])
    table = pa.table({"messages": pa.ListArray.from_arrays([0, 2, 2], turns), "call": calls, "raw": [b"\xff", b"b"]})
    first, second = plain_rows(plain_form(table))
    assert first["messages"] == [says("user", [{"type": "text", "text": "Hi"}]), says("assistant", "5")]
    assert first["call"] == {"arguments": {"x": 0, "y": None}}  # a null that the JSON has is one
    assert second == {"messages": [], "call": {}, "raw": "b"}


def test_keys_of_maps_may_repeat_and_be_no_text() -> None:
    days = pa.array([[(datetime.date(2024, 2, 3), 1)]], pa.map_(pa.date32(), pa.int64()))
    twice = pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64()))
    assert plain_rows(plain_form(pa.table({"days": days, "twice": twice}))) == [
        {"days": {"2024-02-03": 1}, "twice": {"a": 2}}  # as of an object of JSON
    ]


# ---- directories ----


def names(path: str, folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in find_files(path, folder)]


def test_hidden_names_are_no_data_and_patterns_work_in_every_part_of_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "data [v1]*"  # brackets and stars of the folder are what they are
    for name in ("a/x.jsonl", "b/x.jsonl", "b/.x.jsonl", "b/_x.jsonl", "b/notes.md", "a/y.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert names("b", folder) == ["b/x.jsonl"]
    assert names("*/x.jsonl", folder) == ["a/x.jsonl", "b/x.jsonl"]
    assert names("?/*", folder) == ["a/x.jsonl", "a/y.parquet", "b/notes.md", "b/x.jsonl"]
    assert names("b/_*.jsonl", folder) == ["b/_x.jsonl"]
    for path in ("*/x.jsonl", "b/x.jsonl"):
        assert find_files(folder / path) == find_files(path, folder) == find_files(f"{folder.name}/{path}", tmp_path)
    (folder / ".git").mkdir()
    (folder / ".git" / "x.jsonl").touch()
    assert names("**/x.jsonl", folder) == ["a/x.jsonl", "b/x.jsonl"]
    assert names(".g*/*", folder) == [".git/x.jsonl"]


def test_a_pattern_takes_no_caches_of_a_saved_data_set(tmp_path: Path) -> None:
    save(datasets.Dataset.from_list([ROW]), tmp_path / "saved")
    assert names("saved/*.arrow", tmp_path) == names("s*/*", tmp_path) == ["saved/data-00000-of-00001.arrow"]


def test_try_looks_at_all_files_as_the_build_does(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [ROW])
    write_lines(tmp_path / "b.jsonl", [{**ROW, "id": 1, "system": "Short."}])
    described = preview(tmp_path, 5, Layout(), None, None).describe()
    assert [described[key] for key in ("reads", "leaves_aside")] == [["messages", "system"], ["id"]]
    write_lines(tmp_path / "c.jsonl", [{**ROW, "label": False}])
    with pytest.raises(ValueError, match=r"c\.jsonl: .*label"):
        preview(tmp_path, 5, Layout(), None, None)
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "c.jsonl")
    with pytest.raises(ValueError, match=r"a\.jsonl is lines, .*c\.jsonl is parquet: wanted files of one kind"):
        preview(tmp_path, 5, Layout(), None, None)


def test_a_missing_part_is_named_unless_it_was_not_asked_for(tmp_path: Path) -> None:
    for number in (0, 2):
        (tmp_path / f"train-0000{number}-of-00003.parquet").touch()
    missing = r"train-00001-of-00003\.parquet is missing, 2 of 3 parts are there"
    for path in (".", "*.parquet", "train-*"):
        with pytest.raises(ValueError, match=missing):
            find_files(path, tmp_path)
    assert len(find_files("train-0000[02]-*", tmp_path)) == 2
    assert len(find_files("train-00000-of-00003.parquet", tmp_path)) == 1
    (tmp_path / "train-00001-of-00003.parquet").touch()
    assert len(find_files(".", tmp_path)) == 3
    for number in (1, 2):
        (tmp_path / f"from_one-{number:03}-of-002.jsonl").touch()
    assert len(find_files(".", tmp_path)) == 5


def test_a_saved_dict_of_several_splits_asks_for_one(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list([ROW])
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(
        ValueError, match=r"saved has the splits train, test: give one of them, as saved/train or saved/test"
    ):
        find_files("saved", tmp_path)
    (file,) = find_files("saved/test", tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=r"not found, which .*state\.json lists"):
        find_files("saved/test", tmp_path)
