r"""
The mask of what a model would have sampled: its text, its reasoning, its calls and the control that ends its turn.

    <|im_start|>assistant\n   <think>\nHm.\n</think>\n\n4   <|im_end|>   \n
    the prompt                sampled                       sampled      never
"""

from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings

from prep.chat.tables import FORMATS
from prep.chat.template import ChatTemplate
from prep.conversations.read import of_objects
from prep.encode.encode import Encoder
from prep.render.reference import make_prompt, render_conversation
from prep.render.render import render
from tests.chat.chats import results_of
from tests.chat.conversations import TEXTS, conversations
from tests.chat.toys import toy_for

TOY = toy_for()
ENCODE = Encoder(TOY, "tiktoken")
NEWLINE, TWO_NEWLINES = TOY.ranks[b"\n"], TOY.ranks[b"\n\n"]
IM_START, IM_END = (TOY.special_tokens[control] for control in ("<|im_start|>", "<|im_end|>"))
THINK, THINK_END = (TOY.added_tokens[marker] for marker in ("<think>", "</think>"))
ASKED = [{"role": "user", "content": "2+2?"}]


def sampled(name: str, **options: Any) -> ChatTemplate:
    return ChatTemplate(FORMATS[name], mask="sampled", **options)


def rendered(messages: list[dict[str, Any]], template: ChatTemplate, train_on: Any = None) -> tuple[list[int], str]:
    batch = of_objects([{"messages": messages}])
    batch = replace(batch, choices=replace(batch.choices, train_on=train_on or "all"))
    (result,) = results_of(render(batch, ENCODE, TOY, template=template))
    return result


def trained(messages: list[dict[str, Any]], template: ChatTemplate, train_on: Any = None) -> list[str]:
    """The text of each run of tokens that train"""
    pairs = zip(*rendered(messages, template, train_on), strict=True)
    return [TOY.decode(id_ for id_, _ in run) for flag, run in groupby(pairs, lambda pair: pair[1]) if flag == "1"]


def answer(content: str | None, **fields: Any) -> list[dict[str, Any]]:
    return [*ASKED, {"role": "assistant", "content": content, **fields}]


def call(name: str = "f") -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"a": 2}}}


# ---- literal tokens ----


def test_the_newline_after_assistant_and_the_one_after_the_end_are_not_sampled() -> None:
    ids, mask = rendered(answer("4"), sampled("qwen2.5"))
    assert ids[-13:] == [IM_START, *b"", TOY.ranks[b"as"], *b"sistant", NEWLINE, *b"4", IM_END, NEWLINE]
    assert mask[-13:] == "0000000000110"
    assert trained(answer("4"), ChatTemplate(FORMATS["qwen2.5"])) == ["\n4<|im_end|>\n"]


def test_a_token_that_begins_in_the_prompt_is_not_sampled() -> None:
    ids, mask = rendered(answer("\nHi"), sampled("qwen3-instruct-2507"))
    assert (ids[-5:], mask[-5:]) == ([TWO_NEWLINES, *b"Hi", IM_END, NEWLINE], "01110")
    assert rendered(answer("\nHi"), ChatTemplate(FORMATS["qwen3-instruct-2507"])) == (ids, mask[:-5] + "11111")


def test_reasoning_is_sampled_and_an_empty_block_is_given() -> None:
    ids, mask = rendered(answer("4", reasoning_content="Hm"), sampled("qwen3"))
    assert ids[-11:] == [NEWLINE, THINK, NEWLINE, *b"Hm", NEWLINE, THINK_END, TWO_NEWLINES, *b"4", IM_END, NEWLINE]
    assert mask[-11:] == "01111111110"
    ids, mask = rendered(answer("4"), sampled("qwen3"))
    assert (ids[-7:], mask[-7:]) == ([THINK, TWO_NEWLINES, THINK_END, TWO_NEWLINES, *b"4", IM_END, NEWLINE], "0000110")


# ---- text of what trains ----

CHATML = ["chatml", "qwen2.5", "qwen3", "qwen3-stock", "qwen3-instruct-2507"]


@pytest.mark.parametrize("name", [*CHATML, "llama3", "llama3.1", "nanochat"])
def test_text_and_the_control_that_ends_it(name: str) -> None:
    end = "<|im_end|>" if name in CHATML else {"nanochat": "<|assistant_end|>"}.get(name, "<|eot_id|>")
    more = [*answer("4"), {"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}]
    assert trained(more, sampled(name)) == [f"4{end}", f"6{end}"]


@pytest.mark.parametrize("name", ["qwen3", "qwen3-stock", "qwen3-instruct-2507", "qwen2.5"])
def test_calls_are_sampled_and_what_tools_answer_is_not(name: str) -> None:
    messages = [
        *answer("Look.", tool_calls=[call("f"), call("g")]),
        {"role": "tool", "content": "17"},
        {"role": "tool", "content": "18"},
        {"role": "assistant", "content": "4"},
    ]
    calls = "\n".join(f'<tool_call>\n{{"name": "{f}", "arguments": {{"a": 2}}}}\n</tool_call>' for f in "fg")
    assert trained(messages, sampled(name, empty_think=False)) == [f"Look.\n{calls}<|im_end|>", "4<|im_end|>"]


def test_python_is_sampled_and_its_output_is_not() -> None:
    kinds = {"text": "is ", "python": "1+1", "python_output": "2"}
    content: Any = [{"type": kind, "text": text} for kind, text in kinds.items()]
    runs = ["is <|python_start|>1+1<|python_end|>", "<|assistant_end|>"]
    assert trained(answer(content), sampled("nanochat")) == runs


def test_a_turn_of_context_has_nothing_sampled() -> None:
    messages = [*answer("4", train=False), *answer("6")]
    assert trained(messages, sampled("qwen3")) == ["6<|im_end|>"]


def test_a_list_says_what_of_a_turn_trains() -> None:
    messages = answer("Look", reasoning_content="Hm", tool_calls=[call()])
    written = '<tool_call>\n{"name": "f", "arguments": {"a": 2}}\n</tool_call>'
    expected = {
        ("reasoning",): ["<think>\nHm\n</think>\n\n"],
        ("text",): ["Look"],
        ("text", "end"): ["Look", "<|im_end|>"],
        ("calls", "end"): [f"\n{written}<|im_end|>"],
    }
    for train_on, runs in expected.items():
        assert trained(messages, sampled("qwen3"), train_on) == runs


# ---- any conversation ----


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_sampled_is_part_of_what_the_format_trains(name: str) -> None:
    @settings(max_examples=50, deadline=None)
    @given(conversations(FORMATS[name]))
    def hold(row: dict[str, Any]) -> None:
        results = [
            render_conversation(row["messages"], TOY, template=template, tools=row.get("tools"))
            for template in (sampled(name), ChatTemplate(FORMATS[name]))
        ]
        (ids, mask), (same_ids, wider) = results
        assert ids == same_ids
        assert all(a <= b for a, b in zip(mask, wider, strict=True))

    hold()


@pytest.mark.parametrize("name", ["chatml", "qwen2.5", "qwen3", "qwen3-instruct-2507", "llama3", "nanochat"])
def test_nothing_of_a_prompt_is_sampled_and_all_that_follows_is(name: str) -> None:
    """Where a token of the prompt and one of the answer are one, the two differ there; else not"""
    template = sampled(name, empty_think=False)

    @settings(max_examples=60, deadline=None)
    @given(conversations(FORMATS[name]), TEXTS.map(lambda text: "a" + text.replace("</think>", "")))
    def hold(row: dict[str, Any], text: str) -> None:
        messages = [m for m in row["messages"] if m["role"] in ("system", "user")][:2]
        if [m["role"] for m in messages] not in (["user"], ["system", "user"]):
            messages = ASKED
        prompt = make_prompt(messages, TOY, template)
        ids, mask = render_conversation([*messages, {"role": "assistant", "content": text}], TOY, template=template)
        assert ids[: len(prompt.ids)] == prompt.ids
        answered = ids[len(prompt.ids) :]
        stop = answered.index(prompt.stop)
        assert mask == [0] * len(prompt.ids) + [1] * (stop + 1) + [0] * (len(answered) - stop - 1)

    hold()
