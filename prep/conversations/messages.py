"""
From a column of messages to the columnar batch, without touching a string.

    list<struct<role: string, content: string, loss: bool>>     or content: list<struct<type: string, text: string>>

What is not as plain as that (calls, reasoning, other contents) is read row by row, by prep.conversations.objects: the same
rules, and the same reasons; a test holds them against each other.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import text_array
from prep.conversations.conversation import CONTENT_KINDS, CONTEXT, FLAGGED, ROLES, TEXT, TRAINS, Conversations, mark
from prep.conversations.layouts import DECIDE, TURN_FIELDS, UNUSED, Layout
from prep.conversations.values import NOT_A_FLAG

UNKNOWN = 255  # code of a role or kind that is not known, until the conversation is rejected


def is_plain(column: pa.ChunkedArray, layout: Layout) -> bool:
    """Whether `of_arrow` reads a column of messages: nothing but roles, texts, flags and what is not read at all"""
    if not _is_list_of_structs(column.type):
        return False
    fields = {field.name: field.type for field in column.type.value_type}
    role, content = (layout.source_name(name) for name in layout.table.shape)
    if role not in fields or content not in fields or not (_is_role(fields[role]) and _is_content(fields[content])):
        return False
    others = {layout.source_name(name) for name in (*TURN_FIELDS, *DECIDE)} - {role, content, *layout.flags}
    if not (others := others & fields.keys()):
        return True
    messages = pc.list_flatten(column)
    return all(pc.struct_field(messages, name).null_count == len(messages) for name in others)


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_list_of_structs(kind: pa.DataType) -> bool:
    return is_list(kind) and pa.types.is_struct(kind.value_type)


def _is_role(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _is_content(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return {field.name for field in kind.value_type} == {"type", "text"}
    return is_text(kind)


def of_arrow(column: pa.ChunkedArray, layout: Layout = Layout()) -> Conversations:
    """
    (C,) list<struct<role: string, content: string or list<struct<type, text>>>> -> C conversations. ValueError for a column
    of another type.
    """
    fields = tuple(layout.source_name(name) for name in layout.table.shape)
    rows = column.combine_chunks()
    if not _is_list_of_structs(rows.type):
        raise ValueError(f"messages are {rows.type}, wanted a list of structs with {' and '.join(fields)}.")
    names = {field.name for field in rows.type.value_type}
    if not set(fields) <= names:
        raise ValueError(f"messages have the fields {sorted(names)}, wanted {' and '.join(fields)}.")
    messages = rows.flatten()
    role, content = (_decoded(pc.struct_field(messages, field)) for field in fields)
    role_codes = _role_codes(role, layout)
    parts, kinds, texts = _parts_of_arrow(content)
    flags = [pc.struct_field(messages, name) for name in layout.flags if name in names]
    trained, not_a_flag, disagree = _flags(flags, len(messages))
    bounds = _bounds(rows)
    problems = (  # (M,) bool; the first reason stays
        (not_a_flag, NOT_A_FLAG),
        (disagree, "train flags disagree"),
        (_is_null(role), "missing field"),
        (role_codes == UNKNOWN, "unknown role"),
        (_is_null(content), "content is not text"),
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
        trained=None if (trained == TRAINS).all() else trained,
        choices=layout.choices,
    )


def left_aside(column: pa.ChunkedArray, layout: Layout, is_valid: Array) -> dict[str, int]:
    """Fields of messages that are not read, and how many of the rows where `is_valid` (C,) have a value in them"""
    rows = column.combine_chunks()
    messages, bounds = rows.flatten(), _bounds(rows)
    counts = {}
    for field in messages.type:
        name = layout.canonical_name(field.name) or field.name
        is_shadowed = name in layout.renames.values() and field.name not in layout.renames
        if is_shadowed or (name not in TURN_FIELDS and layout.renames.get(field.name) != UNUSED):
            has_value = _any_in(~_is_null(pc.struct_field(messages, field.name)), bounds)
            counts[f"{name} of messages"] = int((has_value & is_valid).sum())
    return {name: number for name, number in sorted(counts.items()) if number}


def _bounds(lists: pa.Array) -> Array:
    """(n,) lists -> (n + 1,) offsets into their values"""
    return offsets(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False))


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


def _role_codes(names: pa.Array, layout: Layout) -> Array:
    """(M,) names of roles -> (M,) uint8 places in ROLES, UNKNOWN where there is none"""
    encoded = names.dictionary_encode()
    names_as_bytes = encoded.dictionary.cast(pa.large_binary()).to_pylist()  # columns of strings may hold any bytes
    roles = [layout.role_of(name.decode("utf-8", "replace")) for name in names_as_bytes]
    table = np.array([*(ROLES.index(role) if role in ROLES else UNKNOWN for role in roles), UNKNOWN], dtype=np.uint8)
    codes: Array = table[pc.fill_null(encoded.indices, len(roles)).to_numpy(zero_copy_only=False)]
    return codes


def _kind_codes(names: pa.Array) -> Array:
    """(P,) types of parts -> (P,) uint8 places in KINDS, UNKNOWN where there is none; without a type it is text"""
    names = pc.fill_null(_decoded(names), "text")
    places = pc.index_in(names, value_set=text_array(CONTENT_KINDS).cast(names.type))
    out: Array = pc.fill_null(places, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.uint8)
    return out


def _flags(columns: list[pa.Array], num_messages: int) -> tuple[Array, Array, Array]:
    """Columns (M,) of flags -> (M,) CONTEXT, TRAINS or FLAGGED; bool: has what is no flag; bool: has flags that disagree"""
    trained = np.full(num_messages, TRAINS, dtype=np.uint8)
    wrong, disagree = np.zeros(num_messages, dtype=bool), np.zeros(num_messages, dtype=bool)
    for column in columns:
        kind = column.type
        given = ~_is_null(column)
        if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            wrong |= given
            continue
        values = pc.fill_null(column.cast(pa.float64()), 1.0).to_numpy(zero_copy_only=False)
        wrong |= given & (values != 0) & (values != 1)
        flags = np.where(values != 0, FLAGGED, CONTEXT)
        disagree |= given & (trained != TRAINS) & (trained != flags)
        trained[given] = flags[given]
    return trained, wrong, disagree & ~wrong


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
        texts = pc.struct_field(parts, "text").cast(pa.large_string())
        return _bounds(content), _kind_codes(pc.struct_field(parts, "type")), texts
    raise ValueError(f"content of messages is {kind}, wanted strings or lists of parts with type and text")
