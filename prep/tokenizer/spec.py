"""
What makes ranks, a pattern and special tokens a tokenizer: that they encode any text, and lose none of it.

    ids   0 .. 255 .. 32758 | 32759 .. 32767     every byte is a token, no id twice, no hole below the largest rank
    "2+2?" -> pattern -> "2", "+", "2", "?"      every character of a text is in a piece, no piece is empty

Every file that is read and every tokenizer that is made goes through here, for 15 ms: what was damaged, or made to do
harm, stops here in one line and not in the middle of a build.
"""

import re
from typing import Final, NamedTuple

MAX_ID: Final = (1 << 24) - 1  # an id far out would cost gigabytes in every table that has a place for each id

# one or more of every kind of character that patterns tell apart
PROBE: Final = "".join(map(chr, range(128))) + (
    " a  b\r\n\n\t 12345\u00e9\u0130\u4e2d\u6587\u0301\u2019s\U0001f600\u00a0\u3000\u0660\ufffd\ue000 "
)


class TokenizerSpec(NamedTuple):
    """What a tokenizer file holds; special tokens are those of the file"""

    name: str
    ranks: dict[bytes, int]
    pattern: str
    special_tokens: dict[str, int]


def check_spec(parts: TokenizerSpec, needed: tuple[str, ...]) -> None:
    """ValueError, in one line, where the parts do not make a tokenizer that has the `needed` special tokens"""
    name, ranks, pattern, special_tokens = parts
    for token, rank in ranks.items():
        if type(token) is not bytes or type(rank) is not int or not token or not 0 <= rank <= MAX_ID:
            raise ValueError(
                f"tokenizer {name}: rank {rank!r:.40} of token {token!r:.40}, wanted bytes and 0 .. {MAX_ID}"
            )
    for text, id_ in special_tokens.items():
        if type(text) is not str or type(id_) is not int or not text or not 0 <= id_ <= MAX_ID:
            raise ValueError(
                f"tokenizer {name}: special token {text!r:.40} is {id_!r:.40}, wanted text and 0 .. {MAX_ID}"
            )
        if re.search("[\ud800-\udfff]", text):
            raise ValueError(f"tokenizer {name}: special token {text!r:.40} is no valid Unicode")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(
            f"tokenizer {name}: byte {missing[0]:#04x} is no token ({len(missing)} missing), wanted all 256"
        )
    check_ids(name, list(ranks.values()), list(special_tokens.values()))
    lacking = [text for text in needed if text not in special_tokens]
    if lacking:
        raise ValueError(f"tokenizer {name}: special tokens missing: {', '.join(lacking)}")
    check_pattern(name, pattern)


def check_ids(name: str, ranks: list[int], special_ids: list[int]) -> None:
    """No id twice; below the largest rank none unused (a hole means a damaged file, and ids that are no token)"""
    used = set(ranks)
    for what, ids, taken in (("rank", ranks, set[int]()), ("id of a special token", special_ids, used)):
        if len(set(ids)) < len(ids) or not taken.isdisjoint(ids):
            seen = set(taken)
            twice = next(id_ for id_ in ids if id_ in seen or seen.add(id_))  # type: ignore[func-returns-value]
            raise ValueError(f"tokenizer {name}: {what} {twice} is taken twice, each token needs its own")
    used.update(special_ids)
    largest = max(ranks)
    hole = next((id_ for id_ in range(largest + 1) if id_ not in used), None)
    if hole is not None:
        raise ValueError(f"tokenizer {name}: no token has rank {hole}, there are {len(ranks):,} up to {largest:,}")


def check_pattern(name: str, pattern: str) -> None:
    """The pattern compiles, matches no empty text (tiktoken would panic), and leaves no text out (it would be lost)"""
    import tiktoken

    ranks = {bytes([byte]): byte for byte in range(256)} | {b"": 256}  # a token for the empty match, to see one
    try:
        encoding = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        ids = encoding.encode_ordinary(PROBE)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"tokenizer {name}: the pattern {pattern!r:.80} does not compile ({reason})") from None
    if 256 in ids:
        raise ValueError(f"tokenizer {name}: the pattern {pattern!r:.80} matches empty text, wanted pieces of a text")
    if bytes(ids) != PROBE.encode():
        raise ValueError(
            f"tokenizer {name}: the pattern {pattern!r:.80} leaves characters out, that text would be lost"
        )
