"""Tasks turn rows into conversations; malformed rows keep their place and say why."""

import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis.strategies import sampled_from, text

from prep.arrange.arrange import normalize
from prep.conversations.conversation import KINDS, REASONS, ROLES, Conversations
from prep.conversations.read import of_objects
from prep.tasks import TASKS, chat, gsm8k, mmlu


def plain(batch: Conversations) -> list[Any]:
    """The batch as lists of (role, [(kind, text), ...]), a reason in place of a rejected conversation"""
    out: list[Any] = []
    texts = batch.texts.to_pylist()
    for c in range(len(batch)):
        turns = [
            (
                ROLES[batch.roles[m]],
                [(KINDS[batch.kinds[p]], texts[p]) for p in range(batch.parts[m], batch.parts[m + 1])],
            )
            for m in range(batch.messages[c], batch.messages[c + 1])
        ]
        out.append(REASONS[batch.reasons[c]] or turns)
    return out


def split_plainly(answer: str) -> list[tuple[str, str]]:
    """An answer of GSM8K, as nanochat's task splits it"""
    parts = []
    for piece in re.split(r"(<<[^>]+>>)", answer):
        if not re.fullmatch(r"<<[^>]+>>", piece):
            parts.append(("text", piece))
            continue
        expression, _, result = piece[2:-2].rpartition("=") if "=" in piece else (piece[2:-2], "", "")
        parts += [("python", expression), ("python_output", result)]
    return parts


def split(answer: str) -> list[tuple[str, str]]:
    return [(part["type"], part["text"]) for part in gsm8k.parts_of(answer)]


def test_calculator_calls_become_python_and_its_output() -> None:
    assert split("He has 3*4=<<3*4=12>>12.\n#### 12") == [
        ("text", "He has 3*4="), ("python", "3*4"), ("python_output", "12"), ("text", "12.\n#### 12"),
    ]  # fmt: skip
    assert split("<<5>>") == [("text", ""), ("python", "5"), ("python_output", ""), ("text", "")]
    assert split("<<a=b=c>>")[1:3] == [("python", "a=b"), ("python_output", "c")]


@given(answer=text(sampled_from("<>=aé1"), max_size=14))
def test_answers_are_split_where_nanochat_splits_them(answer: str) -> None:
    assert split(answer) == split_plainly(answer)


def test_gsm8k_rows_with_a_missing_answer_are_rejected() -> None:
    rows = pa.table({"question": ["q", None, "r"], "answer": ["a <<1=1>>", "b", None]})
    assert plain(gsm8k.conversations(rows)) == [
        [("user", [("text", "q")]),
         ("assistant", [("text", "a "), ("python", "1"), ("python_output", "1"), ("text", "")])],
        "missing field",
        "missing field",
    ]  # fmt: skip


PROMPT = """Multiple Choice question: q?
- w=A
- x=B
- y=C
- z=D

Respond only with the letter of the correct answer."""


def mmlu_rows(**changes: Any) -> pa.Table:
    row = {"question": "q?", "subject": "s", "choices": ["w", "x", "y", "z"], "answer": 2} | changes
    schema = {"question": pa.string(), "subject": pa.string(), "choices": pa.list_(pa.string()), "answer": pa.int64()}
    return pa.table({name: pa.array([row[name]], kind) for name, kind in schema.items()})


def test_mmlu_asks_with_the_letter_after_the_choice() -> None:
    wanted = [[("user", [("text", PROMPT)]), ("assistant", [("text", "C")])]]
    assert plain(mmlu.conversations(mmlu_rows())) == wanted
    nested = pa.table({"train": mmlu_rows().to_struct_array()})  # the layout of the subset auxiliary_train
    assert plain(mmlu.conversations(nested)) == wanted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"choices": ["w", "x", "y"]}, "not four choices"),
        ({"choices": None}, "missing field"),
        ({"choices": ["w", None, "y", "z"]}, "missing field"),
        ({"answer": 4}, "answer out of range"),
        ({"answer": -1}, "answer out of range"),
        ({"answer": None}, "missing field"),
        ({"question": None}, "missing field"),
    ],
)
def test_malformed_questions_are_rejected(changes: dict[str, Any], reason: str) -> None:
    assert plain(mmlu.conversations(mmlu_rows(**changes))) == [reason]


def rows_of(values: list[Any], content: pa.DataType) -> pa.Table:
    return pa.table({"messages": pa.array(values, pa.list_(pa.struct([("content", content), ("role", pa.string())])))})


def test_columns_of_messages_and_parsed_json_give_the_same() -> None:
    turn, reply = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    values = [
        [turn, reply],
        [],
        [{"role": "system", "content": "s"}, turn, reply],
        [turn, {"role": "assistant", "content": None}],
        [turn, {"role": "cat", "content": "b"}],
        [reply],
        [turn],
    ]
    found = plain(normalize(chat.smoltalk(rows_of(values, pa.string()))))
    assert found == plain(normalize(of_objects(values)))
    assert found[2][0] == ("user", [("text", "s\n\na")])
    assert plain(chat.smoltalk(rows_of([None], pa.string()))) == ["missing field"]


def test_parts_come_from_parquet_too() -> None:
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    rows = rows_of(
        [
            [{"role": "user", "content": [{"type": "text", "text": "q"}]},
             {"role": "assistant", "content": [{"type": "python", "text": "1"}, {"type": "text", "text": "x"}]}],
            [{"role": "user", "content": [{"type": "text", "text": "q"}]},
             {"role": "assistant", "content": [{"type": "image", "text": "1"}]}],
            [{"role": "user", "content": [{"type": "text", "text": None}]}],
            [{"role": "user", "content": []}],
        ],
        pa.list_(part),
    )  # fmt: skip
    assert plain(normalize(chat.conversations(rows))) == [
        [("user", [("text", "q")]), ("assistant", [("python", "1"), ("text", "x")])],
        "unknown part type",
        "content is not text",
        "content is not text",
    ]


def test_bytes_that_are_no_utf8_in_a_column_of_strings_are_rejected() -> None:
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xff\xfe"))
    rows = pa.table({"question": texts, "answer": pa.array(["b", "c"])})
    assert [REASONS[code] for code in normalize(gsm8k.conversations(rows)).reasons] == ["", "not valid Unicode"]


def test_lines_of_json_may_be_objects_or_bare_arrays() -> None:
    lines = [
        b'{"messages": [{"role": "user", "content": "a"}]}',
        b'[{"role": "user", "content": "b"}]',
        b"{",
        b"\xff",
        b"3",
    ]
    batch = chat.conversations(pa.table({"line": pa.array(lines, pa.large_binary())}))
    assert plain(batch) == [
        [("user", [("text", "a")])], [("user", [("text", "b")])],
        "invalid JSON", "not valid Unicode", "not an object",
    ]  # fmt: skip


def test_a_column_of_another_type_is_an_error_that_says_what_was_wanted() -> None:
    with pytest.raises(ValueError, match="messages are string, wanted a list of structs"):
        chat.conversations(pa.table({"messages": ["a"]}))
    assert plain(chat.conversations(pa.table({"text": ["a"]}))) == ["missing field"]  # as of JSON lines


def test_every_task_has_an_example_a_version_and_one_source() -> None:
    for name, task in TASKS.items():
        assert task.label == name
        assert task.example, name
        assert task.about, name
        assert task.version >= 1
        assert task.generates == (task.read is None) == (task.size > 0)
        assert bool(task.hub) == bool(task.defaults) == (name in ("smoltalk", "mmlu", "gsm8k"))
