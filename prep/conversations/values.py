"""
What single values of a message mean: calls of tools, flags that say whether it trains, texts. Each raises
ValueError(reason, culprit) for what it cannot read.

    tool_calls [{"id": "1", "function": {"name": "add", "arguments": {"a": 2}}}]    ->    CALL_ID 1, CALL_NAME add,
                                                                                          CALL_ARGUMENTS {"a": 2}
"""

import json
from typing import Any

from prep.conversations.conversation import CALL_ARGUMENTS, CALL_ID, CALL_NAME, CONTEXT, FLAGGED, KINDS, TEXT, TRAINS
from prep.conversations.layouts import CALL_FIELDS, FLAGS, PART_KINDS, PART_TEXTS, UNUSED, toml_table

Part = tuple[int, str]  # kind, text
NOT_A_FLAG = "train or weight is not true or false"


def read_calls(message: dict[str, Any]) -> list[list[Part]]:
    """The parts of each call of a message, in `tool_calls` or in the older `function_call`"""
    given = [name for name in CALL_FIELDS if message.get(name)]
    if not given:
        return []
    if len(given) > 1:
        raise ValueError("tool calls", f"both {' and '.join(given)}: leave one aside with columns")
    return call_list(message[given[0]])


def call_list(value: Any) -> list[list[Part]]:
    """One call or a list of them, as objects or as JSON"""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("tool calls", f"{value!r:.60} is no JSON") from None
    return [_call(each) for each in (value if isinstance(value, list) else [value])]


def _call(call: Any) -> list[Part]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("tool calls", f"{call!r:.60} has no name of a function")
    text = to_json(function.get("arguments", {}))  # a null is one: a chat format may write it
    parts = [(CALL_NAME, valid(function["name"])), (CALL_ARGUMENTS, valid(text))]
    return parts if call.get("id") is None else [(CALL_ID, valid(str(call["id"]))), *parts]


def content_parts(content: Any) -> list[Part]:
    """The parts of a content: a text, or a list of parts with a type and a text"""
    if isinstance(content, str):
        return [(TEXT, valid(content))]
    if not isinstance(content, list):
        raise ValueError("content is not text", f"{content!r:.60}")
    return [part for item in content for part in _parts(item)]


def _parts(item: Any) -> list[Part]:
    if not isinstance(item, dict):
        raise ValueError("content is not text", f"a part is {item!r:.60}")
    kind = PART_KINDS.get(name) if isinstance(name := item.get("type", "text"), str) else None
    if kind == "call":
        value = item.get("value", item.get(name, item.get("function")))
        return [part for call in call_list(value) for part in call]
    text = next((item[field] for field in PART_TEXTS if item.get(field) is not None), None)
    if not isinstance(text, str):
        raise ValueError("content is not text", f"a part of the type {name!r:.60} has no text")
    if kind is None:
        raise ValueError("unknown part type", f"{name!r:.60}")
    return [(KINDS.index(kind), valid(text))]


def train_flag(message: dict[str, Any]) -> int:
    """CONTEXT, TRAINS or FLAGGED, as a message says"""
    flags = {name: message[name] for name in FLAGS if message.get(name) is not None}
    for name, flag in flags.items():
        if not isinstance(flag, int | float) or flag not in (0, 1):
            raise ValueError(
                NOT_A_FLAG, f"{name} is {flag!r:.60}: columns = {toml_table({name: UNUSED})} trains the turn"
            )
    if len(set(map(bool, flags.values()))) > 1:
        raise ValueError("train flags disagree", ", ".join(f"{name} is {flag!r}" for name, flag in flags.items()))
    return TRAINS if not flags else FLAGGED if next(iter(flags.values())) else CONTEXT


def to_json(value: Any) -> str:
    """A value as JSON, keys in its order; escapes only where UTF-8 cannot hold it: JSON may spell lone surrogates"""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or _is_utf8(text) else json.dumps(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def valid(text: str) -> str:
    """The text, unless UTF-8 cannot hold it: JSON may spell lone surrogates"""
    if text.isascii() or _is_utf8(text):
        return text
    raise ValueError("not valid Unicode")
