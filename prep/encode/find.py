"""
Find texts that need a closer look, in columns: by some code points, or by some words, at about 1 GB/s.

    ["Hi", "cafe\u0301", "a<think>b"]   ->   data  H i c a f e CC 81 a < t h i n k > b
                                             bytes >= C0: place 6;  bytes "<": place 9       ->   [False, True, True]

Most bytes are seen once, by one comparison; a character outside ASCII is looked up by its first two bytes, and decoded only
where these may begin one that is wanted.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final

import numpy as np
import pyarrow as pa

from prep.arrays import Array
from prep.tokenizer.added import may_change
from prep.tokenizer.tokenizer import Tokenizer

# bytes; runs of about a million spaces overflow tiktoken's regex, the other engines encode them
LONG_TEXT: Final = 100_000
DENSE: Final = 8  # where one byte in so many begins a character outside ASCII, all pairs of bytes are looked up
# white space but for \n and \r, in UTF-8 as numbers, by how many bytes it has
_SPACES: Final = "\t\v\f \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
SPACES: Final = {n: [int.from_bytes(c.encode()) for c in _SPACES if len(c.encode()) == n] for n in (1, 2, 3)}


class CodePoints:
    """Finds code points outside ASCII"""

    def __init__(self, code_points: Iterable[int]) -> None:
        self.is_wanted = np.zeros(0x110000, dtype=bool)
        # by the first two bytes, and by the second and third: most characters need no closer look
        self.may_begin, self.may_go_on = np.zeros(1 << 16, dtype=bool), np.zeros(1 << 16, dtype=bool)
        for code in code_points:
            first, second, *more = chr(code).encode("utf-8", "surrogatepass")
            self.is_wanted[code] = self.may_begin[first << 8 | second] = True
            if more:
                self.may_go_on[second << 8 | more[0]] = True
        self.is_empty = not self.is_wanted.any()

    def places(self, data: Array) -> Array:
        """Where in texts (n,) uint8 they begin"""
        if self.is_empty:
            return np.zeros(0, dtype=np.int64)
        is_first = data >= 0xC0  # of characters outside ASCII: at least one byte follows
        if np.count_nonzero(is_first) * DENSE > len(data):
            places = np.flatnonzero(self.may_begin[data[:-1].astype(np.uint16) << 8 | data[1:]])
        else:
            places = np.flatnonzero(is_first)
            places = places[self.may_begin[data[places].astype(np.uint16) << 8 | data[places + 1]]]
        third = data[np.minimum(places + 2, len(data) - 1)]
        goes_on = self.may_go_on[data[places + 1].astype(np.uint16) << 8 | third]
        places = places[goes_on | (data[places] < 0xE0)]
        codes = data[places].astype(np.int32)
        num_bytes = 2 + (codes >= 0xE0) + (codes >= 0xF0)
        codes &= 0x7F >> num_bytes
        for i in (1, 2, 3):
            next_bits = data[np.minimum(places + i, len(data) - 1)] & 0x3F
            codes = np.where(i < num_bytes, codes << 6 | next_bits, codes)
        wanted: Array = places[self.is_wanted[codes]]
        return wanted


class Words:
    """Finds words: by the first byte of each, where that is there by the next, as long as a word goes on so"""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(word.encode() for word in words)

    def places(self, data: Array) -> tuple[Array, Array]:
        """Where in texts (n,) uint8 they begin, and end"""
        starts, stops = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for places, length in self._narrow(data, None, self.words, 0):
            starts.append(places)
            stops.append(places + length)
        return np.concatenate(starts), np.concatenate(stops)

    def _narrow(self, data: Array, places: Array | None, words: list[bytes], n: int) -> Iterator[tuple[Array, int]]:
        """(places, length) of each of the words, which share their first n bytes; these are at `places`"""
        following = None if places is None else data[np.minimum(places + n, len(data) - 1)]
        for byte, group in groupby((word for word in words if len(word) > n), key=itemgetter(n)):
            longer = list(group)
            if places is None or following is None:
                further = np.flatnonzero(data == byte)
            else:
                further = places[(following == byte) & (places + n < len(data))]
            if len(further):
                if len(longer[0]) == n + 1:
                    yield further, n + 1
                yield from self._narrow(data, further, longer, n + 1)


class RiskyTexts:
    """
    Finds texts that go through tiktoken: long ones, those with a NUL or one of some code points outside ASCII, and, with
    `ends`, those that end in white space other than a line end.
    """

    def __init__(self, code_points: Iterable[int], ends: bool = False) -> None:
        self.code_points, self.ends = CodePoints(code_points), ends

    def __call__(self, texts: pa.LargeStringArray) -> Array:
        """P texts -> (P,) bool"""
        bounds, data = bytes_of(texts)
        places = self.code_points.places(data)
        if len(data) and not data.min():
            places = np.append(places, np.flatnonzero(data == 0))
        out: Array = np.diff(bounds) > LONG_TEXT
        if self.ends:
            out |= _end_in_space(bounds, data)
        out[text_at(places, bounds)] = True
        return out


def _end_in_space(bounds: Array, data: Array) -> Array:
    """P texts -> (P,) bool: those whose last character is white space, line ends aside"""
    last = np.zeros((3, len(bounds) - 1), dtype=np.uint32)
    for i in range(3):
        is_there = np.diff(bounds) > i
        last[i, is_there] = data[bounds[1:][is_there] - 1 - i]
    one, two = last[0], last[1] << 8 | last[0]
    return np.isin(one, SPACES[1]) | np.isin(two, SPACES[2]) | np.isin(last[2] << 16 | two, SPACES[3])


class ChangedTexts:
    """Finds texts that hold an added token, or that the normalizer may change."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.words = Words(tokenizer.added_tokens)
        self.code_points = CodePoints(may_change() if tokenizer.normalizer else ())

    def __call__(self, texts: pa.LargeStringArray) -> Array:
        """P texts -> (P,) bool"""
        bounds, data = bytes_of(texts)
        starts, stops = self.words.places(data)
        first, last = text_at(starts, bounds), text_at(stops - 1, bounds)
        out = np.zeros(len(texts), dtype=bool)
        out[first[first == last]] = True
        out[text_at(self.code_points.places(data), bounds)] = True
        return out


def bytes_of(texts: pa.LargeStringArray) -> tuple[Array, Array]:
    """P texts -> where each begins and the last one ends, (P + 1,) int64 from 0 on, and their bytes (n,) uint8"""
    bounds = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", dtype=np.uint8)[bounds[0] : bounds[-1]]
    return bounds - bounds[0], data


def text_at(places: Array, bounds: Array) -> Array:
    """The number of the text that each place is in"""
    return np.searchsorted(bounds, places, side="right") - 1
