r"""
A format that nobody has is a table and nothing else: it renders, builds, and is verified as any other.

    <s>[parrot] Whose?<e>[parrot] (hm) SQUAWK @who{"n": 1}@<e>\n
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.chat.format import Calls, ChatFormat, Reasoning, Results, Tools, Turn
from prep.chat.tables import FORMATS
from prep.chat.template import MASKS, ChatTemplate
from prep.check.verify import verify_shards
from prep.conversations.conversation import Choices
from prep.conversations.read import of_objects
from prep.encode.encode import Encoder
from prep.render.reference import make_prompt, render_conversation
from prep.render.render import render
from prep.tokenizer.tokenizer import Tokenizer
from tests.chat.chats import results_of
from tests.chat.conversations import batches
from tests.chat.toys import toy_for
from tests.conftest import build_mixture, write_lines

PARROT = ChatFormat(
    name="parrot",
    authority="nobody: a test",
    example="<s>user: Whose?<e><s>parrot: SQUAWK<e>\n",
    controls=("<bof>", "<s>", "<e>", "<eof>"),
    bos="<bof>",
    eos="<eof>",
    turns={
        "system": Turn("<s>owner: ", closes="<e>", trim="strip"),
        "user": Turn("<s>user: ", closes="<e>", trim="strip"),
        "assistant": Turn("<s>parrot:", opens=" ", closes="<e>\n", trim="strip"),
    },
    default_system="Be loud.",
    reasoning=Reasoning("(", ") ", keep="after_last_user", when_empty="never"),
    calls=Calls("@", "", "@", between=" ", strings="json"),
    results=Results("<s>wind:", "\n[wind]", ";", "<e>", as_json=True),
    tools=Tools(before="Tricks:", each=("\n* ", ""), between="\n\n"),
)
MARKERS = ("@", "[wind]")  # of which the tokenizer cuts none, one or both out of text
TOKENIZERS = {markers: toy_for((PARROT,), MARKERS[:markers]) for markers in range(3)}
ENCODERS = {markers: Encoder(tokenizer, "tiktoken") for markers, tokenizer in TOKENIZERS.items()}
TRICKS = [{"name": "who"}]
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": " Whose? "},
    {
        "role": "assistant",
        "content": "SQUAWK",
        "reasoning": "hm",
        "tool_calls": [{"function": {"name": "who", "arguments": {"n": 1}}}],
    },
    {"role": "tool", "content": "Ann"},
    {"role": "tool", "content": "Bob"},
    {"role": "assistant", "content": "Ann!"},
]
WRITTEN = (
    '<bof><s>owner: Be loud.\n\nTricks:\n* {"name": "who"}<e><s>user: Whose?<e><s>parrot: (hm) SQUAWK @who{"n": 1}@<e>\n'
    '<s>wind:\n[wind]"Ann";\n[wind]"Bob";<e><s>parrot: Ann!<e>\n<eof>'
)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return TOKENIZERS[0]


def trained(ids: list[int], mask: Any, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(id_ for id_, flag in zip(ids, mask, strict=True) if int(flag))


def test_what_is_said_is_written_as_the_table_says(tokenizer: Tokenizer) -> None:
    ids, mask = render_conversation(TALK, tokenizer, template=ChatTemplate(PARROT), tools=TRICKS)
    assert tokenizer.decode(ids) == WRITTEN
    assert trained(ids, mask, tokenizer) == ' (hm) SQUAWK @who{"n": 1}@<e>\n Ann!<e>\n<eof>'
    assert tokenizer.decode(make_prompt(TALK[:4], tokenizer, ChatTemplate(PARROT), TRICKS).ids).endswith(
        "<e><s>parrot: "
    )


def test_the_end_of_a_conversation_trains_as_an_end_and_is_not_sampled_behind_one(tokenizer: Tokenizer) -> None:
    batch = of_objects([{"messages": TALK[-1:]}])
    expected = {"format": [" Ann!<e>\n<eof>", " Ann!", "<e>\n<eof>"], "sampled": ["Ann!<e>", "Ann!", "<e>"]}
    for mask, texts in expected.items():
        for train_on, text in zip((None, ("text",), ("end",)), texts, strict=True):
            chosen = replace(batch, choices=Choices(train_on))
            ((ids, flags),) = results_of(render(chosen, ENCODERS[0], tokenizer, template=ChatTemplate(PARROT, mask)))
            assert trained(ids, flags, tokenizer) == text


@settings(max_examples=60, deadline=None)
@given(batches(PARROT), st.sampled_from([*TOKENIZERS]), st.sampled_from(MASKS))
def test_in_columns_as_one_by_one(rows: list[dict[str, Any]], markers: int, mask: str) -> None:
    tokenizer, template = TOKENIZERS[markers], ChatTemplate(PARROT, mask)
    rendered = render(of_objects(rows), ENCODERS[markers], tokenizer, template=template)
    both = [render_conversation(r["messages"], tokenizer, template=template, tools=r.get("tools")) for r in rows]
    assert results_of(rendered) == [(ids, "".join(map(str, mask))) for ids, mask in both]


def test_a_tokenizer_that_could_make_a_marker_of_scaffold_and_text_is_refused() -> None:
    tokenizer = toy_for((PARROT,), ("@", "- "))  # "SQUAWK -" would take the space before "@"
    with pytest.raises(ValueError, match="parrot: text could make '- ' of its scaffold"):
        render(of_objects([{"messages": TALK}]), Encoder(tokenizer), tokenizer, template=ChatTemplate(PARROT))


def test_a_build_has_it_by_name(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, PARROT.name, PARROT)
    rows = [{"messages": [*TALK, {"role": "user", "content": str(i)}], "tools": TRICKS} for i in range(40)]
    write_lines(tmp_path / "talks.jsonl", rows)
    mixture = {"name": "parrots", "train": [{"task": "chat", "path": "talks.jsonl"}]}
    root, manifest, _ = build_mixture(tmp_path, mixture, tokenizer, chat_template="parrot", max_seq_len=512)
    assert manifest["chat_template"]["name"] == "parrot"
    assert verify_shards(root) == []
