"""
What numpy arrays of counts share: their type, and offsets made of lengths.

    lengths [2, 0, 3]   ->   offsets [0, 2, 2, 5]       item i is at offsets[i] : offsets[i + 1]
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def offsets(lengths: npt.ArrayLike) -> Array:
    """(n,) lengths -> (n + 1,) int64 offsets"""
    lengths = np.asarray(lengths)
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out
