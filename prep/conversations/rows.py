"""
Rows of a source as Python values, and as text for people.

    line   b'{"messages": [...]}'               parsed as JSON
    column messages: list<struct<...>>          what Arrow filled in, nulls of structs, is not there
"""

import json
import sys
from typing import Any

import pyarrow as pa

from prep.columns import without_nulls

# Python refuses integers of more than 4,300 digits, which JSON may have, also in fields that nobody reads. Its time grows with
# the square of the digits: 0.1 s for so many
sys.set_int_max_str_digits(100_000)


def parse(line: bytes) -> Any:
    """A line of JSON as a value; a str that is a reason where it is none"""
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        return "not valid Unicode"
    except (ValueError, RecursionError):
        return "invalid JSON"


def is_lines(rows: pa.Table) -> bool:
    """Whether rows are lines of JSON, not columns"""
    return "line" in rows.column_names and len(rows.column_names) == 1


def rows_of(rows: pa.Table) -> list[Any]:
    """C rows as Python values; a str is the reason why a row cannot be read"""
    if is_lines(rows):
        return [parse(line) for line in rows["line"].to_pylist()]
    try:
        return list(rows.to_pylist())
    except UnicodeDecodeError:  # columns of strings may hold any bytes: find the rows that do
        halves = [rows.slice(0, len(rows) // 2), rows.slice(len(rows) // 2)]
        return ["not valid Unicode"] if len(rows) == 1 else [row for half in halves for row in rows_of(half)]


def plain_rows(rows: pa.Table) -> list[Any]:
    """The same without what Arrow adds: a field that one row has is null in all others, where it is not there"""
    values = rows_of(rows)
    return values if is_lines(rows) else [without_nulls(value) for value in values]


def show_row(row: pa.Table, longest: int) -> str:
    """A table of one row as a line of text of at most `longest` characters"""
    try:
        fields = row.to_pylist()[0]
    except UnicodeDecodeError:
        return "(not valid Unicode)"
    value = fields.get("line", fields)
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else json.dumps(value, default=str)
    return text.strip()[:longest]
