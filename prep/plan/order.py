"""
The order of a mixture: which conversation comes when, as positions and nothing else.

    entries   a (3 examples)  b (2 examples, repeat 2)
    list      a0 a1 a2  b0 b1  b0 b1             every entry, as often as it is repeated
    shuffled  b1 a2 b0 a0 b1 b0 a1               random.Random(seed).shuffle

A part of an entry (`repeat = 1.5`, `choose`, `proportion`; prep.plan.sampling says which examples) is one more copy of fewer
examples: it stands after the entry's whole copies, in the entry's order.

It is the order of nanochat's TaskMixture (see random.shuffle and numpy.random.Generator.permutation, whose algorithms
are fixed), so a build has the same conversations in the same order. Shuffled are 4-byte numbers: 0.5 us a conversation.
"""

import random
from array import array
from dataclasses import dataclass

import numpy as np

from prep.arrays import Array, offsets
from prep.mixture.checks import MOST_ROWS


@dataclass(frozen=True)
class OrderSlice:
    """Conversations that follow each other in a mixture's order."""

    entry: Array  # (n,) uint16: number of the entry
    repeat: Array  # (n,) uint16: which copy of it, from 0
    position: Array  # (n,) uint32: place in the examples that the entry selects


@dataclass(frozen=True)
class Order:
    """The conversations of a mixture, in its order, 4 bytes each; `order[a:b]` says what they are."""

    shuffled: Array  # (n,) uint32: places in the list of all copies, one after the other
    entry_of_copy: Array  # of each entry the whole copies, and last its part, which may be empty
    starts: Array  # (copies + 1,) first place of each copy
    first_copy: Array  # (entries,)
    parts: list[Array]  # of each entry: positions of its part

    def __len__(self) -> int:
        return len(self.shuffled)

    def __getitem__(self, here: slice) -> OrderSlice:
        place = self.shuffled[here]
        copy = np.searchsorted(self.starts, place, side="right") - 1
        entry, position = self.entry_of_copy[copy], (place - self.starts[copy]).astype(np.uint32)
        last_copy = np.append(self.first_copy[1:], len(self.starts) - 1) - 1  # (entries,) the part
        for number, part in enumerate(self.parts):
            if len(part):
                in_part = copy == last_copy[number]
                position[in_part] = part[position[in_part]]
        repeat = copy - self.first_copy[entry]
        return OrderSlice(entry.astype(np.uint16), repeat.astype(np.uint16), position)


def shuffle(numbers: "array[int]", seed: int) -> None:
    """random.Random(seed).shuffle(numbers), whose algorithm Python keeps, at twice its speed: no call per number."""
    bits = random.Random(seed).getrandbits
    for i in range(len(numbers) - 1, 0, -1):
        num_bits = (i + 1).bit_length()
        j = bits(num_bits)
        while j > i:
            j = bits(num_bits)
        numbers[i], numbers[j] = numbers[j], numbers[i]


def mixture_order(sizes: list[int], repeats: list[int], seed: int, parts: list[Array] | None = None) -> Order:
    """
    Sizes and repeats of the entries, and parts of them (positions, ascending; empty for none) -> their conversations
    shuffled. ValueError for more than 2**32 of them.
    """
    parts = parts or [np.zeros(0, dtype=np.int64)] * len(sizes)
    num_copies = np.array(repeats, dtype=np.int64) + 1  # (entries,) the whole ones and the part
    entry_of_copy = np.repeat(np.arange(len(sizes)), num_copies)
    copy_sizes = np.array(sizes, dtype=np.int64)[entry_of_copy]
    last_copy = np.cumsum(num_copies) - 1
    copy_sizes[last_copy] = [len(part) for part in parts]
    starts = offsets(copy_sizes)
    total = int(starts[-1])
    if total > MOST_ROWS:
        raise ValueError(
            f"{total:,} conversations in a split, at most {MOST_ROWS:,} can be shuffled: split the mixture"
        )
    numbers = array("I", range(total))
    shuffle(numbers, seed)
    shuffled = np.frombuffer(numbers, dtype=np.uint32) if total else np.zeros(0, dtype=np.uint32)
    return Order(shuffled, entry_of_copy, starts, last_copy - num_copies + 1, parts)
