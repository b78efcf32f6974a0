"""
Copies of held-out texts among others: the same text once normalized, or so many of its runs of 13 words.

    held out    ann has 3 bags with 4 apples each how many apples has she         12 words: found as a whole only
    held out    w1 w2 ... w20                                                     8 runs of 13 words
    another     x x w1 w2 ... w18 x                                               holds 6 of them: 0.75 of that text

A run of words that more than 50 held-out texts share is a form, not content, and does not count. Runs are 64-bit hashes;
what might match is found by a table of bits, and polars joins what does. Memory is that of the held-out texts, about 40
bytes a word, and of one block of others.
"""

from typing import TYPE_CHECKING

import numpy as np

from prep.arrays import Array
from prep.render.text_hash import hash_texts, words

if TYPE_CHECKING:
    import polars as pl

LENGTH = 13  # words of a run: shorter ones are shared by chance
FORM = 50  # so many held-out texts may share a run
FACTOR = np.uint64(0x9E3779B97F4A7C15)


class HeldOut:
    """Texts that should not be among others, and what of them has been found there so far."""

    def __init__(self, texts: list[bytes]) -> None:
        import polars as pl

        self.keys = hash_texts(texts)  # (H,)
        self.known = np.unique(self.keys[self.keys != 0])
        hashes, owner = runs_of_words(texts)
        table = pl.DataFrame({"run": hashes, "held": owner}).unique()
        self.table = table.filter(pl.len().over("run") <= FORM)
        self.totals = np.bincount(self.table["held"].to_numpy(), minlength=len(texts))  # (H,) distinct runs
        self.shift = np.uint64(64 - max(16, min(30, (16 * max(self.table.height, 1)).bit_length())))
        self.maybe = np.zeros(1 << (64 - int(self.shift)), dtype=bool)
        self.maybe[self.table["run"].to_numpy() >> self.shift] = True
        self.exact = np.zeros(len(texts), dtype=bool)
        self.share = np.zeros(len(texts))  # largest part of its runs that one other text holds
        self.where = np.full(len(texts), -1, dtype=np.int64)  # number of that text

    def match(self, texts: list[bytes], first: int = 0) -> Array:
        """(n,) the largest part of a held-out text that each text holds, 1 for a copy; they are numbered from `first`."""
        best = np.zeros(len(texts))
        keys = hash_texts(texts)
        copies = np.flatnonzero(np.isin(keys, self.known))
        if len(copies):
            some, place = np.unique(keys[copies], return_index=True)
            found = np.flatnonzero(np.isin(self.keys, some))
            self._note(found, np.ones(len(found)), first + copies[place[np.searchsorted(some, self.keys[found])]])
            self.exact[found] = True
        pairs = self._pairs(texts)
        if pairs.height:
            text, held = pairs["text"].to_numpy(), pairs["held"].to_numpy()
            shares = pairs["len"].to_numpy() / self.totals[held]
            np.maximum.at(best, text, shares)
            self._note(held, shares, first + text.astype(np.int64))
        best[copies] = 1.0
        return best

    def _pairs(self, texts: list[bytes]) -> "pl.DataFrame":
        """text, held, len: how many distinct runs of words two texts share"""
        import polars as pl

        hashes, owner = runs_of_words(texts)
        some = np.flatnonzero(self.maybe[hashes >> self.shift])
        shared = pl.DataFrame({"run": hashes[some], "text": owner[some]}).unique().join(self.table, on="run")
        return shared.group_by("text", "held").len()

    def _note(self, held: Array, shares: Array, numbers: Array) -> None:
        order = np.argsort(shares, kind="stable")
        held, shares, numbers = held[order], shares[order], numbers[order]
        better = shares > self.share[held]
        self.where[held[better]] = numbers[better]  # of several the last, which has the largest share
        np.maximum.at(self.share, held, shares)


def runs_of_words(texts: list[bytes]) -> tuple[Array, Array]:
    """n texts -> (r,) hashes of all their runs of LENGTH words, and (r,) uint32 which text each is of"""
    import polars as pl

    if not texts:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32)
    lists = pl.Series(words(texts), dtype=pl.String).str.split(" ")
    counts = lists.list.len().to_numpy()
    word = lists.explode().hash(seed=0).to_numpy()
    owner = np.repeat(np.arange(len(texts), dtype=np.uint32), counts)
    num = len(word) - LENGTH + 1
    if num <= 0:
        return word[:0], owner[:0]
    inside = np.flatnonzero(owner[:num] == owner[LENGTH - 1 :])
    out = np.zeros(len(inside), dtype=np.uint64)
    for k in range(LENGTH):  # a polynomial in the words' hashes, modulo 2**64
        out *= FACTOR
        out += word[inside + k]
    return out, owner[inside]
