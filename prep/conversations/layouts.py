"""
Layouts of your own conversations, and what each means. prep.conversations.recognise tells them by their fields.

    messages     messages: [{role, content}]                   or the array alone, or the same under `conversations`
    tools        the same with tool_calls and messages of the role tool (prep.conversations.tool_calls)
    sharegpt     conversations: [{from, value}], system        from human and gpt
    alpaca       instruction, input, output, system            the user says instruction and input
    completion   prompt, completion, system                    strings, or lists of messages

Columns of strings, and lists of structs of them, stay columns; lines of JSON, and tool calls, are read row by row.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.conversations import messages, turns
from prep.conversations import tool_calls as tools
from prep.conversations.conversation import TEXT, Conversations, reject

REQUIRED = {
    "messages": ("messages",),
    "tools": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "completion": ("prompt", "completion"),
}
OPTIONAL = {"sharegpt": ("system",), "alpaca": ("input", "system"), "completion": ("system",)}
MESSAGE_FIELDS = {"role", "content", "from", "value", *messages.FLAGS, "tool_calls", "tool_call_id"}
UNUSED = "unused"  # canonical name of a field that is not to be read
TEXT_LAYOUTS = ("alpaca", "completion")  # a prompt and a reply, not a list of messages


@dataclass(frozen=True)
class Layout:
    """
    How rows are read; all of it is part of the cache keys. `columns` and `roles` are pairs of a source name, which the data
    has, and a canonical name, which midprep has.
    """

    name: str = "messages"
    columns: tuple[tuple[str, str], ...] = ()
    roles: tuple[tuple[str, str], ...] = ()
    train_on: str = "all"
    consecutive: str = "reject"
    tools: str = "parts"

    def source_name(self, canonical: str) -> str:
        return next((source for source, name in self.columns if name == canonical), canonical)

    def canonical_name(self, source: str) -> str:
        return dict(self.columns).get(source, source)

    @property
    def flags(self) -> list[str]:
        """Source names of the fields of a message that say whether it trains"""
        sources = [(self.source_name(name), name) for name in messages.FLAGS]
        return [source for source, name in sources if self.canonical_name(source) == name]

    def describe(self) -> dict[str, Any]:
        """Its keys in the manifest"""
        return {
            "layout": self.name,
            "columns": dict(self.columns),
            "roles": dict(self.roles),
            "train_on": self.train_on,
            "consecutive": self.consecutive,
            **({"tools": self.tools} if self.name == "tools" else {}),
        }

    @cached_property
    def role_map(self) -> dict[str, str]:
        """Source name of a role -> canonical name"""
        more = {"tools": {"tool": "tool"}, "sharegpt": {"human": "user", "gpt": "assistant"}}
        return messages.CANONICAL_ROLES | more.get(self.name, {}) | dict(self.roles)


def columns_of(layout: Layout, names: list[str]) -> list[str]:
    """Those of the names of columns, or of fields of lines, that a layout reads"""
    read = [layout.source_name(name) for name in (*REQUIRED[layout.name], *OPTIONAL.get(layout.name, ()))]
    return [name for name in read if name in names]


def conversations(rows: pa.Table, layout: Layout) -> Conversations:
    """C rows, columns or lines of JSON in a column `line`, -> C conversations"""
    if "line" not in rows.column_names or layout.source_name(REQUIRED[layout.name][0]) in rows.column_names:
        rows = rows.select([name for name in rows.column_names if _is_read(name, layout)])
        rows = rows.rename_columns([layout.canonical_name(name) for name in rows.column_names])
        if layout.name != "tools" and (batch := _of_columns(rows, layout)) is not None:
            return batch
    objects = rows_of(rows)
    if layout.name != "messages" or layout.columns or layout.roles:
        objects = [_row(row, layout) for row in objects]
    return messages.of_objects(objects, flags=True)


def _of_columns(rows: pa.Table, layout: Layout) -> Conversations | None:
    """The conversations of columns of strings and lists of structs; None where a column is neither"""
    needed = REQUIRED[layout.name]
    if missing := [name for name in needed if name not in rows.column_names]:
        raise ValueError(f"columns are {rows.column_names}, wanted one named {' and one named '.join(missing)}")
    if layout.name in ("messages", "sharegpt"):
        names = ("from", "value") if layout.name == "sharegpt" else ("role", "content")
        fields = (layout.source_name(names[0]), layout.source_name(names[1]))
        batch = messages.of_arrow(rows[needed[0]], fields, layout.role_map, layout.flags)
    else:
        if not all(_is_text(rows[name].type) for name in needed):
            return None
        prompt, reply = (_large(rows[name]) for name in needed)
        missing_text = np.asarray(pc.or_(pc.is_null(prompt), pc.is_null(reply)))
        prompt, reply = pc.fill_null(prompt, ""), pc.fill_null(reply, "")
        if layout.name == "alpaca" and "input" in rows.column_names:
            more = pc.fill_null(_large(rows["input"]), "")
            both = pc.binary_join_element_wise(prompt, more, pa.scalar("\n\n", pa.large_string()))
            prompt = pc.if_else(pc.equal(pc.binary_length(more), 0), prompt, both)
        batch = reject(Conversations.of_turns([prompt, reply], [TEXT, TEXT], [1, 1]), missing_text, "missing field")
    if "system" in OPTIONAL.get(layout.name, ()) and "system" in rows.column_names:
        return turns.prepend_system(batch, _large(rows["system"]))
    return batch


def _is_text(kind: pa.DataType) -> bool:
    return messages.is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _large(column: pa.ChunkedArray) -> pa.LargeStringArray:
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.large_string())
    if not _is_text(column.type):
        raise ValueError(f"a column is {column.type}, wanted strings")
    array = column.combine_chunks()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return (array.dictionary_decode() if pa.types.is_dictionary(array.type) else array).cast(pa.large_string())


def rows_of(rows: pa.Table) -> list[Any]:
    """C rows as Python values; a str is the reason why a row cannot be read"""
    if "line" in rows.column_names and len(rows.column_names) == 1:
        return [messages.parse(line) for line in rows["line"].to_pylist()]
    try:
        return list(rows.to_pylist())
    except UnicodeDecodeError:  # columns of strings may hold any bytes: find the rows that do
        halves = [rows.slice(0, len(rows) // 2), rows.slice(len(rows) // 2)]
        return ["not valid Unicode"] if len(rows) == 1 else [row for half in halves for row in rows_of(half)]


def show_row(row: pa.Table, longest: int) -> str:
    """A table of one row as a line of text of at most `longest` characters"""
    try:
        fields = row.to_pylist()[0]
    except UnicodeDecodeError:
        return "(not valid Unicode)"
    value = fields.get("line", fields)
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else json.dumps(value, default=str)
    return text.strip()[:longest]


def _row(row: Any, layout: Layout) -> Any:
    """One row -> a list of messages as messages.of_objects takes them, or the reason why not"""
    row = renamed(row, layout)
    if not isinstance(row, dict | list):
        return row
    if isinstance(row, dict):
        if any(row.get(name) is None for name in REQUIRED[layout.name]):
            return "missing field"
        listed = _turns(row, layout.name) if layout.name in TEXT_LAYOUTS else row[REQUIRED[layout.name][0]]
        if not isinstance(listed, list):
            return "messages are no list"
        if "system" in OPTIONAL.get(layout.name, ()) and row.get("system"):
            listed = [{"role": "system", "content": row["system"]}, *listed]
    else:
        listed = row
    listed = [_message(message, layout) for message in listed]
    if layout.name != "tools":
        return listed
    try:
        return tools.as_parts(listed) if layout.tools == "parts" else tools.as_text(listed)
    except ValueError as error:
        return str(error)


def _turns(row: dict[str, Any], name: str) -> list[Any]:
    """A row of alpaca or completion -> messages"""
    prompt, reply = (row[field] for field in REQUIRED[name])
    if name == "alpaca" and row.get("input") and isinstance(prompt, str):
        prompt = f"{prompt}\n\n{row['input']}" if isinstance(row["input"], str) else row["input"]
    first = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    return [*first, *(reply if isinstance(reply, list) else [{"role": "assistant", "content": reply}])]


def _message(message: Any, layout: Layout) -> Any:
    if not isinstance(message, dict):
        return message
    message = renamed(message, layout)
    if layout.name == "sharegpt":
        message = {{"from": "role", "value": "content"}.get(key, key): value for key, value in message.items()}
    role = message.get("role")
    roles = layout.role_map
    return {**message, "role": roles.get(role, role)} if isinstance(role, str) else message


def renamed(row: Any, layout: Layout) -> Any:
    """A row or message with canonical names of its fields"""
    if not layout.columns or not isinstance(row, dict):
        return row
    return {layout.canonical_name(key): value for key, value in row.items() if _is_read(key, layout)}


def _is_read(name: str, layout: Layout) -> bool:
    """Whether a field is read: not where another field is renamed to its name"""
    return name in dict(layout.columns) or name not in dict(layout.columns).values()
