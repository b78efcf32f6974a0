"""
Random conversations that a chat format has a place for: every role it knows, reasoning, calls, answers, tools, in odd
order, with texts that begin and end with newlines, marks and markers.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from prep.chat.format import ChatFormat
from prep.conversations.layouts import REASONING_FIELDS

PIECES = [
    *("", "a", "Hi", "us", ".", "'s", "12", "(", '"', ">", "<", "/", " ", "  ", "\n", "\n\n", "\r\n", "\r", "\t"),
    *(
        "\x85",
        "\x1c",
        "\x1f",
        "\xa0",
        "\u2029",
        "\u0338",
        "e\u0301",
        "\u0301",
        "\u1100\u1161",
        "\u0958",
        "é",
        "漢",
        "🙂",
    ),
    *("<think>", "</think>", "<think>\n", "\n</think>\n\n", "</think>\u0338", "<tool_call>", "</tool_call>", "<thi"),
    *("<tool_response>", "</tool_response>", "<|im_start|>", "<|im_end|>", "<|bos|>", "<|eot_id|>", "<|user_end|>"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=5).map("".join) | st.text(max_size=6)
QUESTIONS = TEXTS | TEXTS.map(lambda text: f"<tool_response>{text}</tool_response>")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)


def _content(draw: Any) -> Any:
    if draw(st.integers(0, 7)):
        return draw(TEXTS)
    return [{"type": "text", "text": text} for text in draw(st.lists(TEXTS, min_size=1, max_size=3))]


def _call(draw: Any) -> dict[str, Any]:
    arguments = draw(VALUES | st.sampled_from(['{"b":1,  "a": 2}', "null", '"'])) if draw(st.booleans()) else {"a": 2}
    function = {"name": draw(TEXTS), "arguments": arguments}
    return draw(st.sampled_from([{"function": function}, {"id": "1", "type": "function", "function": function}]))


def _answer(draw: Any, form: ChatFormat) -> dict[str, Any]:
    """A message of the assistant's"""
    message: dict[str, Any] = {"role": "assistant", "content": _content(draw)}
    if form.calls and draw(st.booleans()):
        most = form.calls.most or 3
        message["tool_calls"] = [_call(draw) for _ in range(draw(st.integers(1, most)))]
        nothing = st.sampled_from(["", None])
        if not form.calls.beside_text or draw(st.booleans()):
            message["content"] = draw(nothing)
        if message["content"] is None and draw(st.booleans()):
            del message["content"]
    if form.reasoning and draw(st.booleans()):
        for name in draw(st.lists(st.sampled_from(REASONING_FIELDS), max_size=2, unique=True)):
            message[name] = draw(TEXTS | st.none())
    if not draw(st.integers(0, 3)):
        message["train"] = draw(st.booleans())
    return message


def _message(draw: Any, role: str, form: ChatFormat) -> dict[str, Any]:
    if role == "assistant":
        return _answer(draw, form)
    if role == "tool":
        return {"role": "tool", "tool_call_id": "1", "content": _content(draw)}
    return {"role": role, "content": draw(QUESTIONS) if role == "user" or form.alternates else _content(draw)}


def _roles(draw: Any, form: ChatFormat) -> list[str]:
    system = ["system"] if draw(st.booleans()) else []
    if form.alternates:
        return [*system, *["user", "assistant"] * draw(st.integers(1, 3))][: draw(st.integers(len(system) + 1, 7))]
    known = [*form.turns, *["tool"] * (form.results is not None)]
    return [*system, "user", *draw(st.lists(st.sampled_from(known), max_size=6))][draw(st.integers(0, 1)) :] or ["user"]


@st.composite
def conversations(draw: Any, form: ChatFormat) -> dict[str, Any]:
    roles = _roles(draw, form)
    if form.alternates and roles[0] == "assistant":
        roles = ["user", *roles]
    row: dict[str, Any] = {"messages": [_message(draw, role, form) for role in roles]}
    first = roles[roles[0] == "system" :][:1]
    if form.tools and draw(st.booleans()) and (form.tools.into != "user" or first == ["user"]):
        row["tools"] = draw(st.lists(VALUES, max_size=3))
    return row


def batches(form: ChatFormat) -> SearchStrategy[list[dict[str, Any]]]:
    return st.lists(conversations(form), min_size=1, max_size=4)
