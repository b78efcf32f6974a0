"""
Rows of your own data, in any layout, to conversations: the door of this folder.

    layout messages, columns of strings and lists of structs     columns, no string is touched
    lines of JSON, calls, history, anything else                 row by row, prep.conversations.objects

Both say in `notes` what they met and did not read. Legend: C conversations.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array
from prep.conversations import messages, turns
from prep.conversations.conversation import DOCUMENT, TEXT, Conversations, Notes, mark, reject
from prep.conversations.layouts import ASIDE, DECIDE, SYSTEM_FIELDS, Layout
from prep.conversations.objects import RowReader, of_lines, of_objects
from prep.conversations.rows import is_lines, plain_rows


def conversations(rows: pa.Table, layout: Layout) -> Conversations:
    """C rows, columns or lines of JSON in a column `line`, -> C conversations"""
    batch = None
    if "line" not in rows.column_names or layout.source_name(layout.table.needs[0]) in rows.column_names:
        batch = _of_columns(rows, layout)
    if batch is None and is_lines(rows) and not layout.where:
        return of_lines(rows["line"].to_pylist(), layout)
    objects = None if batch is not None else plain_rows(rows)
    if batch is None:
        assert objects is not None
        batch = of_objects(objects, layout)
    return batch if not layout.where else _filtered(batch, rows, objects, layout)


def _filtered(batch: Conversations, rows: pa.Table, objects: list[Any] | None, layout: Layout) -> Conversations:
    """The batch with the rows left out whose fields have other values than `where` says"""
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
    aside = {name: len(filled[name]) - filled[name].null_count for name in others - set(table.also)}
    shadowed = {name: len(rows) - rows[name].null_count for name in rows.column_names
                if name not in named and name not in layout.renames}  # fmt: skip
    left_aside = Counter(batch.notes.left_aside) + Counter(aside) + Counter(shadowed)
    return replace(batch, choices=layout.choices, notes=Notes(dict(left_aside)))


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
