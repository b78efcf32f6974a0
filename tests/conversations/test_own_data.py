"""What people bring: every field of a row is read, decided by the entry, left aside and counted, or the row says why not."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prep
from prep.arrange.arrange import normalize
from prep.arrange.expressions import expression
from prep.cli.main import app
from prep.conversations.layouts import FLAGS, NOT_TEXT, REASONING_FIELDS, Layout
from prep.conversations.recognise import recognise
from prep.inspect.build_text import built_lines
from prep.inspect.stats import read_stats
from prep.mixture.mixture import Mixture, parse_mixture
from prep.report.page import make_page, open_report
from prep.tasks import chat
from tests.conftest import build_mixture, toy_tokenizer, write_lines
from tests.conversations.test_every_layout import columns
from tests.conversations.test_layouts import lines, messages, shown

Row = dict[str, Any]


def both(row: Row, **keys: Any) -> str:
    """A row as text, which is the same as a line and as columns"""
    as_line, as_columns = (shown(rows, Layout(**keys)) for rows in (lines(row), pa.Table.from_pylist([row])))
    assert as_line == as_columns
    return as_line[0]


def refused(row: Row, **keys: Any) -> tuple[str, ...]:
    """Fields that stop a build"""
    found = []
    for rows in (lines(row), pa.Table.from_pylist([row])):
        layout = recognise([("f", rows)], Layout(**keys), None)
        found.append(chat.conversations(rows, layout).notes.refused)
    assert found[0] == found[1]
    return found[0]


def aside(*rows: Row, **keys: Any) -> dict[str, int]:
    """Fields that are left aside, with the number of rows"""
    found = []
    for table in (lines(*rows), pa.Table.from_pylist(list(rows))):
        layout = recognise([("f", table)], Layout(**keys), None)
        found.append(dict(chat.conversations(table, layout).notes.left_aside))
    assert found[0] == found[1]
    return found[0]


def said(role: str, content: Any, **fields: Any) -> Row:
    return {"role": role, "content": content, **fields}


HELLO = messages("Hello?", "Hello!")


# ---- read ----


@pytest.mark.parametrize("field", ["system", "system_prompt"])
@pytest.mark.parametrize(
    "row",
    [
        {"messages": HELLO},
        {"conversations": HELLO},
        {"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello!"}]},
        {"instruction": "Hello?", "output": "Hello!"},
        {"prompt": "Hello?", "completion": "Hello!"},
        {"query": "Hello?", "response": "Hello!"},
        {"conversation": [{"human": "Hello?", "assistant": "Hello!"}]},
        {"conversations": ["Hello?", "Hello!"]},
    ],
)
def test_a_system_field_stands_before_the_turns_in_every_layout(row: Row, field: str) -> None:
    assert both({field: "Speak Dutch.", **row}) == "<u>Speak Dutch.\n\nHello?</u><a>[[Hello!</a>]]"
    assert both({field: "", **row}) == "<u>Hello?</u><a>[[Hello!</a>]]"


def test_a_system_field_beside_a_system_turn_is_one_too_many() -> None:
    row = {"system": "A.", "messages": [said("system", "B."), *HELLO]}
    assert both(row) == "roles out of turn"
    assert both({"system": "A.", "system_prompt": "B.", "messages": HELLO}) == "roles out of turn"


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(("off", "on"), [(False, True), (0, 1), (0.0, 1.0)])
def test_every_name_of_the_flag_takes_a_turn_out_of_training(flag: str, off: Any, on: Any) -> None:
    talk = messages("2+2?", "5", "Really?", "4")
    talk[1][flag], talk[3][flag] = off, on
    assert both({"messages": talk}) == "<u>2+2?</u><a>5</a><u>Really?</u><a>[[4</a>]]"
    share = [{"from": m["role"], "value": m["content"], **({flag: m[flag]} if flag in m else {})} for m in talk]
    assert both({"conversations": share}) == "<u>2+2?</u><a>5</a><u>Really?</u><a>[[4</a>]]"
    talk[1][flag] = 0.5 if isinstance(off, float) else 2 if off == 0 and off is not False else off
    wanted = "train or weight is not true or false" if talk[1][flag] not in (0, 1) else both({"messages": talk})
    assert both({"messages": talk}) == wanted


@pytest.mark.parametrize(
    ("train_on", "trains"),
    [("all", [False, True, True]), ("last", [False, True, True]), ("none", [False, True, False])],
)
def test_a_flag_of_a_message_wins_over_train_on(train_on: str, trains: list[bool]) -> None:
    talk = messages("1+1?", "2", "2+2?", "4", "3+3?", "6")
    talk[1]["train"], talk[3]["weight"] = False, 1
    turns = [f"[[{text}</a>]]" if is_on else f"{text}</a>" for text, is_on in zip("246", trains, strict=True)]
    wanted = "".join(f"<u>{n}+{n}?</u><a>{turn}" for n, turn in enumerate(turns, 1))
    assert both({"messages": talk}, train_on=train_on) == wanted


def test_the_last_turn_is_context_where_its_flag_says_so() -> None:
    talk = messages("1+1?", "2", "2+2?", "4")
    talk[3]["train"] = False
    assert both({"messages": talk}, train_on="last") == "<u>1+1?</u><a>2</a><u>2+2?</u><a>4</a>"


@pytest.mark.parametrize(
    ("train_on", "flags", "trains"),
    [
        ("all", (None, True), True),
        ("all", (False, None), None),  # would train in part
        ("none", (False, None), False),
        ("none", (True, True), True),
        ("none", (None, True), None),
        ("last", (None, None), True),
        ("last", (True, None), True),
        ("last", (None, False), None),
        ("last", (False, False), False),
    ],
)
def test_neighbours_are_one_turn_where_all_of_them_train_or_none(
    train_on: str, flags: tuple[bool | None, ...], trains: bool | None
) -> None:
    parts = [{"role": "assistant", "content": text, "train": flag} for text, flag in zip("24", flags, strict=True)]
    row = {"messages": [*messages("1+1?", "2", "3+1?"), *parts]}
    before = "<u>1+1?</u><a>[[2</a>]]" if train_on == "all" else "<u>1+1?</u><a>2</a>"
    wanted = f"{before}<u>3+1?</u><a>" + ("[[2\n\n4</a>]]" if trains else "2\n\n4</a>")
    assert both(row, train_on=train_on, consecutive="merge") == (
        "trained in part of a turn" if trains is None else wanted
    )


@pytest.mark.parametrize(("one", "other"), [("loss", "train"), ("weight", "trainable"), ("training", "loss_weight")])
def test_flags_that_disagree_reject_the_row(one: str, other: str) -> None:
    talk = [said("user", "a"), said("assistant", "b", **{one: 0, other: 1})]
    assert both({"messages": talk}) == "train flags disagree"
    talk = [said("user", "a"), said("assistant", "b", **{one: 0, other: 0})]
    assert both({"messages": talk}) == "<u>a</u><a>b</a>"


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "And in Danish?", "input": "", "output": "Hej"},
        {"prompt": "And in Danish?", "completion": "Hej"},
        {"query": "And in Danish?", "response": "Hej"},
    ],
)
def test_history_comes_first_oldest_first_and_trains(row: Row) -> None:
    row = {**row, "history": [["Hi in Dutch?", "Hoi"], ["In Polish?", "Czesc"]], "system": "Translate."}
    assert both(row) == (
        "<u>Translate.\n\nHi in Dutch?</u><a>[[Hoi</a>]]<u>In Polish?</u><a>[[Czesc</a>]]"
        "<u>And in Danish?</u><a>[[Hej</a>]]"
    )
    assert both({**row, "history": [], "system": ""}) == "<u>And in Danish?</u><a>[[Hej</a>]]"


@pytest.mark.parametrize("train_on", ["all", "last"])
def test_turns_of_a_prompt_are_context_whatever_train_on_says(train_on: str) -> None:
    asked = messages("Capital of Mali?", "Bamako.", "Of Chad?")
    row = {"prompt": asked, "completion": [said("assistant", "N'Djamena.")]}
    wanted = "<u>Capital of Mali?</u><a>Bamako.</a><u>Of Chad?</u><a>[[N'Djamena.</a>]]"
    assert both(row, train_on=train_on) == wanted
    longer = {**row, "completion": [said("assistant", "N'Djamena."), *messages("Of Togo?", "Lome.")]}
    if train_on == "all":
        assert both(longer) == f"{wanted}<u>Of Togo?</u><a>[[Lome.</a>]]"


def test_an_empty_instruction_adds_no_lines() -> None:
    row = {"instruction": "", "input": "What is 3+3?", "output": "6"}
    assert both(row) == "<u>What is 3+3?</u><a>[[6</a>]]"
    assert both({**row, "instruction": "Add.", "input": ""}) == "<u>Add.</u><a>[[6</a>]]"


CALLED = "<u>Rain?</u><a>[[<p>rain(day='today')</p>]]<o>no</o>[[It stays dry.</a>]]"
FUNCTION = {"name": "rain", "arguments": '{"day": "today"}'}


@pytest.mark.parametrize("content", ["", None])
@pytest.mark.parametrize(
    ("call", "tool"),
    [
        ({"tool_calls": [{"id": "a", "type": "function", "function": FUNCTION}]}, said("tool", "no", tool_call_id="a")),
        ({"tool_calls": [{"function": {"name": "rain", "arguments": {"day": "today"}}}]}, said("tool", "no")),
        ({"tool_calls": [FUNCTION]}, said("tool", "no")),
        ({"tool_calls": json.dumps([{"function": FUNCTION}])}, said("tool", "no")),
        ({"function_call": FUNCTION}, said("function", "no", name="rain")),
        ({"function_call": json.dumps(FUNCTION)}, said("function", "no")),
    ],
)
@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_calls_are_read_however_they_are_spelled(field: str, content: Any, call: Row, tool: Row) -> None:
    talk = [said("user", "Rain?"), said("assistant", content, **call), tool, said("assistant", "It stays dry.")]
    assert both({field: talk}) == CALLED


def test_sharegpts_call_and_observation_turns_are_calls_and_answers() -> None:
    turns = [
        ("human", "Rain?"),
        ("function_call", json.dumps(FUNCTION)),
        ("observation", "no"),
        ("gpt", "It stays dry."),
    ]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    assert both(row) == CALLED
    assert both({**row, "tools": "[]"}) == CALLED


def test_calls_that_begin_after_the_first_rows_are_read() -> None:
    talk = [said("user", "Rain?"), said("assistant", "", function_call=FUNCTION), said("function", "no")]
    rows = [{"messages": HELLO}] * 150 + [{"messages": [*talk, said("assistant", "It stays dry.")]}] * 5
    assert shown(lines(*rows))[150:] == [CALLED] * 5


def test_what_arrow_fills_in_is_in_no_call() -> None:
    calls = [{"name": "move", "arguments": {"x": 0, "y": 1}}, {"name": "turn", "arguments": {"degrees": -90}}]
    rows = [
        {"messages": [said("user", "Go"), said("assistant", "", tool_calls=[{"function": call}])]} for call in calls
    ]
    wanted = ["<u>Go</u><a>[[<p>move(x=0, y=1)</p></a>]]", "<u>Go</u><a>[[<p>turn(degrees=-90)</p></a>]]"]
    assert shown(lines(*rows)) == shown(pa.Table.from_pylist(rows)) == wanted
    explicit = {"messages": [said("user", "Go"), said("assistant", "", tool_calls=[{"function": {
        "name": "stop", "arguments": '{"at": null}'}}])]}  # fmt: skip
    assert both(explicit) == "<u>Go</u><a>[[<p>stop(at=None)</p></a>]]"


def test_plain_rows_with_empty_lists_of_calls_are_plain() -> None:
    talk = [said("user", "Hello?", tool_calls=[]), said("assistant", "Hello!", tool_calls=[])]
    assert both({"conversations": talk}) == "<u>Hello?</u><a>[[Hello!</a>]]"


# ---- shapes ----


@pytest.mark.parametrize(
    "row",
    [
        {
            "contents": [
                {"role": "user", "parts": [{"text": "Hello?"}]},
                {"role": "model", "parts": [{"text": "Hello!"}]},
            ]
        },
        {"messages": [said("user", [{"text": "Hello?"}]), said("assistant", [{"text": "Hello!"}])]},
        {"messages": [said(m["role"], [{"type": "text", "value": m["content"]}]) for m in HELLO]},
        {
            "messages": [
                said("user", [{"type": "text", "text": text} for text in ("Hel", "lo?")]),
                said("assistant", [{"type": "text", "text": "Hello!"}]),
            ]
        },
        {"messages": [said("User", "Hello?"), said("Chatbot", "Hello!")]},
        {"messages": [said("USER", "Hello?"), said("Assistant", "Hello!")]},
        {"conversation": [{"human": "Hello?", "assistant": "Hello!"}]},
        {"conversation": [{"input": "Hello?", "output": "Hello!"}]},
        {"conversations": ["Hello?", "Hello!"]},
        {"data": ["Hello?", "Hello!"]},
        {"messages": None, "prompt": "Hello?", "completion": "Hello!"},
        {"messages": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello!"}]},
    ],
)
def test_shapes_of_other_programs_say_the_same(row: Row) -> None:
    assert both(row) == "<u>Hello?</u><a>[[Hello!</a>]]"


def test_a_bare_list_of_from_and_value_is_sharegpt() -> None:
    assert shown(lines([{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello!"}])) == [
        "<u>Hello?</u><a>[[Hello!</a>]]"
    ]


@pytest.mark.parametrize("field", ["systemInstruction", "system_instruction"])
def test_gemini_has_its_system_message_in_parts(field: str) -> None:
    row = {"contents": [{"role": "user", "parts": [{"text": "a"}]}, {"role": "model", "parts": [{"text": "b"}]}]}
    assert (
        both({field: {"role": "system", "parts": [{"text": "Be kind."}]}, **row}) == "<u>Be kind.\n\na</u><a>[[b</a>]]"
    )


def test_pairs_may_begin_with_a_system_message() -> None:
    row = {"conversation": [{"system": "S.", "input": "a", "output": "b"}, {"input": "c", "output": "d"}]}
    assert both(row) == "<u>S.\n\na</u><a>[[b</a>]]<u>c</u><a>[[d</a>]]"


# ---- decided by the entry ----


def test_a_verdict_stops_the_build_and_where_keeps_the_good_rows() -> None:
    good = {"prompt": "Grass?", "completion": "green", "label": True}
    bad = {"prompt": "Snow?", "completion": "black", "label": False}
    assert refused(bad) == ("label",)
    assert refused({"messages": HELLO, "label": False}) == ("label",)
    assert refused({"prompt": "a", "completion": "b", "label": "sports"}) == ()
    keep = Layout(where=(("label", (True,)),))
    for rows in (lines(good, bad), pa.Table.from_pylist([good, bad])):
        assert shown(rows, keep) == ["<u>Grass?</u><a>[[green</a>]]", "left out by where"]
        assert len(shown(rows, Layout(columns=(("label", "unused"),)))) == 2
    assert refused(bad, where=(("label", (True,)),)) == refused(bad, columns=(("label", "unused"),)) == ()


def test_where_takes_several_values_and_tells_true_from_one() -> None:
    rows = [{"prompt": "a", "completion": "b", "lang": lang} for lang in ("en", "de", "fr")]
    found = shown(lines(*rows), Layout(where=(("lang", ("en", "fr")),)))
    assert [text == "left out by where" for text in found] == [False, True, False]
    assert shown(lines({"prompt": "a", "completion": "b", "n": 1}), Layout(where=(("n", (True,)),))) == [
        "left out by where"
    ]


@pytest.mark.parametrize("field", NOT_TEXT)
def test_what_is_not_text_stops_the_build(field: str) -> None:
    assert refused({"messages": HELLO, field: ["a.png"]}) == (field,)
    assert refused({"messages": HELLO, field: []}) == ()
    assert refused({"messages": HELLO, field: ["a.png"]}, columns=((field, "unused"),)) == ()


def test_a_preference_stops_the_build_where_the_talk_has_no_answer() -> None:
    row = {"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}}
    assert refused(row) == ("chosen",)
    assert refused({"messages": HELLO, "chosen": "b", "rejected": "c"}) == ()
    assert aside({"messages": HELLO, "chosen": "b", "rejected": "c"}) == {"chosen": 1, "rejected": 1}


@pytest.mark.parametrize("field", REASONING_FIELDS)
def test_reasoning_is_decided_by_the_entry(field: str) -> None:
    row = {"messages": [said("user", "2+3?"), said("assistant", "5", **{field: "Two and three."})]}
    assert refused(row) == (field,)
    assert refused(row, reasoning="drop") == refused(row, reasoning="think") == ()
    assert both(row, reasoning="drop") == "<u>2+3?</u><a>[[5</a>]]"
    assert both(row, reasoning="think") == "<u>2+3?</u><a>[[<think>\nTwo and three.\n</think>\n\n5</a>]]"


# ---- left aside ----


def test_fields_that_are_unknown_are_counted_by_rows_that_have_them() -> None:
    rows = [{"messages": [*HELLO[:1], said("assistant", "b", mood="calm")], "id": 1, "score": 0.5},
            {"messages": HELLO, "id": 2, "score": None}]  # fmt: skip
    assert aside(*rows) == {"id": 2, "score": 1, "mood of messages": 1}
    assert aside({"messages": HELLO, "tools": [{"type": "function"}]}) == {"tools": 1}
    assert aside({"prompt": "a", "completion": "b", "id": 1}) == {"id": 1}


# ---- calls in Python ----

NAME = st.sampled_from(["a", "class", "from", "None", "ﬁ", "ª", "a b", "1", "", "__debug__", "é", "print", "x.y"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(arguments=st.dictionaries(NAME, JSON, max_size=4), name=NAME)
def test_a_call_parses_and_has_the_arguments_of_the_data(arguments: Row, name: str) -> None:
    if name not in ("a", "é", "print", "x.y"):
        with pytest.raises(ValueError, match="call is not Python"):
            expression(name, arguments)
        return
    text = expression(name, arguments)
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert ast.unparse(call.func) == name
    found: Row = {}
    for keyword in call.keywords:
        value = ast.literal_eval(keyword.value)
        found |= value if keyword.arg is None else {keyword.arg: value}
    assert found == arguments
    assert json.dumps(found) == json.dumps(arguments)


def test_names_that_python_has_no_place_for_reject_the_row_but_not_as_text() -> None:
    call = {"function": {"name": "get-time", "arguments": '{"zone": "CET"}'}}
    row = {"messages": [said("user", "Time?"), said("assistant", "", tool_calls=[call])]}
    assert both(row) == "call is not Python"
    assert both(row, tools="text") == '<u>Time?</u><a>[[{"name": "get-time", "arguments": {"zone": "CET"}}</a>]]'
    deep = {"function": {"name": "f", "arguments": '{"a": ' + "[" * 500 + "]" * 500 + "}"}}
    assert shown(lines({"messages": [said("user", "a"), said("assistant", "", tool_calls=[deep])]})) == [
        "call is not Python"
    ]


def test_the_record_keeps_calls_as_they_came() -> None:
    call = {"id": "7", "function": {"name": "f", "arguments": {"b": 1, "a": [None]}}}
    talk = [said("user", "q"), said("assistant", "", tool_calls=[call]), said("tool", "r", tool_call_id="7")]
    rows = lines({"messages": talk, "tools": [{"name": "f"}]})
    batch = chat.conversations(rows, recognise([("f", rows)], Layout(), None))
    assert batch.texts.to_pylist() == ["q", "7", "f", '{"b": 1, "a": [null]}', "7", "r"]
    assert batch.roles.tolist() == [1, 2, 3]
    assert batch.tools is not None
    assert batch.tools.to_pylist() == ['[{"name": "f"}]']
    assert len(normalize(batch).roles) == 2


def test_integers_of_any_length_are_json_and_stay_what_they_are() -> None:
    huge = 10**5000 + 7
    assert shown(lines({"messages": HELLO, "id": huge})) == ["<u>Hello?</u><a>[[Hello!</a>]]"]
    call = {"function": {"name": "f", "arguments": {"n": huge}}}
    (text,) = shown(lines({"messages": [said("user", "q"), said("assistant", "", tool_calls=[call])]}))
    assert f"f(n={huge})" in text


# ---- said ----

CULPRITS = [
    ({"messages": [said("Boss", "a")]}, "unknown role", "'Boss': roles = { Boss = \"assistant\" }"),
    ({"messages": [said("user", "a"), *HELLO]}, "roles out of turn", 'consecutive = "merge"'),
    ({"messages": [said("user", "a"), said("tool", "b")]}, "roles out of turn", 'roles = { tool = "user" }'),
    ({"messages": [said("user", 7)]}, "content is not text", "7"),
    ({"messages": [said("user", [{"type": "image_url", "image_url": "x"}])]}, "content is not text", "'image_url'"),
    ({"messages": [said("user", [{"type": "tool_use", "text": "x"}])]}, "unknown part type", "'tool_use'"),
    ({"messages": [{"role": "user", "says": "a"}]}, "missing field", "'role', 'says'"),
    ({"messages": "a"}, "messages are no list", "'a'"),
    ({"messages": ["a"]}, "not an object", "'a'"),
    ({"other": 1}, "missing field", "no 'messages'"),
    ({"prompt": "a", "completion": "b"}, "another layout", 'layout = "completion"'),
    (
        {"messages": [said("user", "a"), said("assistant", "b", loss=0.3)]},
        "train or weight is not true or false",
        "0.3",
    ),
    (
        {"messages": [said("user", "a"), said("assistant", "b", loss=0, train=True)]},
        "train flags disagree",
        "loss is 0",
    ),
    ({"messages": [said("user", "a"), said("assistant", "", tool_calls="{")]}, "tool calls", "'{'"),
    (
        {"messages": [said("user", "a"), said("assistant", "", function_call={"name": "a b"})]},
        "call is not Python",
        "'a b'",
    ),
]


def test_the_first_row_of_each_reason_says_what_is_wrong_and_the_way_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"messages": HELLO}] * 3 + [row for row, _, _ in CULPRITS]
    path = write_lines(tmp_path / "mine.jsonl", rows)
    root, manifest, _ = build_mixture(
        tmp_path, {"train": [{"task": "chat", "path": "mine.jsonl"}]}, toy_tokenizer(), max_rejected=1.0
    )
    (source,) = manifest["splits"]["train"]["sources"]
    written = [json.loads(line) for line in (root / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    app(["try", str(path), "--rows", "99", "--plain"], standalone_mode=False)
    tried = capsys.readouterr().out
    built = "\n".join(built_lines(root, manifest, True))
    seen = set[str]()
    for (_, reason, culprit), line in zip(CULPRITS, written, strict=True):
        assert (line["reason"], "culprit" in line) == (reason, reason not in seen), line
        assert f"row {line['row']}: rejected, {reason}" in tried
        if reason not in seen:
            assert culprit in line["culprit"]
            assert culprit in source["culprits"][reason]
            assert source["culprits"][reason] in built
            assert line["culprit"] in tried
        seen.add(reason)


def ten_sources() -> dict[str, tuple[list[Row], Row, dict[str, int]]]:
    """Name of a file -> its rows, keys of its entry, and what is left aside"""
    share = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "n": 1}]
    return {
        "messages": ([{"messages": HELLO, "id": 1}], {}, {"id": 1}),
        "tools": ([{"messages": HELLO, "tools": [{"name": "f"}]}], {}, {"tools": 1}),
        "share": ([{"conversations": share, "id": "x"}], {}, {"id": 1, "n of messages": 1}),
        "alpaca": ([{"instruction": "a", "output": "b", "text": "c"}], {}, {"text": 1}),
        "completion": ([{"prompt": "a", "completion": "b", "rejected": "c"}], {}, {"rejected": 1}),
        "query": ([{"query": "a", "response": "b", "lang": "en"}], {}, {"lang": 1}),
        "where": ([{"messages": HELLO, "label": True, "id": 1}], {"where": {"label": True}}, {"id": 1}),
        "unused": ([{"messages": HELLO, "label": True, "images": ["a"], "id": 1}],
                   {"columns": {"label": "unused", "images": "unused"}}, {"id": 1}),
        "gemini": ([{"contents": [{"role": role, "parts": [{"text": "a"}]} for role in ("user", "model")], "id": 1}],
                   {}, {"id": 1}),
        "late": ([{"messages": HELLO}] * 120 + [{"messages": HELLO, "id": 1}] * 2, {}, {"id": 2}),
    }  # fmt: skip


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_try_build_stats_report_and_manifest_agree_on_what_is_left_aside(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = []
    for name, (rows, keys, _) in ten_sources().items():
        path = tmp_path / f"{name}.{suffix}"
        write_lines(path, rows) if suffix == "jsonl" else pq.write_table(columns(rows), path)
        entries.append({"task": "chat", "path": path.name, "name": name, **keys})
    root, manifest, _ = build_mixture(tmp_path, {"train": entries}, toy_tokenizer(), max_seq_len=64)
    stats = {source["name"]: source for source in read_stats(root)["splits"]["train"]["sources"]}
    built, page = "\n".join(built_lines(root, manifest, True)), make_page(open_report(root, "train"), None)
    for source, entry in zip(manifest["splits"]["train"]["sources"], entries, strict=True):
        name, wanted = entry["name"], ten_sources()[entry["name"]][2]
        assert source["left_aside"] == stats[name]["left_aside"] == wanted, name
        shown = ", ".join(f"{field} ({number} rows)" for field, number in wanted.items())
        assert f"{name}: leaves aside {shown}" in built
        assert all(f">{field}<" in page for field in wanted)
        options = [f"--where={key}=true" for key in entry.get("where", {})]
        options += [f"--columns={key}={value}" for key, value in entry.get("columns", {}).items()]
        app(["try", str(tmp_path / entry["path"]), "--rows", "200", "--json", *options], standalone_mode=False)
        assert json.loads(capsys.readouterr().out)["leaves_aside"] == sorted(wanted), name


def test_numbers_of_nothing_are_no_shares_and_empty_answers_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "mine.jsonl", [{"messages": messages("a", "")}, {"messages": HELLO}])
    entries = [{"task": "chat", "path": "mine.jsonl", "train_on": "none"}]
    root, manifest, _ = build_mixture(tmp_path, {"train": entries}, toy_tokenizer())
    assert manifest["splits"]["train"]["sources"][0]["empty_answers"] == 1
    app(["stats", str(root)], standalone_mode=False)
    shown_stats = capsys.readouterr().out
    assert "1 empty answers" in shown_stats
    assert re.search(r"\b0 +100\.0%", shown_stats) is None


def test_a_column_that_only_a_later_file_has_is_read(tmp_path: Path) -> None:
    rows = [{"instruction": "Name a fruit.", "output": "Pear."},
            {"instruction": "Into French.", "input": "Night", "output": "Nuit", "system": "Hm."}]  # fmt: skip
    for order in ("ab", "ba"):
        for name, row in zip(order, rows, strict=True):
            pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
        found = prep.read_conversations(parsed(tmp_path, {"task": "chat", "path": "*.parquet"}))
        assert sorted(example.messages[0]["content"] for example in found) == [
            "Hm.\n\nInto French.\n\nNight",
            "Name a fruit.",
        ]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_layout_is_recognised_in_whatever_file_has_it(tmp_path: Path, suffix: str, order: str) -> None:
    rows = [{"id": 1}, {"talk": HELLO, "good": True}]
    for name, row in zip(order, rows, strict=True):
        path = tmp_path / f"{name}.{suffix}"
        write_lines(path, [row]) if suffix == "jsonl" else pq.write_table(pa.Table.from_pylist([row]), path)
    entry = {"task": "chat", "path": f"*.{suffix}", "columns": {"talk": "messages"}, "where": {"good": True}}
    (found,) = prep.read_conversations(parsed(tmp_path, entry))
    assert found.messages == HELLO
    with pytest.raises(ValueError, match=r"a\.\w+: where names 'god', its first rows have .*'good', 'id', .*'talk'"):
        list(prep.read_conversations(parsed(tmp_path, entry | {"where": {"god": True}})))


def test_answers_that_are_context_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [HELLO, [HELLO[0], HELLO[1] | {"train": False}], [HELLO[0], HELLO[1] | {"loss": 0}]]
    write_lines(tmp_path / "mine.jsonl", [{"messages": row} for row in rows])
    root, manifest, _ = build_mixture(tmp_path, {"train": [{"task": "chat", "path": "mine.jsonl"}]}, toy_tokenizer())
    (source,) = manifest["splits"]["train"]["sources"]
    assert (source["untrained_answers"], source["train_flags"], source["untrained"]) == (2, True, 2)
    app(["stats", str(root)], standalone_mode=False)
    assert "chat: 2 answers are context, as their rows say" in capsys.readouterr().out


def test_fields_of_a_row_that_is_rejected_are_not_counted() -> None:
    bad = {"messages": [said("boss", "a", x=1), said("user", "b", y=1)], "id": 7}
    assert aside({"messages": HELLO, "id": 1}, bad) == {"id": 1}
    two_systems = {"messages": [said("system", "a", x=1), *HELLO], "system": "b", "id": 7}
    assert aside(two_systems, {"messages": HELLO, "id": 1}) == {"id": 1}


def test_a_role_that_is_no_text_rejects_the_row_and_a_null_one_is_not_there() -> None:
    assert both({"messages": [{"role": 1, "content": "a"}]}) == "unknown role"
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    null = {"conversations": [turn | {"role": None, "content": None} for turn in turns]}
    assert both(null, name="sharegpt") == both({"conversations": turns}, name="sharegpt") == "<u>a</u><a>[[b</a>]]"


def test_a_field_of_messages_renamed_to_what_no_message_has_is_left_aside() -> None:
    rows = [{"messages": [turn | {"x": "a"} for turn in HELLO]}] * 2
    assert aside(*rows, columns=(("x", "system"),)) == {"system of messages": 2}


def test_python_refuses_what_a_build_refuses(tmp_path: Path) -> None:
    write_lines(tmp_path / "mine.jsonl", [{"messages": HELLO}] * 150 + [{"messages": HELLO, "label": False}])
    mixture = parsed(tmp_path, {"task": "chat", "path": "mine.jsonl"})
    with pytest.raises(ValueError, match=r"mine.jsonl: `label` says .* where = \{ label = true \}"):
        list(prep.read_conversations(mixture))
    with pytest.raises(ValueError, match=r"mine.jsonl: `label` says .* columns = \{ label = \"unused\" \}"):
        build_mixture(tmp_path, {"train": [{"task": "chat", "path": "mine.jsonl"}]}, toy_tokenizer())


def parsed(folder: Path, entry: Row) -> Mixture:
    return parse_mixture({"train": [entry]}, "test", folder, "test")


def test_chats_of_which_nothing_trains_are_refused_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [{**HELLO[0]}, {**HELLO[1], "train": False}]}) + "\n")
    entry = '[[train]]\ntask = "chat"\npath = "a.jsonl"\n'
    (tmp_path / "m.toml").write_text(entry)
    with pytest.raises(ValueError, match=r'chat: none of its conversations has a loss token.* train_on = "none"'):
        prep.build_shards(tmp_path / "m.toml", tmp_path / "out", cache_dir=tmp_path / "cache")
    (tmp_path / "m.toml").write_text(entry + 'train_on = "none"\n')
    manifest = prep.build_shards(tmp_path / "m.toml", tmp_path / "out", cache_dir=tmp_path / "cache")
    assert manifest["splits"]["train"]["trainable_tokens"] == 0
