r"""
Tool calls as OpenAI's API spells them, to messages that the renderer knows.

    assistant  tool_calls [{"id": "1", "function": {"name": "add", "arguments": "{\"a\": 2, \"b\": 3}"}}]
    tool       tool_call_id "1", content "5"
    assistant  "It is 5."

    parts      assistant  python "add(a=2, b=3)", python_output "5", text "It is 5."          one turn
    text       assistant  {"name": "add", "arguments": {"a": 2, "b": 3}}    user  5    assistant  It is 5.

As parts, SFT trains on the call and not on what the tool answered; as text, the tool's answer is a message of the user.
Code for an interpreter (`code` alone, or arguments that are not a JSON object) is itself the call.
"""

import json
from typing import Any

from prep.conversations.messages import flag_of

TOOLS = ("parts", "text")
INTERPRETERS = ("python", "code_interpreter", "ipython")

Message = dict[str, Any]


def as_parts(messages: list[Any]) -> list[Message]:
    """Messages with calls and the tools' answers in the assistant's turn. ValueError with a reason of REASONS."""
    out: list[Message] = []
    open_calls: dict[str, int] = {}  # id of each call without an answer -> its place in the turn's parts
    has_calls = False  # the last turn made a call, so what the assistant says next belongs to it
    for message in messages:
        role = _role(message)
        if role == "tool":
            if not has_calls:
                raise ValueError("roles out of turn")
            _answer(out[-1]["content"], open_calls, message)
        elif role == "assistant":
            if not has_calls:
                out.append({"role": "assistant", "content": [], "train": flag_of(message)})
                open_calls = {}
            elif (flag_of(message) == 0) != (out[-1]["train"] == 0):  # False equals 0, None does not
                raise ValueError("trained in part of a turn")
            has_calls = _add(out[-1]["content"], open_calls, message)
        else:
            out.append(message)
            has_calls = False
    return out


def _add(parts: list[Message], open_calls: dict[str, int], message: Message) -> bool:
    """Add the text and the calls of a message to a turn; returns whether there were calls"""
    content, calls = message.get("content"), _calls(message)
    if isinstance(content, list):
        parts += content
    elif content or not calls:  # a message of calls alone has no text, or an empty one
        parts.append({"type": "text", "text": content})
    for number, call in enumerate(calls):
        open_calls[str(call.get("id") or f"call {len(parts)} {number}")] = len(parts)
        parts.append({"type": "python", "text": expression(*_function(call))})
    return bool(calls)


def _answer(parts: list[Message], open_calls: dict[str, int], message: Message) -> None:
    """Put what a tool answered after its call: the one that it names, else the first without an answer"""
    name = message.get("tool_call_id")
    if name not in open_calls and (name is not None or not open_calls):
        raise ValueError("roles out of turn")
    place = open_calls.pop(name if name is not None else next(iter(open_calls))) + 1
    parts.insert(place, {"type": "python_output", "text": _text(message)})
    for other in open_calls:
        open_calls[other] += open_calls[other] >= place


def as_text(messages: list[Any]) -> list[Message]:
    """Messages with calls as JSON in the assistant's text and tools' answers as the user's turns"""
    out: list[Message] = []
    after_tool = False  # the last turn is a tool's: answers to several calls of one turn become one turn
    for message in messages:
        role = _role(message)
        if role == "tool" and after_tool:
            out[-1] = {"role": "user", "content": f"{out[-1]['content']}\n\n{_text(message)}"}
        elif role == "tool":
            out.append({"role": "user", "content": _text(message)})
        elif calls := _calls(message):
            lines = [_text(message)] if message.get("content") else []
            for name, arguments in map(_function, calls):
                lines.append(json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False))
            out.append({"role": "assistant", "content": "\n".join(lines), "train": flag_of(message)})
        else:
            out.append(message)
        after_tool = role == "tool"
    return out


def expression(name: str, arguments: Any) -> str:
    """
    >>> expression("add", {"a": 2, "b": None})
    'add(a=2, b=None)'
    >>> expression("python", {"code": "2 + 3"})
    '2 + 3'
    """
    if name in INTERPRETERS and isinstance(arguments, str):
        return arguments
    if name in INTERPRETERS and isinstance(arguments, dict) and list(arguments) == ["code"]:
        return str(arguments["code"])
    if not isinstance(arguments, dict):
        return f"{name}({arguments!r})"
    if all(key.isidentifier() for key in arguments):
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    return f"{name}(**{arguments!r})"


def _role(message: Any) -> str:
    if not isinstance(message, dict):
        raise ValueError("not an object")
    if "role" not in message:
        raise ValueError("missing field")
    return str(message["role"])


def _calls(message: Message) -> list[Any]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ValueError("tool calls")
    if calls and message["role"] != "assistant":
        raise ValueError("tool calls")
    return calls


def _function(call: Message) -> tuple[str, Any]:
    """A call -> name and arguments, parsed where they are a string of JSON"""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("tool calls")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            return function["name"], json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            return function["name"], arguments
    return function["name"], {} if arguments is None else arguments


def _text(message: Message) -> str:
    if not isinstance(message.get("content"), str):
        raise ValueError("content is not text")
    return str(message["content"])
