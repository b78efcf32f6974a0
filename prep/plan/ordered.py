"""
Pack conversations into rows of a fixed length in the mixture's order, the end of a row filled from a window ahead.

    lengths  5 2 4 1 6 3   room for 8 tokens a row
    rows     [5 2 1] [4 3 .] [6 . .]    4 does not fit behind 5 and 2, so the 1 behind it does

A row begins with the first conversation that has no row yet and goes on in the mixture's order while the next one fits. What is
left is filled from the window: with one that fits exactly, else with two of different lengths that do, else with the longest
that fits, and again. Of equal lengths the first is taken. No conversation is split and none is lost.

So any run of rows mixes its sources as the mixture's order does: a conversation moves by at most WINDOW places. Two of one
length are no pair: they are often copies of one conversation, of which the second would read the first.

The price: 12,151 rows of the default mixture where 12,142 are the least possible (T = 2,048), and 0.5 us a conversation. The
rule is `pack_in_order_plainly`; the fast form keeps the lengths that the window has as the bits of one number.
"""

from array import array
from collections.abc import Sequence

import numpy as np

from prep.arrays import Array
from prep.plan.packing import check_lengths

BLOCK = 256  # conversations that enter the window together
WINDOW = 3 * BLOCK  # from the start of the block that the row's next conversation is in
CHUNK = 1 << 20  # conversations that are sorted or moved at a time: bounds the memory


def pack_in_order(lengths: Array, capacity: int) -> tuple[Array, Array]:
    """
    (D,) lengths in 1 .. capacity -> the places of the conversations in the order of the rows (D,), and how many are in each
    row (R,). 9 bytes a conversation while it runs.

    >>> order, docs_per_row = pack_in_order(np.array([5, 2, 4, 1, 6, 3]), 8)
    >>> order.tolist(), docs_per_row.tolist()
    ([0, 1, 3, 2, 5, 4], [3, 2, 1])
    """
    check_lengths(lengths, capacity)
    window, order, docs_per_row = _Window(lengths), array("q" if len(lengths) >> 31 else "i"), array("i")
    length_of, taken, append, place, end = window.length_of, window.taken, order.append, 0, len(lengths)
    while place < end:
        row_start, room = len(order), capacity
        for place in range(place, end):  # noqa: B020 - from where the row before ended
            if taken[place]:
                continue
            length = length_of[place]
            if length > room:
                break
            room -= length
            append(place)
        else:
            place = end
        if room and place < end:
            order.extend(window.fill(place, room))
        if len(order) > row_start:
            docs_per_row.append(len(order) - row_start)
    return np.frombuffer(order, dtype=order.typecode), np.frombuffer(docs_per_row, dtype=np.int32)


def pack_in_order_plainly(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """
    The rule, one row at a time. Returns the places in each row.

    >>> pack_in_order_plainly([5, 2, 4, 1, 6, 3], 8)
    [[0, 1, 3], [2, 5], [4]]
    """
    left, rows = list(range(len(lengths))), list[list[int]]()
    while left:
        row, room = list[int](), capacity

        def first(length: int, left: list[int] = left) -> list[int]:
            window_end = left[0] // BLOCK * BLOCK + WINDOW
            return [place for place in left if lengths[place] == length and place < window_end][:1]

        while left and lengths[left[0]] <= room:
            room -= lengths[left[0]]
            row.append(left.pop(0))
        while left and room:
            halves = (first(short) + first(room - short) for short in range((room - 1) // 2, 0, -1))
            pair = next((both for both in halves if len(both) == 2), [])
            longest = next((fitting for length in range(room, 0, -1) if (fitting := first(length))), [])
            chosen = first(room) or pair or longest
            if not chosen:
                break
            for place in chosen:
                left.remove(place)
                room -= lengths[place]
            row += chosen
        rows.append(row)
    return rows


class _Window:
    """
    The conversations that may fill the end of a row. Bit n of `lengths` says that one of n tokens may be there, bit
    longest - n of `mirrored` the same, so that two that fill a room together are one `&` away. A bit is taken back when no
    such conversation is found.
    """

    def __init__(self, lengths: Array) -> None:
        self.all_lengths, self.longest = lengths, int(lengths.max(initial=0))
        self.length_of = array("I", lengths.astype(np.uint32).tobytes())
        self.taken = bytearray(len(lengths) + 1)  # by the end of a row; what is before `place` has a row anyway
        self.next_of_length, self.first_of_length = link_equal(lengths, self.longest)
        self.next_block = self.end = self.lengths = self.mirrored = 0

    def fill(self, place: int, room: int) -> list[int]:
        """Places from `place` on, taken for a room that the conversation at `place` does not fit in"""
        if place >= self.next_block:
            self._advance(place // BLOCK * BLOCK)
        filled = list[int]()
        while room and (fitting := self.lengths & ((2 << room) - 1)):
            length = fitting.bit_length() - 1
            longest = self._first(length, place)
            if longest < 0:
                continue
            if length < room and (pair := self._pair(fitting, room, place)):
                chosen, room = pair, 0
            else:
                chosen, room = [longest], room - length
            for each in chosen:
                self.taken[each] = 1
            filled += chosen
        return filled

    def _pair(self, fitting: int, room: int, place: int) -> list[int]:
        """Two places whose different lengths are `room` together, the lengths as near each other as can be; [] if none are"""
        pairs = fitting & (self.mirrored >> (self.longest - room)) & ((2 << (room - 1) // 2) - 1)  # the shorter lengths
        while pairs:
            shorter = pairs.bit_length() - 1
            first, second = self._first(shorter, place), self._first(room - shorter, place)
            if first >= 0 and second >= 0:
                return [first, second]
            pairs ^= 1 << shorter
        return []

    def _first(self, length: int, place: int) -> int:
        """The first place of a length in the window, -1 if there is none"""
        first, after, taken = self.first_of_length[length], self.next_of_length, self.taken
        while first < place or taken[first]:
            first = after[first]
        self.first_of_length[length] = first
        if first < self.end:
            return first
        self.lengths &= ~(1 << length)
        self.mirrored &= ~(1 << (self.longest - length))
        return -1

    def _advance(self, block: int) -> None:
        """Let the conversations in that belong to the window of a block that starts at `block`."""
        end = min(block + WINDOW, len(self.all_lengths))
        for start in range(self.end, end, BLOCK):
            for length in np.unique(self.all_lengths[start : min(start + BLOCK, end)]).tolist():
                self.lengths |= 1 << length
                self.mirrored |= 1 << (self.longest - length)
        self.next_block, self.end = block + BLOCK, end


def link_equal(lengths: Array, longest: int) -> tuple["array[int]", list[int]]:
    """
    (D,) lengths -> of each place the next one of the same length (D,), and the first of each length (longest + 1); D where
    there is none.

    >>> link_equal(np.array([2, 1, 2]), 2)
    (array('i', [2, 3, 3]), [3, 1, 0])
    """
    kind = np.int64 if len(lengths) >> 31 else np.int32
    none = len(lengths)
    after, first = np.full(none, none, dtype=kind), np.full(longest + 1, none, dtype=kind)
    last = first.copy()
    for start in range(0, none, CHUNK):
        chunk = lengths[start : start + CHUNK]
        places = np.argsort(chunk.astype(np.uint16 if longest < 1 << 16 else np.uint32), kind="stable")
        sorted_lengths, places = chunk[places], places + start
        same = sorted_lengths[1:] == sorted_lengths[:-1]
        after[places[:-1][same]] = places[1:][same]
        begins, ends = places[np.append(True, ~same)], places[np.append(~same, True)]
        of_length = lengths[begins]
        linked = last[of_length] < none
        after[last[of_length[linked]]] = begins[linked]
        first[of_length[~linked]] = begins[~linked]
        last[of_length] = ends
    return array("q" if kind is np.int64 else "i", after.tobytes()), first.tolist()


def reorder(values: Array, order: Array) -> None:
    """
    values[:] = values[order], for an order that moves none by more than WINDOW: in chunks, without a second copy.

    >>> values = np.array([5, 6, 7])
    >>> reorder(values, np.array([1, 0, 2]))
    >>> values
    array([6, 5, 7])
    """
    before = values[:0]
    for start in range(0, len(order), CHUNK):
        stop = min(start + CHUNK, len(order))
        near, first = np.concatenate([before, values[start : stop + WINDOW]]), start - len(before)
        values[start:stop] = near[order[start:stop] - first]
        before = near[max(stop - first - WINDOW, 0) : stop - first].copy()  # as they were
