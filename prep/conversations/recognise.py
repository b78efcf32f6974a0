"""
Which layout rows have, by the fields of the first of them. Rows that match none are refused, with a row as an example.

    {"instruction": "Add.", "input": "2 and 3", "output": "5"}     ->     alpaca

Rows that cannot be parsed are not counted. Where rows differ, the most common layout wins: the others are rejected one by
one, with a reason, when they are rendered.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa

from prep.conversations.layouts import REQUIRED, Layout, renamed, rows_of, show_row

FIRST_ROWS = 100  # that a layout is recognised from
SHOWN_CHARACTERS = 200


def recognise(rows: pa.Table, where: object, given: Layout, name: str | None) -> Layout:
    """
    `given` with the name of the layout of the first rows, or with `name` if rows fit it. ValueError, with a row of
    `where`, if they fit none.
    """
    objects = [row for row in rows_of(rows) if not isinstance(row, str)]
    check_columns(objects, where, given)
    canonical = [renamed(row, given) for row in objects]
    layouts = Counter(layout for row in canonical if (layout := _layout_of(row)))
    example = show_row(rows.slice(0, 1), SHOWN_CHARACTERS) if len(rows) else "{}"
    if _is_array_of_rows(objects, given) or example in ("[", "[{"):
        raise ValueError(f"{where} is one JSON array of rows, wanted one object per line: jq -c '.[]' makes them.")
    if not objects:
        raise ValueError(
            f"{where}: its first rows cannot be read, as {example}; wanted JSON in UTF-8, one object per line."
        )
    if name is not None and (name in layouts or any(_fits(row, name) for row in canonical)):
        return replace(given, name=name)
    if name is None and layouts:
        best = layouts.most_common(1)[0][0]
        if best == "messages" and any(_has_tools(row, given) for row in canonical):
            best = "tools"
        if best == "conversations":  # messages under ShareGPT's name
            best, given = "messages", replace(given, columns=(*given.columns, ("conversations", "messages")))
        return replace(given, name=best)
    fields = list(dict.fromkeys(field for row in objects if isinstance(row, dict) for field in row))
    raise ValueError(
        f"{where}: its first rows have the fields {fields}, as in {example}; wanted {_fields_of(name)}. "
        'Rename them with columns = { your_field = "prompt" }.'
    )


def _fields_of(name: str | None) -> str:
    """The fields that a layout needs, or that each of them needs"""
    if name:
        return f"{' and '.join(REQUIRED[name])} of the layout {name}"
    return "; or ".join(f"{' and '.join(REQUIRED[layout])} ({layout})" for layout in REQUIRED if layout != "tools")


def check_columns(objects: list[Any], where: object, layout: Layout) -> None:
    """ValueError for a column to be renamed that no row has, neither in itself nor in its messages"""
    names: set[str] = set()
    for row in objects:
        for value in [row, *(row.values() if isinstance(row, dict) else ())]:
            for item in value if isinstance(value, list) else [value]:
                names |= set(item) if isinstance(item, dict) else set()
    for source_name, _ in layout.columns:
        if source_name not in names:
            raise ValueError(
                f"{where}: columns names {source_name!r}, its first rows have {sorted(names)}: correct the name."
            )


def _layout_of(row: Any) -> str:
    """The layout of a row, "" if none"""
    if isinstance(row, list):
        return "messages"
    if not isinstance(row, dict):
        return ""
    listed = row.get("conversations")
    first = listed[0] if isinstance(listed, list) and listed else None
    if isinstance(first, dict) and "role" in first and "messages" not in row:
        return "conversations"
    return next((name for name in REQUIRED if name != "tools" and _fits(row, name)), "")


def _fits(row: Any, name: str) -> bool:
    """Whether a row is a list of messages, or has the fields of a layout"""
    return isinstance(row, list) or (isinstance(row, dict) and set(REQUIRED[name]) <= row.keys())


def _is_array_of_rows(objects: list[Any], layout: Layout) -> bool:
    """Whether the first line is a list of rows, not of messages"""
    first = objects[0] if objects else None
    return isinstance(first, list) and any(_layout_of(renamed(item, layout)) for item in first)


def _has_tools(row: Any, layout: Layout) -> bool:
    listed = row.get("messages") if isinstance(row, dict) else row
    listed = [message for message in listed if isinstance(message, dict)] if isinstance(listed, list) else []
    roles = dict(layout.roles)
    return any(
        "tool_calls" in message or roles.get(str(message.get("role")), message.get("role")) == "tool"
        for message in listed
    )
