"""
The order of a mixture: which conversation comes when, as positions and nothing else.

    entries   a (3 rows)  b (2 rows, repeat 2)
    list      a0 a1 a2  b0 b1  b0 b1             every entry, as often as it is repeated
    shuffled  b1 a2 b0 a0 b1 b0 a1               random.Random(seed).shuffle

A part of an entry (`repeat = 1.5`, `choose`, `proportion`: prep.plan.sampling says which rows) is one more copy of fewer
rows: it stands after the entry's whole copies, in the entry's order.

It is the order of nanochat's TaskMixture (see random.shuffle and numpy.random.Generator.permutation, whose algorithms
are fixed), so a build has the same conversations in the same order. Shuffled are 4-byte numbers: 0.5 us a conversation.
"""

import random
from array import array
from dataclasses import dataclass

import numpy as np

from prep.arrays import Array

HUB_SEED = 42  # every Hub source is permuted by this seed, whatever the mixture's


@dataclass(frozen=True)
class OrderSlice:
    """Conversations that follow each other in a mixture's order."""

    entry: Array  # (n,) uint16: number of the entry
    repeat: Array  # (n,) uint16: which copy of it, from 0
    position: Array  # (n,) uint32: place in the selected rows of the entry


@dataclass(frozen=True)
class Order:
    """The conversations of a mixture, in its order, 4 bytes each; `order[a:b]` says what they are."""

    shuffled: Array  # (n,) uint32: places in the list of all copies, one after the other
    entry_of_copy: Array  # of each entry the whole copies, and last its part
    ends: Array  # one past the last place of each copy
    first_copy: Array  # of each entry
    parts: list[Array]  # of each entry: rows of the part, as places in the selected rows

    def __len__(self) -> int:
        return len(self.shuffled)

    def __getitem__(self, stretch: slice) -> OrderSlice:
        place = self.shuffled[stretch]
        copy = np.searchsorted(self.ends, place, side="right")
        starts = np.concatenate([[0], self.ends[:-1]])
        entry, position = self.entry_of_copy[copy], (place - starts[copy]).astype(np.uint32)
        repeat = copy - self.first_copy[entry]
        is_part = np.append(self.first_copy[1:], len(self.ends)) - 1  # of each entry: which copy
        for number, part in enumerate(self.parts):
            if len(part):
                here = copy == is_part[number]
                position[here] = part[position[here]]
        return OrderSlice(entry.astype(np.uint16), repeat.astype(np.uint16), position)


def select_rows(num_rows: int, permuted: bool, start: int, stop: int | None) -> Array:
    """
    Row numbers of a source that an entry uses, in its order: permuted if it comes from the Hub, then sliced.

    >>> select_rows(5, False, 1, 4)
    array([1, 2, 3], dtype=uint32)
    """
    kind = np.uint32 if num_rows <= 1 << 32 else np.int64
    rows = np.random.default_rng(HUB_SEED).permutation(num_rows) if permuted else np.arange(num_rows, dtype=kind)
    return rows[start:stop].astype(kind, copy=False)


def shuffle(numbers: "array[int]", seed: int) -> None:
    """random.Random(seed).shuffle(numbers), whose algorithm Python keeps, at twice its speed: no call for each number."""
    bits = random.Random(seed).getrandbits
    for i in range(len(numbers) - 1, 0, -1):
        num_bits = (i + 1).bit_length()
        j = bits(num_bits)
        while j > i:
            j = bits(num_bits)
        numbers[i], numbers[j] = numbers[j], numbers[i]


def mixture_order(sizes: list[int], repeats: list[int], seed: int, parts: list[Array] | None = None) -> Order:
    """
    Sizes and repeats of the entries, and parts of them (places, ascending; empty for none) -> their conversations
    shuffled. At most 2**32 of them.
    """
    parts = parts or [np.zeros(0, dtype=np.int64)] * len(sizes)
    whole = np.array(repeats, dtype=np.int64)
    copies = np.repeat(np.arange(len(sizes)), whole + 1)  # entry of each copy; its part, mostly empty, is the last
    copy_sizes = np.array(sizes, dtype=np.int64)[copies]
    is_part = np.cumsum(whole + 1) - 1  # (entries,) which copy
    copy_sizes[is_part] = [len(part) for part in parts]
    ends = np.cumsum(copy_sizes)
    total = int(ends[-1]) if len(ends) else 0
    if total > 1 << 32:
        raise ValueError(
            f"{total:,} conversations in a split found, at most {1 << 32:,} can be shuffled: split the mixture"
        )
    numbers = array("I", range(total))
    shuffle(numbers, seed)
    shuffled = np.frombuffer(numbers, dtype=np.uint32) if total else np.zeros(0, dtype=np.uint32)
    return Order(shuffled, copies, ends, is_part - whole, parts)
