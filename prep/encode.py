r"""
Texts to token ids: one call takes many texts and gives one flat array of ids and one of lengths.

    ["2+2?", "", "4"]  ->  ids [50 43 50 63 52], lengths [4 0 1]

tiktoken is the reference. Faster engines are used only while they are exact: they get patterns in a form in which they
are known to agree, long texts go through tiktoken, and of every call a sample is encoded by both. A difference stops
the build and shows the text. Text is always ordinary text: whoever types <|bos|> gets its characters.
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prep.tokenizer import Tokenizer

ENGINES = ("tiktoken", "fastokens")
SAMPLE = 256  # one text in so many is encoded by tiktoken too
LONG_TEXT = 100_000  # characters; runs of about a million spaces overflow tiktoken's regex, others encode them

# What `\s` means to tiktoken (Unicode's White_Space); PCRE2 would count U+180E too
WHITE_SPACE = r"\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"

Array = npt.NDArray[Any]
Engine = Callable[[list[str]], tuple[Array, Array]]


class Encoder:
    """Encodes texts with one engine, checked against tiktoken. Not picklable: make one per process."""

    def __init__(self, tokenizer: Tokenizer, engine: str = "auto") -> None:
        self.engine = choose_engine(tokenizer, engine)
        self.name = tokenizer.name
        self._reference = _tiktoken(tokenizer)
        self._fast = _fastokens(tokenizer) if self.engine == "fastokens" else None

    def __call__(self, texts: list[str]) -> tuple[Array, Array]:
        """P texts -> ids (n,) uint32 and lengths (P,) int64; -1 where tiktoken cannot encode a text."""
        if self._fast is None or not texts:
            return self._reference(texts)
        long = [i for i, text in enumerate(texts) if len(text) > LONG_TEXT]
        if long:
            return self._splice(texts, long)
        ids, lengths = self._fast(texts)
        self._compare(texts, ids, lengths)
        return ids, lengths

    def _splice(self, texts: list[str], long: list[int]) -> tuple[Array, Array]:
        """Long texts through tiktoken, those between them through the engine."""
        ids, lengths, start = [], [], 0
        for i in [*long, len(texts)]:
            for call, some in ((self, texts[start:i]), (self._reference, texts[i : i + 1])):
                part = call(some)
                ids.append(part[0])
                lengths.append(part[1])
            start = i + 1
        return np.concatenate(ids), np.concatenate(lengths)

    def _compare(self, texts: list[str], ids: Array, lengths: Array) -> None:
        """ValueError if the engine and tiktoken differ on the sample."""
        ends = np.cumsum(lengths)
        for i in range(0, len(texts), SAMPLE):
            found, wanted = ids[ends[i] - lengths[i] : ends[i]], self._reference(texts[i : i + 1])[0]
            if not np.array_equal(found, wanted):
                raise ValueError(
                    f"{self.engine} and tiktoken encode {texts[i][:200]!r} differently ({found[:20]} and {wanted[:20]}): "
                    "build with --encoder tiktoken, and report this text."
                )


def choose_engine(tokenizer: Tokenizer, engine: str) -> str:
    """The engine that `auto` means here, or the one asked for. ValueError if it cannot be had."""
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"--encoder {engine!r} is not known, wanted auto, {' or '.join(ENGINES)}")
    can = importlib.util.find_spec("fastokens") is not None and spell_out_whitespace(tokenizer.pattern) is not None
    if engine == "fastokens" and not can:
        raise ValueError("--encoder fastokens is not installed, or not exact for this pattern: use --encoder tiktoken")
    return ("fastokens" if can else "tiktoken") if engine == "auto" else engine


def spell_out_whitespace(pattern: str) -> str | None:
    r"""The pattern with `\s` and `\S` spelled out, or None where that cannot be done (`\S` in a character class)."""
    out, in_class, i = [], False, 0
    while i < len(pattern):
        pair = pattern[i : i + 2]
        if pair == r"\S" and in_class:
            return None
        if pair in (r"\s", r"\S"):
            inside = WHITE_SPACE if in_class else f"[{'^' if pair == chr(92) + 'S' else ''}{WHITE_SPACE}]"
            out.append(inside)
        elif pair[0] == "\\":
            out.append(pair)
        else:
            in_class = pair[0] == "[" or (in_class and pair[0] != "]")
            out.append(pair[0])
        i += len(pair) if pair[0] == "\\" else 1
    return "".join(out)


def _tiktoken(tokenizer: Tokenizer) -> Engine:
    encoding = tokenizer.encoding

    def encode(texts: list[str]) -> tuple[Array, Array]:
        ids, lengths = [np.zeros(0, dtype=np.uint32)], np.zeros(len(texts), dtype=np.int64)
        for i, text in enumerate(texts):
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

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.write(Path(folder))
        # without special tokens: with them, text that spells one would become the control id
        fast = Fastokens.from_tiktoken(
            str(Path(folder) / "tokenizer.tiktoken"), pattern=spell_out_whitespace(tokenizer.pattern)
        )

    def encode(texts: list[str]) -> tuple[Array, Array]:
        ids, ends = fast.encode_batch_flat(texts)
        return np.frombuffer(ids, dtype=np.uint32), np.diff(np.frombuffer(ends, dtype=np.uint64)).astype(np.int64)

    return encode
