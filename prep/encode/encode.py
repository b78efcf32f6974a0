r"""
Texts to token ids: one call takes many texts, as Arrow has them, and gives one flat array of ids and one of lengths.

    ["2+2?", "", "4"]  ->  ids [50 43 50 63 52], lengths [4 0 1]

tiktoken is the reference. Faster engines are used only for tokenizers for which they are exact: they get the pattern in a
form in which they are known to agree, texts with anything they see otherwise go through tiktoken, and of every call a
sample is encoded by both. A difference stops the build and shows the text. One text in SAMPLE costs a few
per cent of the time. Text is always ordinary text: whoever types <|bos|> gets its characters.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets
from prep.columns import index_array, text_array
from prep.encode import gigatoken as encode_gigatoken
from prep.tokenizer.tokenizer import Tokenizer

ENGINES: Final = ("gigatoken", "fastokens", "tiktoken")  # the fastest first: what `auto` prefers
SAMPLE: Final = 1024  # one text in so many is encoded by tiktoken too
LONG_TEXT: Final = 100_000  # bytes; runs of about a million spaces overflow tiktoken's regex, others encode them

# What `\s` means to tiktoken (Unicode's White_Space); PCRE2 would count U+180E too
WHITE_SPACE: Final = r"\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
# What means the same to tiktoken and PCRE2, measured over all code points; anything else in a pattern is not known to
SAME: Final = re.compile(
    r"(?:\\p\{(?:L[ultmo]?|N|M|P|S)\}|\\[rn]|\\[/'-]|\(\?i:[a-z'|\[\]]*\)|\(\?[:!]|[^\\(.^]|\[\^|\\[sS]|\\z)*"
)

Engine = Callable[[pa.LargeStringArray], tuple[Array, Array]]


class Encoder:
    """Encodes texts with one engine, checked against tiktoken. Not picklable: make one per process."""

    def __init__(self, tokenizer: Tokenizer, engine: str = "auto") -> None:
        self.engine = choose_engine(tokenizer, engine)
        self._reference = _tiktoken(tokenizer)
        self._fast = self._reference
        code_points: Iterable[int] = []
        if self.engine == "fastokens":
            self._fast = _fastokens(tokenizer)
        if self.engine == "gigatoken":
            scheme = encode_gigatoken.SCHEMES[tokenizer.pattern]
            self._fast = encode_gigatoken.Gigatoken(tokenizer, scheme)
            code_points = encode_gigatoken.risky_code_points(scheme)
        self._risky = RiskyTexts(code_points)

    def __call__(self, texts: pa.LargeStringArray | list[str]) -> tuple[Array, Array]:
        """
        P texts -> ids (n,) uint32, or uint16 where the engine has them so, and lengths (P,) int64; -1 where tiktoken cannot
        encode a text. ValueError for lone surrogates, which no Arrow array holds.
        """
        texts = text_array(texts) if isinstance(texts, list) else texts
        if self.engine == "tiktoken" or not len(texts):
            return self._reference(texts)
        risky = np.flatnonzero(self._risky(texts))
        if not len(risky):
            ids, lengths = self._fast(texts)
            self._compare(texts, ids, lengths)
            return ids, lengths
        return self._around(texts, risky)

    def _around(self, texts: pa.LargeStringArray, risky: Array) -> tuple[Array, Array]:
        """Encode the texts at the places `risky` (r,) by tiktoken and the others by the engine"""
        cuts = zip([0, *(risky + 1)], [*risky, len(texts)], strict=True)
        safe = pa.concat_arrays([texts.slice(start, stop - start) for start, stop in cuts])
        ids, lengths = self._fast(safe) if len(safe) else self._reference(safe)
        self._compare(safe, ids, lengths)
        slow_ids, slow_lengths = self._reference(texts.take(index_array(risky)))
        slow_ids = slow_ids.astype(ids.dtype)
        before = risky - np.arange(len(risky))  # texts of `safe` before each
        slow = np.split(slow_ids, np.cumsum(np.maximum(slow_lengths, 0)))
        fast = np.split(ids, offsets(lengths)[before])
        all_ids = np.concatenate([piece for pair in zip(fast, slow, strict=True) for piece in pair])
        return all_ids, np.insert(lengths, before, slow_lengths)

    def _compare(self, texts: pa.LargeStringArray, ids: Array, lengths: Array) -> None:
        """ValueError if the engine and tiktoken differ on the sample."""
        ends = np.cumsum(lengths)
        for i in range(0, len(texts), SAMPLE):
            found, wanted = ids[ends[i] - lengths[i] : ends[i]], self._reference(texts.slice(i, 1))[0]
            if not np.array_equal(found, wanted):
                raise ValueError(
                    f"{self.engine} and tiktoken encode {texts[i].as_py()[:200]!r} differently ({found[:20]} and "
                    f"{wanted[:20]}): build with --encoder tiktoken, and report this text."
                )


class RiskyTexts:
    """Finds texts that go through tiktoken: those that are long, or hold NUL or one of some code points that are not ASCII."""

    def __init__(self, code_points: Iterable[int]) -> None:
        self.is_risky = np.zeros(0x110000, dtype=bool)
        self.may_begin = np.zeros(1 << 16, dtype=bool)  # two bytes: most characters need not be looked at further
        for code in code_points:
            if code >= 0x80:
                first, second = chr(code).encode("utf-8", "surrogatepass")[:2]
                self.is_risky[code] = self.may_begin[first << 8 | second] = True
        self.looks_for_any = bool(self.is_risky.any())

    def __call__(self, texts: pa.LargeStringArray) -> Array:
        """P texts -> (P,) bool"""
        starts = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
        data = np.frombuffer(texts.buffers()[2] or b"", dtype=np.uint8)[starts[0] : starts[-1]]
        found = self._places(data) if self.looks_for_any else np.zeros(0, dtype=np.int64)
        if len(data) and not data.min():
            found = np.append(found, np.flatnonzero(data == 0))
        out: Array = np.diff(starts) > LONG_TEXT
        out[np.searchsorted(starts, starts[0] + found, side="right") - 1] = True
        return out

    def _places(self, data: Array) -> Array:
        """Where in texts (n,) uint8 the risky code points begin"""
        places = np.flatnonzero(data >= 0xC0)  # first bytes of characters that are not ASCII: another follows
        places = places[self.may_begin[data[places].astype(np.uint16) << 8 | data[places + 1]]]
        codes = data[places].astype(np.int32)
        size = 2 + (codes >= 0xE0) + (codes >= 0xF0)
        codes &= 0x7F >> size
        for i in (1, 2, 3):
            more = data[np.minimum(places + i, len(data) - 1)] & 0x3F
            codes = np.where(i < size, codes << 6 | more, codes)
        risky: Array = places[self.is_risky[codes]]
        return risky


# ---- which engine ----


def choose_engine(tokenizer: Tokenizer, engine: str) -> str:
    """The engine that `auto` means here, or the one asked for. ValueError if it cannot be had."""
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"--encoder {engine!r} is not known, wanted auto, {', '.join(ENGINES[:-1])} or {ENGINES[-1]}.")
    if engine != "auto" and (why := why_not(tokenizer, engine)):
        raise ValueError(f"--encoder {engine} {why}: use --encoder auto.")
    return next(one for one in ENGINES if not why_not(tokenizer, one)) if engine == "auto" else engine


def why_not(tokenizer: Tokenizer, engine: str) -> str | None:
    """Why this engine cannot be used for this tokenizer, or None if it can"""
    if engine == "tiktoken":
        return None
    if importlib.util.find_spec(engine) is None:
        package = {"fastokens": "fastokens", "gigatoken": "'midprep[fast]'"}[engine]
        return f"is not installed (pip install {package})"
    known = spell_out(tokenizer.pattern) if engine == "fastokens" else encode_gigatoken.SCHEMES.get(tokenizer.pattern)
    if known is None:
        return f"is not known to be exact for the pattern {tokenizer.pattern!r:.60}"
    if not can_be_merged(tokenizer):
        return "needs ranks 0, 1, 2, .. of which each is made by merging two before it"
    return None


@lru_cache(maxsize=4)
def can_be_merged(tokenizer: Tokenizer) -> bool:
    """
    Whether ranks are dense and every token is made of two of lower rank: both engines turn ranks into merges, while
    tiktoken also finds a token that no merges lead to (Llama 3 has such). 0.03 s for 32,759 ranks.
    """
    ranks = tokenizer.ranks
    if max(ranks.values()) != len(ranks) - 1:
        return False
    find = ranks.get
    for token, rank in ranks.items():
        for i in range(len(token) - 1, 0, -1):
            if find(token[:i], rank) < rank and find(token[i:], rank) < rank:
                break
        else:
            if len(token) > 1:
                return False
    return True


@lru_cache(maxsize=4)
def spell_out(pattern: str) -> str | None:
    r"""
    The pattern as PCRE2 reads it like tiktoken: `\s` and `\S` spelled out, `$` as `\z`. None where that is not known.

    >>> spell_out(r"\p{L}+|\d")
    """
    if not SAME.fullmatch(pattern):
        return None
    out, in_class = [], False
    for token in re.findall(r"\\p\{\w+\}|\\.|.", pattern, re.DOTALL):
        if token == r"\S" and in_class:
            return None
        if token in (r"\s", r"\S"):
            out.append(WHITE_SPACE if in_class else f"[{'^' if token == chr(92) + 'S' else ''}{WHITE_SPACE}]")
        else:
            in_class = token == "[" or (in_class and token != "]")
            out.append(r"\z" if token == "$" and not in_class else token)
    return "".join(out)


# ---- the engines; gigatoken has a file of its own ----


def _tiktoken(tokenizer: Tokenizer) -> Engine:
    encoding = tokenizer.encoding

    def encode(texts: pa.LargeStringArray) -> tuple[Array, Array]:
        ids, lengths = [np.zeros(0, dtype=np.uint32)], np.zeros(len(texts), dtype=np.int64)
        for i, text in enumerate(texts.to_pylist()):
            try:
                found = encoding.encode_to_numpy(text, disallowed_special=())
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # its regex overflows on very long runs; older versions panic, which is no Exception
                lengths[i] = -1
                continue
            ids.append(found)
            lengths[i] = len(found)
        return np.concatenate(ids), lengths

    return encode


def _fastokens(tokenizer: Tokenizer) -> Engine:
    os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")  # workers are processes
    from fastokens import Tokenizer as Fastokens

    with tokenizer.as_file() as path:
        # without special tokens: with them, text that spells one would become the control id
        fast = Fastokens.from_tiktoken(str(path), pattern=spell_out(tokenizer.pattern))

    def encode(texts: pa.LargeStringArray) -> tuple[Array, Array]:
        ids, ends = fast.encode_batch_flat(texts.to_pylist())
        return np.frombuffer(ids, dtype=np.uint32), np.diff(np.frombuffer(ends, dtype=np.uint64)).astype(np.int64)

    return encode
