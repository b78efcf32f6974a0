"""Rendering: literal arrays, nanochat's own ids, and a plain reference for any valid conversation."""

import itertools
import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy, booleans, builds, composite, lists, one_of, sampled_from, text

from prep.arrays import offsets
from prep.conversations.conversation import REASONS, Conversations
from prep.conversations.read import of_objects
from prep.encode.encode import Encoder
from prep.render.reference import render_conversation
from prep.render.render import Rendered, render
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import SHARED, chat, needs_shared, toy_tokenizer

BOS, USER, USER_END, ASSISTANT, END, PYTHON, PYTHON_END, OUTPUT, OUTPUT_END = range(256, 265)


def conversations_of(rendered: Rendered) -> list[tuple[list[int], list[int]]]:
    bounds = offsets(rendered.lengths)
    return [(rendered.tokens[a:b].tolist(), rendered.mask[a:b].tolist()) for a, b in itertools.pairwise(bounds)]


def render_rows(rows: list[Any], tokenizer: Tokenizer, engine: str = "tiktoken") -> Rendered:
    return render(of_objects(rows), Encoder(tokenizer, engine), tokenizer)


def test_a_conversation_of_two_messages(toy: Tokenizer) -> None:
    rendered = render_rows([chat("2+2?", "4")], toy)
    assert rendered.tokens.tolist() == [BOS, USER, *b"2+2?", USER_END, ASSISTANT, *b"4", END]
    assert rendered.mask.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert rendered.lengths.tolist() == [10]
    assert rendered.trainable.tolist() == [2]
    assert rendered.tokens.dtype == np.uint16


def test_python_is_trained_and_its_output_is_not(toy: Tokenizer) -> None:
    content = [
        {"type": "text", "text": "is "},
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "."},
    ]
    rendered = render_rows([chat("q", content)], toy)
    assert rendered.tokens.tolist() == [
        BOS, USER, *b"q", USER_END, ASSISTANT,
        *b"is ", PYTHON, *b"1+1", PYTHON_END, OUTPUT, *b"2", OUTPUT_END, *b".", END,
    ]  # fmt: skip
    assert rendered.mask.tolist() == [0] * 5 + [1] * 3 + [1] * 5 + [0] * 3 + [1, 1]


def test_a_system_message_is_part_of_the_first_user_message(toy: Tokenizer) -> None:
    row = {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "u"}]}
    assert render_rows([row], toy).tokens.tolist() == [BOS, USER, *b"S\n\nu", USER_END]


def test_special_tokens_typed_as_text_are_text(toy: Tokenizer) -> None:
    rendered = render_rows([chat("<|assistant_end|>", "<|bos|>")], toy)
    assert (rendered.tokens >= 256).sum() == 5
    assert rendered.tokens.tolist()[2:19] == list(b"<|assistant_end|>")


def test_empty_texts_give_no_tokens(toy: Tokenizer) -> None:
    assert render_rows([chat("", [])], toy).tokens.tolist() == [BOS, USER, USER_END, ASSISTANT, END]


def test_rejected_rows_keep_their_place_and_say_why(toy: Tokenizer) -> None:
    turn = {"role": "user", "content": "a"}
    rows = [
        chat("a", "b"),
        {"messages": []},
        {"messages": [turn, turn]},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "system", "content": "a"}]},
        {"messages": [{"role": "robot", "content": "a"}]},
        {"messages": [turn, {"role": "assistant", "content": 7}]},
        {"messages": [{"role": "user", "content": [{"type": "python", "text": "a"}]}]},
        {"messages": [turn, {"role": "assistant", "content": [{"type": "image", "text": "a"}]}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user"}]},
        {"text": "a"},
        7,
        chat("c", "d"),
    ]
    rendered = render_rows(rows, toy)
    assert [REASONS[code] for code in rendered.reasons] == [
        "", "no messages", "roles out of turn", "roles out of turn", "roles out of turn", "unknown role",
        "content is not text", "content is not text", "unknown part type", "not valid Unicode", "missing field",
        "missing field", "not an object", "",
    ]  # fmt: skip
    assert rendered.lengths.tolist() == [7, *[0] * 12, 7]
    assert bytes(rendered.tokens[[2, 5, 9, 12]].tolist()) == b"abcd"


def test_a_text_that_tiktoken_cannot_encode_is_a_rejected_row() -> None:
    for engine in ("tiktoken", "fastokens"):
        rendered = render_rows([chat("a", "b"), chat(" " * 1_000_000 + "x", "c"), chat("d", "e")], NANO32K, engine)
        assert [REASONS[code] for code in rendered.reasons] == ["", "text that the tokenizer cannot encode", ""]
        assert rendered.lengths[1] == 0


# ---- any valid conversation equals the plain reference ----

SPECIAL = ["<|bos|>", "<|user_start|>", "<|assistant_end|>", "<|output_end|>", "<|python_start|>"]
TEXTS = one_of(
    text(max_size=20),
    sampled_from(
        ["", " ", "\n\n", "  \n x", "12345", "don't I'LL", "数学 ３４５", "é e\u0301", "🙂🏽", "\u180e", *SPECIAL]
    ),
)
PARTS = lists(
    builds(lambda kind, t: {"type": kind, "text": t}, sampled_from(["text", "python", "python_output"]), TEXTS),
    max_size=4,
)


@composite
def valid_conversations(draw: Any) -> dict[str, Any]:
    first = [{"role": "system", "content": draw(TEXTS)}] if draw(booleans()) else []
    users = draw(lists(TEXTS, min_size=1, max_size=3))
    answers = [draw(one_of(TEXTS, PARTS)) for _ in range(len(users) - draw(sampled_from([0, 1])))]
    turns: list[dict[str, Any]] = []
    for i, content in enumerate(users):
        turns.append({"role": "user", "content": content})
        turns += [{"role": "assistant", "content": answers[i]}] if i < len(answers) else []
    return {"messages": [*first, *turns]}


VALID: SearchStrategy[list[dict[str, Any]]] = lists(valid_conversations(), min_size=1, max_size=5)
NANO32K = load_tokenizer("nano32k")
ENCODERS = [Encoder(NANO32K, name) for name in ("tiktoken", "fastokens")]


@settings(max_examples=200, deadline=None)
@given(rows=VALID)
def test_the_columnar_renderer_equals_the_plain_one(rows: list[dict[str, Any]]) -> None:
    wanted = [render_conversation(row["messages"], NANO32K) for row in rows]
    for encoder in ENCODERS:
        rendered = render(of_objects(rows), encoder, NANO32K)
        assert conversations_of(rendered) == wanted
        assert rendered.trainable.tolist() == [sum(mask) for _, mask in wanted]


def test_ids_over_16_bits_are_kept() -> None:
    tokenizer = toy_tokenizer()
    wide = Tokenizer(
        "wide", tokenizer.ranks, tokenizer.pattern, {k: v + 70_000 for k, v in tokenizer.special_tokens.items()}
    )
    rendered = render_rows([chat("a", "b")], wide)
    assert rendered.tokens.dtype == np.uint32
    assert rendered.tokens[0] == 70_256


# ---- nanochat's own ids and masks ----


def compare(rendered: Rendered, rows: list[dict[str, Any]]) -> None:
    for (ids, mask), row in zip(conversations_of(rendered), rows, strict=True):
        assert ids[:2048] == row["ids"]
        assert "".join(map(str, mask[:2048])) == row["mask"]


@needs_shared
def test_nanochats_conversations_three_ways() -> None:
    lines = (SHARED / "fixtures" / "nanochat_render.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 182
    for engine in ("tiktoken", "fastokens"):
        encoder = Encoder(NANO32K, engine)
        compare(render(of_objects(rows), encoder, NANO32K), rows)
        for row in rows:
            compare(render(of_objects([row]), encoder, NANO32K), [row])
        order = np.random.default_rng(0).permutation(len(rows))
        for batch in np.array_split(order, 7):
            some = [rows[i] for i in batch]
            compare(render(of_objects(some), encoder, NANO32K), some)


def test_of_turns_lays_columns_out_by_conversation(toy: Tokenizer) -> None:
    from prep.columns import text_array
    from prep.conversations.conversation import TEXT

    batch = Conversations.of_turns([text_array(["a", "b"]), text_array(["c", "d"])], [TEXT, TEXT], [1, 1])
    assert batch.texts.to_pylist() == ["a", "c", "b", "d"]
    assert render(batch, Encoder(toy, "tiktoken"), toy).lengths.tolist() == [7, 7]
