"""
Which layout rows have, by the values of the first of them. Rows that match none are refused, with a row as an example.

    {"instruction": "Add.", "input": "2 and 3", "output": "5"}             alpaca
    {"messages": null, "prompt": "2+2?", "completion": "4"}                completion: a null field is not there
    {"conversations": [{"role": "user", "content": "2+2?"}, ...]}          messages, under the name of another field

Rows that cannot be parsed are not counted. Where rows differ, the most common layout wins: the others are rejected one by
one, as "another layout", when they are rendered.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from prep.conversations.layouts import (
    LAYOUTS,
    LIST_FIELDS,
    OLD_NAMES,
    PAIR_FIELDS,
    TEXT,
    TURN_FIELDS,
    UNUSED,
    Layout,
    Table,
)
from prep.conversations.rows import plain_rows, show_row

FIRST_ROWS = 100  # that a layout is recognised from
SHOWN_CHARACTERS = 200
OWN_TASK = 'A task of your own reads any row: task = "mine.py:row", five lines, in docs/own-tasks.md.'


def recognise(heads: Iterable[tuple[object, pa.Table]], given: Layout, name: str | None) -> Layout:
    """
    `given` with the name of the layout of the first rows, or with `name` if rows fit it. `heads` are files, by the name that
    messages give them, with their first rows; of them as many are looked at as it takes to find rows of a layout and every
    field that `given` names. ValueError, with the first row, where there are none.
    """
    name = OLD_NAMES.get(name or "", name)
    first_file, example, objects, matches = object(), "{}", list[Any](), Counter[tuple[str, str]]()
    for file, rows in heads:
        if not objects:
            first_file, example = file, show_row(rows.slice(0, 1), SHOWN_CHARACTERS)
        of_file = [row for row in plain_rows(rows) if not isinstance(row, str)]
        objects += of_file
        matches.update(match for row in of_file if (match := layout_of(renamed(row, given), name))[0])
        if matches and not _unknown_name(objects, given):
            break
    if unknown := _unknown_name(objects, given):
        raise ValueError(f"{first_file}: {unknown}")
    if not objects:
        raise ValueError(
            f"{first_file}: its first rows cannot be read, as {example}; wanted JSON in UTF-8, one object per line."
        )
    if not matches:
        raise ValueError(_no_layout(objects, first_file, example, name))
    best, field = matches.most_common(1)[0][0]
    wanted = replace(given, name=best).table.turns
    if field not in ("", wanted):
        columns = dict(given.columns) | {given.source_name(field): wanted}
        given = replace(given, columns=tuple(sorted(columns.items())))
    return _checked(replace(given, name=best), first_file)


def layout_of(row: Any, only: str | None = None) -> tuple[str, str]:
    """(layout, field with its turns) of a row with canonical names; ("", "") if none. `only`: whether it is that one"""
    tables = {
        name: table
        for name, table in (LAYOUTS | {"text": TEXT}).items()
        if name == only or (not only and table != TEXT)
    }
    if isinstance(row, list):
        return next(((name, "") for name, table in tables.items() if _has_turns(row, name, table)), ("", ""))
    if not isinstance(row, dict):
        return "", ""
    for name, table in tables.items():
        fields = dict.fromkeys((table.turns, *LIST_FIELDS)) if table.turns else {}
        if found := next((field for field in fields if _has_turns(row.get(field), name, table)), None):
            return name, found
        if not table.turns and all(row.get(field) is not None for field in table.needs):
            return name, ""
    # a list of nothing, or of what is no turn: its rows say why they are rejected
    named = ((name, table.turns) for name, table in tables.items() if isinstance(row.get(table.turns), list))
    return next(named, ("", ""))


def _has_turns(listed: Any, name: str, table: Table) -> bool:
    """Whether a value is a list of turns of this layout, by its first one"""
    if not isinstance(listed, list) or not listed or not table.turns:
        return False
    if name == "strings":
        return isinstance(listed[0], str)
    turns = [turn for turn in listed if isinstance(turn, dict)]
    if not turns:
        return False
    if name == "pairs":
        return {"user", "assistant"} <= {PAIR_FIELDS.get(field) for field in turns[0]}
    return table.shape[0] in turns[0] and any(table.shape[1] in turn for turn in turns)


def renamed(row: Any, layout: Layout) -> Any:
    """A row, and the turns in it, with canonical names of their fields"""
    if isinstance(row, list):
        return [renamed(item, layout) if isinstance(item, dict) else item for item in row]
    if not layout.columns or not isinstance(row, dict):
        return row
    named = {layout.canonical_name(name): value for name, value in row.items()}
    return {name: renamed(value, layout) if isinstance(value, list) else value for name, value in named.items() if name}


def _no_layout(objects: list[Any], where: object, example: str, name: str | None) -> str:
    fields = list(dict.fromkeys(field for row in objects if isinstance(row, dict) for field in row))
    more = ' Rename them with columns = { your_field = "prompt" }.'
    if fields == ["text"] or (len(fields) < 4 and "text" in fields):
        more = ' Plain text is task = "text".'
    return f"{where}: its first rows have the fields {fields}, as in {example}; wanted {_fields_of(name)}.{more} {OWN_TASK}"


def _fields_of(name: str | None) -> str:
    """The fields that a layout needs, or that each of them needs"""
    if name:
        needs = (TEXT if name == "text" else LAYOUTS[name]).needs
        return f"{' and '.join(needs)} of the layout {name}"
    return "; or ".join(f"{' and '.join(table.needs)} ({name})" for name, table in LAYOUTS.items())


def _unknown_name(objects: list[Any], layout: Layout) -> str:
    """What is wrong with a field to be renamed, or to be filtered by, that neither a row nor a message has; else "" """
    names: set[str] = set()
    for row in objects:
        for value in [row, *(row.values() if isinstance(row, dict) else ())]:
            for item in value if isinstance(value, list) else [value]:
                names |= set(item) if isinstance(item, dict) else set()
    asked = [("columns", source_name) for source_name, canonical in layout.columns if canonical != UNUSED]
    asked += [("where", source_name) for source_name, _ in layout.where]
    unknown = next(((key, name) for key, name in asked if name not in names), None)
    return (
        f"{unknown[0]} names {unknown[1]!r}, its first rows have {sorted(names)}: correct the name." if unknown else ""
    )


def _checked(layout: Layout, where: object) -> Layout:
    """The layout, if it reads what `columns` renames to"""
    known = {*layout.table.fields, *TURN_FIELDS, *PAIR_FIELDS, UNUSED}
    for source_name, canonical in layout.columns:
        if canonical not in known:
            raise ValueError(
                f"{where}: columns makes {source_name!r} {canonical!r}, which the layout {layout.name} does not read, wanted "
                f"one of {', '.join(sorted(known))}."
            )
    return layout
