r"""
Calls of tools, their answers and reasoning as nanochat's format has them: Python and its output in the assistant's turn.

    assistant  CALL_NAME add  CALL_ARGUMENTS {"a": 2, "b": 3}      tool  5      assistant  It is 5.

    parts      assistant  python "add(a=2, b=3)", python_output "5", text "It is 5."          one turn
    text       assistant  {"name": "add", "arguments": {"a": 2, "b": 3}}    user  5    assistant  It is 5.

As parts, SFT trains on the call and not on what the tool answered; as text, the tool's answer is a message of the user.
How a call is written in Python: prep.arrange.expressions. Reasoning is left out, or text in <think>.
"""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from prep.arrange.expressions import expression
from prep.arrays import offsets
from prep.columns import binary_array
from prep.conversations.conversation import (
    ASSISTANT,
    CALL_ARGUMENTS,
    CALL_ID,
    CALL_NAME,
    CONTEXT,
    OUTPUT,
    PYTHON,
    REASON,
    REASONING,
    TEXT,
    TOOL,
    TRAINS,
    USER,
    Conversations,
)
from prep.conversations.values import to_json

Part = tuple[int, bytes]  # kind, text
Turn = tuple[int, int, list[Part]]  # role, CONTEXT, TRAINS or FLAGGED, parts


def has_calls(batch: Conversations) -> bool:
    """Whether a batch has calls, answers of tools or reasoning"""
    return bool((batch.kinds >= REASONING).any() or (batch.roles == TOOL).any())


def write_calls(
    batch: Conversations, strict: bool = False, keep_calls: bool = False, keep_reasoning: bool = False
) -> Conversations:
    """
    The batch with nothing but text, Python and its output; conversations that cannot be written so get a reason, or
    (`strict`) raise it. What is to be kept stays as it is, for formats that have a place for it.
    """
    tools = "keep" if keep_calls else batch.choices.tools
    reasoning = "keep" if keep_reasoning else batch.choices.reasoning
    reasons = batch.reasons.copy()
    turns: list[Turn] = []
    num_turns = np.zeros(len(batch), dtype=np.int64)
    for number, conversation in enumerate(_conversations(batch)):
        try:
            written = write_turns(conversation, tools, reasoning)
        except ValueError as error:
            if strict:
                raise
            reasons[number] = reasons[number] or REASON[error.args[0]]
            written = []
        turns += written
        num_turns[number] = len(written)
    parts = [part for _, _, parts in turns for part in parts]
    trained = np.array([flag for _, flag, _ in turns], dtype=np.uint8)
    return replace(
        batch,
        texts=binary_array([text for _, text in parts]).view(pa.large_string()),
        kinds=np.array([kind for kind, _ in parts], dtype=np.uint8),
        parts=offsets(np.array([len(parts) for _, _, parts in turns], dtype=np.int64)),
        roles=np.array([role for role, _, _ in turns], dtype=np.uint8),
        messages=offsets(num_turns),
        reasons=reasons,
        trained=None if (trained == TRAINS).all() else trained,
    )


def _conversations(batch: Conversations) -> list[list[Turn]]:
    texts = batch.texts.cast(pa.large_binary()).to_pylist()
    parts = list(zip(batch.kinds.tolist(), texts, strict=True))
    bounds, trained = (
        batch.parts.tolist(),
        [TRAINS] * len(batch.roles) if batch.trained is None else batch.trained.tolist(),
    )
    turns = [(role, trained[m], parts[bounds[m] : bounds[m + 1]]) for m, role in enumerate(batch.roles.tolist())]
    places = batch.messages.tolist()
    return [turns[places[c] : places[c + 1]] for c in range(len(batch))]


def write_turns(turns: list[Turn], tools: str, reasoning: str | None) -> list[Turn]:
    """One conversation. ValueError(reason, culprit) where calls and answers do not fit together, or are no Python."""
    if reasoning != "keep":
        turns = [(role, flag, _think(parts, reasoning)) for role, flag, parts in turns]
    if tools == "keep":
        return turns
    return _as_text(turns) if tools == "text" else _as_parts(turns)


def _think(parts: list[Part], reasoning: str | None) -> list[Part]:
    """Parts with reasoning as text before the text that follows it, or without it"""
    out: list[Part] = []
    thought = b""
    for kind, text in parts:
        if kind == REASONING:
            thought += b"<think>\n" + text + b"\n</think>\n\n" if reasoning == "think" and text else b""
            continue
        if thought and kind != TEXT:
            out.append((TEXT, thought))
        out.append((kind, thought + text if kind == TEXT else text))
        thought = b""
    return [*out, (TEXT, thought)] if thought else out


def _as_parts(turns: list[Turn]) -> list[Turn]:
    """Calls and the tools' answers in the assistant's turn"""
    out: list[Turn] = []
    open_calls: dict[bytes, int] = {}  # id of each call without an answer -> its place in the turn's parts
    calling = False  # the last turn made a call, so what the assistant says next belongs to it
    for role, flag, parts in turns:
        if role == TOOL:
            if not calling:
                raise ValueError(
                    "roles out of turn", 'a tool answers, and nothing called it: roles = { tool = "user" }'
                )
            _answer(out[-1][2], open_calls, parts)
        elif role == ASSISTANT:
            if not calling:
                out.append((ASSISTANT, flag, []))
                open_calls = {}
            elif (flag == CONTEXT) != (out[-1][1] == CONTEXT):
                raise ValueError("trained in part of a turn", "a call and what follows it have other train flags")
            else:
                out[-1] = (ASSISTANT, max(flag, out[-1][1]), out[-1][2])
            calling = _add(out[-1][2], open_calls, parts)
        else:
            out.append((role, flag, parts))
            calling = False
    return out


def _add(turn: list[Part], open_calls: dict[bytes, int], parts: list[Part]) -> bool:
    """Add the parts of a message to a turn, calls as Python; returns whether there were calls"""
    calls, others = _split(parts)
    turn += others
    for number, (call_id, name, arguments) in enumerate(calls):
        open_calls[call_id or b"call %d %d" % (len(turn), number)] = len(turn)
        turn.append((PYTHON, _encoded(expression(name, arguments))))
    return bool(calls)


def _split(parts: list[Part]) -> tuple[list[tuple[bytes, str, Any]], list[Part]]:
    """Parts of a message -> its calls (id, name, arguments), and its other parts"""
    calls, others = [], []
    call_id, name = b"", ""
    for kind, text in parts:
        if kind == CALL_ID:
            call_id = text
        elif kind == CALL_NAME:
            name = text.decode()
        elif kind == CALL_ARGUMENTS:
            calls.append((call_id, name, _arguments(text)))
            call_id = b""
        else:
            others.append((kind, text))
    return calls, others


def _arguments(text: bytes) -> Any:
    """The value of arguments, parsed once more where they are a string of JSON"""
    value = json.loads(text)
    if value is None:
        return {}
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else {}
    except (ValueError, RecursionError):
        return value


def _answer(turn: list[Part], open_calls: dict[bytes, int], parts: list[Part]) -> None:
    """Put what a tool answered after its call: the one that it names, else the first without an answer"""
    name = next((text for kind, text in parts if kind == CALL_ID), None)
    if name not in open_calls and (name is not None or not open_calls):
        raise ValueError("roles out of turn", f"a tool answers the call {name!r:.60}, which is not open")
    place = open_calls.pop(name if name is not None else next(iter(open_calls))) + 1
    turn.insert(place, (OUTPUT, _text(parts)))
    for other in open_calls:
        open_calls[other] += open_calls[other] >= place


def _text(parts: list[Part]) -> bytes:
    """What a tool answered, which is text alone"""
    texts = [text for kind, text in parts if kind == TEXT]
    if not texts or len(texts) < sum(kind != CALL_ID for kind, _ in parts):
        raise ValueError("content is not text", "what a tool answers is not text")
    return b"".join(texts)


def _as_text(turns: list[Turn]) -> list[Turn]:
    """Calls as JSON in the assistant's text and tools' answers as the user's turns"""
    out: list[Turn] = []
    after_tool = False  # the last turn is a tool's: answers to several calls of one turn become one turn
    for role, flag, parts in turns:
        if role == TOOL:
            before = [out.pop()[2][0][1]] if after_tool else []
            out.append((USER, TRAINS, [(TEXT, b"\n\n".join([*before, _text(parts)]))]))
        else:
            calls, others = _split(parts)
            lines = [text for kind, text in others if kind == TEXT and text]
            for _, name, arguments in calls:
                lines.append(to_json({"name": name, "arguments": arguments}).encode())
            out.append((role, flag, [(TEXT, b"\n".join(lines))] if calls else others))
        after_tool = role == TOOL
    return out


def _encoded(code: str) -> bytes:
    """Code as UTF-8; lone surrogates in strings of arguments are escapes by now"""
    try:
        return code.encode()
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode", "the code of a call") from None
