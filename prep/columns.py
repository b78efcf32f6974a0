"""
Arrow columns from numpy arrays and strings, without a copy.

pa.array() is avoided: its first call costs 0.12 s, as it imports pandas to see whether it was given something of theirs.
"""

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets


def text_array(texts: list[str]) -> pa.LargeStringArray:
    """(n,) strings as an Arrow array. UnicodeEncodeError for lone surrogates."""
    encoded = [text.encode() for text in texts]
    bounds = offsets(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)))
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(bounds), pa.py_buffer(b"".join(encoded)))


def index_array(numbers: Array) -> pa.Int64Array:
    """(n,) integers as an Arrow array"""
    return pa.Int64Array.from_buffers(
        pa.int64(), len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers, dtype=np.int64))]
    )
