"""Neighbours of one role as one turn: its reasoning, its text, its calls, and answers of tools apart."""

from typing import Any

import pytest

from prep.chat.choose import choose_template
from prep.conversations import read
from prep.conversations.layouts import Layout
from prep.encode.encode import Encoder
from prep.jinja.format import JinjaFormat, JinjaTemplate
from prep.render.render import render
from tests.chat.toys import toy_for

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}[{{ m.content }}]{% else %}<{{ m.role[0] }}>"
    "{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% endif %}"
    "{{ '\\n' }}{% endfor %}"
)


def said(role: str, content: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def call(number: int) -> dict[str, Any]:
    return {"id": str(number), "type": "function", "function": {"name": "f", "arguments": {"a": number}}}


def shown(messages: list[dict[str, Any]], name: str) -> str:
    toy = toy_for()
    form = (
        JinjaTemplate(JinjaFormat("own", TEMPLATE))
        if name == "jinja"
        else choose_template({"chat_template": name}, toy)
    )
    batch = read.of_objects([{"messages": messages}, {"messages": messages[:2]}], Layout(consecutive="merge"))
    rendered = render(batch, Encoder(toy, "tiktoken"), toy, template=form)
    assert rendered.reasons.tolist() == [0, 0]
    return toy.decode(rendered.tokens[: rendered.lengths[0]])


TALK = [
    said("user", "Both?"),
    said("assistant", "Let me look.", reasoning_content="R1", tool_calls=[call(1)]),
    said("assistant", "One moment.", reasoning_content="R2", tool_calls=[call(2)]),
    said("tool", "3 degrees", tool_call_id="1"),
    said("tool", "20 degrees", tool_call_id="2"),
    said("assistant", ""),
    said("assistant", "Cold, warm."),
]


def test_a_table_has_one_turn_with_what_all_of_them_say() -> None:
    text = shown(TALK, "qwen3")
    assert "<think>\nR1\n\nR2\n</think>\n\nLet me look.\n\nOne moment.\n<tool_call>" in text
    assert text.count("<tool_call>") == 2
    assert "<tool_response>\n3 degrees\n</tool_response>\n<tool_response>\n20 degrees\n</tool_response>" in text
    assert text.endswith("</think>\n\nCold, warm.<|im_end|>\n")


def test_a_template_gets_such_messages() -> None:
    assert shown(TALK, "jinja") == (
        '<u>Both?\n<a>(R1\n\nR2)Let me look.\n\nOne moment.f{"a": 1}f{"a": 2}\n[3 degrees]\n[20 degrees]\n<a>Cold, warm.\n'
    )


@pytest.mark.parametrize("name", ["qwen3", "chatml", "jinja"])
def test_turns_that_say_nothing_are_one_that_says_nothing(name: str) -> None:
    alone = shown([said("user", "Hi"), said("assistant", "")], name)
    assert shown([said("user", "Hi"), said("assistant", ""), said("assistant", "")], name) == alone
