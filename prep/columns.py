"""
Arrow columns from numpy arrays and strings, without a copy.

pa.array() is avoided: its first call costs 0.12 s, as it imports pandas to see whether it was given something of theirs.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets


def text_array(texts: list[str]) -> pa.LargeStringArray:
    """(n,) strings as an Arrow array. UnicodeEncodeError for lone surrogates."""
    return binary_array([text.encode() for text in texts]).view(pa.large_string())


def binary_array(values: list[bytes]) -> pa.LargeBinaryArray:
    """(n,) byte strings as an Arrow array"""
    bounds = offsets(np.fromiter(map(len, values), dtype=np.int64, count=len(values)))
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(b"".join(values))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(values), buffers)


def index_array(numbers: Array) -> pa.Int64Array:
    """(n,) integers as an Arrow array"""
    return pa.Int64Array.from_buffers(
        pa.int64(), len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers, dtype=np.int64))]
    )


def without_nulls(value: Any) -> Any:
    """
    A value of a column without the nulls of its structs: a field that one row has is null in all others, where it is not.

    >>> without_nulls({"a": None, "b": [{"c": None}, None]})
    {'b': [{}, None]}
    """
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value
