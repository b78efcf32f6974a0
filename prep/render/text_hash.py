"""
Hashes of texts that do not depend on spelling, so that a copy is found though case, spacing or punctuation has changed.

    "What is  12 - 3,\\nplease?"      normalized   whatis12-3please               equal texts are copies
                                     words        what is 12 3 please            what 13-grams are made of

NFKC and lower case (ß as ss, ς as σ), then only letters and digits. Signs of arithmetic stay between two digits: 12 - 3,
12 + 3 and 12 - -3 are different questions. So do the marks of scripts that write vowels and tones with them, such as Hindi
and Thai; accents that are not part of a letter are dropped.

Texts in ASCII that have no sign between digits take one pass over the bytes of the batch (1.5 us for 139 bytes); the others
go through pyarrow.compute (4.3 us for 74 bytes).
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_digest

from prep.arrays import Array, offsets
from prep.columns import binary_array, index_array, text_array
from prep.conversations.conversation import USER, Conversations

VERSION = 3  # bumped when a text gives another hash; part of the key of every block

SIGN_BYTES = b"+*=<>^-"
ASCII_SIGNS = re.escape(SIGN_BYTES.decode())
SIGNS = ASCII_SIGNS + "×÷"
DASHES = "[\u2010-\u2015\u2212]"
# blocks of the Indic scripts, Thai, Lao, Tibetan, Burmese, Khmer and related ones: their marks stay
VOWEL_MARKS = "\u0900-\u109f\u1700-\u17ff\u1900-\u1aaf\u1b00-\u1c4f\ua800-\uaaff\uabc0-\uabff\U00011000-\U00011fff"
NOT_NORMALIZED = (  # for RE2, one after the other
    (rf"[^\pL\pN\pM{SIGNS}\x00]", ""),
    (rf"[^\pL\pN{SIGNS}{VOWEL_MARKS}\x00]", ""),
    (rf"(^|[^\p{{Nd}}{SIGNS}])[{SIGNS}]+", r"\1"),  # no digit before the signs
    (rf"[{SIGNS}]+([^\p{{Nd}}{SIGNS}]|$)", r"\1"),  # or none after them
)
SPACE = r"\pZ\t-\r\x1c-\x1f\x85"  # what str.split splits at
NOT_WORDS = ((rf"[^\pL\pN\pM{SPACE}\x00]", ""), (rf"[^\pL\pN{SPACE}{VOWEL_MARKS}\x00]", ""))
NOT_PLAIN = rf"[\x80-\xff]|[0-9][^0-9A-Za-z]*[{ASCII_SIGNS}][^0-9A-Za-z]*[0-9]"  # for bytes

LOWER = bytes.maketrans(bytes(range(ord("A"), ord("Z") + 1)), bytes(range(ord("a"), ord("z") + 1)))
NOT_ALNUM = bytes(i for i in range(128) if not chr(i).isalnum())
NOT_ALNUM_OR_SIGN = NOT_ALNUM.translate(None, SIGN_BYTES)
NOT_ALNUM_OR_SPACE = bytes(i for i in NOT_ALNUM if not chr(i).isspace())
# first byte of a mark or letter that may join the one before it; what is dropped between the two keeps them apart till then
JOINING = re.compile(rb"[\xcc\xcd\xd2\xd6-\xdf\xe0-\xe3\xea\xef\xf0](?<=[\x00-/:-@[-`{-\x7f].)", re.DOTALL)
PUNCTUATION = re.compile(rb"\xe2\x80[\x93\x94\x98\x99\x9c\x9d\xa6]")  # – — ‘ ’ “ ” …, the dashes first
NO_WIDTH_SPACE = "\u200b".encode()
SEPARATOR = b"\xff"  # in no UTF-8 text
NOTHING = bytes(8)


def normalized(texts: list[bytes]) -> list[bytes]:
    """
    What is left of each of n texts in UTF-8; bytes that are not UTF-8 are dropped.

    >>> normalized([b"A 20-minute run, 12 - 3!", "Ｎａïve".encode()])
    [b'a20minuterun12-3', b'na\\xc3\\xafve']
    """
    left = _lower(texts, NOT_ALNUM)
    others = _find_not_plain(texts)
    # quotes, dashes and dots that are not ASCII are the commonest reason, and texts are plain without them
    typed = PUNCTUATION.sub(_plain_punctuation, SEPARATOR.join(texts[i] for i in others)).split(SEPARATOR)
    for i, lower in zip(others, _lower(typed, NOT_ALNUM), strict=False):
        left[i] = lower
    rare = _find_not_plain(typed) if others else []
    folded = _folded(_lower(_keep_apart([typed[i] for i in rare]), NOT_ALNUM_OR_SIGN), NOT_NORMALIZED)
    for i, text in zip(rare, folded, strict=True):
        left[others[i]] = text.encode()
    return left


def _find_not_plain(texts: list[bytes]) -> list[int]:
    """Places of the texts that are not ASCII, or have signs between digits"""
    places: list[int] = pc.indices_nonzero(pc.match_substring_regex(binary_array(texts), NOT_PLAIN)).to_pylist()
    return places


def _plain_punctuation(match: re.Match[bytes]) -> bytes:
    return b"-" if match[0] in (b"\xe2\x80\x93", b"\xe2\x80\x94") else b"'"


def words(texts: list[bytes]) -> list[str]:
    """
    The words of each of n texts in UTF-8, with one space between them.

    >>> words([b"Don't\\tpanic - it's 12,000!"])
    ['dont panic its 12000']
    """
    left = _lower(_keep_apart(texts), NOT_ALNUM_OR_SPACE)
    folded = iter(_folded([text for text in left if not text.isascii()], NOT_WORDS))
    return [" ".join((text.decode() if text.isascii() else next(folded)).split()) for text in left]


def _lower(texts: list[bytes], dropped: bytes) -> list[bytes]:
    """n texts without the ASCII characters `dropped`, and in lower case as far as they are ASCII"""
    return SEPARATOR.join(texts).translate(LOWER, dropped).split(SEPARATOR) if texts else []


def _keep_apart(texts: list[bytes]) -> list[bytes]:
    """n texts with a space of no width where NFKC would join what a dropped character is between"""
    return JOINING.sub(NO_WIDTH_SPACE + rb"\g<0>", SEPARATOR.join(texts)).split(SEPARATOR) if texts else []


def _folded(texts: list[bytes], patterns: tuple[tuple[str, str], ...]) -> list[str]:
    """n texts without NUL in NFKC and lower case, with what the patterns match replaced; all texts as one, NUL between"""
    if not texts:  # to compile the patterns takes a few milliseconds
        return []
    # NFKC makes capitals (℃ is °C), and composes some accents with small letters only: lower case before it and after
    left = text_array([b"\0".join(texts).decode("utf-8", "ignore")])
    left = pc.utf8_lower(pc.utf8_normalize(pc.utf8_lower(left), "NFKC"))
    for pattern, replacement in (("ß", "ss"), ("ς", "σ"), (DASHES, "-"), *patterns):
        left = pc.replace_substring_regex(left, pattern, replacement)
    joined: str = left[0].as_py()
    return joined.split("\0")


def hash_texts(texts: list[bytes]) -> Array:
    """(n,) uint64 hashes of n texts once normalized; 0 where nothing is left, which is a copy of nothing"""
    digests = [xxh3_64_digest(text) if text else NOTHING for text in normalized(texts)]
    return np.frombuffer(b"".join(digests), dtype=">u8").astype("<u8")


def hash_user_texts(batch: Conversations) -> Array:
    """(C,) uint64 hashes of what the user says in each conversation, all turns together"""
    is_user = np.repeat(batch.roles == USER, np.diff(batch.parts))  # (P,)
    bounds = offsets(is_user)[batch.parts[batch.messages]]  # (C + 1,) user parts before each conversation
    texts = batch.texts.take(index_array(np.flatnonzero(is_user))).cast(pa.large_binary())
    lists = pa.LargeListArray.from_arrays(index_array(bounds), texts)
    return hash_texts(pc.binary_join(lists, pa.scalar(b"", pa.large_binary())).to_pylist())
