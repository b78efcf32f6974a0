"""Files of one's own: every kind, compressed or many, gives the same build; what cannot be read is one line; the Hub."""

import gzip
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.mixture.mixture import parse_mixture
from prep.shard import open_shards
from prep.sources import detect as formats
from prep.sources import json_documents, jsonl, tables
from prep.sources import source as sources
from prep.sources.jsonl import JsonLines
from prep.sources.source import open_files, read_rows
from tests.conftest import SHARED, build_mixture, needs_shared, toy_tokenizer, write_lines
from tests.conversations.test_layouts import messages
from tests.sources.test_sources import hub, midprep  # noqa: F401

TOY = toy_tokenizer()
ROWS = [{"messages": messages(f"{i}?", "x" * (i % 5))} for i in range(50)]


def write(path: Path, rows: list[Any]) -> None:
    table, plain = pa.Table.from_pylist(rows), "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".gz":
        half = len(plain) // 2  # of two members, as `cat a.gz b.gz` gives
        path.write_bytes(gzip.compress(plain[:half]) + gzip.compress(plain[half:]))
    elif path.suffix == ".zst":
        path.write_bytes(pa.compress(plain, "zstd", asbytes=True))
    elif path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=20)
    elif path.suffix == ".feather":
        feather.write_feather(table, path, compression="lz4", chunksize=7)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    else:
        path.write_bytes(plain)


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("*.npy")}


def test_every_kind_of_file_gives_the_same_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BLOCK_ROWS", 10)
    monkeypatch.setattr(tables, "BATCH_ROWS", 4)
    names = [f"a.{kind}" for kind in ("jsonl", "jsonl.gz", "jsonl.zst", "parquet", "feather", "arrow")]
    for name in names:
        write(tmp_path / name, ROWS)
    for folder, kinds in (("many", ("jsonl", "jsonl.gz", "jsonl.zst")), ("batches", ("feather", "arrow"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text("no data")
        cuts = [0, 13, 31, 50] if folder == "many" else [0, 24, 50]
        for number, kind in enumerate(kinds):
            write(tmp_path / folder / f"{number}.{kind}", ROWS[cuts[number] : cuts[number + 1]])
    builds = {}
    for number, path in enumerate([*names, "many", "batches", "many/*.jsonl*", "ba*/?.*"]):
        root, manifest, _ = build_mixture(
            tmp_path, {"train": [{"task": "chat", "path": path, "name": "c"}]}, TOY, f"out{number}", max_seq_len=64
        )
        assert manifest["splits"]["train"]["sources"][0]["rows"] == 50, path
        builds[path] = content(root)
    assert all(build == builds["a.jsonl"] for build in builds.values())


def test_compressed_lines_are_decompressed_once_and_a_damaged_copy_again(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl.gz", ROWS)
    mixture = {"train": [{"task": "chat", "path": "a.jsonl.gz"}]}
    expected = content(build_mixture(tmp_path, mixture, TOY, "one", max_seq_len=64)[0])
    (plain,) = (tmp_path / "cache" / "plain").iterdir()
    before = plain.read_bytes(), plain.stat().st_mtime_ns
    build_mixture(tmp_path, mixture, TOY, "two", max_seq_len=64)
    assert (plain.read_bytes(), plain.stat().st_mtime_ns) == before
    plain.write_bytes(before[0][:100])
    for run in (tmp_path / "cache" / "runs").rglob("*.run"):
        run.unlink()
    assert content(build_mixture(tmp_path, mixture, TOY, "three", max_seq_len=64)[0]) == expected
    assert plain.read_bytes() == before[0]


def test_a_copy_in_the_cache_that_is_gone_is_made_again_and_another_content_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl.gz", ROWS)
    cache = tmp_path / "cache"
    source = open_files([tmp_path / "a.jsonl.gz"], [], cache_dir=cache)
    (wanted,) = [table.to_pylist() for table in read_rows(source, 0, 50)]
    shutil.rmtree(cache)
    assert [table.to_pylist() for table in read_rows(source, 0, 50)] == [wanted]
    source.check_unchanged(0, 50)
    write(tmp_path / "a.jsonl.gz", ROWS[1:])
    shutil.rmtree(cache)
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz was removed while it was read: build again"):
        list(read_rows(source, 0, 50))


def test_other_ways_of_reading_render_again_and_the_same_way_does_not(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", ROWS)
    seen = set()
    for number, more in enumerate(
        [{}, {"train_on": "last"}, {"train_on": "none"}, {"consecutive": "merge"}, {"roles": {"bot": "assistant"}}, {}]
    ):
        build_mixture(
            tmp_path, {"train": [{"task": "chat", "path": "a.jsonl", **more}]}, TOY, f"o{number}", max_seq_len=64
        )
        seen.add(len(list((tmp_path / "cache" / "runs").rglob("*.run"))))
    assert sorted(seen) == [1, 2, 3, 4, 5]


def test_a_stream_that_was_cut_between_two_batches_is_not_a_shorter_one(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"n": range(30)})
    ends = []
    with open(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=10):
            writer.write_batch(batch)
            ends.append(file.tell())
    assert sources.open_files([path], ["n"]).num_rows == 30
    (tmp_path / "cut.arrow").write_bytes(path.read_bytes()[: ends[1]])
    with pytest.raises(ValueError, match=r"cut\.arrow is an Arrow stream without an end: its writer did not finish"):
        sources.open_files([tmp_path / "cut.arrow"], ["n"])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"text": "a"}\n', r"its first rows have the fields \['text'\], as in {\"text\": \"a\"}; wanted messages"),
        ("a.json", b'[{"prompt": "a", "completion": "b"}, {"prompt"]', r"no readable JSON \(Expecting ':' .*character 46\)"),
        ("a.json", '[{"prompt": "a"}]'.encode("utf-16"), "is UTF-16, wanted JSON lines"),
        ("a.jsonl", b"hello\n", "its first rows cannot be read, as hello; wanted JSON in UTF-8, one object per line"),
        ("a.jsonl", b'{"a": 1}\n', r"wanted messages \(messages\); or conversations \(sharegpt\)"),
        ("a.jsonl", b"\n\n", "has no rows|its first rows have"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 999, mtime=0)[:-20], "not a readable gzip file"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfdnothing", "not a readable zstd file"),
        ("a.json", b"[" + b'{"prompt": "a", "completion": "b"}, ' * 200, "it ends before its array does, at character 7,2"),
        ("a.jsonl", b'{"a": "' + b"x" * 5000, "a first line of more than 0 MB: wanted an object a line"),
        ("a.zip", b"PK\x03\x04", "is zip, wanted JSON lines"),
        ("a.csv", b"question,answer\n1,2\n", "is CSV, wanted JSON lines"),
        ("a.parquet", b"hello\n", "is not a Parquet file, whatever its name says"),
        ("a.jsonl", b'{"messages": "caf\xe9"}\n', r"its first rows cannot be read, as .*caf.xe9.*wanted JSON in UTF-8"),
        ("a.arrow", b"ARROW1\0\0 and no more", "not a readable Arrow file"),
        ("a.arrow", b"\xff\xff\xff\xff and no more", "is an Arrow stream without an end"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(formats, "LINE_BYTES", 4000)
    with pytest.raises(ValueError, match=words) as error:
        build_mixture(tmp_path, {"train": [{"task": "chat", "path": name}]}, TOY)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_files_of_two_kinds_or_none_are_one_line(tmp_path: Path) -> None:
    for folder in ("two", "none", "later"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "later" / "a.jsonl", [])  # files without rows are fine beside others
    write(tmp_path / "later" / "b.jsonl", ROWS[:2])
    write(tmp_path / "later" / "c.jsonl", [])
    _, manifest, _ = build_mixture(tmp_path, {"train": [{"task": "chat", "path": "later"}]}, TOY)
    assert manifest["splits"]["train"]["rows"] == 1
    write(tmp_path / "two" / "a.jsonl", ROWS[:2])
    write(tmp_path / "two" / "b.parquet", ROWS[:2])
    for path, words in (
        ("two", "wanted files of one kind"),
        ("none", "has no data in it"),
        ("*.jsonl", "not found"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            build_mixture(tmp_path, {"train": [{"task": "chat", "path": path}]}, TOY)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"path": "a", "hub": "o/n"}, "path and hub are given, wanted one of them"),
        ({"hub": "n"}, "hub = 'n' found, wanted \"owner/name\""),
        ({"path": "a", "subset": "x"}, "subset is of a data set on the Hub"),
        ({"path": "a", "layout": "sharegtp"}, "layout = 'sharegtp' found.*Did you mean 'sharegpt'"),
        ({"path": "a", "train_on": "first"}, "train_on = 'first' found, wanted all or last or none"),
        ({"path": "a", "consecutive": "keep"}, "consecutive = 'keep' found, wanted reject or merge"),
        ({"path": "a", "roles": {"bot": "asistant"}}, "roles makes 'bot' 'asistant'.*Did you mean 'assistant'"),
        ({"path": "a", "columns": {"q": "promt"}}, "columns makes 'q' 'promt'.*Did you mean 'prompt'"),
        ({"path": "a", "columns": {"q": ["x"]}}, "columns makes 'q'"),
        ({"path": "a", "columns": {"p": "prompt", "q": "prompt"}}, "two fields the same name"),
        ({"path": "a", "columns": "q"}, "columns = 'q' found, wanted a table"),
    ],
)
def test_a_mistake_in_an_entry_is_one_line(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        parse_mixture({"train": [{"task": "chat", **entry}]}, "m.toml", Path(), "m")
    assert "\n" not in str(error.value)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"q": "a", "a": "b"}])
    entry = {"task": "chat", "path": "a.jsonl", "columns": {"question": "prompt", "a": "completion"}}
    with pytest.raises(ValueError, match=r"columns names 'question', its first rows have \['a', 'q'\]"):
        build_mixture(tmp_path, {"train": [entry]}, TOY)


# ---- the Hub ----

GSM8K = {
    "task": "chat", "hub": "openai/gsm8k", "subset": "main", "split": "test",
    "columns": {"question": "prompt", "answer": "completion"},
}  # fmt: skip


@needs_shared
def test_a_data_set_of_the_hub_is_permuted_as_those_of_the_tasks(tmp_path: Path, hub: dict[str, str]) -> None:  # noqa: F811
    data_root = SHARED / "data" / "hub"
    mixture = {"train": [{**GSM8K, "stop": 9, "name": "own"}, {"task": "gsm8k", "split": "test", "stop": 9}]}
    root, manifest, _ = build_mixture(tmp_path, mixture, TOY, data_root=data_root)
    docs = open_shards(root).split("train").docs
    own, task = manifest["splits"]["train"]["sources"]
    assert (own["hub"], own["layout"], own["rows"]) == ("openai/gsm8k", "completion", 9)
    assert own["sha256"] == task["sha256"]
    assert sorted(docs["index"][docs["source"] == 0]) == sorted(docs["index"][docs["source"] == 1])
    columns = '{ question = "prompt", answer = "completion" }'
    (tmp_path / "m.toml").write_text(
        f'[[train]]\ntask = "chat"\nhub = "openai/gsm8k"\nsubset = "main"\nsplit = "test"\nstop = 9\ncolumns = {columns}\n'
    )
    built = midprep(hub, "build", "--mixture", str(tmp_path / "m.toml"), "-o", str(tmp_path / "hub"))
    assert built.returncode == 0, built.stderr
    (source,) = json.loads((tmp_path / "hub" / "manifest.json").read_text())["splits"]["train"]["sources"]
    assert (source["sha256"], len(source["revision"])) == (own["sha256"], 40)


def test_a_first_row_that_is_no_unicode_is_rejected_like_any_other(tmp_path: Path) -> None:
    answers = pa.array([b"\xff\xfe", b"Fine.", b"Good."]).view(pa.string())
    pq.write_table(pa.table({"instruction": ["a?", "b?", "c?"], "output": answers}), tmp_path / "a.parquet")
    root, manifest, _ = build_mixture(
        tmp_path, {"train": [{"task": "chat", "path": "a.parquet"}]}, TOY, max_seq_len=64, max_rejected=0.5
    )
    (source,) = manifest["splits"]["train"]["sources"]
    assert (source["rows"], source["conversations"], source["rejected"]) == (3, 2, {"not valid Unicode": 1})
    assert json.loads((root / "rejected.jsonl").read_text())["content"] == "(not valid Unicode)"


@pytest.mark.parametrize("compression", ["uncompressed", "lz4"])
def test_a_damaged_arrow_file_is_one_line_and_no_crash(tmp_path: Path, compression: str) -> None:
    """A wrong offset, index or byte of text: Arrow itself would read outside of the file"""
    path = tmp_path / "a.arrow"
    texts = pa.array([f"text {n}" for n in range(40)]).dictionary_encode()
    feather.write_feather(pa.table({"text": ["é" * n for n in range(40)], "same": texts}), str(path), compression)
    data, errors = path.read_bytes(), list[str]()
    for place in range(len(data) // 4, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])
        try:
            source = open_files([path], [], cache_dir=tmp_path)
            assert sum(len(table.to_pylist()) for table in read_rows(source, 0, source.num_rows)) == source.num_rows
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 20
    assert all(str(path) in error and "\n" not in error for error in errors)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "arrow"])
def test_a_file_whose_name_is_not_unicode_is_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "talks").mkdir()
    write(tmp_path / f"a.{kind}", ROWS)
    os.replace(tmp_path / f"a.{kind}", os.fsencode(tmp_path / "talks") + b"/a\xff." + kind.encode())
    _, manifest, _ = build_mixture(tmp_path, {"train": [{"task": "chat", "path": "talks"}]}, TOY, max_seq_len=64)
    assert manifest["splits"]["train"]["conversations"] == 50


@settings(deadline=None)
@given(
    lines=st.lists(st.sampled_from([b"", b" ", b"\r", b"\t\x0b", b" 1", b"22", b"333\r", b"x" * 40]), max_size=30),
    end=st.sampled_from([b"", b"\n"]),
    size=st.integers(1, 50),
)
def test_lines_are_those_between_line_ends_that_are_not_blank(lines: list[bytes], end: bytes, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BATCH_BYTES", size)
        patch.setattr(tables, "BATCH_ROWS", 3)
        path = Path(folder) / "a.jsonl"
        path.write_bytes(b"\n".join(lines) + end)
        wanted = [line for line in lines if line.strip(b" \t\r\x0b")]
        file = JsonLines.open(path, 4)
        assert file.num_rows == len(wanted)
        for start in range(0, len(wanted), 4):
            for stop in (min(start + 4, len(wanted)), len(wanted)):
                found = [row["line"] for table in file.read(start, stop) for row in table.to_pylist()]
                assert [line.rstrip(b"\n") for line in found] == wanted[start:stop]


PRETTY = b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS)
ARRAYS = {
    "array.json": json.dumps(ROWS).encode(),
    "pretty.json": b"\xef\xbb\xbf" + json.dumps(ROWS, indent=2).encode(),
    "line_by_line.json": b"[" + b",\n".join(json.dumps(row).encode() for row in ROWS) + b"]\n",
    "objects.json": PRETTY,
    "array.json.gz": gzip.compress(json.dumps(ROWS).encode()),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_json_that_is_no_lines_gives_the_bytes_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(jsonl, "CHUNK_BYTES", 1000)
    write_lines(tmp_path / "a.jsonl", ROWS)
    (tmp_path / name).write_bytes(ARRAYS[name])
    (tmp_path / "folder").mkdir()
    for number, row in enumerate(ROWS):  # a pretty-printed object a file
        (tmp_path / "folder" / f"{number:03}.json").write_text(json.dumps(row, indent=1))
    paths = ["a.jsonl", name, "folder"]
    one, two, three = (
        content(build_mixture(tmp_path, {"train": [{"task": "chat", "path": path, "name": "c"}]}, TOY, f"o{i}")[0])
        for i, path in enumerate(paths)
    )
    assert one == two == three


@given(
    rows=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    ),
    indent=st.none() | st.integers(0, 2),
    size=st.integers(1, 40),
    as_array=st.booleans(),
)
def test_values_of_a_document_are_lines_however_it_is_cut(
    rows: list[Any], indent: int | None, size: int, as_array: bool
) -> None:
    text = json.dumps(rows, indent=indent) if as_array else " \n".join(json.dumps(row, indent=indent) for row in rows)
    if not as_array and rows and isinstance(rows[0], list):
        return  # it is the array
    data = text.encode()
    lines = list(json_documents.lines(data[i : i + size] for i in range(0, len(data), size)))
    assert [json.dumps(json.loads(line)) for line in lines] == [json.dumps(row) for row in rows]
    assert all(line.count(b"\n") == 1 for line in lines)


@pytest.mark.parametrize(
    ("start", "document"),
    [
        (b'[\n{"a": 1},\n{"b": 2}\n]', True),
        (b'[{"messages": []},\n{"messages": []}]', True),
        (b'[[{"role": "user"}], [{"role": "user"}]]', True),
        (b'[{"text": "' + b"x" * (1 << 21), True),
        (b'{\n"a": 1}\n{"b": 2}', True),
        (b'{"a":\n1}', True),
        (b'[{"role": "user"}]', False),
        (b'[{"role": "user"}]\n[{"role": "user"}]', False),
        (b'[{"role": "user", "cont\n[{"role": "user"}]', False),
        (b'{"messages": [\n{"messages": []}\n', False),
        (b'["a", "b"]\n["c"]', False),
        (b'{"a": 1}\n{"b": 2}', False),
        (b"hello", False),
        (b"[]", False),
        (b"", False),
    ],
)
def test_what_begins_like_an_array_of_rows_or_an_object_over_lines_is_one(start: bytes, document: bool) -> None:
    assert json_documents.is_document(start[: json_documents.START_BYTES]) is document


def test_text_files_are_documents_of_the_task_that_reads_text(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name, data in (("a.txt", b"Zwei\nZeilen.\n"), ("b.txt", b"One."), ("c.txt", b"caf\xe9"), ("d.md", b"no")):
        (tmp_path / "texts" / name).write_bytes(data)
    for number, (path, num) in enumerate([("texts", 2), ("texts/*.txt", 2), ("texts/a.txt", 1)]):
        mixture = {"train": [{"task": "text", "path": path}]}
        root, manifest, _ = build_mixture(tmp_path, mixture, TOY, f"out{number}", max_seq_len=64, max_rejected=0.5)
        (source,) = manifest["splits"]["train"]["sources"]
        assert (source["conversations"], source["rejected"]) == (num, {"not valid Unicode": 1} if num == 2 else {})
    tokens = open_shards(root).split("train").read_tokens(np.array([0]))[0].tolist()
    assert bytes(token for token in tokens if token < 256) == b"Zwei\nZeilen.\n"
