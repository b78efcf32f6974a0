"""
Pack conversations into rows of a fixed length, best fit first.

    lengths   5  3  4        room for 8 tokens a row
    rows      [5 3] [4 .]    "." is padding: never a target, costs throughput only

No conversation is split and none is lost. Packing sorts by length: permute the rows afterwards. There are as many sizes
of free room as tokens in a row, and all conversations of one length are placed together, so the cost is linear in the
conversations: the loop below runs a few times for each length, whatever their number.
"""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def best_fit_decreasing(lengths: Array, capacity: int) -> tuple[Array, int]:
    """
    (D,) lengths in 1 .. capacity -> the row of each (D,) int64, and the number of rows.

    Longest first, of equal ones the first; each goes to the row with the least room that is enough, of several such rows
    to the one that has had that room longest (Johnson 1973, best-fit decreasing).

    >>> best_fit_decreasing(np.array([5, 3, 4]), 8)
    (array([0, 0, 1]), 2)
    """
    if len(lengths) and not (lengths.min() > 0 and lengths.max() <= capacity):
        raise ValueError(f"lengths {lengths.min()} .. {lengths.max()} found, wanted 1 .. {capacity}")
    counts = np.bincount(lengths, minlength=1)
    rows_sorted = np.empty(len(lengths), dtype=np.int64)  # rows of the conversations, longest first
    rooms = _Rooms(capacity)
    place = num_rows = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room = rooms.least(length)
            per_row = (room or capacity) // length
            wanted = -(-left // per_row)
            if room:
                rows = rooms.take(room, wanted)
            else:
                rows, room = np.arange(num_rows, num_rows + wanted), capacity
                num_rows += wanted
            placed = min(left, len(rows) * per_row)
            rows_sorted[place : place + placed] = np.repeat(rows, per_row)[:placed]
            last = placed - (len(rows) - 1) * per_row  # conversations in the last of these rows
            rooms.put(room - per_row * length, rows[:-1])
            rooms.put(room - last * length, rows[-1:])
            place, left = place + placed, left - placed
    rows_of = np.empty(len(lengths), dtype=np.int64)
    rows_of[longest_first(lengths, capacity)] = rows_sorted
    return rows_of, num_rows


def longest_first(lengths: Array, capacity: int) -> Array:
    """(D,) places of the lengths in descending order, equal ones in their order"""
    kind = np.uint16 if capacity < 1 << 16 else np.uint32  # numpy sorts 16 bits by radix
    return np.argsort((capacity - lengths).astype(kind), kind="stable")


class _Rooms:
    """Rows by the room they have left, first in first out, and the sizes that there are as bits of one number."""

    def __init__(self, capacity: int) -> None:
        self.rows: list[deque[Array]] = [deque() for _ in range(capacity + 1)]
        self.sizes = 0

    def least(self, length: int) -> int:
        """The smallest room of at least `length` that some row has, 0 if none has"""
        fitting = self.sizes >> length
        return length + (fitting & -fitting).bit_length() - 1 if fitting else 0

    def take(self, room: int, num: int) -> Array:
        """At most `num` rows with this room, those first that have had it longest"""
        chunks = self.rows[room]
        rows = chunks.popleft()
        if len(rows) > num:
            chunks.appendleft(rows[num:])
        elif not chunks:
            self.sizes &= ~(1 << room)
        return rows[:num]

    def put(self, room: int, rows: Array) -> None:
        if room and len(rows):
            self.rows[room].append(rows)
            self.sizes |= 1 << room
