"""Tokenizers of models: every engine gives what Hugging Face's `tokenizers` gives, text by text."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.columns import text_array
from prep.encode.encode import Encoder, choose_engine
from prep.encode.find import LONG_TEXT
from prep.tokenizer.load import load_tokenizer
from tests.encode.fuzz_models import differing, encoders_of, families, model_texts
from tests.tokenizer.models import CALLS, THINK, content, ids_of, judge

ALL = families()
QWEN = content("qwen3", 600)
QWEN_ENCODERS, QWEN_JUDGE = encoders_of(QWEN), judge(QWEN)


def encoded(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    ids, lengths = encoder(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(np.maximum(lengths, 0))[:-1])]


@pytest.mark.parametrize("name", ALL)
def test_every_engine_agrees_with_tokenizers_on_fuzz(name: str) -> None:
    """3,000 strings for each here, a million in `make fuzz`"""
    assert differing(encoders_of(ALL[name]), judge(ALL[name]), model_texts(7, 3000)) == []


HARD = [
    *THINK,
    "</think>\u0338",
    "\u0338",
    "e\u0301",
    "\u0301",
    "\uac00\u11a8",
    "\u1100\u1161",
    "<thi",
    "nk>",
    "\u1abf",
    "\u0958",
]


@given(st.lists(st.lists(st.sampled_from(HARD) | st.text(max_size=4), max_size=6).map("".join), max_size=5))
def test_any_text_has_the_ids_of_tokenizers(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    wanted = [ids_of(QWEN_JUDGE, text) for text in texts]
    for encoder in QWEN_ENCODERS.values():
        assert encoded(encoder, texts) == (wanted or [[]])


@pytest.mark.parametrize("engine", QWEN_ENCODERS)
def test_added_tokens_are_cut_before_nfc_and_special_tokens_are_text(engine: str) -> None:
    think = QWEN_JUDGE.token_to_id("</think>")
    encoder = QWEN_ENCODERS[engine]
    marked, typed, plain = encoded(encoder, ["a</think>\u0338b", "<|im_end|>", ""])
    assert marked[:2] == [97, think]
    assert bytes(marked[2:4]) == bytes([204, 184])  # U+0338 stays a mark of nothing
    assert QWEN_JUDGE.token_to_id("<|im_end|>") not in typed
    assert plain == []
    assert encoded(encoder, ["e\u0301"]) == encoded(encoder, ["\u00e9"])


@pytest.mark.parametrize("engine", QWEN_ENCODERS)
def test_what_cannot_be_encoded_between_added_tokens_is_marked(engine: str) -> None:
    texts = ["a", "<think>" + " " * 1_200_000, "b<think>", "<think>" + "ab " * LONG_TEXT]
    ids, lengths = QWEN_ENCODERS[engine](texts)
    assert lengths[[0, 1, 2]].tolist() == [1, -1, 2]
    assert len(ids) == lengths[lengths > 0].sum()


def test_an_id_above_16_bits_stays_one() -> None:
    tokenizer = load_tokenizer()
    spec = {name: getattr(tokenizer, name) for name in ("name", "ranks", "pattern", "special_tokens")}
    large = type(tokenizer)(**spec, added_tokens={"<think>": 151_667})
    for engine in ("tiktoken", choose_engine(large, "auto")):
        assert encoded(Encoder(large, engine), ["a<think>", "<think><think>"]) == [[97, 151_667], [151_667, 151_667]]


# ---- which texts need a closer look ----


def test_texts_that_hold_an_added_token_or_that_nfc_may_change_are_found() -> None:
    texts = [
        "plain",
        "<tool_call",
        ">",
        "x</tool_call>",
        "caf\u00e9",
        "cafe\u0301",
        "你好",
        "",
        "<thi",
        "nk>",
        "\u1161",
    ]
    found = QWEN_ENCODERS["tiktoken"].is_changed(text_array(texts))
    assert np.flatnonzero(found).tolist() == [3, 5, 10]
    assert np.flatnonzero(QWEN_ENCODERS["tiktoken"].is_changed(text_array(texts).slice(3, 3))).tolist() == [0, 2]


@given(st.lists(st.lists(st.sampled_from(HARD) | st.text(max_size=4), max_size=4).map("".join), max_size=5))
def test_no_text_that_changes_is_missed(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    encoder = QWEN_ENCODERS["tiktoken"]
    tokenizer = encoder._tokenizer
    for text, found in zip(texts, encoder.is_changed(text_array(texts)), strict=True):
        pieces = [tokenizer.normalize(part) if isinstance(part, str) else part for part in tokenizer.cut(text)]
        assert found or pieces == [text] * bool(text)


def test_a_tokenizer_without_added_tokens_and_normalizer_looks_at_nothing() -> None:
    encoder = Encoder(load_tokenizer())
    assert encoder._find_changed is None
    assert not encoder.is_changed(text_array(["<think>", "e\u0301"])).any()


def test_a_few_words_that_begin_alike_are_told_apart() -> None:
    tokenizer_json: dict[str, Any] = content("qwen2.5", 600)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    more = {"<tool": 605, "<tool_calls>": 606}
    tokenizer_json["added_tokens"] += [{"id": id_, "content": text, **flags} for text, id_ in more.items()]
    tokenizer_json["model"]["vocab"] |= more
    tokenizer_json["model"]["ignore_merges"] = False  # with it, "<tool" would be a token of ordinary text too
    hf = judge(tokenizer_json)
    texts = ["<tool<tool_call><tool_calls></tool_call>", "<tool_cal", *CALLS, "a<toolb<tool_calls"]
    for encoder in encoders_of(tokenizer_json).values():
        assert encoded(encoder, texts) == [ids_of(hf, text) for text in texts]
