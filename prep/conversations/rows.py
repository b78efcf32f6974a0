"""
Rows of a source as Python values, as text for people, and lines of JSON as columns.

    line   b'{"messages": [...]}'               parsed as JSON
    column messages: list<struct<...>>          what Arrow filled in, nulls of structs, is not there
"""

import json
import sys
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json

from prep.arrays import Array
from prep.columns import without_nulls

# Python refuses integers of more than 4,300 digits, which JSON may have, also in fields that nobody reads. Its time grows with
# the square of the digits: 0.1 s for so many
sys.set_int_max_str_digits(100_000)

TYPED_ROWS = 8  # of a batch of lines that tell the types of its columns
DEEPEST = 8  # value in a column
TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.float64(), float: pa.float64()}


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


# ---- lines of JSON as columns ----


def columns_of(lines: pa.LargeBinaryArray) -> pa.Table | None:
    """
    Lines of JSON as the columns that their first rows have, in a quarter of the time that `parse` takes. None where columns
    would not tell the same: a line that is no object in UTF-8, a name that the first rows lack or that one row has twice,
    values of several types in one field. What is null in a column was null, or was not there.
    """
    bounds = np.frombuffer(lines.buffers()[1], dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    data = lines.buffers()[2].slice(bounds[0], bounds[-1] - bounds[0])
    if not _is_object_a_line(np.frombuffer(data, dtype=np.uint8), bounds - bounds[0]):
        return None
    try:
        lines.view(pa.large_string()).validate(full=True)
        kind = _type_of([orjson.loads(line.as_py()) for line in lines[:TYPED_ROWS]])
        table = pyarrow.json.read_json(
            pa.BufferReader(data),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            # a field that is not expected is an error before its value is read: deep values overflow the stack of others
            parse_options=pyarrow.json.ParseOptions(pa.schema(list(kind)), unexpected_field_behavior="error"),
        )
    except (pa.ArrowException, TypeError, ValueError):
        return None
    return table if len(table) == len(lines) else None


def _is_object_a_line(data: Array, bounds: Array) -> bool:
    """
    Whether each line, at bounds (n + 1,) of data (bytes,), begins and ends as an object does. So none holds the end of one and
    the beginning of the next, and as many objects as lines are one a line.
    """
    stops = bounds[1:] - (data[bounds[1:] - 1] == ord("\n"))
    stops = stops - (data[stops - 1] == ord("\r"))
    return bool((data[bounds[:-1]] == ord("{")).all() and (data[stops - 1] == ord("}")).all())


def _type_of(values: list[Any], depth: int = 0) -> pa.DataType:
    """The type of a column that holds values of JSON. TypeError where they are of several types, or nested deeply."""
    values = [value for value in values if value is not None]
    kinds = {type(value) for value in values}
    if depth > DEEPEST or len(kinds - {int, float}) + bool(kinds & {int, float}) > 1:
        raise TypeError
    if dict in kinds:
        names = dict.fromkeys(name for value in values for name in value)
        return pa.struct([(name, _type_of([value.get(name) for value in values], depth + 1)) for name in names])
    if list in kinds:
        return pa.list_(_type_of([item for value in values for item in value], depth + 1))
    return TYPES[next(iter(kinds))] if kinds else pa.null()
