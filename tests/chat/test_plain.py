"""The columnar renderer equals the plain reference, in every format, for any conversation."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.chat.format import ChatFormat
from prep.chat.tables import FORMATS
from prep.chat.template import MASKS, ChatTemplate
from prep.conversations.read import of_objects
from prep.encode.encode import Encoder
from prep.render.reference import render_conversation
from prep.render.render import render
from prep.tokenizer.tokenizer import Tokenizer
from tests.chat.chats import results_of
from tests.chat.conversations import batches
from tests.chat.toys import ADDED, toy_for

TOKENIZERS = {
    "as Qwen's": toy_for(),
    "not normalized": toy_for(normalizer=None),
    "nothing added": toy_for(added=()),
    "calls added": toy_for(added=ADDED[2:4], normalizer=None),
    "few merges": toy_for(added=(), normalizer=None, merges=("\n\n",)),
}


DATES = st.sampled_from([None, "1 May 2026"])


@cache
def encoder_of(tokenizer: Tokenizer, engine: str) -> Encoder:
    return Encoder(tokenizer, engine)


def templates(form: ChatFormat) -> st.SearchStrategy[ChatTemplate]:
    return st.builds(ChatTemplate, st.just(form), mask=st.sampled_from(MASKS), empty_think=st.booleans(), date=DATES)


def compare(rows: list[dict[str, Any]], tokenizer: Tokenizer, template: ChatTemplate, engine: str) -> None:
    """ids and mask of both"""
    rendered = render(of_objects(rows), encoder_of(tokenizer, engine), tokenizer, template=template)
    both = [render_conversation(r["messages"], tokenizer, template=template, tools=r.get("tools")) for r in rows]
    assert not rendered.reasons.any()
    assert results_of(rendered) == [(ids, "".join(map(str, mask))) for ids, mask in both]
    assert rendered.trainable.tolist() == [sum(mask) for _, mask in both]


@pytest.mark.parametrize("name", FORMATS)
def test_in_columns_as_one_by_one(name: str) -> None:
    form = FORMATS[name]

    @settings(max_examples=60, deadline=None)
    @given(batches(form), st.sampled_from([*TOKENIZERS]), templates(form), st.sampled_from(["tiktoken", "fastokens"]))
    def hold(rows: list[dict[str, Any]], tokenizer: str, template: ChatTemplate, engine: str) -> None:
        compare(rows, TOKENIZERS[tokenizer], template, engine)

    hold()
