"""Rows of every layout with every field that is read, however they are written, say what the plain reading says."""

import json
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.arrange.arrange import normalize
from prep.conversations.conversation import Conversations, to_messages
from prep.conversations.layouts import FLAGS, LAYOUTS, ROLE_NAMES, Layout
from prep.conversations.recognise import recognise
from prep.sources.files import find_files
from prep.sources.source import open_files, read_rows
from prep.tasks import chat
from tests.conversations.plain_reading import Row, as_rendered, read_plainly
from tests.conversations.test_layouts import lines
from tests.torture.fuzz_lines import compare, fuzz
from tests.torture.fuzz_rows import bad_line, good_line


def columns(rows: list[Row]) -> pa.Table:
    """Rows as columns, null where a row has no such field"""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def through(name: str, write: Callable[[list[Row], Path], object]) -> Callable[[list[Row]], pa.Table]:
    """Rows written as a file or directory of a name, and read as a source reads it"""

    def read(rows: list[Row]) -> pa.Table:
        with tempfile.TemporaryDirectory() as folder:
            try:
                write(rows, Path(folder, name))
            except (pa.ArrowNotImplementedError, pl.exceptions.PolarsError):
                assert "{}" in json.dumps(rows)  # no format has a struct without a field: arguments empty in every row
                return columns(rows)
            source = open_files(find_files(name, Path(folder)), [], cache_dir=Path(folder, "cache"))
            return pa.concat_tables(list(read_rows(source, 0, source.num_rows)))

    return read


# rows -> a table as a source gives it; another writer is another line here
WRITERS: dict[str, Callable[[list[Row]], pa.Table]] = {
    "lines": lambda rows: lines(*rows),
    "columns": columns,
    "JSON array": through("a.json", lambda rows, path: path.write_text(json.dumps(rows, indent=1))),
    "Parquet": through("a.parquet", lambda rows, path: pq.write_table(columns(rows), path)),
    "polars Parquet": through("b.parquet", lambda rows, path: pl.DataFrame(rows).write_parquet(path)),
    "polars IPC": through("b.arrow", lambda rows, path: pl.DataFrame(rows).write_ipc(path)),
    "datasets": through("saved", lambda rows, path: datasets.Dataset(columns(rows)).save_to_disk(str(path))),
}
datasets.disable_progress_bars()
TEXT = st.text(st.sampled_from("ab é\n"), max_size=4)
NAMES = {
    role: [name for name, known in ROLE_NAMES.items() if known == role]
    for role in ("system", "user", "assistant", "tool")
}
CASES: list[Callable[[str], str]] = [str, str.upper, str.title]


@st.composite
def arguments(draw: st.DrawFn) -> Row:
    """Each begins with the keys of the shorter ones: a column of structs has one order of keys for all rows"""
    return {
        name: draw(TEXT if name == "b" else st.integers(0, 9)) for name in draw(st.sampled_from(["", "a", "ab", "abc"]))
    }


@st.composite
def talk(draw: st.DrawFn) -> list[Row]:
    """Turns as {role, text} and, of the assistant's, flag or call"""
    turns: list[Row] = [{"role": "system", "text": draw(TEXT)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append({"role": "user", "text": draw(TEXT)})
        for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
            turns.append(
                {"role": "assistant", "text": draw(TEXT), "call": {"name": "f", "arguments": draw(arguments())}}
            )
            turns.append({"role": "tool", "text": draw(TEXT)})
        turns.append({"role": "assistant", "text": draw(TEXT)})
    if not any("call" in turn for turn in turns):
        turns[-1]["flag"] = draw(st.none() | st.booleans())
    return turns


@st.composite
def style(draw: st.DrawFn) -> Row:
    """How a writer spells what a talk says: the same in all rows of a file"""
    return {
        "parts": draw(st.sampled_from(["", "text", "value", "untyped"])),
        "flag": draw(st.sampled_from(FLAGS)),
        "numbers": draw(st.booleans()),
        "call": draw(st.sampled_from(["tool_calls", "json", "function_call", "objects"])),
        "names": {role: draw(st.sampled_from(names)) for role, names in NAMES.items()},
        "case": draw(st.sampled_from(CASES)),
        "field": draw(st.sampled_from(["system", "system_prompt"])),
    }


def message(turn: Row, how: Row, keys: tuple[str, str]) -> Row:
    text: Any = turn["text"]
    if how["parts"]:
        text = [
            {"text": {"type": "text", "text": text}, "value": {"type": "text", "value": text}}.get(
                how["parts"], {"text": text}
            )
        ]
    row = {keys[0]: how["case"](how["names"][turn["role"]]), keys[1]: text}
    if turn.get("flag") is not None:
        row[how["flag"]] = int(turn["flag"]) if how["numbers"] else turn["flag"]
    if call := turn.get("call"):
        as_json = {**call, "arguments": json.dumps(call["arguments"])}
        row |= {
            "tool_calls": {"tool_calls": [{"type": "function", "function": as_json}]},
            "json": {"tool_calls": json.dumps([{"function": call}])},
            "function_call": {"function_call": as_json},
            "objects": {"tool_calls": [{"function": call}]},
        }[how["call"]]
        row[keys[1]] = row[keys[1]] if turn["text"] else ([] if how["parts"] else "")
    return row


def turns_for(layout: str, turns: list[Row], how: Row) -> list[Any]:
    plain = [turn for turn in turns if "call" not in turn and turn["role"] in ("user", "assistant")]
    if layout == "strings":
        return [turn["text"] for turn in plain]
    if layout == "pairs":
        return [{"human": a["text"], "assistant": b["text"]} for a, b in zip(plain[::2], plain[1::2], strict=True)]
    if layout == "sharegpt":
        return [message(turn, how, ("from", "value")) for turn in turns]
    if layout == "gemini":
        return [message(turn, {**how, "parts": "untyped"}, ("role", "parts")) for turn in turns]
    return [message(turn, how, ("role", "content")) for turn in turns]


def row_of(layout: str, turns: list[Row], how: Row, history: list[list[str]]) -> Row:
    """A talk in a layout, with every field that it reads; what a layout has no place for is left out"""
    table = LAYOUTS[layout]
    system = next((turn["text"] for turn in turns if turn["role"] == "system"), "")
    if table.turns:
        in_field = layout in ("pairs", "strings") or how["numbers"]
        rest = [turn for turn in turns if not in_field or turn["role"] != "system"]
        return {**({how["field"]: system} if in_field else {}), table.turns: turns_for(layout, rest, how)}
    first, last = next(turn for turn in turns if turn["role"] == "user"), turns[-1]
    row = {how["field"]: system, table.asks[0]: first["text"], table.says: last["text"], "history": history}
    return {**row, "input": last["text"]} if layout == "alpaca" else row


def rendered(batch: Conversations) -> list[Any]:
    """Each conversation as plain_reading.as_rendered has it; None where it has a reason"""
    out: list[Any] = []
    for number in range(len(batch)):
        turns = []
        for turn in to_messages(batch, number):
            content = turn["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            trains = turn["role"] == "assistant" and turn.get("train", True)
            kinds = [(part["type"], part["text"], trains and part["type"] != "python_output") for part in parts]
            turns.append((turn["role"], kinds))
        out.append(None if batch.reasons[number] else turns)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=40, deadline=None)
@given(talks=st.lists(talk(), min_size=1, max_size=3), how=style(), history=st.lists(st.tuples(TEXT, TEXT), max_size=2))
def test_every_way_of_writing_a_row_says_what_the_plain_reading_says(
    layout: str, talks: list[list[Row]], how: Row, history: list[tuple[str, str]]
) -> None:
    rows = [row_of(layout, turns, how, [list(pair) for pair in history]) for turns in talks]
    wanted = [as_rendered(read_plainly(row, layout)) for row in rows]
    for name, write in WRITERS.items():
        table = write(rows)
        found = recognise([("rows", table)], Layout(), None)
        batch = chat.conversations(table, found)
        assert rendered(normalize(batch)) == wanted, (name, rows)
        assert (found.name, batch.notes.refused, batch.notes.left_aside) == (layout, (), {}), name


PLAIN_LINES = {
    "messages": b'{"messages": [{"role": "user", "content": "\xc3\xa9\\n"}, {"role": "assistant", "content": "b"}], "id": 7}',
    "sharegpt": b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 1}]}',
    "completion": b'{"prompt": "a", "completion": "b", "tags": ["x", null], "meta": {"n": 1}}',
    "text": b'{"text": "a", "date": "2024-01-01"}',
}


def test_lines_of_anything_are_read_alike() -> None:
    assert fuzz(1000, seed=0) > 100


@pytest.mark.parametrize("layout", PLAIN_LINES)
def test_lines_that_are_columns_say_what_their_values_say_rubbish_included(layout: str) -> None:
    rng, plain = random.Random(0), PLAIN_LINES[layout]
    assert compare([plain] * 9, Layout(layout))
    for _ in range(400):
        row = (bad_line if rng.random() < 0.5 else good_line)(rng)
        compare([plain, row] if rng.random() < 0.5 else [row], Layout(layout))


WRONG_VALUES = (
    b"null",
    b"7",
    b"1e999",
    b"NaN",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b'"\\ud800"',
    b'"\xff"',
    b'"\\u0000"',
    b"[[[]]]",
)
NAMES_AND_VALUES = re.compile(rb'"[^"]*"(?=:)|(?<=: )("[^"]*"|[0-9]+|\[|\{)|[\[\]{},:]')


@pytest.mark.parametrize("layout", PLAIN_LINES)
def test_lines_with_anything_replaced_are_read_alike(layout: str) -> None:
    """Each name, value and sign of a plain line in turn is dropped, doubled, or another"""
    plain = PLAIN_LINES[layout]
    num_columns = 0
    for place in NAMES_AND_VALUES.finditer(plain):
        names = (b'"role"', b'"x"', b'"content"', b'"system"', b'"label"', b'"tools"', b'"messages"')
        for other in (b"", place[0] * 2, place[0] + b"\n" + place[0], *WRONG_VALUES, *names):
            row = plain[: place.start()] + other + plain[place.end() :]
            for data in ([plain, *row.split(b"\n")], row.split(b"\n")):
                num_columns += compare(data, Layout(layout))
    assert num_columns > 20
