"""
Does the train split ask what val, or a benchmark, asks? The cheap answer at every build, the full one on request.

    at build   counts val conversations whose hash of what the user says (kept in the blocks) is that of a train one too
    drop       [mix] drop_overlap = "exact" or "13-gram": train conversations that hold so much of a val one are left out,
               counted as "asked in val"
    full       prep.inspect.overlap over the shards: 13-grams as well, for val and for files and tasks given

    held out   ann has 3 bags with 4 apples each how many apples has she        12 words: found as a whole only
    held out   w1 w2 ... w20                                                     eight 13-grams
    another    x x w1 w2 ... w18 x                                               holds six of them: 0.75 of that text

Only what users say is compared: two conversations may have the same answer and ask something else. What midprep generates
has no hashes (its train and val rows differ by construction); the full scan and "13-gram" compare it also.

A 13-gram that more than 50 held-out texts share is a form, not content, and does not count. 13-grams are 64-bit hashes; what
might match is found by a table of bits, and polars joins what does. Memory is that of the held-out texts, about 40 bytes a
word, and of one block of others. Legend: H held-out texts.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from prep.arrays import Array, offsets
from prep.encode.decode import Decoder
from prep.plan.table import Table
from prep.render.block_cache import BlockFiles, read_block
from prep.render.text_hash import hash_texts, words

if TYPE_CHECKING:
    import polars as pl

REASON = "asked in val"
THRESHOLD = 0.5  # share of a held-out text's 13-grams that makes a copy of it

NGRAM = 13  # words: shorter ones are shared by chance
MOST_SHARED = 50  # held-out texts that may share an n-gram
FACTOR = np.uint64(0x9E3779B97F4A7C15)


# ---- exact: by the hashes that the blocks keep ----


def read_user_hashes(files: BlockFiles, rows: Array) -> Array:
    """(n,) row numbers of a source, in any order -> (n,) uint64 hashes of what the user says in each"""
    hashes = np.empty(len(rows), dtype=np.uint64)
    for number, here in files.by_block(rows):
        hashes[here] = read_block(files.paths[number]).user_hashes[rows[here] - files.starts[number]]
    return hashes


def count_overlap(train: list[Array], val: list[Array]) -> list[tuple[int, int] | None]:
    """
    User hashes of each source of train and of val -> of each val source, how many of its examples train asks too, and of
    how many; None where nothing has a hash: it is generated, so nothing was compared.
    """
    held_out = np.sort(np.concatenate(val))  # the smaller side: train's are looked up in it
    is_asked = np.zeros(len(held_out), dtype=bool)
    for hashes in train:
        place = np.minimum(np.searchsorted(held_out, hashes), len(held_out) - 1)
        is_asked[place[held_out[place] == hashes]] = True
    asked = held_out[is_asked]
    return [
        (int((np.isin(hashes, asked) & (hashes != 0)).sum()), len(hashes)) if hashes.any() else None for hashes in val
    ]


# ---- leaving out of train what val asks ----


def drop_overlap(train: Table, val: Table, decoder: Decoder | None) -> None:
    """Exclude train examples that ask what a valid one of val asks; with a decoder by 13-grams also."""
    if decoder is None:
        asked = np.concatenate([read_user_hashes(*used) for used in _used_rows(val)])
        asked = asked[asked != 0]
        for entry, (files, rows) in enumerate(_used_rows(train)):
            hit = np.isin(read_user_hashes(files, rows), asked)
            train.exclude(train.usable_places(entry)[hit], REASON)
        return
    held_out = HeldOut([text for used in _used_rows(val) for _, texts in user_texts(*used, decoder) for text in texts])
    for entry, (files, rows) in enumerate(_used_rows(train)):
        hit = np.zeros(len(rows), dtype=bool)
        for here, texts in user_texts(files, rows, decoder):
            hit[here] = held_out.match(texts) >= THRESHOLD
        train.exclude(train.usable_places(entry)[hit], REASON)


def _used_rows(table: Table) -> Iterator[tuple[BlockFiles, Array]]:
    """Blocks and row numbers of the usable examples of each entry"""
    for entry, files in enumerate(table.blocks):
        yield files, table.examples[table.usable_places(entry)].astype(np.int64)


def user_texts(files: BlockFiles, rows: Array, decoder: Decoder) -> Iterator[tuple[Array, list[bytes]]]:
    """(n,) row numbers of a source, in any order -> (places of some of them, what the user says in each), block by block"""
    for number, here in files.by_block(rows):
        block = read_block(files.paths[number])
        texts = decoder.user_texts(block.tokens, offsets(block.lengths)[:-1])
        yield here, [texts[row] for row in (rows[here] - files.starts[number]).tolist()]


# ---- n-grams ----


class HeldOut:
    """Texts that should not be among others, and how much of each was found there so far."""

    def __init__(self, texts: list[bytes]) -> None:
        import polars as pl

        self.keys = hash_texts(texts)  # (H,)
        self.known = np.unique(self.keys[self.keys != 0])
        hashes, owner = hash_ngrams(texts)
        table = pl.DataFrame({"ngram": hashes, "held": owner}).unique()
        self.table = table.filter(pl.len().over("ngram") <= MOST_SHARED)
        self.totals = np.bincount(self.table["held"].to_numpy(), minlength=len(texts))  # (H,) distinct n-grams
        self.shift = np.uint64(64 - max(16, min(30, (16 * max(self.table.height, 1)).bit_length())))
        self.maybe = np.zeros(1 << (64 - int(self.shift)), dtype=bool)  # by the first bits of a hash
        self.maybe[self.table["ngram"].to_numpy() >> self.shift] = True
        self.exact = np.zeros(len(texts), dtype=bool)
        self.share = np.zeros(len(texts))  # largest share of its n-grams that one other text holds
        self.where = np.full(len(texts), -1, dtype=np.int64)  # number of that text

    def match(self, texts: list[bytes], first: int = 0) -> Array:
        """(n,) the largest share of a held-out text that each text holds, 1 for a copy; they are numbered from `first`."""
        best = np.zeros(len(texts))
        keys = hash_texts(texts)
        copies = np.flatnonzero(np.isin(keys, self.known))
        if len(copies):
            copied, place = np.unique(keys[copies], return_index=True)
            held = np.flatnonzero(np.isin(self.keys, copied))
            self._note(held, np.ones(len(held)), first + copies[place[np.searchsorted(copied, self.keys[held])]])
            self.exact[held] = True
        pairs = self._shared_ngrams(texts)
        if pairs.height:
            text, held = pairs["text"].to_numpy(), pairs["held"].to_numpy()
            shares = pairs["len"].to_numpy() / self.totals[held]
            np.maximum.at(best, text, shares)
            self._note(held, shares, first + text.astype(np.int64))
        best[copies] = 1.0
        return best

    def _shared_ngrams(self, texts: list[bytes]) -> "pl.DataFrame":
        """text, held, len: how many distinct n-grams two texts share"""
        import polars as pl

        hashes, owner = hash_ngrams(texts)
        here = np.flatnonzero(self.maybe[hashes >> self.shift])
        shared = pl.DataFrame({"ngram": hashes[here], "text": owner[here]}).unique().join(self.table, on="ngram")
        return shared.group_by("text", "held").len()

    def _note(self, held: Array, shares: Array, numbers: Array) -> None:
        order = np.argsort(shares, kind="stable")
        held, shares, numbers = held[order], shares[order], numbers[order]
        better = shares > self.share[held]
        self.where[held[better]] = numbers[better]  # of several the last, which has the largest share
        np.maximum.at(self.share, held, shares)


def hash_ngrams(texts: list[bytes]) -> tuple[Array, Array]:
    """n texts -> (g,) hashes of all their n-grams of NGRAM words, and (g,) uint32 which text each is of"""
    import polars as pl

    if not texts:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32)
    lists = pl.Series(words(texts), dtype=pl.String).str.split(" ")
    word = lists.explode().hash(seed=0).to_numpy()
    owner = np.repeat(np.arange(len(texts), dtype=np.uint32), lists.list.len().to_numpy())
    num = len(word) - NGRAM + 1
    if num <= 0:
        return word[:0], owner[:0]
    inside = np.flatnonzero(owner[:num] == owner[NGRAM - 1 :])
    hashes = np.zeros(len(inside), dtype=np.uint64)
    for k in range(NGRAM):  # a polynomial in the words' hashes, modulo 2**64
        hashes *= FACTOR
        hashes += word[inside + k]
    return hashes, owner[inside]
