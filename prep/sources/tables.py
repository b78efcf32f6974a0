"""
What the readers share: how large the tables are that they give, which columns they accept, the error for a bad file, and one
plain form of what Arrow has several types for.

    dictionary, string_view, binary, large_list, fixed_size_list, ...    string or list
    struct<role: list, content: list>                                    list<struct<role, content>>
    a map, or arrow.json, in any column                                  every row as a line of JSON, in a column `line`
"""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import offsets
from prep.columns import binary_array, index_array, without_nulls
from prep.text import one_line

BATCH_ROWS = 8192  # of one table at most, or fewer that have BATCH_BYTES
BATCH_BYTES = 4 << 20  # what is made of them should stay in the processor's cache
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


def has_message_field(schema: pa.Schema, names: Collection[str]) -> bool:
    """Whether a column holds lists of structs that have a field of one of these names"""
    for kind in schema.types:
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind) and any(kind.get_field_index(name) >= 0 for name in names):
            return True
    return False


# ---- one plain form ----


def plain_form(table: pa.Table) -> pa.Table:
    """The same rows without what only Arrow tells apart. Columns that are plain already stay as they are, uncopied."""
    if any(_has(kind, lambda inner: pa.types.is_map(inner) or _is_json(inner)) for kind in table.schema.types):
        return pa.table({"line": binary_array(_as_lines(table))})
    for i, field in enumerate(table.schema):
        plain = _plain_type(field.type)
        column = table.column(i)
        if plain != field.type:
            column = pa.chunked_array([_cast(chunk, plain) for chunk in column.chunks], plain)
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
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        make = pa.large_list if pa.types.is_large_list(kind) else pa.list_
        inner = _plain_type(kind.value_type)
        return kind if inner == kind.value_type else make(inner)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if pa.types.is_dictionary(kind):
        return kind if pa.types.is_string(kind.value_type) else _plain_type(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.large_string()
    return pa.string() if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind) else kind


def _cast(column: pa.Array, plain: pa.DataType) -> pa.Array:
    """A column as its plain type; bytes become text as they are: where they are none, the row will be rejected"""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column.cast(plain, safe=False)


def _is_lists(kind: pa.DataType) -> bool:
    """Whether a column has a list of each field, in place of a list with all fields: what `datasets` makes of a Sequence"""
    return pa.types.is_struct(kind) and kind.num_fields > 1 and all(_is_list(inner.type) for inner in kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _list_of_structs(column: pa.StructArray) -> pa.Array:
    """(n,) structs of lists -> lists of structs; as it is where lists of one row differ in length"""
    lists = [column.field(i) for i in range(column.type.num_fields)]
    lengths = [pc.fill_null(pc.list_value_length(each), 0).to_numpy(zero_copy_only=False) for each in lists]
    if any(not np.array_equal(lengths[0], other) for other in lengths[1:]):
        return column
    names = [inner.name for inner in column.type]
    structs = pa.StructArray.from_arrays([each.flatten() for each in lists], names)
    return pa.LargeListArray.from_arrays(index_array(offsets(lengths[0])), structs)


def _as_lines(table: pa.Table) -> list[bytes]:
    """Each row as JSON: maps as objects, what is JSON already as it is; fields of structs that are null are left out"""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        key = json.dumps(name) + ": "
        if _is_json(column.type):
            texts = [key + value if value else None for value in column.cast(pa.string()).to_pylist()]
        else:
            values = map(without_nulls, column.to_pylist(maps_as_pydicts="strict"))
            texts = [None if value is None else key + json.dumps(value, default=str) for value in values]
        columns.append(texts)
    rows = zip(*columns, strict=True)
    return [
        ("{" + ", ".join(text for text in row if text is not None) + "}").replace("\n", " ").encode() for row in rows
    ]
