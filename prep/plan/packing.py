"""
Pack conversations into rows of a fixed length, best fit first.

    lengths   5  3  4        room for 8 tokens a row
    rows      [5 3] [4 .]    "." is padding: never a target, costs throughput only

No conversation is split and none is lost. Packing sorts by length: permute the rows afterwards. The rule is
`best_fit_decreasing_plainly`, one conversation at a time. The fast form places all conversations of one length together: there
are as many sizes of free room as tokens in a row, so its loop runs a few times per length, whatever the number of
conversations (10 million take 3 s).

Plain best-fit decreasing wastes room where many conversations have few lengths: rows of seventeen spellings of 30 tokens
leave 3 of 513. So it is tried a second time with completions, and the better result is taken:

    room 63, left are 30 30 21 12    plain [30 30 . . .]    completed [30 21 12]
"""

from collections import deque

import numpy as np

from prep.arrays import Array

FEWER = 12  # numbers of conversations below the most that fit, tried to complete a row with shorter ones
MORE_PARTS = 8  # numbers of shorter ones that are tried


def pack(lengths: Array, capacity: int) -> tuple[Array, int]:
    """
    (D,) lengths in 1 .. capacity -> the row of each (D,) int64, and the number of rows.

    >>> pack(np.array([5, 3, 4]), 8)
    (array([0, 0, 1]), 2)
    """
    check_lengths(lengths, capacity)
    plain, completed = (best_fit_decreasing(lengths, capacity, complete) for complete in (False, True))
    return completed if completed[1] < plain[1] else plain


def check_lengths(lengths: Array, capacity: int) -> None:
    if len(lengths) and not (lengths.min() > 0 and lengths.max() <= capacity):
        raise ValueError(f"lengths {lengths.min()} .. {lengths.max()} found, wanted 1 .. {capacity}.")


def best_fit_decreasing_plainly(lengths: list[int], capacity: int) -> list[int]:
    """
    The rule (Johnson 1973): longest first, of equal ones the first; each goes to the row with the least room that is
    enough, of several such rows to the one that has had that room longest. Returns the row of each.

    >>> best_fit_decreasing_plainly([5, 3, 4], 8)
    [0, 0, 1]
    """
    rows_by_room: dict[int, deque[int]] = {}
    row_of, num_rows = [0] * len(lengths), 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = min((room for room, rows in rows_by_room.items() if room >= lengths[i] and rows), default=capacity)
        if rows_by_room.get(room):
            row = rows_by_room[room].popleft()
        else:
            row = num_rows
            num_rows += 1
        rows_by_room.setdefault(room - lengths[i], deque()).append(row)
        row_of[i] = row
    return row_of


def best_fit_decreasing(lengths: Array, capacity: int, complete: bool) -> tuple[Array, int]:
    """
    (D,) lengths -> the row of each, and the number of rows, as the rule has them. With `complete`, a row is filled up at
    once where shorter conversations fill it exactly.
    """
    row_of, num_rows = np.empty(len(lengths), dtype=np.int64), 0
    counts = np.bincount(lengths, minlength=capacity + 2)  # of each length, not yet placed
    order, ends = longest_first(lengths, capacity), np.cumsum(counts[::-1])[::-1]
    rooms = _Rooms(capacity)

    def place(length: int, rows: Array) -> None:
        first = ends[length] - counts[length]
        row_of[order[first : first + len(rows)]] = rows
        counts[length] -= len(rows)

    for length in np.flatnonzero(counts)[::-1].tolist():
        while left := int(counts[length]):
            room = rooms.least(length)
            free = room or capacity
            pattern = exact_pattern(counts, length, free) if complete else None
            per_row = pattern[length] if pattern else free // length
            needed = min(int(counts[part]) // num for part, num in pattern.items()) if pattern else -(-left // per_row)
            rows = rooms.take(room, needed) if room else np.arange(num_rows, num_rows + needed)
            num_rows += 0 if room else needed
            if pattern:
                for part, num in pattern.items():
                    place(part, np.repeat(rows, num))
                continue
            placed = min(left, len(rows) * per_row)
            place(length, np.repeat(rows, per_row)[:placed])
            last = placed - (len(rows) - 1) * per_row  # conversations in the last of these rows
            rooms.put(free - per_row * length, rows[:-1])
            rooms.put(free - last * length, rows[-1:])
    return row_of, num_rows


def exact_pattern(counts: Array, length: int, room: int) -> dict[int, int] | None:
    """{length: how many} that fills a room exactly with what is left, as many of `length` as can be; None if there is none"""
    most = min(room // length, int(counts[length]))
    for num in range(most, max(most - FEWER, 0), -1):
        rest = room - num * length
        if not rest:
            return {length: num}
        if shorter := completion(counts, rest, length):
            return {length: num, **shorter}
    return None


def completion(counts: Array, rest: int, length: int) -> dict[int, int] | None:
    """One, two or several equal conversations shorter than `length` that have `rest` tokens together, None if not found"""
    if rest < length and counts[rest]:
        return {rest: 1}
    low, high = max(1, rest - length + 1), rest // 2
    if low <= high:  # of all pairs the one of which there are most: what is rare stays for where nothing else fits
        pairs = np.minimum(counts[low : high + 1], counts[rest - high : rest - low + 1][::-1])
        pairs[-1] = counts[high] // 2 if rest % 2 == 0 else pairs[-1]
        best = low + int(pairs.argmax())
        if pairs[best - low]:
            return {best: 2} if rest == 2 * best else {best: 1, rest - best: 1}
    fewest = max(3, -(-rest // (length - 1))) if length > 1 else rest + 1
    for num in range(fewest, min(fewest + MORE_PARTS, rest) + 1):
        part, longer = divmod(rest, num)  # `longer` of them have one token more
        if part + (longer > 0) < length and counts[part] >= num - longer and counts[part + 1] >= longer:
            return {part: num - longer, part + 1: longer} if longer else {part: num}
    return None


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
