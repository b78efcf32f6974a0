"""
What the readers share: how large the tables are that they give, which columns they accept, the error for a bad file, and one
plain form of what Arrow has several types for.

    dictionary, string_view, binary, large_list, fixed_size_list, ...    string or list
    struct<role: list, content: list>                                    list<struct<role, content>>
    a map, or arrow.json, at any depth                                   every row as a line of JSON, in a column `line`
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import offsets
from prep.columns import binary_array, index_array
from prep.text import one_line

BATCH_ROWS = 8192  # of one table at most, or fewer that have BATCH_BYTES
BATCH_BYTES = 4 << 20  # what is made of them should stay in the processor's cache
TURN_FIELDS = ("role", "from")  # of lists in a struct that are a list of turns
READ_ROWS = 1024  # read at once where a file stores a repeated text once: its rows are larger than they seem


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Errors of pyarrow and of the system as one ValueError that names the file"""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable {kind} file: {one_line(error)} Is it complete?") from None


def check_names(path: Path, names: list[str]) -> None:
    """ValueError where two columns have one name"""
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path} has several columns {repeated[0]!r}: give each column a name of its own.")


def has_dictionary(schema: pa.Schema) -> bool:
    """Whether repeated texts are stored once, so that rows are larger than they seem"""
    return any("dictionary<" in str(kind) for kind in schema.types)


# ---- one plain form ----


def plain_form(table: pa.Table) -> pa.Table:
    """The same rows without what only Arrow tells apart. Columns that are plain already stay as they are, uncopied."""
    if any(_has(kind, lambda inner: pa.types.is_map(inner) or _is_json(inner)) for kind in table.schema.types):
        return pa.table({"line": binary_array(_as_lines(table))})
    for i, field in enumerate(table.schema):
        plain = _plain_type(field.type)
        column = table.column(i)
        if plain != field.type:
            column = pa.chunked_array([_plain(chunk, plain) for chunk in column.chunks], plain)
        if _is_lists(column.type):
            column = pa.chunked_array([_list_of_structs(chunk) for chunk in column.chunks])
        if column is not table.column(i):
            table = table.set_column(i, field.name, column)
    return table


def _has(kind: pa.DataType, test: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type, or one inside of it, is of a kind"""
    if test(kind):
        return True
    if pa.types.is_nested(kind):
        return any(_has(kind.field(i).type, test) for i in range(kind.num_fields))
    return False


def _is_json(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_struct(kind):
        return pa.struct([(inner.name, _plain_type(inner.type)) for inner in kind])
    if _is_list(kind):
        inner = _plain_type(kind.value_type)
        return kind if inner == kind.value_type else pa.large_list(inner)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if pa.types.is_dictionary(kind):
        return kind if pa.types.is_string(kind.value_type) else _plain_type(kind.value_type)
    if pa.types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.large_string()
    return pa.string() if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind) else kind


def _plain(column: pa.Array, plain: pa.DataType) -> pa.Array:
    """
    A column as its plain type; bytes become text as they are: where they are none, the row will be rejected. Lists are put
    together here: pyarrow's cast of list views loses the last list.
    """
    kind = column.type
    if kind == plain:
        return column
    if isinstance(column, pa.ExtensionArray):
        return _plain(column.storage, plain)
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary, plain).take(column.indices)
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(column), plain)
    if pa.types.is_struct(kind):
        fields = [_plain(column.field(i), inner.type) for i, inner in enumerate(plain)]
        return pa.StructArray.from_arrays(fields, fields=list(plain), mask=column.is_null())
    if pa.types.is_large_list(plain):
        return _lists(column, _plain(column.flatten(), plain.value_type))
    return column.cast(plain, safe=False)


def _lists(column: pa.Array, values: pa.Array) -> pa.Array:
    """Lists as long as those of a column, null where they are, over all their values"""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return pa.LargeListArray.from_arrays(index_array(offsets(lengths)), values, mask=column.is_null())


def _is_lists(kind: pa.DataType) -> bool:
    """Whether a column has a list of each field of turns, in place of a list of turns: what `datasets` makes of a Sequence"""
    return (
        pa.types.is_struct(kind)
        and kind.num_fields > 1
        and any(inner.name in TURN_FIELDS for inner in kind)
        and all(_is_list(inner.type) for inner in kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _list_of_structs(column: pa.StructArray) -> pa.Array:
    """(n,) structs of lists -> lists of structs; null where the lists of a row differ in length"""
    lists = column.flatten()  # null where the struct is
    lengths = [pc.fill_null(pc.list_value_length(each), -1) for each in lists]
    even = pa.array(np.logical_and.reduce([np.asarray(lengths[0]) == np.asarray(each) for each in lengths]))
    lists = [pc.if_else(even, each, None) for each in lists]
    names = [inner.name for inner in column.type]
    return _lists(lists[0], pa.StructArray.from_arrays([each.flatten() for each in lists], names))


# ---- rows as lines ----


def _as_lines(table: pa.Table) -> list[bytes]:
    """Each row as JSON: maps as objects, what is JSON already as it is; fields of structs that are null are left out"""
    try:
        columns = [
            [key + text(value) if value is not None else None for value in _values(column)]
            for key, text, column in (
                (json.dumps(name) + ": ", _text_of(column.type), column)
                for name, column in zip(table.column_names, table.columns, strict=True)
            )
        ]
    except UnicodeDecodeError:  # find the rows that are no text
        half = len(table) // 2
        return [b"\xff"] if len(table) == 1 else _as_lines(table.slice(0, half)) + _as_lines(table.slice(half))
    rows = zip(*columns, strict=True)
    return [
        ("{" + ", ".join(text for text in row if text is not None) + "}").replace("\n", " ").encode() for row in rows
    ]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column, lists of turns where it has a list of each field of turns"""
    values: list[Any] = column.to_pylist()
    if not _is_lists(column.type):
        return values
    return [
        [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
        if value and None not in value.values() and len(set(map(len, value.values()))) == 1
        else None
        for value in values
    ]


def _text_of(kind: pa.DataType) -> Callable[[Any], str]:
    """What writes a value of a type, as pyarrow gives it, as JSON"""
    if _is_json(kind):
        return str
    if pa.types.is_struct(kind):
        texts = {inner.name: (json.dumps(inner.name) + ": ", _text_of(inner.type)) for inner in kind}
        return lambda value: _object(
            (key, text(value[name])) for name, (key, text) in texts.items() if value[name] is not None
        )
    if pa.types.is_map(kind):
        item = _text_of(kind.item_type)
        return lambda pairs: _object(
            (json.dumps(_as_key(key)) + ": ", "null" if value is None else item(value)) for key, value in pairs
        )
    if pa.types.is_nested(kind):  # lists of all kinds
        each = _text_of(kind.value_type)
        return lambda values: "[" + ", ".join("null" if value is None else each(value) for value in values) + "]"
    return _leaf


def _object(fields: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(key + value for key, value in fields) + "}"


def _as_key(key: Any) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _leaf(value: Any) -> str:
    """Bytes that are no text become lone surrogates: a row is rejected only where somebody reads them"""
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return json.dumps(text, default=str)
