"""
Which layout rows have, from the fields of the first of them; those of none are refused, with a row as an example.

    {"instruction": "Add.", "input": "2 and 3", "output": "5"}     ->     alpaca

A row that cannot be parsed has no say, and where rows differ the most common layout wins: the others are rejected one by
one, with a reason, when they are rendered.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa

from prep.conversations.layouts import REQUIRED, Layout, renamed, rows_of, show_row

FIRST_ROWS = 100  # that a layout is recognised from
SHOWN_CHARACTERS = 200


def recognise(rows: pa.Table, where: object, wanted: Layout, name: str | None) -> Layout:
    """
    The layout of the first rows: `wanted` with its name found, or the one that is asked for by name. ValueError with a
    row, where the fields are those of none.
    """
    objects = [row for row in rows_of(rows) if not isinstance(row, str)]
    fields = Counter(field for row in objects if isinstance(row, dict) for field in row)
    check_columns(objects, where, wanted)
    found = Counter(_named(renamed(row, wanted)) for row in objects)
    found.pop("", None)
    example = show_row(rows.slice(0, 1), SHOWN_CHARACTERS) if len(rows) else "{}"
    rows_in_row = (
        bool(objects) and isinstance(objects[0], list) and any(_named(renamed(one, wanted)) for one in objects[0])
    )
    if rows_in_row or example in ("[", "[{"):
        raise ValueError(f"{where} is one JSON array of rows, wanted an object a line: jq -c '.[]' makes them.")
    if not objects:
        raise ValueError(
            f"{where}: its first rows cannot be read, as {example}; wanted JSON in UTF-8, an object a line."
        )
    if name is not None and (name in found or _has(objects, wanted, name)):
        return replace(wanted, name=name)
    if name is None and found:
        best = found.most_common(1)[0][0]
        if best == "messages" and any(_has_tools(renamed(row, wanted), wanted) for row in objects):
            best = "tools"
        if best == "conversations":  # messages under ShareGPT's name
            best, wanted = "messages", replace(wanted, columns=(*wanted.columns, ("conversations", "messages")))
        return replace(wanted, name=best)
    raise ValueError(
        f"{where}: its first rows have the fields {list(fields)}, as in {example}; wanted "
        + (f"{' and '.join(REQUIRED[name])} of the layout {name}" if name else "; or ".join(
            f"{' and '.join(some)} ({layout})" for layout, some in REQUIRED.items() if layout != "tools"))
        + '. Name them with columns = { theirs = "ours" }.'
    )  # fmt: skip


def check_columns(objects: list[Any], where: object, layout: Layout) -> None:
    """ValueError for a column to be renamed that no row has, neither in itself nor in its messages"""
    names: set[str] = set()
    for row in objects:
        for value in [row, *(row.values() if isinstance(row, dict) else ())]:
            for one in value if isinstance(value, list) else [value]:
                names |= set(one) if isinstance(one, dict) else set()
    for theirs, _ in layout.columns:
        if theirs not in names:
            raise ValueError(
                f"{where}: columns names {theirs!r}, its first rows have {sorted(names)}: correct the name."
            )


def _named(row: Any) -> str:
    """The layout of one row, "" if none"""
    if isinstance(row, list):
        return "messages"
    if not isinstance(row, dict):
        return ""
    talk = row.get("conversations")
    if isinstance(talk, list) and talk and isinstance(talk[0], dict) and "role" in talk[0] and "messages" not in row:
        return "conversations"
    return next((name for name, needed in REQUIRED.items() if name != "tools" and set(needed) <= row.keys()), "")


def _has(objects: list[Any], layout: Layout, name: str) -> bool:
    rows = (renamed(row, layout) for row in objects)
    return any(
        isinstance(row, list) or set(REQUIRED[name]) <= row.keys() for row in rows if isinstance(row, list | dict)
    )


def _has_tools(row: Any, layout: Layout) -> bool:
    talk = row.get("messages") if isinstance(row, dict) else row
    talk = [message for message in talk if isinstance(message, dict)] if isinstance(talk, list) else []
    roles = dict(layout.roles)
    return any(
        "tool_calls" in message or roles.get(str(message.get("role")), message.get("role")) == "tool"
        for message in talk
    )
