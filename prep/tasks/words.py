"""
The words of the spelling tasks, and the random choices of every generated task.

    choose("42/train/letter", [0, 1, 2], 26)  ->  [10 11 25]      what row i draws depends on the name and on i alone

A generated row is a pure function of its number: choices come from SplitMix64 used as a counter-based hash, not from a
generator with a state. So any block can be made anywhere, in any order, by any version of numpy. The price is that each
choice needs its own name: two choices of the same name are the same choice.

A hash of its letters alone puts a word in train or, 1 word in 20, in test, for both spelling tasks and for any list of
words. Legend: C rows of a block, N words, L letters of all of them.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array
from prep.columns import index_array, text_array

DATA = Path(__file__).parents[1] / "data"
WORDS_PATH = DATA / "words.txt.zst"
TEST_SHARE = 20  # one word in 20 is for test
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


def mix(x: Array) -> Array:
    """uint64 -> uint64, the output function of SplitMix64 (Steele, Lea and Flood, 2014, as published by Vigna)"""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def random_bits(stream: str, rows: Array) -> Array:
    """
    (C,) row numbers -> (C,) uint64, a different sequence for each name of a stream

    >>> random_bits("a", np.arange(2)) % 1000
    array([506, 720], dtype=uint64)
    """
    key = np.uint64(int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little"))
    return mix(key + (rows.astype(np.uint64) + np.uint64(1)) * ODD)


def choose(stream: str, rows: Array, num: int | Array) -> Array:
    """
    (C,) row numbers -> (C,) int64 in [0, num); num is a number or (C,), below 2**31

    >>> choose("42/train/letter", np.arange(3), 26)
    array([10, 11, 25])
    """
    high = random_bits(stream, rows) >> np.uint64(32)
    return ((high * np.asarray(num, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


def letters_of(strings: pa.LargeStringArray) -> tuple[Array, Array]:
    """C strings -> (L,) uint8 bytes of all of them and (C + 1,) int64 offsets, without a copy"""
    _, starts, data = strings.buffers()
    bounds = np.frombuffer(starts, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]], bounds - bounds[0]


def strings_of(data: Array, bounds: Array) -> pa.LargeStringArray:
    """(L,) uint8 UTF-8 bytes, (C + 1,) int64 offsets -> C strings, without a copy"""
    return pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(data))


def join(*columns: Any) -> pa.LargeStringArray:
    """strings and C-long arrays of strings -> C strings, joined row by row"""
    scalars = [_scalar(c) if isinstance(c, str) else c for c in columns]
    return pc.binary_join_element_wise(*scalars, _scalar(""))


@functools.lru_cache(maxsize=1024)
def _scalar(text: str) -> pa.LargeStringScalar:
    return text_array([text])[0]


def spelled(words: pa.LargeStringArray) -> pa.LargeStringArray:
    """apple -> :a,p,p,l,e"""
    letters, bounds = letters_of(words)
    pairs = np.full((len(letters), 2), ord(","), dtype=np.uint8)  # (L, 2): what stands before a letter, the letter
    pairs[bounds[:-1], 0] = ord(":")
    pairs[:, 1] = letters
    return strings_of(pairs.reshape(-1), bounds * 2)


def is_test_word(words: pa.LargeStringArray) -> Array:
    """N words, none of them empty -> (N,) bool: a function of the letters of each"""
    letters, bounds = letters_of(words)
    lengths = np.diff(bounds)
    powers = ODD ** np.arange(lengths.max(initial=0), dtype=np.uint64)  # 1, ODD, ODD**2, ... modulo 2**64
    sums = np.zeros(len(words), dtype=np.uint64)
    left = np.flatnonzero(lengths)  # words that have a letter at this place
    for place, power in enumerate(powers):
        left = left[lengths[left] > place]
        sums[left] += letters[bounds[left] + place] * power
    is_test: Array = mix(sums) % np.uint64(TEST_SHARE) == 0
    return is_test


@functools.cache
def word_list() -> pa.LargeStringArray:
    """All words, lower case a-z, each once, in the order of the file"""
    with pa.input_stream(WORDS_PATH, compression="zstd") as file:
        text = np.frombuffer(file.read(), dtype=np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    bounds = np.concatenate([[0], ends - np.arange(len(ends))])
    return strings_of(text[text != ord("\n")], bounds)


@functools.cache
def split_words(split: str) -> pa.LargeStringArray:
    """The words of "train" or of "test" """
    words = word_list()
    return words.take(index_array(np.flatnonzero(is_test_word(words) == (split == "test"))))


@functools.lru_cache(maxsize=8)
def word_order(split: str, stream: str) -> Array:
    """A permutation of the words of the split"""
    # random_bits is one to one in the row number: no two keys are equal, so every sorting algorithm gives the same order
    order: Array = np.argsort(random_bits(stream, np.arange(len(split_words(split)))))
    return order


def words_of_rows(rows: Array, split: str, stream: str) -> pa.LargeStringArray:
    """(C,) row numbers -> C words: no word comes again before every word of the split has come once"""
    order = word_order(split, stream)
    return split_words(split).take(index_array(order[rows % len(order)]))
