"""
What a text says once spelling is set aside, so that a copy is found though its case, spacing or punctuation has changed.

    "What is  12 - 3,\\nplease?"      squeezed   whatis12-3please               equal texts are copies
                                     words      what is 12 3 please            for runs of words they share

Unicode's NFKC and case folding, then nothing but letters and digits. Signs of arithmetic stay where they stand between two
digits: 12 - 3, 12 + 3 and 12 - -3 are other questions. So do the marks of scripts that write vowels and tones with them, as
Hindi and Thai; accents that are not part of a letter go.

A batch is joined and translated in one call. Texts that are not ASCII, or have a sign after a digit, are done again with a
table of code points that fills as characters are met; the few with combining marks, which may merge with the letter before
them, go through NFKC one by one.
"""

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_digest

from prep.arrays import Array, offsets
from prep.columns import index_array
from prep.conversations.conversation import USER, Conversations

VERSION = 2  # bumped when a text gives something else; part of the key of every run

SIGNS = "+*=<>^-"
COMMON = tuple(zip("\u2013\u2014\u2018\u2019\u201c\u201d\u2026", ("-", "-", "", "", "", "", ""), strict=True))
DASHES = re.compile("[\u2010-\u2015\u2212]")
PUNCTUATION = re.compile(
    "[\u00a1-\u00a9\u00ab-\u00b1\u00b6\u00b7\u00bb\u00bf\u200b-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011"
    "\uff01\uff08\uff09\uff0c\uff0e\uff1a\uff1b\uff1f]+"
)
# the Indic scripts, Thai, Lao, Tibetan, Burmese, Khmer and their kin
BLOCKS = "0900-109f 1700-17ff 1900-1aaf 1b00-1c4f a800-aaff abc0-abff 11000-11fff"
VOWELS = "".join(
    char
    for block in BLOCKS.split()
    for char in map(chr, range(int(block.split("-")[0], 16), int(block.split("-")[1], 16) + 1))
    if unicodedata.category(char)[0] == "M"
)
DROPPED = re.compile(rf"[^\w{re.escape(SIGNS)}×÷{VOWELS}]|_")
OTHER_SIGNS = ("×".encode(), "÷".encode())
# signs side by side with no digit before the first or none after the last
STRAY = re.compile("(?<![0-9{0}])[{0}]+|(?<=[0-9])[{0}]+(?![0-9{0}])".format(re.escape(SIGNS)).encode())
STRAY_OTHER = re.compile(r"(?<![\d{0}])[{0}]+|(?<=\d)[{0}]+(?![\d{0}])".format(re.escape(SIGNS) + "×÷"))
DIGIT = re.compile(r"\d")
NO_WORD = re.compile(rf"[^\w\s{VOWELS}]|_")

LOWER = bytes(i + 32 if chr(i) in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" else i for i in range(256))
KEPT = {i for i in range(128) if chr(i).isalnum()} | set(SIGNS.encode())
DELETED = bytes(i for i in range(128) if i not in KEPT)
DELETED_AND_SIGNS = DELETED + SIGNS.encode()
IS_DROPPED, IS_DIGIT = np.zeros((2, 256), dtype=bool)
IS_DROPPED[list(DELETED_AND_SIGNS)] = IS_DIGIT[list(b"0123456789")] = True
FAR = 16
NEWLINE = ord("\n")  # dropped by every text
CLASSES = bytes(ord("0") if 48 <= i < 58 else ord("-") if chr(i) in SIGNS else 0 for i in range(256))
NOTHING = bytes(8)
SEPARATOR = b"\xff"  # no UTF-8 text has it
NOT_SPACE_OR_WORD = bytes(i for i in range(128) if not (chr(i).isalnum() or chr(i).isspace()))


def squeezed(text: bytes) -> bytes:
    """
    Letters and digits of a text in UTF-8, and the signs between digits

    >>> squeezed(b"A 20-minute run, 12 - 3!"), squeezed("Ｎａïve".encode())
    (b'a20minuterun12-3', b'na\\xc3\\xafve')
    """
    return _squeezed(text.translate(LOWER, DELETED))


def _squeezed(data: bytes) -> bytes:
    """`squeezed` of a text without the ASCII that it drops"""
    if data.isalnum():  # nothing but ASCII, and no sign
        return data
    if data.isascii() and not (b"0-" in (classes := data.translate(CLASSES)) and b"-0" in classes):
        return data.translate(None, SIGNS.encode())  # no sign stays: most texts
    if not data.isascii():
        data = _kept(data.decode("utf-8", "ignore"))
    if len(data.translate(None, SIGNS.encode())) == len(data) and not any(sign in data for sign in OTHER_SIGNS):
        return data
    return STRAY.sub(b"", data) if data.isascii() else STRAY_OTHER.sub("", data.decode()).encode()


def _kept(text: str) -> bytes:
    """Letters, digits and signs of a text, folded"""
    left = _folded(text)
    return left.encode().translate(LOWER, DELETED) if left.isascii() else DROPPED.sub("", left).encode()


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
    return DASHES.sub("-", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def hash_texts(texts: list[bytes]) -> Array:
    """(n,) uint64 hashes of texts squeezed; 0 for one of which nothing is left, which is a copy of nothing"""
    return _hash_joined(SEPARATOR.join([*texts, b""]), offsets([len(text) + 1 for text in texts])[1:] - 1)


def _hash_joined(joined: bytes, ends: Array) -> Array:
    """`hash_texts` of (n,) texts with a separator after each, at `ends`"""
    if not len(ends):
        return np.zeros(0, dtype=np.uint64)
    left = joined.translate(LOWER, DELETED_AND_SIGNS).split(SEPARATOR)[:-1]
    odd = ~np.fromiter(map(bytes.isascii, left), dtype=bool, count=len(left))
    odd[np.searchsorted(ends, _before_signs(joined))] = True
    starts = np.append(0, ends + 1)
    others = [(int(i), joined[starts[i] : ends[i]]) for i in np.flatnonzero(odd)]
    for (i, _), data in zip(others, _squeezed_together([text for _, text in others]), strict=True):
        left[i] = data
    digests = [xxh3_64_digest(data) if data else NOTHING for data in left]
    return np.frombuffer(b"".join(digests), dtype=">u8").astype("<u8")


def _before_signs(joined: bytes) -> Array:
    """
    Places of the ASCII digits before a sign, as in "12 - 3". Where more than FAR dropped characters lie between, a place
    among them: it is in the same text, which is all that is asked.
    """
    data = np.frombuffer(joined, dtype=np.uint8)
    # unsigned: a byte below wraps around
    is_sign = (data - ord("*") < 2) | (data == ord("-")) | (data - ord("<") < 3) | (data == ord("^"))
    places = np.flatnonzero(is_sign[1:] & ~is_sign[:-1])  # before the first of signs side by side
    found = []
    for _ in range(FAR):  # back over what is dropped, and over other signs
        found.append(places[IS_DIGIT[data[places]]])
        places = places[IS_DROPPED[data[places]]] - 1
    return np.concatenate([*found, places])


class _CodePoints:
    """What is left of each code point; entries are made when the first text has it."""

    UNKNOWN, JOINS, DROP = -1, -2, 0

    def __init__(self) -> None:
        self.left = np.full(0x110000, self.UNKNOWN, dtype=np.int32)  # another code point, or one of the above
        self.is_digit, self.is_sign = (np.zeros(0x110000, dtype=bool) for _ in range(2))  # of what is left
        self.left[NEWLINE] = NEWLINE  # between two texts

    def __call__(self, codes: Array) -> Array:
        """(n,) code points -> (n,) int32 what is left of them"""
        left: Array = self.left[codes]
        if (unknown := left == self.UNKNOWN).any():
            for code in np.unique(codes[unknown]).tolist():
                self._look_up(code)
            left = self.left[codes]
        return left

    def _look_up(self, code: int) -> None:
        kept = _kept(chr(code)).decode()
        joins = len(kept) > 1 or any(
            _joins(char) for char in (chr(code), kept, unicodedata.normalize("NFKC", chr(code)))
        )
        self.left[code] = self.JOINS if joins else ord(kept) if kept else self.DROP
        if len(kept) == 1:
            self.is_digit[ord(kept)] = bool(DIGIT.match(kept))
            self.is_sign[ord(kept)] = kept in SIGNS + "×÷"


def _joins(text: str) -> bool:
    """Whether it holds marks or Hangul letters that may become one character with what is before them"""
    return any(
        unicodedata.category(c)[0] == "M" or "\u1160" <= c <= "\u11ff" or "\ud7b0" <= c <= "\ud7ff" for c in text
    )


_code_points = _CodePoints()


def _squeezed_together(texts: list[bytes]) -> list[bytes]:
    """`squeezed` of each text"""
    if not texts:
        return []
    raw = SEPARATOR.join(texts).translate(LOWER, DELETED).split(SEPARATOR)
    codes = np.frombuffer(b"\n".join(raw).decode("utf-8", "ignore").encode("utf-32-le"), dtype=np.uint32)
    left = _code_points(codes)
    slow = np.flatnonzero(left == _CodePoints.JOINS)
    left = _without_stray_signs(left[left > 0])
    out = left.astype("<u4").tobytes().decode("utf-32-le").encode().split(b"\n")
    for i in np.unique(np.searchsorted(np.flatnonzero(codes == NEWLINE), slow)).tolist():
        out[i] = _squeezed(raw[i])
    return out


def _without_stray_signs(left: Array) -> Array:
    """(n,) code points of texts, a line each, without the signs that `STRAY` finds"""
    signs = np.flatnonzero(_code_points.is_sign[left])
    if not len(signs):
        return left
    runs = np.flatnonzero(np.diff(signs, prepend=-2) > 1)  # signs side by side, by the first of them
    first, last = signs[runs], signs[np.append(runs[1:], len(signs)) - 1]
    around = np.pad(left, 1)
    stays = _code_points.is_digit[around[first]] & _code_points.is_digit[around[last + 2]]
    return np.delete(left, signs[np.repeat(~stays, np.diff(np.append(runs, len(signs))))])


def asked(batch: Conversations) -> Array:
    """(C,) hashes of what the user says in each conversation, all turns together"""
    said = batch.roles == USER
    parts = np.flatnonzero(np.repeat(said, np.diff(batch.parts)))
    stops = offsets(np.where(said, np.diff(batch.parts), 0))[batch.messages]  # (C + 1,) of those parts
    speaks = np.diff(stops) > 0  # (C,)
    last = np.zeros(len(parts), dtype=bool)
    last[stops[1:][speaks] - 1] = True
    texts = batch.texts.take(index_array(parts)).cast(pa.large_binary())
    marks = pa.py_buffer(offsets(last)), pa.py_buffer(SEPARATOR * int(last.sum()))
    separators = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(parts), [None, *marks])
    joined = pc.binary_join_element_wise(texts, separators, pa.scalar(b"", pa.large_binary()))
    ends = np.frombuffer(joined.buffers()[1], dtype=np.int64)[stops[1:][speaks]] - 1
    hashes = np.zeros(len(batch), dtype=np.uint64)
    hashes[speaks] = _hash_joined((joined.buffers()[2] or pa.py_buffer(b"")).to_pybytes(), ends)
    return hashes
