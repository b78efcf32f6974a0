"""What somebody types is text, or the marker itself where the tokenizer cuts it out of text; an entry may refuse both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from prep.arrange.typed import explain_typed, reject_typed
from prep.chat.choose import choose_template
from prep.conversations import read
from prep.conversations.conversation import REASONS
from prep.conversations.layouts import Layout
from prep.encode.encode import Encoder
from prep.inspect.show import segments
from prep.mixture.mixture import parse_mixture
from prep.render.reference import render_conversation
from prep.render.render import render
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import PATTERN, Tokenizer
from tests.conftest import build_mixture, write_lines
from tests.tokenizer.models import write_model


@pytest.fixture
def qwen3(tmp_path: Path) -> Tokenizer:
    return load_tokenizer(str(write_model(tmp_path / "model", "qwen3")))


def said(*texts: str, system: str = "") -> dict[str, Any]:
    roles = ("user", "assistant") * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns]}


ROWS = [
    said("Hi", "Hello."),
    said("Say </think>.", "No."),
    said("Hi", "Hello.", system="<|im_end|>"),
    said("Hi", "<think>\nHm.\n</think>\n\nHello."),
    said("2 < 3 | 4", "<|im_end|> ends it."),
]


@pytest.mark.parametrize(("keys", "rejected"), [({}, []), ({"typed_tokens": "reject"}, [1, 2])])
def test_rows_in_which_others_than_the_assistant_type_a_token_are_refused_on_demand(
    tmp_path: Path, qwen3: Tokenizer, keys: dict[str, str], rejected: list[int]
) -> None:
    write_lines(tmp_path / "mine.jsonl", ROWS)
    entry = {"task": "chat", "path": "mine.jsonl", **keys}
    root, manifest, _ = build_mixture(tmp_path, {"train": [entry]}, qwen3, chat_template="qwen3", max_rejected=1.0)
    (source,) = manifest["splits"]["train"]["sources"]
    lines = [json.loads(line) for line in (root / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == rejected
    assert source["rejected"] == ({"spells a control token": 2} if rejected else {})
    assert source.get("typed_tokens") == keys.get("typed_tokens")
    culprits = [line["culprit"].split(" is typed")[0] for line in lines if "culprit" in line]
    assert culprits == (["'</think>'"] if rejected else [])  # of the first row of each reason


def reasons(rows: list[Any], tokenizer: Tokenizer, name: str | None = "qwen3", **keys: Any) -> list[str]:
    """Of each row; with typed_tokens = "reject" """
    template = choose_template({"chat_template": name} if name else {}, tokenizer)
    batch = read.of_objects(rows, Layout(typed_tokens="reject", **keys))
    rendered = render(batch, Encoder(tokenizer, "tiktoken"), tokenizer, template=template)
    return [REASONS[code] for code in rendered.reasons]


def test_a_token_is_typed_in_pieces_in_definitions_of_tools_and_by_python_too(qwen3: Tokenizer) -> None:
    pieces = [{"type": "text", "text": text} for text in ("Say <thi", "nk>.")]
    in_pieces = {"messages": [{"role": "user", "content": pieces}, {"role": "assistant", "content": "No."}]}
    function = {"type": "function", "function": {"name": "f", "description": "use </think>", "parameters": {}}}
    defined = said("Hi", "Hello.") | {"tools": [function]}
    escaped = said("Hi", "Hello.") | {"tools": json.dumps([function]).replace("<", "\\u003c")}
    assert reasons([in_pieces, defined, escaped, said("Hi", "Hello.")], qwen3) == ["spells a control token"] * 3 + [""]
    answered = [{"type": "python", "text": "f()"}, {"type": "python_output", "text": "<|assistant_end|>"}]
    by_python = {"messages": [{"role": "user", "content": "f?"}, {"role": "assistant", "content": answered}]}
    assert reasons([by_python], load_tokenizer(), None) == ["spells a control token"]


def test_a_tokenizer_without_such_tokens_has_none_to_type() -> None:
    ranks = {bytes([i]): i for i in range(256)}
    bare = Tokenizer("bare", ranks, PATTERN, {}, {}, None)
    batch = read.of_objects([said("Hi", "Hello.")], Layout(typed_tokens="reject"))
    assert reject_typed(batch, (*bare.special_tokens, *bare.added_tokens)).reasons.tolist() == [0]


def test_what_is_not_unicode_is_rejected_as_that(tmp_path: Path, qwen3: Tokenizer) -> None:
    texts = pa.array([b"\xff </think>", b"</think>"]).view(pa.string())
    roles = pa.array(["user", "assistant"])
    messages = pa.ListArray.from_arrays([0, 2], pa.StructArray.from_arrays([roles, texts], ["role", "content"]))
    batch = read.conversations(pa.table({"messages": messages}), Layout(typed_tokens="reject"))
    template = choose_template({"chat_template": "qwen3"}, qwen3)
    rendered = render(batch, Encoder(qwen3, "tiktoken"), qwen3, template=template)
    assert [REASONS[code] for code in rendered.reasons] == ["not valid Unicode"]
    assert explain_typed(batch, qwen3.added_tokens) == ""


def test_a_typed_marker_is_the_token_and_a_typed_control_is_text(qwen3: Tokenizer) -> None:
    template = choose_template({"chat_template": "qwen3"}, qwen3)
    ids, mask = render_conversation(ROWS[1]["messages"], qwen3, template=template)
    assert ids.count(qwen3.added_tokens["</think>"]) == 2  # typed, and the empty block's
    plain, _ = render_conversation(ROWS[2]["messages"], qwen3, template=template)
    assert plain.count(qwen3.special_tokens["<|im_end|>"]) == 3  # of three turns; the typed one is not among them
    drawn = segments(qwen3, np.array(ids), np.array(mask))
    assert [one["text"] for one in drawn if one["special"]].count("</think>") == 2


def test_typed_tokens_is_one_of_two_words() -> None:
    entry = {"task": "chat", "path": "mine.jsonl", "typed_tokens": "drop"}
    with pytest.raises(ValueError, match="typed_tokens = 'drop' found, wanted keep or reject"):
        parse_mixture({"train": [entry]}, "mine.toml", Path(), "mine")
