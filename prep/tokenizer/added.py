r"""
What Hugging Face's tokenizers do to a text before its pattern splits it: added tokens are cut out, the rest becomes NFC.

    "a</think>\u0338 e\u0301"   ->   "a", 6008, "\u0338 e\u0301"   ->   "a", 6008, "\u0338 \u00e9"
                                 cut first, as in `tokenizers`: NFC of the whole text would turn ">\u0338" into one character

Its NFC has the tables of Unicode 9, Python's are newer. A mark of a later version is to it a character that joins and moves
with nothing, so a text is cut there and normalised between; nothing else differs, as Unicode never changes the normal form of
characters that it has. Python tells which characters Unicode 3.2 had; those that 4 to 9 added are listed, so that the rest,
whatever Python runs this, is newer. Compared with `tokenizers` over all code points (tests/tokenizer/test_added.py).
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, Final

# Characters (hexadecimal) that Unicode 4 to 9 added and that normalisation reorders, replaces, composes or decomposes
UNICODE_4_TO_9: Final = """
350-35f 487 5a2 5ba 5c5 5c7 610-61a 656-65f 7eb-7f3 816-819 81b-823 825-827 829-82d 859-85b 8d4-8e1 8e3-8ff cbc 103a 108d
135d-135f 17dd 1939-193b 1a17-1a18 1a60 1a75-1a7c 1a7f 1ab0-1abd 1b05-1b0e 1b11-1b12 1b34-1b35 1b3a-1b44 1b6b-1b73
1baa-1bab 1be6 1bf2-1bf3 1c37 1cd0-1cd2 1cd4-1ce0 1ce2-1ce8 1ced 1cf4 1cf8-1cf9 1dc0-1df5 1dfb-1dff 20eb-20f0 2cef-2cf1
2d7f 2de0-2dff a66f a674-a67d a69e-a69f a6f0-a6f1 a806 a8c4 a8e0-a8f1 a92b-a92d a953 a9b3 a9c0 aab0 aab2-aab4 aab7-aab8
aabe-aabf aac1 aaf6 abed fa2e-fa2f fa6b-fa6d fa70-fad9 fe24-fe2f 101fd 102e0 10376-1037a 10a0d 10a0f 10a38-10a3a 10a3f
10ae5-10ae6 11046 1107f 11099-1109c 110a5 110ab 110b9-110ba 11100-11102 11127 1112e-1112f 11131-11134 11173 111c0 111ca
11235-11236 112e9-112ea 1133c 1133e 11347 1134b-1134d 11357 11366-1136c 11370-11374 11442 11446 114b0 114b9-114be
114c2-114c3 115af 115b8-115bb 115bf-115c0 1163f 116b6-116b7 1172b 11c3f 16af0-16af4 16b30-16b36 1bc9e 1d242-1d244
1e000-1e006 1e008-1e018 1e01b-1e021 1e023-1e024 1e026-1e02a 1e8d0-1e8d6 1e944-1e94a
"""
FIRST: Final = 0x300  # below it nothing is new
PLANES: Final = 0x30000  # from here on Unicode has characters that stand for themselves
HANGUL_VOWELS_AND_ENDS: Final = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))  # join by a rule, not by a table


def added_pattern(added_tokens: dict[str, int]) -> re.Pattern[str]:
    """Finds added tokens: the leftmost, of those that begin there the longest"""
    return re.compile("(" + "|".join(re.escape(text) for text in sorted(added_tokens, key=len, reverse=True)) + ")")


def to_nfc(text: str) -> str:
    """NFC with the tables of Unicode 9"""
    if unicodedata.is_normalized("NFC", text):
        return text
    if newer_characters().isdisjoint(text):
        return unicodedata.normalize("NFC", text)
    return "".join(unicodedata.normalize("NFC", part) for part in newer_pattern().split(text))


@lru_cache(maxsize=1)
def newer_characters() -> frozenset[str]:
    """To look for them first: five times as fast as the pattern"""
    return frozenset(map(chr, newer()))


@lru_cache(maxsize=1)
def newer_pattern() -> re.Pattern[str]:
    """Finds a character that Unicode 9 has not"""
    return re.compile("([" + "".join(map(chr, sorted(newer()))) + "])")


@lru_cache(maxsize=1)
def newer() -> frozenset[int]:
    """Code points that the NFC of this Python moves or joins, and that of Unicode 9 does not"""
    old = unicodedata.ucd_3_2_0.category
    codes = {code for moving, parts in _moving() for code in (moving, *parts)} - set(_code_points(UNICODE_4_TO_9))
    return frozenset(code for code in codes if code >= FIRST and old(chr(code)) == "Cn")


def may_change() -> frozenset[int]:
    """Code points without which a text is NFC as it stands: marks, what is replaced, what joins the character before it"""
    codes = set(HANGUL_VOWELS_AND_ENDS)
    for code, parts in _moving():
        if len(parts) == 2:
            codes.add(parts[1])
        if unicodedata.combining(chr(code)) or unicodedata.normalize("NFC", chr(code)) != chr(code):
            codes.add(code)
    return frozenset(codes) - newer()


@lru_cache(maxsize=1)
def _moving() -> list[tuple[int, list[int]]]:
    """(code point, what it decomposes to) of marks and of what decomposes. 0.03 s"""
    out = []
    for code in range(0xC0, PLANES):
        text = unicodedata.decomposition(chr(code))
        if text and not text.startswith("<"):
            out.append((code, [int(part, 16) for part in text.split()]))
        elif unicodedata.combining(chr(code)):
            out.append((code, []))
    return out


def _code_points(ranges: str) -> Iterator[int]:
    for text in ranges.split():
        first, _, last = text.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)


# ---- what a tokenizer.json says of them ----


def read_normalizer(normalizer: Any) -> str | None:
    """NFC or none"""
    is_sequence = isinstance(normalizer, dict) and normalizer.get("type") == "Sequence"
    steps = normalizer.get("normalizers") if is_sequence else [normalizer] if normalizer is not None else []
    kinds = [step.get("type") if isinstance(step, dict) else step for step in steps or []]
    if other := next((kind for kind in kinds if kind != "NFC"), None):
        raise ValueError(f"it changes text by a normalizer, {other!r:.40}, wanted NFC or none")
    return "NFC" if kinds else None


def read_added_tokens(tokens: Any, normalizer: str | None) -> tuple[dict[str, int], dict[str, int]]:
    """Special tokens, and those that are cut out of ordinary text"""
    special: dict[str, int] = {}
    added: dict[str, int] = {}
    later: list[str] = []  # found after the others: `tokenizers` looks for these in the text that its normalizer leaves
    for token in tokens if isinstance(tokens, list) else [None]:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or type(token.get("id")) is not int:
            raise ValueError(f"its added token {token!r:.60} has no content and id")
        text = token["content"]
        if flag := next((flag for flag in ("lstrip", "rstrip", "single_word") if token.get(flag)), None):
            raise ValueError(f"its added token {text!r:.40} depends on what stands beside it ({flag})")
        if text in special or text in added:
            raise ValueError(f"its added token {text!r:.40} is there twice")
        if token.get("special") is True:
            special[text] = token["id"]
            continue
        added[text] = token["id"]
        if token.get("normalized"):
            later.append(text)
    if later and normalizer:
        raise ValueError(f"its added token {later[0]!r:.40} is looked for after the normalizer (normalized: true)")
    for first, second in product(added.keys() - set(later), later):
        if _overlap(first, second):
            raise ValueError(f"its added token {second!r:.40} (normalized: true) overlaps with {first!r:.40} (false)")
    return special, added


def _overlap(a: str, b: str) -> bool:
    """Whether a text may hold both so that they share characters"""
    return a in b or b in a or any(a[-n:] == b[:n] or b[-n:] == a[:n] for n in range(1, min(len(a), len(b))))
