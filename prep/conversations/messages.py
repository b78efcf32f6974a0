"""
From messages, as data sets spell them, to the columnar batch: for Arrow columns without touching a string, for JSON
row by row.

    [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": [{"type": "text", "text": "4"}]}]

Content is a string, or for assistants a list of parts `{"type": "text" | "python" | "python_output", "text"}`. Where the
caller takes flags, `"train": false` on a message of the assistant's keeps it as context.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import text_array
from prep.conversations.conversation import KINDS, REASON, ROLES, TEXT, Conversations, reject

UNKNOWN = 255  # a role or kind that is none of ours, until the conversation is rejected


OURS = {role: role for role in ROLES}
FLAGS = ("train", "weight")


def of_arrow(
    column: pa.ChunkedArray,
    fields: tuple[str, str] = ("role", "content"),
    roles: Mapping[str, str] = OURS,
    flags: Sequence[str] = (),
) -> Conversations:
    """
    (C,) list<struct<role: string, content: string or list<struct<type, text>>>> -> C conversations. `fields` are their
    names for role and content, `roles` has ours for each of theirs; the first of `flags` that a message has says whether it
    trains.
    """
    rows = column.combine_chunks()
    if not (pa.types.is_list(rows.type) or pa.types.is_large_list(rows.type)) or not pa.types.is_struct(
        rows.type.value_type
    ):
        raise ValueError(f"messages are {rows.type}, wanted a list of structs with {' and '.join(fields)}")
    names = {field.name for field in rows.type.value_type}
    if not set(fields) <= names:
        raise ValueError(f"messages have the fields {sorted(names)}, wanted {' and '.join(fields)}")
    messages = rows.flatten()
    role, content = (_decoded(pc.struct_field(messages, field)) for field in fields)
    parts, kinds, texts = _parts_of_arrow(content)
    trained, no_flag = _flags([pc.struct_field(messages, name) for name in flags if name in names], len(messages))
    batch = Conversations(
        texts=pc.fill_null(texts, "") if texts.null_count else texts,
        kinds=kinds,
        parts=parts,
        roles=_role_codes(role, roles),
        messages=offsets(pc.fill_null(pc.list_value_length(rows), 0).to_numpy(zero_copy_only=False)),
        reasons=np.zeros(len(rows), dtype=np.uint8),
        trained=None if trained.all() else trained,
    )
    batch = reject(batch, _rows_with(batch, no_flag), "train or weight is not true or false")
    batch = reject(batch, rows.is_null().to_numpy(zero_copy_only=False), "missing field")
    batch = reject(batch, _rows_with(batch, role.is_null().to_numpy(zero_copy_only=False)), "missing field")
    batch = reject(batch, _rows_with(batch, batch.roles == UNKNOWN), "unknown role")
    batch = reject(batch, _rows_with(batch, content.is_null().to_numpy(zero_copy_only=False)), "content is not text")
    if "tool_calls" in names:
        batch = reject(batch, _rows_with(batch, pc.is_valid(pc.struct_field(messages, "tool_calls"))), "tool calls")
    if texts.null_count:
        missing = np.add.reduceat(np.append(texts.is_null().to_numpy(zero_copy_only=False), False), parts[:-1]) > 0
        batch = reject(batch, _rows_with(batch, missing & (np.diff(parts) > 0)), "content is not text")
    unknown = np.repeat(np.arange(len(kinds)), kinds == UNKNOWN)
    message = np.searchsorted(parts, unknown, side="right") - 1
    return reject(batch, _rows_with(batch, np.isin(np.arange(len(batch.roles)), message)), "unknown part type")


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _role_codes(names: pa.Array, roles: Mapping[str, str]) -> Array:
    """(M,) their names of roles -> (M,) uint8 ours, UNKNOWN where there is none"""
    table = np.array([*(ROLES.index(role) for role in roles.values()), UNKNOWN], dtype=np.uint8)
    found: Array = table[np.minimum(codes(names, list(roles)), len(roles))]
    return found


def _flags(columns: list[pa.Array], num_messages: int) -> tuple[Array, Array]:
    """Flags of messages (M,), of which the first that is there counts -> (M,) bool, true without one; (M,) what is no flag"""
    trained, found, wrong = (np.full(num_messages, value) for value in (True, False, False))
    for column in columns:
        kind, there = column.type, column.is_valid().to_numpy(zero_copy_only=False) & ~found
        found |= there
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            values = pc.fill_null(column.cast(pa.float64()), 1.0).to_numpy(zero_copy_only=False)
            trained[there] = values[there] != 0
            wrong |= there & (values != 0) & (values != 1)
        else:
            wrong |= there
    return trained, wrong


def _parts_of_arrow(content: pa.Array) -> tuple[Array, Array, pa.LargeStringArray]:
    """(M,) contents -> offsets of the parts (M + 1,), their kinds (P,) and texts (P,)"""
    kind = content.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return np.arange(len(content) + 1, dtype=np.int64), np.full(len(content), TEXT, np.uint8), _large(content)
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        parts = content.flatten()
        lengths = pc.fill_null(pc.list_value_length(content), 0).to_numpy(zero_copy_only=False)
        return offsets(lengths), codes(pc.struct_field(parts, "type"), KINDS), _large(pc.struct_field(parts, "text"))
    raise ValueError(f"content of messages is {kind}, wanted strings or lists of parts with type and text")


def of_objects(objects: list[Any], flags: bool = False) -> Conversations:
    """
    C parsed JSON values, each a list of messages or an object with `messages`, -> C conversations. A value that is a
    `str` here is a reason: the row could not be parsed. `flags`: a message may say "train": false.
    """
    texts: list[str] = []
    kinds: list[int] = []
    num_parts: list[int] = []
    roles: list[int] = []
    trained: list[bool] = []
    num_messages, reasons = np.zeros(len(objects), dtype=np.int64), np.zeros(len(objects), dtype=np.uint8)
    for i, value in enumerate(objects):
        try:
            messages = [_message(message) for message in _messages(value)]
            trained += _trained(_messages(value)) if flags else ()
        except ValueError as error:
            reasons[i] = REASON[str(error)]
            continue
        num_messages[i] = len(messages)
        for role, parts in messages:
            roles.append(role)
            num_parts.append(len(parts))
            for kind, text in parts:
                kinds.append(kind)
                texts.append(text)
    return Conversations(
        texts=text_array(texts),
        kinds=np.array(kinds, dtype=np.uint8),
        parts=offsets(np.array(num_parts, dtype=np.int64)),
        roles=np.array(roles, dtype=np.uint8),
        messages=offsets(num_messages),
        reasons=reasons,
        trained=np.array(trained, dtype=bool) if flags and not all(trained) else None,
    )


def _trained(messages: list[Any]) -> list[bool]:
    flags = [True if (flag := flag_of(message)) is None else flag for message in messages]
    if not all(isinstance(flag, int | float) and flag in (0, 1) for flag in flags):
        raise ValueError("train or weight is not true or false")
    return [bool(flag) for flag in flags]


def flag_of(message: dict[str, Any]) -> Any:
    """What a message says of whether it trains: its `train`, else OpenAI's `weight`; None where it has neither"""
    return next((message[name] for name in FLAGS if message.get(name) is not None), None)


def parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        return "not valid Unicode"
    except (ValueError, RecursionError):
        return "invalid JSON"


def _messages(value: Any) -> list[Any]:
    """The list of messages in a parsed row. ValueError with a reason of prep.conversations.conversation.REASONS."""
    if isinstance(value, str):
        raise ValueError(value if value in REASON and value else "not an object")
    messages = value.get("messages") if isinstance(value, dict) else value
    if messages is None:
        raise ValueError("missing field")
    if not isinstance(messages, list):
        raise ValueError("messages are no list" if isinstance(value, dict) else "not an object")
    return messages


def _message(message: Any) -> tuple[int, list[tuple[int, str]]]:
    """One message -> (role, [(kind, text), ...]). ValueError with a reason."""
    if not isinstance(message, dict):
        raise ValueError("not an object")
    if "role" not in message or "content" not in message:
        raise ValueError("missing field")
    if message["role"] not in ROLES:
        raise ValueError("unknown role")
    if message.get("tool_calls"):
        raise ValueError("tool calls")  # they would be lost; the layout `tools` takes them
    role, content = ROLES.index(message["role"]), message["content"]
    if isinstance(content, str):
        return role, [(TEXT, _text(content))]
    if not isinstance(content, list):
        raise ValueError("content is not text")
    return role, [_part(part) for part in content]


def _part(part: Any) -> tuple[int, str]:
    if not isinstance(part, dict) or not isinstance(part.get("text"), str):
        raise ValueError("content is not text")
    if part.get("type") not in KINDS:
        raise ValueError("unknown part type")
    return KINDS.index(part["type"]), _text(part["text"])


def _text(text: str) -> str:
    """The text if it can be UTF-8: JSON may spell lone surrogates"""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode") from None
    return text


def codes(names: pa.Array, known: list[str]) -> Array:
    """(n,) strings -> (n,) uint8 places in `known`, UNKNOWN where a name is not in it"""
    found = pc.index_in(names, value_set=text_array(known).cast(names.type))
    out: Array = pc.fill_null(found, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.uint8)
    return out


def _large(texts: pa.Array) -> pa.LargeStringArray:
    return texts.cast(pa.large_string())


def _rows_with(batch: Conversations, where: Array) -> Array:
    """(M,) bool of messages -> (C,) bool: which conversations hold one"""
    counts = offsets(where)
    return counts[batch.messages[1:]] > counts[batch.messages[:-1]]
