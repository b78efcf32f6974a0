"""
Conversations as the messages that a chat template takes, as transformers gives them.

    USER TEXT "2+2?"                {"role": "user", "content": "2+2?"}
    ASSISTANT REASONING "Hm."       {"role": "assistant", "reasoning_content": "Hm.", "thinking": "Hm.",
      CALL_NAME add                     "tool_calls": [{"type": "function",
      CALL_ARGUMENTS {"a": 2}               "function": {"name": "add", "arguments": {"a": 2}}}]}
    TOOL CALL_ID 1 TEXT "4"         {"role": "tool", "tool_call_id": "1", "content": "4"}

`content` is one text, and is not there where the row has none. Arguments are what their JSON says: an object, or a string.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from prep.conversations.conversation import (
    CALL_ARGUMENTS,
    CALL_ID,
    CALL_NAME,
    REASONING,
    ROLES,
    TEXT,
    TOOL,
    Conversations,
    part_of,
)

Messages = list[dict[str, Any]]


def to_chats(batch: Conversations) -> Iterator[Messages]:
    """C conversations as messages that templates of transformers take"""
    texts, kinds, roles = batch.texts.to_pylist(), batch.kinds.tolist(), batch.roles.tolist()
    parts, messages = batch.parts.tolist(), batch.messages.tolist()
    for start, stop in pairwise(messages):
        yield [
            _message(roles[m], kinds[parts[m] : parts[m + 1]], texts[parts[m] : parts[m + 1]])
            for m in range(start, stop)
        ]


def to_chat(batch: Conversations, c: int) -> Messages:
    """One conversation of a batch"""
    return next(to_chats(part_of(batch, c, c + 1)))


def _message(role: int, kinds: list[int], texts: list[str]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": ROLES[role]}
    if kinds == [TEXT]:
        message["content"] = texts[0]
        return message
    calls: list[dict[str, Any]] = []
    call_id: str | None = None
    for kind, text in zip(kinds, texts, strict=True):
        if kind == TEXT:
            message["content"] = message.get("content", "") + text
        elif kind == REASONING:
            message["reasoning_content"] = message["thinking"] = message.get("thinking", "") + text
        elif kind == CALL_ID and role == TOOL:
            message["tool_call_id"] = text
        elif kind == CALL_ID:
            call_id = text
        elif kind == CALL_NAME:
            calls.append(
                {"type": "function", **({} if call_id is None else {"id": call_id}), "function": {"name": text}}
            )
            call_id = None
        elif kind == CALL_ARGUMENTS:
            calls[-1]["function"]["arguments"] = json.loads(text)
    if calls:
        message["tool_calls"] = calls
    return message


@lru_cache(maxsize=1024)
def read_tools(text: str | None) -> Any:
    """The tools of a conversation, a list; None where there are none. ValueError if it is no list."""
    listed = json.loads(text) if text else None
    if isinstance(listed, str):
        listed = json.loads(listed) if listed else None
    if isinstance(listed, dict):
        listed = [listed]
    if listed and not isinstance(listed, list):
        raise ValueError(f"the tools are {text!r:.60}, wanted a list")
    return listed or None
