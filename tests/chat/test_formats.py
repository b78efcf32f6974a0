"""Formats of other models: ids and mask as their authority gives them, by every engine, in columns and one by one."""

import numpy as np
import pytest

from prep.encode.encode import why_not
from prep.render.reference import render_conversation
from tests.chat.chats import (
    FAMILIES,
    INSTALLED,
    Chat,
    expected,
    hard_chats,
    read_lines,
    render_chats,
    template_of,
    tokenizer_of,
)
from tests.conftest import SHARED, needs_shared


def by_reference(chats: list[Chat], family: str) -> list[tuple[list[int], str]]:
    tokenizer, template = tokenizer_of(family), template_of(family)
    rendered = [render_conversation(c["messages"], tokenizer, template=template, tools=c.get("tools")) for c in chats]
    return [(ids, "".join(map(str, mask))) for ids, mask in rendered]


@pytest.mark.parametrize(("family", "engine"), [(f, e) for f in FAMILIES for e in INSTALLED])
def test_forty_hard_chats_have_the_ids_and_mask_of_their_authority(family: str, engine: str) -> None:
    chats, tokenizer = hard_chats(family), tokenizer_of(family)
    assert len(chats) == 40
    if reason := why_not(tokenizer, engine):
        pytest.skip(f"{engine} {reason}")
    assert render_chats(chats, tokenizer, template_of(family), engine) == expected(chats)


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_in_a_batch_change_nothing(family: str) -> None:
    chats, tokenizer, template = hard_chats(family), tokenizer_of(family), template_of(family)
    order = np.random.default_rng(0).permutation(len(chats))
    for places in [*np.array_split(order, 3), *np.array_split(order, len(chats))]:
        some = [chats[i] for i in places]
        assert render_chats(some, tokenizer, template) == expected(some)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_reference_has_them_too(family: str) -> None:
    chats = hard_chats(family)
    assert by_reference(chats, family) == expected(chats)


@needs_shared
@pytest.mark.parametrize("family", FAMILIES)
def test_all_that_is_shared(family: str) -> None:
    chats, tokenizer = read_lines(SHARED / "fixtures/templates" / f"{family}.jsonl"), tokenizer_of(family)
    assert len(chats) == 400
    for engine in INSTALLED:
        if not why_not(tokenizer, engine):
            assert render_chats(chats, tokenizer, template_of(family), engine) == expected(chats)
    some = chats[::8]  # 20 ms each
    assert by_reference(some, family) == expected(some)
