"""Your own data: the same conversations whatever the layout and the file; nothing trains that should not, none is lost."""

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.arrange import expressions
from prep.check.verify import problems
from prep.conversations.conversation import REASONS
from prep.conversations.layouts import Layout
from prep.conversations.recognise import FIRST_ROWS, recognise
from prep.encode.encode import Encoder
from prep.render.reference import render_conversation
from prep.render.render import Rendered, render
from prep.shard import open_shards
from prep.tasks import chat
from tests.conftest import build_mixture, toy_tokenizer, write_lines

TOY = toy_tokenizer()
ENCODER = Encoder(TOY, "tiktoken")


def lines(*rows: Any) -> pa.Table:
    encoded = [row.encode() if isinstance(row, str) else json.dumps(row).encode() for row in rows]
    return pa.table({"line": pa.array(encoded, pa.large_binary())})


def rendered(rows: pa.Table, layout: Layout | None = None, name: str | None = None) -> Rendered:
    """Rows in the layout that is recognised"""
    found = recognise([("f", rows)], layout or Layout(), name)
    return render(chat.conversations(rows, found), ENCODER, TOY)


def shown(rows: pa.Table, layout: Layout | None = None, name: str | None = None) -> list[str]:
    """Each conversation as text, what trains in [[ ]], or the reason why it is none"""
    done, out, place = rendered(rows, layout, name), list[str](), 0
    for length, reason in zip(done.lengths.tolist(), done.reasons.tolist(), strict=True):
        tokens, mask = done.tokens[place : place + length], done.mask[place : place + length]
        place += length
        text = ""
        for i, (token, trained) in enumerate(zip(tokens.tolist(), mask.tolist(), strict=True)):
            before = int(mask[i - 1]) if i else 0
            text += "[[" * (trained > before) + "]]" * (trained < before) + TOY.decode([token])
        text += "]]" * bool(length and mask[-1])
        for long, short in (("user", "u"), ("assistant", "a"), ("python", "p"), ("output", "o")):
            text = text.replace(f"<|{long}_start|>", f"<{short}>").replace(f"<|{long}_end|>", f"</{short}>")
        out.append(REASONS[reason] or text.removeprefix("<|bos|>"))
    return out


def messages(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


# ---- layouts ----

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=40, deadline=None)
@given(turns=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), system=TEXT)
def test_every_layout_of_the_same_conversations_gives_the_same_tokens(
    turns: list[tuple[str, str]], system: str
) -> None:
    talk = messages(*(text for pair in turns for text in pair))
    led = [{"role": "system", "content": system}, *talk] if system else talk
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    share = [{"from": names[m["role"]], "value": m["content"]} for m in talk]
    variants = [
        {"messages": led},
        {"conversations": led},
        {"conversations": share, "system": system},
        {"conversations": [*([{"from": "system", "value": system}] if system else []), *share]},
        {"dialog": [{"who": m["role"].upper(), "says": m["content"]} for m in led]},
        {"prompt": led[: 1 + bool(system)], "completion": led[1 + bool(system) :]},
    ]
    if len(turns) == 1:
        (asked, said), empty = turns[0], {"input": "", "system": system}
        variants += [
            {"instruction": asked, "output": said, **empty},
            {"prompt": asked, "completion": said, "system": system},
        ]
    own = Layout(
        columns=(("dialog", "messages"), ("says", "content"), ("who", "role")),
        roles=(("ASSISTANT", "assistant"), ("SYSTEM", "system"), ("USER", "user")),
    )
    ids, mask = render_conversation(led, TOY)
    for row in variants:
        for rows in (lines(row), lines(json.dumps([row])[1:-1]), pa.Table.from_pylist([row])):
            done = rendered(rows, own if "dialog" in row else None)
            assert (done.tokens.tolist(), done.mask.tolist()) == (ids, mask), row


def test_alpacas_input_follows_the_instruction_after_an_empty_line() -> None:
    rows = [
        {"instruction": "Add.", "input": "2 and 3", "output": "5"},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"instruction": "Hi", "input": None, "output": "Hello"},
        {"instruction": "Hi", "input": "", "output": None},
    ]
    wanted = ["<u>Add.\n\n2 and 3</u><a>[[5</a>]]", *["<u>Hi</u><a>[[Hello</a>]]"] * 2, "missing field"]
    assert shown(lines(*rows)) == shown(pa.Table.from_pylist(rows)) == wanted


CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
OTHER = {"id": "2", "type": "function", "function": {"name": "python", "arguments": '{"code": "2*3"}'}}
TOOL_TALK = [
    {"role": "user", "content": "2+3, 2*3?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL, OTHER]},
    {"role": "tool", "tool_call_id": "2", "content": "6"},
    {"role": "tool", "tool_call_id": "1", "content": "5"},
    {"role": "assistant", "content": "5 and 6."},
]  # fmt: skip


def test_tool_calls_are_python_parts_each_with_its_answer_or_text() -> None:
    for rows in (lines({"messages": TOOL_TALK}), pa.Table.from_pylist([{"messages": TOOL_TALK}])):
        assert shown(rows) == [
            "<u>2+3, 2*3?</u><a>[[<p>add(a=2, b=3)</p>]]<o>5</o>[[<p>2*3</p>]]<o>6</o>[[5 and 6.</a>]]"
        ]
        assert shown(rows, Layout(tools="text")) == [
            '<u>2+3, 2*3?</u><a>[[{"name": "add", "arguments": {"a": 2, "b": 3}}\n'
            '{"name": "python", "arguments": {"code": "2*3"}}</a>]]<u>6\n\n5</u><a>[[5 and 6.</a>]]'
        ]


def test_tool_calls_are_never_dropped_without_a_word() -> None:
    row = {"messages": TOOL_TALK[:1] + [{**TOOL_TALK[1], "content": "Let me see."}]}
    orphan = {"messages": [TOOL_TALK[0], TOOL_TALK[2]]}
    assert shown(lines(row, orphan, {"messages": [*TOOL_TALK[:2], {**TOOL_TALK[2], "tool_call_id": "9"}]})) == [
        "<u>2+3, 2*3?</u><a>[[Let me see.<p>add(a=2, b=3)</p><p>2*3</p></a>]]",
        "roles out of turn",
        "roles out of turn",
    ]


def test_turns_of_one_role_are_rejected_or_joined() -> None:
    talk = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", "e"), ("assistant", "f")]
    row = {"messages": [{"role": role, "content": text} for role, text in talk]}
    parts = {"messages": [*messages("q"), {"role": "assistant", "content": [{"type": "python", "text": "1"}]},
                          {"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}]}  # fmt: skip
    fine = {"messages": messages("g", "h")}
    merge = Layout(consecutive="merge")
    assert shown(lines(row, fine)) == ["roles out of turn", "<u>g</u><a>[[h</a>]]"]
    wanted = ["<u>a\n\nb</u><a>[[c\n\nd</a>]]<u>e</u><a>[[f</a>]]", "<u>g</u><a>[[h</a>]]"]
    assert shown(lines(row, fine), merge) == shown(pa.Table.from_pylist([row, fine]), merge) == wanted
    assert shown(lines(parts), merge) == ["<u>q</u><a>[[<p>1</p>x\n\ny</a>]]"]
    row["messages"][2]["train"] = False  # type: ignore[assignment]
    assert shown(lines(row), merge) == ["trained in part of a turn"]


def test_names_may_change_places() -> None:
    row = {"prompt": "A", "question": "Q", "other": "x"}
    layout = Layout(columns=(("prompt", "completion"), ("question", "prompt")))
    assert shown(lines(row), layout) == shown(pa.Table.from_pylist([row]), layout) == ["<u>Q</u><a>[[A</a>]]"]


# ---- what trains ----


def test_train_on_says_which_turns_train() -> None:
    talk = {"messages": messages("a", "b", "c", "d")}
    flagged = {"messages": [{**m, "train": i != 1} for i, m in enumerate(messages("a", "b", "c", "d"))]}
    for rows in (lines(talk, flagged), pa.Table.from_pylist([talk, flagged])):
        all_b, not_b = "<u>a</u><a>[[b</a>]]<u>c</u><a>[[d</a>]]", "<u>a</u><a>b</a><u>c</u><a>[[d</a>]]"
        assert shown(rows) == [all_b, not_b]
        assert shown(rows, Layout(train_on="last")) == [not_b, not_b]
        assert shown(rows, Layout(train_on="none")) == ["<u>a</u><a>b</a><u>c</u><a>d</a>", not_b]  # d's flag is true
    assert shown(lines({"messages": [*messages("a"), {"role": "assistant", "content": "b", "train": "no"}]})) == [
        "train or weight is not true or false"
    ]


def test_openais_weights_are_flags() -> None:
    row = {"messages": [{**message, "weight": 1 - i // 3} for i, message in enumerate(messages("a", "b", "c", "d"))]}
    for rows in (lines(row), pa.Table.from_pylist([row])):
        found = shown(rows, Layout(columns=(("weight", "train"),)))
        assert found == ["<u>a</u><a>[[b</a>]]<u>c</u><a>d</a>"]


def weights(*values: object) -> list[dict[str, object]]:
    """A conversation of four messages; the two of the assistant have these weights, none where it is None"""
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    talk: list[dict[str, object]] = [{"role": role, "content": text} for role, text in said]
    for message, value in zip(talk[1::2], values, strict=True):
        message |= {} if value is None else {"weight": value}
    return talk


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(("off", "on"), [(0, 1), (0.0, 1.0), (False, True), (0, None)])
def test_a_weight_of_0_does_not_train_wherever_it_first_stands(tmp_path: Path, suffix: str, off: Any, on: Any) -> None:
    plain = {"split": "train", "weight": 0.3, "messages": messages("e", "f", "g", "h")}
    files = [[plain] * (FIRST_ROWS + 1), [plain, {"split": "train", "messages": weights(off, on)}]]
    (tmp_path / "data").mkdir()
    for number, rows in enumerate(files):
        path = tmp_path / "data" / f"{number}.{suffix}"
        if suffix == "jsonl":
            write_lines(path, rows)
        else:
            pq.write_table(pa.Table.from_pylist([{"messages": row["messages"]} for row in rows[::-1]]), path)
    root, manifest, _ = build_mixture(tmp_path, {"train": [{"task": "chat", "path": "data"}]}, TOY, max_seq_len=64)
    (source,) = manifest["splits"]["train"]["sources"]
    assert (source["rows"], source["train_flags"]) == (FIRST_ROWS + 3, True)
    assert source["trainable_tokens"] == 4 * (FIRST_ROWS + 2) + 2
    assert list(problems(root)) == []


def test_two_flags_of_a_message_agree_or_its_row_is_rejected() -> None:
    talk = weights(0, 0)
    talk[1]["train"], talk[3]["train"] = False, None
    for rows in (lines({"messages": talk}), pa.Table.from_pylist([{"messages": talk}])):
        assert shown(rows) == ["<u>a</u><a>b</a><u>c</u><a>d</a>"]
    talk[1]["train"] = True
    for rows in (lines({"messages": talk}), pa.Table.from_pylist([{"messages": talk}])):
        assert shown(rows) == ["train flags disagree"]


def test_a_weight_that_is_no_flag_is_a_rejected_row_unless_it_is_left_aside() -> None:
    for value in (0.5, 2, -1, "0"):
        row = {"messages": weights(value, None)}
        for rows in (lines(row), pa.Table.from_pylist([row])):
            assert shown(rows) == ["train or weight is not true or false"], value
            assert shown(rows, Layout(columns=(("weight", "unused"),))) == ["<u>a</u><a>[[b</a>]]<u>c</u><a>[[d</a>]]"]


def test_a_turn_whose_call_has_weight_0_and_its_answer_1_is_rejected() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    talk = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call], "content": "", "weight": 1},
        {"role": "tool", "content": "b"},
        {"role": "assistant", "content": "c", "weight": 0},
    ]
    layout = Layout(columns=(("weight", "train"),))
    assert shown(lines({"messages": talk}), layout) == ["trained in part of a turn"]


def test_text_parts_of_the_user_are_text_and_others_are_not() -> None:
    def talk(part: dict[str, str]) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": [part]}, {"role": "assistant", "content": "b"}]}

    assert shown(lines(talk({"type": "text", "text": "a"}))) == shown(lines({"messages": messages("a", "b")}))
    assert shown(lines(talk({"type": "python", "text": "a"}))) == ["content is not text"]


def test_a_build_says_what_may_not_train_and_verify_proves_the_rest(tmp_path: Path) -> None:
    flagged = [
        *messages("a", "b"),
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "train": False},
    ]
    write_lines(tmp_path / "flags.jsonl", [{"messages": flagged}, {"messages": messages("e", "f", "g", "h")}])
    write_lines(tmp_path / "plain.jsonl", [{"messages": messages("e", "f", "g", "h")}])
    mixture = {
        "train": [
            {"task": "chat", "path": "flags.jsonl"},
            {"task": "chat", "path": "plain.jsonl", "train_on": "last"},
            {"task": "chat", "path": "plain.jsonl"},
        ]
    }
    root, manifest, _ = build_mixture(tmp_path, mixture, TOY, max_seq_len=64)
    found = [(s["train_on"], s["train_flags"], s["trainable_tokens"]) for s in manifest["splits"]["train"]["sources"]]
    assert found == [("all", True, 6), ("last", False, 2), ("all", False, 4)]
    assert list(problems(root)) == []
    for source, wanted in ((0, "not trained, which the assistant says"), (2, "not trained, which the assistant says")):
        tampered(root, source, only=1 if source == 0 else 2)
        assert any(wanted in problem for problem in checked(root)), source


def tampered(root: Path, source: int, only: int) -> None:
    """Untrain the first tokens of a turn of a source's last document: a part of a turn (1), or a whole one (2)"""
    split = open_shards(root).split("train")
    doc = int(np.flatnonzero(split.docs["source"] == source)[-1])
    row = int(np.searchsorted(split.rows["first_doc"], doc, side="right")) - 1
    start = int(split.docs["length"][int(split.rows["first_doc"][row]) : doc].sum())
    bits = np.load(next(root.glob("train-*.mask.npy")))
    mask = np.unpackbits(bits, axis=1, bitorder="little")
    mask[row, start + np.flatnonzero(mask[row, start:])[:only]] = 0
    np.save(next(root.glob("train-*.mask.npy")), np.packbits(mask, axis=1, bitorder="little"))


def checked(root: Path) -> list[str]:
    from prep.check.verify import check_split

    return list(check_split(open_shards(root).split("train")))


def test_flags_in_identity_conversations_are_honoured_and_said(tmp_path: Path) -> None:
    write_lines(tmp_path / "me.jsonl", [[*messages("a"), {"role": "assistant", "content": "b", "train": False}]])
    for name, text in (("flag", None), ("plain", [messages("a", "b")])):
        if text:
            write_lines(tmp_path / "me.jsonl", text)
        root, manifest, _ = build_mixture(tmp_path, {"train": [{"task": "identity", "path": "me.jsonl"}]}, TOY, name)
        (source,) = manifest["splits"]["train"]["sources"]
        assert (source.get("train_flags"), source["trainable_tokens"]) == ((True, 0) if name == "flag" else (None, 2))
        assert list(problems(root)) == []


# ---- columns and lines ----

MESSAGE = st.fixed_dictionaries(
    {
        "from": st.sampled_from(["human", "gpt", "system", "bot", None]) | st.sampled_from(["human", "gpt"]),
        "value": st.sampled_from(["", "a", "é\n", None]) | st.sampled_from(["b", "cc"]),
        "train": st.sampled_from([True, False, None]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"conversations": st.none() | st.lists(MESSAGE, max_size=6), "system": st.sampled_from(["", "s", None])}
        ),
        min_size=1,
        max_size=4,
    ),
    consecutive=st.sampled_from(["reject", "merge"]),
    train_on=st.sampled_from(["all", "last", "none"]),
    cut=st.booleans(),
)
def test_columns_give_what_lines_give(rows: list[Any], consecutive: str, train_on: str, cut: bool) -> None:
    layout = Layout("sharegpt", roles=(("bot", "assistant"),), consecutive=consecutive, train_on=train_on)
    kinds = {"from": pa.dictionary(pa.int8(), pa.string()), "value": pa.large_string(), "train": pa.bool_()}
    schema = pa.schema({"conversations": pa.list_(pa.struct(kinds)), "system": pa.string()})
    table = pa.Table.from_pylist([rows[-1], *rows] if cut else rows, schema=schema)[int(cut) :]
    one, other = (render(chat.conversations(some, layout), ENCODER, TOY) for some in (lines(*rows), table))
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.mask.tolist() == other.mask.tolist()
    assert one.lengths.tolist() == other.lengths.tolist()
    assert (one.reasons > 0).tolist() == (other.reasons > 0).tolist()


def test_the_examples_of_calls_are_right() -> None:
    assert doctest.testmod(expressions) == (0, 3)
