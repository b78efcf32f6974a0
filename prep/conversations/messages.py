"""
From messages, as data sets spell them, to the columnar batch: Arrow columns without touching a string, JSON row by row.

    [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": [{"type": "text", "text": "4"}]}]

Content is a string, or a list of parts `{"type": "text" | "python" | "python_output", "text"}`. Where the caller takes
flags, `"train": false` (or OpenAI's `"weight": 0`) on a message of the assistant keeps it as context.
Both ways apply the same rules and give the same reasons; a test holds them against each other.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import text_array
from prep.conversations.conversation import KINDS, REASON, ROLES, TEXT, Conversations, mark

UNKNOWN = 255  # code of a role or kind that is not known, until the conversation is rejected
CANONICAL_ROLES = {role: role for role in ROLES}
FLAGS = ("train", "weight")
NOT_A_FLAG = "train or weight is not true or false"


def of_arrow(
    column: pa.ChunkedArray,
    fields: tuple[str, str] = ("role", "content"),
    roles: Mapping[str, str] = CANONICAL_ROLES,
    flags: Sequence[str] = (),
) -> Conversations:
    """
    (C,) list<struct<role: string, content: string or list<struct<type, text>>>> -> C conversations. `fields` are the
    column's names of role and content, `roles` maps its roles to ROLES; the first of `flags` that a message has says
    whether it trains. ValueError for a column of another type.
    """
    rows = column.combine_chunks()
    is_list = pa.types.is_list(rows.type) or pa.types.is_large_list(rows.type)
    if not is_list or not pa.types.is_struct(rows.type.value_type):
        raise ValueError(f"messages are {rows.type}, wanted a list of structs with {' and '.join(fields)}")
    names = {field.name for field in rows.type.value_type}
    if not set(fields) <= names:
        raise ValueError(f"messages have the fields {sorted(names)}, wanted {' and '.join(fields)}")
    messages = rows.flatten()
    role, content = (_decoded(pc.struct_field(messages, field)) for field in fields)
    role_codes = _role_codes(role, roles)
    parts, kinds, texts = _parts_of_arrow(content)
    trained, not_a_flag = _flags([pc.struct_field(messages, name) for name in flags if name in names], len(messages))
    bounds = offsets(pc.fill_null(pc.list_value_length(rows), 0).to_numpy(zero_copy_only=False))
    has_calls = np.zeros(len(messages), dtype=bool)
    if "tool_calls" in names:
        has_calls = ~_is_null(pc.struct_field(messages, "tool_calls"))
    problems = (  # (M,) bool; the first reason stays
        (not_a_flag, NOT_A_FLAG),
        (_is_null(role), "missing field"),
        (role_codes == UNKNOWN, "unknown role"),
        (_is_null(content), "content is not text"),
        (has_calls, "tool calls"),
        (_any_in(_is_null(texts), parts), "content is not text"),
        (_any_in(kinds == UNKNOWN, parts), "unknown part type"),
    )
    reasons = np.zeros(len(rows), dtype=np.uint8)
    mark(reasons, _is_null(rows), "missing field")
    for where, reason in problems:
        mark(reasons, _any_in(where, bounds), reason)
    return Conversations(
        texts=pc.fill_null(texts, "") if texts.null_count else texts,
        kinds=kinds,
        parts=parts,
        roles=role_codes,
        messages=bounds,
        reasons=reasons,
        trained=None if trained.all() else trained,
    )


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_null(column: pa.Array) -> Array:
    if not column.null_count:
        return np.zeros(len(column), dtype=bool)
    nulls: Array = column.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _any_in(where: Array, bounds: Array) -> Array:
    """(n,) bool of items, (m + 1,) offsets of groups of them -> (m,) bool: which groups hold one"""
    if not where.any():
        return np.zeros(len(bounds) - 1, dtype=bool)
    counts = offsets(where)
    return counts[bounds[1:]] > counts[bounds[:-1]]


def _role_codes(names: pa.Array, roles: Mapping[str, str]) -> Array:
    """(M,) names of roles -> (M,) uint8 places in ROLES, UNKNOWN where there is none"""
    table = np.array([*(ROLES.index(role) for role in roles.values()), UNKNOWN], dtype=np.uint8)
    role_codes: Array = table[np.minimum(codes(names, list(roles)), len(roles))]
    return role_codes


def codes(names: pa.Array, known: list[str]) -> Array:
    """(n,) strings -> (n,) uint8 places in `known`, UNKNOWN where a name is not in it"""
    places = pc.index_in(names, value_set=text_array(known).cast(names.type))
    out: Array = pc.fill_null(places, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.uint8)
    return out


def _flags(columns: list[pa.Array], num_messages: int) -> tuple[Array, Array]:
    """Columns (M,) of flags, of which the first value counts -> (M,) bool: trains (by default), (M,) bool: is not a flag"""
    trained, seen, wrong = (np.full(num_messages, value) for value in (True, False, False))
    for column in columns:
        kind = column.type
        given = ~_is_null(column) & ~seen
        seen |= given
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            values = pc.fill_null(column.cast(pa.float64()), 1.0).to_numpy(zero_copy_only=False)
            trained[given] = values[given] != 0
            wrong |= given & (values != 0) & (values != 1)
        else:
            wrong |= given
    return trained, wrong


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _parts_of_arrow(content: pa.Array) -> tuple[Array, Array, pa.LargeStringArray]:
    """(M,) contents -> offsets of the parts (M + 1,), their kinds (P,) and texts (P,)"""
    kind = content.type
    if is_text(kind):
        texts = content.cast(pa.large_string())
        return np.arange(len(content) + 1, dtype=np.int64), np.full(len(content), TEXT, np.uint8), texts
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        parts = content.flatten()
        lengths = pc.fill_null(pc.list_value_length(content), 0).to_numpy(zero_copy_only=False)
        texts = pc.struct_field(parts, "text").cast(pa.large_string())
        return offsets(lengths), codes(pc.struct_field(parts, "type"), KINDS), texts
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
    num_messages = np.zeros(len(objects), dtype=np.int64)
    reasons = np.zeros(len(objects), dtype=np.uint8)
    for i, value in enumerate(objects):
        try:
            listed = _messages(value)
            messages = [_message(message) for message in listed]
            trained += [_trains(message) for message in listed] if flags else ()
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


def _trains(message: dict[str, Any]) -> bool:
    flag = flag_of(message)
    if flag is None:
        return True
    if not isinstance(flag, int | float) or flag not in (0, 1):
        raise ValueError(NOT_A_FLAG)
    return bool(flag)


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
    """The text, unless UTF-8 cannot hold it: JSON may spell lone surrogates"""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode") from None
    return text
