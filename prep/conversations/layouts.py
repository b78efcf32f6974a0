"""
Layouts of conversations of one's own, and what each means. prep.conversations.recognise tells them by their fields.

    messages     messages: [{role, content}]                   or the array alone, or `conversations` with such in it
    tools        the same with tool_calls and messages of the role tool (prep.conversations.tool_calls)
    sharegpt     conversations: [{from, value}], system        from human and gpt
    alpaca       instruction, input, output, system            the user says instruction and input
    completion   prompt, completion, system                    strings, or lists of messages

Columns of strings, and lists of structs of them, stay columns; lines of JSON, and what holds tool calls, go row by row.
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
from prep.conversations.conversation import ROLES, TEXT, Conversations, reject

REQUIRED = {
    "messages": ("messages",),
    "tools": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "completion": ("prompt", "completion"),
}
OPTIONAL = {
    "messages": (),
    "tools": (),
    "sharegpt": ("system",),
    "alpaca": ("input", "system"),
    "completion": ("system",),
}
MESSAGE_FIELDS = {"role", "content", "from", "value", *messages.FLAGS, "tool_calls", "tool_call_id"}
UNUSED = "unused"  # our name for a field that is to be left aside
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """How rows are read: all of it is in the identity of what they give. `columns` and `roles` are (theirs, ours)."""

    name: str = "messages"
    columns: tuple[tuple[str, str], ...] = ()
    roles: tuple[tuple[str, str], ...] = ()
    train_on: str = "all"
    consecutive: str = "reject"
    tools: str = "parts"

    def theirs(self, ours: str) -> str:
        """The data's name of a field"""
        return next((theirs for theirs, name in self.columns if name == ours), ours)

    def ours(self, theirs: str) -> str:
        """Our name of a field of the data"""
        return dict(self.columns).get(theirs, theirs)

    @property
    def flags(self) -> list[str]:
        """The data's names of the fields of a message that say whether it trains"""
        return [theirs for name in messages.FLAGS if self.ours(theirs := self.theirs(name)) == name]

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it"""
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
        own = {role: role for role in (*ROLES, "tool")} if self.name == "tools" else messages.OURS
        return own | (SHAREGPT_ROLES if self.name == "sharegpt" else {}) | dict(self.roles)


def columns_of(layout: Layout, names: list[str]) -> list[str]:
    """Those of the names of columns, or of fields of lines, that a layout reads"""
    read = [layout.theirs(name) for name in (*REQUIRED[layout.name], *OPTIONAL[layout.name])]
    return [name for name in read if name in names]


def conversations(rows: pa.Table, layout: Layout) -> Conversations:
    """C rows, columns or lines of JSON in a column `line`, -> C conversations"""
    if "line" not in rows.column_names or layout.theirs(REQUIRED[layout.name][0]) in rows.column_names:
        ours = dict(layout.columns)
        rows = rows.select([name for name in rows.column_names if name in ours or name not in ours.values()])
        rows = rows.rename_columns([ours.get(name, name) for name in rows.column_names])
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
        fields = (layout.theirs(names[0]), layout.theirs(names[1]))
        batch = messages.of_arrow(rows[needed[0]], fields, layout.role_map, layout.flags)
    else:
        if not all(_is_text(rows[name].type) for name in needed):
            return None
        asked, answered = (_large(rows[name]) for name in needed)
        missing_text = np.asarray(pc.or_(pc.is_null(asked), pc.is_null(answered)))
        asked, answered = pc.fill_null(asked, ""), pc.fill_null(answered, "")
        if layout.name == "alpaca" and "input" in rows.column_names:
            more = pc.fill_null(_large(rows["input"]), "")
            both = pc.binary_join_element_wise(asked, more, pa.scalar("\n\n", pa.large_string()))
            asked = pc.if_else(pc.equal(pc.binary_length(more), 0), asked, both)
        batch = reject(Conversations.of_turns([asked, answered], [TEXT, TEXT], [1, 1]), missing_text, "missing field")
    system = "system" in OPTIONAL[layout.name] and "system" in rows.column_names
    return turns.lead(batch, _large(rows["system"])) if system else batch


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _large(column: pa.ChunkedArray) -> pa.LargeStringArray:
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.large_string())
    if not _is_text(column.type):
        raise ValueError(f"a column is {column.type}, wanted strings")
    array = column.combine_chunks()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return (array.dictionary_decode() if pa.types.is_dictionary(array.type) else array).cast(pa.large_string())


def rows_of(rows: pa.Table) -> list[Any]:
    """C rows as Python values; a str is the reason why one is none"""
    if "line" in rows.column_names and len(rows.column_names) == 1:
        return [messages.parse(line) for line in rows["line"].to_pylist()]
    try:
        return list(rows.to_pylist())
    except UnicodeDecodeError:  # columns of strings may hold any bytes: find the rows that do
        halves = [rows.slice(0, len(rows) // 2), rows.slice(len(rows) // 2)]
        return ["not valid Unicode"] if len(rows) == 1 else [row for half in halves for row in rows_of(half)]


def show_row(row: pa.Table, longest: int) -> str:
    """A table of one row as a line of text of at most so many characters"""
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
        if layout.name in ("alpaca", "completion"):
            talk = _turns(row, layout.name)
        else:
            talk = row[REQUIRED[layout.name][0]]
        if not isinstance(talk, list):
            return "messages are no list"
        if "system" in OPTIONAL[layout.name] and row.get("system"):
            talk = [{"role": "system", "content": row["system"]}, *talk]
    else:
        talk = row
    talk = [_message(message, layout) for message in talk]
    try:
        if layout.name == "tools":
            return tools.as_parts(talk) if layout.tools == "parts" else tools.as_text(talk)
    except ValueError as error:
        return str(error)
    return talk


def _turns(row: Row, name: str) -> list[Any]:
    """Alpaca's or prompt and completion -> messages"""
    asked, answered = (row[field] for field in REQUIRED[name])
    if name == "alpaca" and row.get("input") and isinstance(asked, str):
        asked = f"{asked}\n\n{row['input']}" if isinstance(row["input"], str) else row["input"]
    first = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    return [*first, *(answered if isinstance(answered, list) else [{"role": "assistant", "content": answered}])]


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
    """A row or message with our names for its fields"""
    if not layout.columns or not isinstance(row, dict):
        return row
    ours = dict(layout.columns)
    return {ours.get(key, key): value for key, value in row.items() if key in ours or key not in ours.values()}
