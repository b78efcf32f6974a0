"""
Rows of your own data, in any layout, to conversations: the door of this folder.

    layout messages, columns of strings and lists of structs     columns, no string is touched
    lines of JSON in which that is all                           parsed into such columns
    calls, history, anything else                                row by row, prep.conversations.objects

Both say in `notes` what they met and did not read. Legend: C conversations.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import text_array
from prep.conversations import messages, turns
from prep.conversations.conversation import DOCUMENT, REASON, TEXT, TRAINS, Conversations, Notes, mark, reject
from prep.conversations.layouts import ASIDE, DECIDE, SYSTEM_FIELDS, Layout
from prep.conversations.objects import RowReader
from prep.conversations.rows import columns_of, is_lines, plain_rows, rows_of


def conversations(rows: pa.Table, layout: Layout) -> Conversations:
    """C rows, columns or lines of JSON in a column `line`, -> C conversations"""
    if is_lines(rows) and layout.source_name(layout.table.needs[0]) != "line":
        return _of_lines(rows, layout)
    if (batch := _of_columns(rows, layout)) is not None:
        return _filtered(batch, rows, None, layout)
    objects = plain_rows(rows)
    return _filtered(of_objects(objects, layout), rows, objects, layout)


def _of_lines(rows: pa.Table, layout: Layout) -> Conversations:
    """C lines of JSON, as columns where those tell all of them"""
    table = None if layout.where else columns_of(rows["line"].combine_chunks())
    if table is not None and _is_whole(table, layout) and (batch := _of_columns(table, layout)) is not None:
        return batch
    objects = rows_of(rows)
    return _filtered(of_objects(objects, layout), rows, objects, layout)


def _is_whole(table: pa.Table, layout: Layout) -> bool:
    """Whether turns are lists, and nothing that a row needs is null: a column does not tell that from what is not there"""
    turns = layout.source_name(layout.table.turns)
    if turns in table.column_names and not messages.is_list(table[turns].type):
        return False
    shape = {layout.source_name(name) for name in layout.table.shape}
    needs = [layout.source_name(name) for name in layout.table.needs]
    return all(name in table.column_names and _has_no_null(table[name].combine_chunks(), shape) for name in needs)


def _has_no_null(column: pa.Array, names: set[str]) -> bool:
    """Whether a column has no null, in lists and in those fields of structs either, which are all fields of structs in them"""
    if column.null_count:
        return False
    if messages.is_list(column.type):
        return _has_no_null(column.flatten(), names)
    if pa.types.is_struct(column.type):
        fields = [field.name for field in column.type if not names or field.name in names]
        return all(_has_no_null(column.field(name), set()) for name in fields)
    return True


def _filtered(batch: Conversations, rows: pa.Table, objects: list[Any] | None, layout: Layout) -> Conversations:
    """The batch without the rows whose fields have other values than `where` says, which are counted as left out"""
    if not layout.where:
        return batch
    keep = np.ones(len(batch), dtype=bool)
    for name, values in layout.where:
        if objects is not None:
            given = [row.get(name) if isinstance(row, dict) else None for row in objects]
        else:
            given = rows[name].to_pylist() if name in rows.column_names else [None] * len(rows)
        keep &= np.array([any(_same(value, each) for each in values) for value in given], dtype=bool)
    reasons = np.where(keep, batch.reasons, 0).astype(np.uint8)
    mark(reasons, ~keep, "left out by where")
    return replace(batch, reasons=reasons)


def _same(value: Any, wanted: Any) -> bool:
    """Equal, where true is not 1"""
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


# ---- one by one ----


def of_objects(objects: list[Any], layout: Layout = Layout()) -> Conversations:
    """C parsed values -> C conversations. A value that is a `str` here is a reason: the row could not be parsed."""
    columns = _Columns(layout)
    for value in objects:
        columns.add(value)
    return columns.conversations()


class _Columns:
    """The columns of a batch, as they grow row by row"""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.reader = layout, RowReader(layout)
        self.texts: list[str] = []
        self.kinds, self.roles = bytearray(), bytearray()
        self.num_parts: list[int] = []
        self.trained = bytearray()
        self.num_turns: list[int] = []
        self.reasons = bytearray()
        self.tools: list[str | None] = []

    def add(self, value: Any) -> None:
        """Any row"""
        reason = 0
        try:
            turns = self.reader.read(value)
        except ValueError as error:
            reason, turns = REASON[error.args[0]], []
        self.reasons.append(reason)
        self.num_turns.append(len(turns))
        for role, flag, parts in turns:
            self.roles.append(role)
            self.trained.append(flag)
            self.num_parts.append(len(parts))
            for kind, text in parts:
                self.kinds.append(kind)
                self.texts.append(text)
        self.tools.append(self.reader.tools)

    def conversations(self) -> Conversations:
        return Conversations(
            texts=text_array(self.texts),
            kinds=np.frombuffer(self.kinds, dtype=np.uint8),
            parts=offsets(np.array(self.num_parts, dtype=np.int64)),
            roles=np.frombuffer(self.roles, dtype=np.uint8),
            messages=offsets(np.array(self.num_turns, dtype=np.int64)),
            reasons=np.array(self.reasons, dtype=np.uint8),
            trained=None
            if self.trained.count(TRAINS) == len(self.trained)
            else np.frombuffer(self.trained, dtype=np.uint8),
            tools=_tools(self.tools),
            choices=self.layout.choices,
            notes=Notes(dict(self.reader.aside), tuple(self.reader.refused)),
        )


def _tools(tools: list[str | None]) -> pa.LargeStringArray | None:
    """(C,) JSON of the tools of each row; None where no row has any"""
    if all(each is None for each in tools):
        return None
    return pa.chunked_array([tools], pa.large_string()).combine_chunks()


# ---- columns ----


def _of_columns(rows: pa.Table, layout: Layout) -> Conversations | None:
    """The conversations of plain columns; None where rows have to be read one by one"""
    table = layout.table
    named = {name: canonical for name in rows.column_names if (canonical := layout.canonical_name(name))}
    columns = {canonical: rows[name] for name, canonical in named.items()}
    if any(name not in columns or pa.types.is_null(columns[name].type) for name in table.needs):
        return None  # a file without what the first one has: its rows are rejected, as they are in JSON lines
    filled = {name: column for name, column in columns.items() if column.null_count < len(column)}
    decided = {name for name, _ in layout.where}
    others = filled.keys() - {*table.needs, *decided}
    if others & {"history", *ASIDE, *DECIDE, *SYSTEM_FIELDS[1:]}:
        return None
    if table.turns and not messages.is_list(columns[table.turns].type):
        raise ValueError(
            f"{table.turns} are {columns[table.turns].type}, wanted a list of structs with {' and '.join(table.shape)}."
        )
    if table.shape:
        if table.shape[1] == "parts" or not messages.is_plain(columns[table.turns], layout):
            return None
        batch = messages.of_arrow(columns[table.turns], layout)
        if (batch.roles == messages.UNKNOWN).any():  # one of them may be a call
            return None
    elif table.says and all(_is_text(columns[name].type) for name in (*table.asks, table.says) if name in columns):
        batch = _of_texts(columns, layout)
    else:
        return None
    if "system" in others & set(table.also):
        if not _is_text(filled["system"].type):
            return None
        batch = _with_system(batch, _large(filled["system"]))
    unread = {name: filled[name] for name in others - set(table.also)}
    shadowed = {name: rows[name] for name in rows.column_names if name not in named and name not in layout.renames}
    is_valid = batch.reasons == 0
    left_aside = Counter(messages.left_aside(columns[table.turns], layout, is_valid) if table.turns else {})
    for name, column in (*unread.items(), *shadowed.items()):
        left_aside[name] += int((~_nulls(column) & is_valid).sum())
    return replace(batch, choices=layout.choices, notes=Notes(dict(+left_aside)))


def _of_texts(columns: dict[str, pa.ChunkedArray], layout: Layout) -> Conversations:
    """A prompt and a reply"""
    table = layout.table
    missing = np.logical_or.reduce([_nulls(columns[name]) for name in table.needs])
    asked = [pc.fill_null(_large(columns[name]), "") for name in table.asks if name in columns]
    reply = pc.fill_null(_large(columns[table.says]), "")
    if layout.name == "text":
        batch = Conversations.of_turns([reply], [TEXT], [1])
        documents = replace(batch, roles=np.full(len(batch), DOCUMENT, np.uint8))
        return reject(reject(documents, missing, "missing field"), np.asarray(_is_empty(reply)), "no messages")
    prompt = asked[0]
    for more in asked[1:]:
        both = pc.binary_join_element_wise(prompt, more, pa.scalar("\n\n", pa.large_string()))
        prompt = pc.if_else(_is_empty(more), prompt, pc.if_else(_is_empty(prompt), more, both))
    return reject(Conversations.of_turns([prompt, reply], [TEXT, TEXT], [1, 1]), missing, "missing field")


def _with_system(batch: Conversations, systems: pa.LargeStringArray) -> Conversations:
    """The batch with system messages in front; two of them in one row are one too many"""
    given = ~np.asarray(pc.fill_null(_is_empty(systems), True))
    leads = np.zeros(len(batch), dtype=bool)
    has_turns = np.diff(batch.messages) > 0
    leads[has_turns] = batch.roles[batch.messages[:-1][has_turns]] == 0
    return turns.prepend_system(reject(batch, given & leads, "roles out of turn"), systems)


def _is_empty(texts: pa.Array) -> pa.Array:
    return pc.equal(pc.binary_length(texts), 0)


def _nulls(column: pa.ChunkedArray) -> Array:
    return np.asarray(column.is_null())


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or messages.is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _large(column: pa.ChunkedArray) -> pa.LargeStringArray:
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.large_string())
    array = column.combine_chunks()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return (array.dictionary_decode() if pa.types.is_dictionary(array.type) else array).cast(pa.large_string())


# ---- why ----


def explain(row: pa.Table, layout: Layout) -> str:
    """The culprit and the way on where a table of one row is no conversation; "" where its reason says it all"""
    (value,) = plain_rows(row)
    try:
        RowReader(layout).read(value)
    except ValueError as error:
        return str(error.args[1]) if len(error.args) > 1 else ""
    return ""
