"""
What a text says once spelling is set aside, so that a copy is found though its case, spacing or punctuation has changed.

    "What is  12 - 3,\\nplease?"      squeezed   whatis12-3please               equal texts are copies
                                     words      what is 12 3 please            for runs of words they share

Unicode's NFKC and case folding, then nothing but letters and digits. A sign of arithmetic stays where it stands between two
digits: 12 - 3 and 12 + 3 are other questions. ASCII goes first, by tables.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_digest

from prep.conversation import USER, Conversations, index_array, offsets

VERSION = 1  # bumped when a text gives something else; part of the key of every run

SIGNS = "+*=<>^-"
COMMON = tuple(zip("\u2013\u2014\u2018\u2019\u201c\u201d\u2026", ("-", "-", "", "", "", "", ""), strict=True))
DASHES = re.compile("[\u2010-\u2015\u2212]")
PUNCTUATION = re.compile(
    "[\u00a1-\u00a9\u00ab-\u00b1\u00b6\u00b7\u00bb\u00bf\u200b-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011"
    "\uff01\uff08\uff09\uff0c\uff0e\uff1a\uff1b\uff1f]+"
)
DROPPED = re.compile(rf"[^\w{re.escape(SIGNS)}×÷]|_")
OTHER_SIGNS = ("×".encode(), "÷".encode())
# a sign with no digit on one side or none on the other; a pattern that starts with what it looks for is fast
STRAY = re.compile(rf"[{re.escape(SIGNS)}](?:(?<![0-9].)|(?![0-9]))".encode())
STRAY_OTHER = re.compile(rf"[{re.escape(SIGNS)}×÷](?:(?<!\d.)|(?!\d))")
NO_WORD = re.compile(r"[^\w\s]|_")

LOWER = bytes(i + 32 if chr(i) in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" else i for i in range(256))
KEPT = {i for i in range(128) if chr(i).isalnum()} | set(SIGNS.encode())
DELETED = bytes(i for i in range(128) if i not in KEPT)
CLASSES = bytes(ord("0") if 48 <= i < 58 else ord("-") if chr(i) in SIGNS else 0 for i in range(256))
NOTHING = bytes(8)
NOT_SPACE_OR_WORD = bytes(i for i in range(128) if not (chr(i).isalnum() or chr(i).isspace()))

Array = npt.NDArray[np.uint64]


def squeezed(text: bytes) -> bytes:
    """
    Letters and digits of a text in UTF-8, and the signs between digits

    >>> squeezed(b"A 20-minute run, 12 - 3!"), squeezed("Ｎａïve".encode())
    (b'a20minuterun12-3', b'na\\xc3\\xafve')
    """
    data = text.translate(LOWER, DELETED)
    if data.isalnum():  # nothing but ASCII, and no sign
        return data
    if data.isascii() and b"0-0" not in data.translate(CLASSES):  # no sign that stays: most texts
        return data.translate(None, SIGNS.encode())
    if not data.isascii():
        left = _folded(data.decode("utf-8", "ignore"))
        data = left.encode().translate(LOWER, DELETED) if left.isascii() else DROPPED.sub("", left).encode()
    if len(data.translate(None, SIGNS.encode())) == len(data) and not any(sign in data for sign in OTHER_SIGNS):
        return data
    return STRAY.sub(b"", data) if data.isascii() else STRAY_OTHER.sub("", data.decode()).encode()


def words(text: bytes) -> str:
    """
    The words of a text in UTF-8, with one space between them

    >>> words(b"Don't\\tpanic - it's 12,000!")
    'dont panic its 12000'
    """
    data = text.translate(LOWER, NOT_SPACE_OR_WORD)
    left = data.decode("utf-8", "ignore")
    return " ".join((left if data.isascii() else NO_WORD.sub("", _folded(left))).split())


def _folded(text: str) -> str:
    """NFKC and case folding, all dashes the one on the keyboard, common punctuation gone: that alone may leave ASCII"""
    for mark, instead in COMMON:
        text = text.replace(mark, instead)
    if text.isascii():
        return text
    text = PUNCTUATION.sub("", DASHES.sub("-", text))
    folded = text.casefold()
    if folded == text and unicodedata.is_normalized("NFKC", text):
        return text
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def hash_texts(texts: Iterable[bytes]) -> Array:
    """(n,) 64-bit hashes of texts squeezed; 0 for one of which nothing is left, which is a copy of nothing"""
    digests = [xxh3_64_digest(data) if (data := squeezed(text)) else NOTHING for text in texts]
    return np.frombuffer(b"".join(digests), dtype=">u8").astype("<u8") if digests else np.zeros(0, dtype=np.uint64)


def asked(batch: Conversations) -> Array:
    """(C,) hashes of what the user says in each conversation, all turns together"""
    said = batch.roles == USER
    parts = np.flatnonzero(np.repeat(said, np.diff(batch.parts)))
    if not len(parts):
        return np.zeros(len(batch), dtype=np.uint64)
    texts = batch.texts.take(index_array(parts))  # those of a conversation lie side by side: a slice is all of them
    starts = np.frombuffer(texts.buffers()[1], dtype=np.int64)
    bounds = starts[offsets(np.where(said, np.diff(batch.parts), 0))[batch.messages]].tolist()
    data = texts.buffers()[2].to_pybytes()
    return hash_texts(data[a:b] for a, b in pairwise(bounds))
