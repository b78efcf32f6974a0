r"""
Texts to token ids: one call takes many texts, as Arrow has them, and gives one flat array of ids and one of lengths.

    ["2+2?", "", "4"]  ->  ids [50 43 50 63 52], lengths [4 0 1]

tiktoken is the reference. A faster engine is used only for tokenizers for which it is exact: it gets the pattern in a form in
which both are known to agree, texts that it would split in another way go through tiktoken, and one text in SAMPLE is encoded
by both, for a few per cent of the time; a difference stops the build and shows the text. Text is always ordinary text: whoever
types <|bos|> gets its characters.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import index_array, text_array
from prep.encode.find import ChangedTexts, RiskyTexts
from prep.encode.gigatoken import SCHEMES, Gigatoken, risky_code_points
from prep.tokenizer.tokenizer import Tokenizer

ENGINES: Final = ("gigatoken", "fastokens", "tiktoken")  # the fastest first: what `auto` prefers
SAMPLE: Final = 1024  # of so many texts one is encoded by tiktoken also

# What `\s` means to tiktoken (Unicode's White_Space); PCRE2 would count U+180E also
WHITE_SPACE: Final = r"\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
# What means the same to tiktoken and PCRE2, measured over all code points
SAME: Final = re.compile(
    r"(?:\\p\{(?:L[ultmo]?|N|M|P|S)\}|\\[rn]|\\[/'-]|\(\?i:[a-z'|\[\]]*\)|\(\?[:!]|[^\\(.^]|\[\^|\\[sS]|\\z)*"
)

Engine = Callable[[pa.LargeStringArray], tuple[Array, Array]]


class Encoder:
    """Encodes texts with one engine, checked against tiktoken. Not picklable: make one per process."""

    def __init__(self, tokenizer: Tokenizer, engine: str = "auto") -> None:
        self.engine = choose_engine(tokenizer, engine)
        self._reference = self._fast = _tiktoken(tokenizer)
        code_points: Iterable[int] = []
        ends = False
        if self.engine == "fastokens":
            self._fast = _fastokens(tokenizer)
        if self.engine == "gigatoken":
            scheme = SCHEMES[tokenizer.pattern]
            self._fast = Gigatoken(tokenizer, scheme)
            code_points, ends = risky_code_points(scheme), scheme.ends
        self._find_risky = RiskyTexts(code_points, ends)
        self._tokenizer = tokenizer
        self._find_changed = ChangedTexts(tokenizer) if tokenizer.added_tokens or tokenizer.normalizer else None

    def __call__(self, texts: pa.LargeStringArray | list[str]) -> tuple[Array, Array]:
        """
        P texts -> ids (n,) uint32, or uint16 from an engine that has them so, and lengths (P,) int64, -1 where tiktoken
        cannot encode a text. ValueError for lone surrogates, which no Arrow array holds.
        """
        texts = text_array(texts) if isinstance(texts, list) else texts
        if self._find_changed is not None and (is_changed := self._find_changed(texts)).any():
            return self._encode_changed(texts, is_changed)
        return self._encode(texts)

    def is_changed(self, texts: pa.LargeStringArray) -> Array:
        """P texts -> (P,) bool: those that hold an added token, or that the normalizer may change"""
        return np.zeros(len(texts), dtype=bool) if self._find_changed is None else self._find_changed(texts)

    def _encode(self, texts: pa.LargeStringArray) -> tuple[Array, Array]:
        """P texts that are split by the pattern as they stand -> ids and lengths"""
        if self.engine == "tiktoken" or not len(texts):
            return self._reference(texts)
        is_risky = self._find_risky(texts)
        if is_risky.any():
            return self._encode_around(texts, is_risky)
        ids, lengths = self._fast(texts)
        self._compare(texts, ids, lengths)
        return ids, lengths

    def _encode_around(self, texts: pa.LargeStringArray, is_risky: Array) -> tuple[Array, Array]:
        """Encode the texts for which is_risky (P,) by tiktoken, and the others by the engine"""
        safe = blanked(texts, is_risky)
        ids, lengths = self._fast(safe)
        self._compare(safe, ids, lengths)
        risky = np.flatnonzero(is_risky)
        risky_ids, risky_lengths = self._reference(texts.take(index_array(risky)))
        places = np.repeat(offsets(lengths)[risky], np.maximum(risky_lengths, 0))
        lengths[risky] = risky_lengths
        return np.insert(ids, places, risky_ids), lengths

    def _encode_changed(self, texts: pa.LargeStringArray, is_changed: Array) -> tuple[Array, Array]:
        """Cut and normalise those for which is_changed (P,), one by one, encode what stands between added tokens"""
        ids, lengths = self._encode(blanked(texts, is_changed))
        changed = np.flatnonzero(is_changed)
        pieces: list[str] = []
        added: list[int] = []
        part_of: list[int] = []  # the number of the text among those that are changed, of each part
        is_piece: list[bool] = []
        for i, text in enumerate(texts.take(index_array(changed)).to_pylist()):
            for part in self._tokenizer.cut(text):
                is_piece.append(isinstance(part, str))
                part_of.append(i)
                if isinstance(part, str):
                    pieces.append(self._tokenizer.normalize(part))
                else:
                    added.append(part)
        piece_ids, piece_lengths = self._encode(text_array(pieces))
        num_tokens = np.ones(len(is_piece), dtype=np.int64)
        num_tokens[is_piece] = piece_lengths
        texts_of, fails = np.array(part_of), np.zeros(len(changed), dtype=bool)
        fails[texts_of[num_tokens < 0]] = True
        num_tokens = np.maximum(num_tokens, 0)
        owners = np.repeat(texts_of, num_tokens)
        changed_ids = np.zeros(len(owners), dtype=np.uint32)
        from_piece = np.repeat(is_piece, num_tokens)
        changed_ids[from_piece], changed_ids[~from_piece] = piece_ids, added
        lengths[changed] = np.where(fails, -1, np.bincount(owners, minlength=len(changed)))
        changed_ids = changed_ids[~fails[owners]]
        places = np.repeat(
            offsets(np.where(is_changed, 0, np.maximum(lengths, 0)))[changed], np.maximum(lengths[changed], 0)
        )
        return np.insert(ids.astype(np.uint32, copy=False), places, changed_ids), lengths

    def _compare(self, texts: pa.LargeStringArray, ids: Array, lengths: Array) -> None:
        """ValueError if the engine and tiktoken differ on the sample."""
        ends = np.cumsum(lengths)
        for i in range(0, len(texts), SAMPLE):
            fast_ids = ids[ends[i] - lengths[i] : ends[i]]
            reference_ids, _ = self._reference(texts.slice(i, 1))
            if not np.array_equal(fast_ids, reference_ids):
                raise ValueError(
                    f"{self.engine} and tiktoken encode {texts[i].as_py()[:200]!r} differently ({fast_ids[:20]} and "
                    f"{reference_ids[:20]}): build with --encoder tiktoken, and report this text."
                )


def blanked(texts: pa.LargeStringArray, where: Array) -> pa.LargeStringArray:
    """P texts with "" in place of those for which where (P,) is true"""
    bits = pa.py_buffer(np.packbits(where, bitorder="little"))
    mask = pa.BooleanArray.from_buffers(pa.bool_(), len(texts), [None, bits])
    return pc.if_else(mask, text_array([""])[0], texts)


# ---- which engine ----


def choose_engine(tokenizer: Tokenizer, engine: str) -> str:
    """The engine of this name, or the one that `auto` means here. ValueError if it cannot be used."""
    if engine == "auto":
        return next(name for name in ENGINES if not why_not(tokenizer, name))
    if engine not in ENGINES:
        raise ValueError(f"--encoder {engine!r} is not known, wanted auto, {', '.join(ENGINES[:-1])} or {ENGINES[-1]}.")
    if reason := why_not(tokenizer, engine):
        raise ValueError(f"--encoder {engine} {reason}: use --encoder auto.")
    return engine


def why_not(tokenizer: Tokenizer, engine: str) -> str | None:
    """Why this engine cannot be used for this tokenizer, or None if it can"""
    if engine == "tiktoken":
        return None
    if importlib.util.find_spec(engine) is None:
        package = {"fastokens": "fastokens", "gigatoken": "'midprep[fast]'"}[engine]
        return f"is not installed (pip install {package})"
    pattern = tokenizer.pattern
    if (pattern not in SCHEMES) if engine == "gigatoken" else (spell_out(pattern) is None):
        return f"is not known to be exact for the pattern {pattern!r:.60}"
    if not can_be_merged(tokenizer):
        return "needs ranks 0, 1, 2, .. of which each is made by merging two before it"
    return None


@lru_cache(maxsize=4)
def can_be_merged(tokenizer: Tokenizer) -> bool:
    """
    Whether ranks are dense and every token is made of two of lower rank: both engines turn ranks into merges, while
    tiktoken also finds a token that no merges lead to (Llama 3 has some). 0.04 s for 32,759 ranks.
    """
    ranks = tokenizer.ranks
    find = ranks.get
    return max(ranks.values()) == len(ranks) - 1 and all(
        len(token) == 1
        or any(find(token[:i], rank) < rank and find(token[i:], rank) < rank for i in range(len(token) - 1, 0, -1))
        for token, rank in ranks.items()
    )


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


# ---- the engines; gigatoken has a module of its own ----


def _tiktoken(tokenizer: Tokenizer) -> Engine:
    encoding = tokenizer.encoding

    def encode(texts: pa.LargeStringArray) -> tuple[Array, Array]:
        ids, lengths = [np.zeros(0, dtype=np.uint32)], np.zeros(len(texts), dtype=np.int64)
        for i, text in enumerate(texts.to_pylist()):
            try:
                ids.append(encoding.encode_to_numpy(text, disallowed_special=()))
                lengths[i] = len(ids[-1])
            except (KeyboardInterrupt, SystemExit):
                raise
            except (
                BaseException
            ):  # its regex overflows on very long runs; a panic of older versions is not an Exception
                lengths[i] = -1
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
