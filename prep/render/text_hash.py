"""
Hashes of texts that do not depend on spelling, so that a copy is found though case, spacing or punctuation has changed.

    "What is  12 - 3,\\nplease?"      normalized   whatis12-3please               equal texts are copies
                                     words        what is 12 3 please            what 13-grams are made of

NFKC and lower case (ß as ss, ς as σ), then only letters and digits. Signs of arithmetic stay between two digits: 12 - 3,
12 + 3 and 12 - -3 are different questions. So do the marks of scripts that write vowels and tones with them, such as Hindi
and Thai; accents that are not part of a letter are dropped.

The rule is `_by_unicode`, for which pyarrow.compute takes 7 us a text of 74 bytes. Most texts get the same from a pass over the
bytes of a batch, where they are ASCII and have no sign between digits, or over its characters, where none of theirs changes
because of its neighbours, as in French, Russian and Chinese.
"""

import re
import unicodedata
from functools import cache

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
LOOSE_SIGNS = (
    (rf"(^|[^\p{{Nd}}{SIGNS}])[{SIGNS}]+", r"\1"),  # no digit before the signs
    (rf"[{SIGNS}]+([^\p{{Nd}}{SIGNS}]|$)", r"\1"),  # or none after them
)
NOT_NORMALIZED = (  # for RE2, one after the other
    (rf"[^\pL\pN\pM{SIGNS}\x00]", ""),
    (rf"[^\pL\pN{SIGNS}{VOWEL_MARKS}\x00]", ""),
    *LOOSE_SIGNS,
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
NO_WIDTH_SPACE = "\u200b".encode()
SEPARATOR = b"\xff"  # in no UTF-8 text
NOTHING = bytes(8)
HANGUL_PARTS = re.compile("[\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]")
DROPPED, HARD, UNKNOWN = 0x110000, 0x110001, 0x110002  # beside code points: what `_by_character` makes of one


def normalized(texts: list[bytes]) -> list[bytes]:
    """
    What is left of each of n texts in UTF-8; bytes that are not UTF-8 are dropped.

    >>> normalized([b"A 20-minute run, 12 - 3!", "Ｎａïve".encode()])
    [b'a20minuterun12-3', b'na\\xc3\\xafve']
    """
    left: list[bytes] = _lower(texts, NOT_ALNUM)
    others = _find_not_plain(texts)
    by_character = _by_character([texts[i] for i in others])
    hard = [i for i, text in zip(others, by_character, strict=True) if text is None]
    by_unicode = iter(_by_unicode([texts[i] for i in hard]))
    for i, text in zip(others, by_character, strict=True):
        left[i] = next(by_unicode) if text is None else text
    return left


def _find_not_plain(texts: list[bytes]) -> list[int]:
    """Places of the texts that are not ASCII, or have signs between digits"""
    places: list[int] = pc.indices_nonzero(pc.match_substring_regex(binary_array(texts), NOT_PLAIN)).to_pylist()
    return places


def _by_unicode(texts: list[bytes]) -> list[bytes]:
    """What is left of each of n texts, whatever they are made of"""
    left = _folded(_lower(_keep_apart(texts), NOT_ALNUM_OR_SIGN), NOT_NORMALIZED)
    return [text.encode() for text in left]


def _by_character(texts: list[bytes]) -> list[bytes | None]:
    """The same, character by character; None for a text with one that is HARD"""
    if not texts:
        return []
    joined = b"\0".join(_lower(texts, NOT_ALNUM_OR_SIGN)).decode("utf-8", "ignore").replace("ß", "ss")
    codes = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32)
    table = _characters()
    left = table[codes]
    if len(unknown := np.unique(codes[left == UNKNOWN])):
        table[unknown] = _classify(unknown)
        left = table[codes]
    is_hard = np.zeros(len(texts), dtype=bool)
    is_hard[np.searchsorted(np.flatnonzero(left == 0), np.flatnonzero(left == HARD))] = True
    kept = left[left < DROPPED].tobytes().decode("utf-32-le")
    results = _replace(kept, LOOSE_SIGNS).encode().split(b"\0")
    return [None if hard else text for text, hard in zip(results, is_hard.tolist(), strict=True)]


@cache
def _characters() -> Array:
    """(0x110000,) uint32: what is left of a character, by its code point. NUL, which parts texts, stays."""
    table = np.full(0x110000, UNKNOWN, dtype=np.uint32)
    table[0] = 0
    return table


def _classify(codes: Array) -> list[int]:
    """What is left of each of n characters between two digits; HARD where it is more than one, or neighbours may change it"""
    characters = [chr(code) for code in codes.tolist()]
    between_digits = _by_unicode([f"1{character}2".encode() for character in characters])
    left = []
    for character, text in zip(characters, (text.decode()[1:-1] for text in between_digits), strict=True):
        is_hard = len(text) > 1 or any(map(_may_join, unicodedata.normalize("NFKC", character)))
        left.append(HARD if is_hard else ord(text) if text else DROPPED)
    return left


def _may_join(character: str) -> bool:
    """Whether NFKC may join a character with the one before it: marks, parts of Hangul, and what is too new to tell"""
    return unicodedata.category(character) in ("Mn", "Mc", "Me", "Cn") or HANGUL_PARTS.match(character) is not None


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
    return _replace(left[0].as_py(), (("ß", "ss"), ("ς", "σ"), (DASHES, "-"), *patterns)).split("\0")


def _replace(text: str, patterns: tuple[tuple[str, str], ...]) -> str:
    """A text in which what RE2 finds by each pattern is replaced, by one after the other"""
    array = text_array([text])
    for pattern, replacement in patterns:
        array = pc.replace_substring_regex(array, pattern, replacement)
    replaced: str = array[0].as_py()
    return replaced


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
