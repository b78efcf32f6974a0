r"""
gigatoken as an engine that is exact: the fastest there is, made to agree with tiktoken.

    "in 1234"  ->  qwen2's scheme: in, " ", 1, 2, 3, 4  ->  digits paired: in, " ", 12, 34        \p{N}{1,2} of nanochat

It takes no pattern, only the name of a scheme; SCHEMES has those that were measured over all code points and a million
strings (tests/encode/fuzz_encode.py). It differs from tiktoken in known characters: its Unicode tables are newer, and digits
outside ASCII are not paired. Texts with one of these go through tiktoken: 0.1 to 0.3 % of the bytes of GSM8K, MMLU and chats.

All texts of a call are encoded as one, with a special token between them: its batch call returns awkward arrays, which take
0.4 s to import. That way it uses no threads, as workers are processes. Its cache of words has no bound (20 bytes for each
byte of random words), so the object is made again when the process has grown by GROWTH bytes, which takes 0.04 s.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array
from prep.columns import text_array
from prep.shard import token_dtype
from prep.tokenizer.tokenizer import PATTERN, Tokenizer

SEPARATOR: Final = "\0"  # a text that holds it goes through tiktoken
GROWTH: Final = 256 << 20
FRESH_TEXT: Final = 64 << 20  # bytes of text after which the size of the process is checked


@dataclass(frozen=True)
class Scheme:
    """A pattern as gigatoken knows it"""

    name: str
    pairs: bool = False  # digits come one by one and must be paired
    ends: bool = False  # splits white space at the end of a text otherwise, if a line ends in it: "\n " is one piece


# by pattern: nanochat's, and those of gpt2, of cl100k_base, of o200k_base, of Qwen 2 and of Llama 3
SCHEMES: Final = {
    PATTERN: Scheme("qwen2", pairs=True),
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": Scheme("gpt2"),
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
        r"|\s+(?!\S)|\s"
    ): Scheme("cl100k"),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ): Scheme("o200k"),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ): Scheme("qwen2"),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ): Scheme("cl100k", ends=True),
}

# Code points (hexadecimal) of which gigatoken 0.10 knows more than tiktoken 0.14: letters, marks and digits of Unicode 17
NEWER: Final = """
88f c5c cdc 1acf-1add 1ae0-1aeb a7ce-a7cf a7d2 a7d4 a7f1 10940-10959 10ec5-10ec7 10efa-10efb 11b60-11b67
11db0-11ddb 11de0-11de9 16ea0-16eb8 16ebb-16ed3 16ff2-16ff6 187f8-187ff 18d09-18d1e 18d80-18df2 1e6c0-1e6de
1e6e0-1e6f5 1e6fe-1e6ff 2b73a-2b73f 2cea2-2cead 323b0-33479
"""
# \p{N} without 0-9
OTHER_DIGITS: Final = """
b2-b3 b9 bc-be 660-669 6f0-6f9 7c0-7c9 966-96f 9e6-9ef 9f4-9f9 a66-a6f ae6-aef b66-b6f b72-b77 be6-bf2 c66-c6f
c78-c7e ce6-cef d58-d5e d66-d78 de6-def e50-e59 ed0-ed9 f20-f33 1040-1049 1090-1099 1369-137c 16ee-16f0
17e0-17e9 17f0-17f9 1810-1819 1946-194f 19d0-19da 1a80-1a89 1a90-1a99 1b50-1b59 1bb0-1bb9 1c40-1c49 1c50-1c59
2070 2074-2079 2080-2089 2150-2182 2185-2189 2460-249b 24ea-24ff 2776-2793 2cfd 3007 3021-3029 3038-303a
3192-3195 3220-3229 3248-324f 3251-325f 3280-3289 32b1-32bf a620-a629 a6e6-a6ef a830-a835 a8d0-a8d9 a900-a909
a9d0-a9d9 a9f0-a9f9 aa50-aa59 abf0-abf9 ff10-ff19 10107-10133 10140-10178 1018a-1018b 102e1-102fb 10320-10323
10341 1034a 103d1-103d5 104a0-104a9 10858-1085f 10879-1087f 108a7-108af 108fb-108ff 10916-1091b 109bc-109bd
109c0-109cf 109d2-109ff 10a40-10a48 10a7d-10a7e 10a9d-10a9f 10aeb-10aef 10b58-10b5f 10b78-10b7f 10ba9-10baf
10cfa-10cff 10d30-10d39 10d40-10d49 10e60-10e7e 10f1d-10f26 10f51-10f54 10fc5-10fcb 11052-1106f 110f0-110f9
11136-1113f 111d0-111d9 111e1-111f4 112f0-112f9 11450-11459 114d0-114d9 11650-11659 116c0-116c9 116d0-116e3
11730-1173b 118e0-118f2 11950-11959 11bf0-11bf9 11c50-11c6c 11d50-11d59 11da0-11da9 11f50-11f59 11fc0-11fd4
12400-1246e 16130-16139 16a60-16a69 16ac0-16ac9 16b50-16b59 16b5b-16b61 16d70-16d79 16e80-16e96 1ccf0-1ccf9
1d2c0-1d2d3 1d2e0-1d2f3 1d360-1d378 1d7ce-1d7ff 1e140-1e149 1e2f0-1e2f9 1e4f0-1e4f9 1e5f1-1e5fa 1e8c7-1e8cf
1e950-1e959 1ec71-1ecab 1ecad-1ecaf 1ecb1-1ecb4 1ed01-1ed2d 1ed2f-1ed3d 1f100-1f10c 1fbf0-1fbf9
"""


def risky_code_points(scheme: Scheme) -> Array:
    """Code points that gigatoken and tiktoken treat differently"""
    ranges = [text.split("-") for text in (NEWER + OTHER_DIGITS * scheme.pairs).split()]
    return np.concatenate([np.arange(int(bounds[0], 16), int(bounds[-1], 16) + 1) for bounds in ranges])


class Gigatoken:
    """P texts, none with a risky code point -> ids (n,) uint16, or uint32 where those are too few, and lengths (P,) int64."""

    def __init__(self, tokenizer: Tokenizer, scheme: Scheme) -> None:
        self.tokenizer, self.scheme = tokenizer, scheme
        self.separator = len(tokenizer.ranks)
        digits = [tokenizer.ranks.get(b"%d" % digit, 0) for digit in range(10)]
        self.dtype = token_dtype(self.separator + 1)
        self.low, self.span = self.dtype.type(min(digits)), self.dtype.type(max(digits) - min(digits))
        self.value = np.full(int(self.span) + 1, -1)  # of each id from `low` on: the digit's, or -1
        self.value[np.array(digits) - int(self.low)] = np.arange(10)
        self.pair = np.array([tokenizer.ranks.get(b"%02d" % number, -1) for number in range(100)])  # -1: none
        self._renew()

    def __call__(self, texts: pa.LargeStringArray) -> tuple[Array, Array]:
        together = pa.Int32Array.from_buffers(
            pa.int32(), 2, [None, pa.py_buffer(np.array([0, len(texts)], dtype=np.int32))]
        )
        as_one = pc.binary_join(pa.ListArray.from_arrays(together, texts), text_array([SEPARATOR])[0])
        joined = as_one[0].as_buffer().to_pybytes()
        self.new_text += len(joined)
        if self.new_text > FRESH_TEXT:
            self._renew_if_grown()
        ids = np.array(self.backend.encode(joined), dtype=self.dtype, copy=None)  # not shared: written to below
        keep = ids != self.separator
        separators = np.flatnonzero(~keep)
        seconds = self._pair_digits(ids) if self.scheme.pairs else separators[:0]
        keep[seconds] = False
        ends = np.append(separators, len(ids))
        ends -= np.searchsorted(seconds, ends)
        assert len(ends) == len(texts)
        return ids[keep], np.diff(ends - np.arange(len(ends)), prepend=0)

    def _pair_digits(self, ids: Array) -> Array:
        """
        (n,) ids with a token for each digit: in place of the first digit of each pair, from the left of a number, goes the
        token of the pair where there is one; returns the places of the second digits

            in " " 1 2 3 . 4 5   ->   in " " 12 2 3 . 45 5,   places 3 and 7
        """
        places = np.flatnonzero(ids - self.low <= self.span)  # unsigned: an id below wraps around
        values = self.value[ids[places] - self.low]
        if not (values >= 0).all():
            places, values = places[values >= 0], values[values >= 0]
        starts = np.where(np.diff(places, prepend=-2) > 1, places, 0)  # where a number starts
        second = np.flatnonzero((places - np.maximum.accumulate(starts)) % 2)
        pairs = self.pair[10 * values[second - 1] + values[second]]
        known = pairs >= 0
        seconds: Array = places[second[known]]
        ids[seconds - 1] = pairs[known]
        return seconds

    def _renew_if_grown(self) -> None:
        """Make the backend again if the process has grown, or if that cannot be known"""
        self.new_text = 0
        resident = resident_bytes()
        if resident is None or resident > self.resident + GROWTH:
            self._renew()

    def _renew(self) -> None:
        from gigatoken.gigatoken_rs import BPETokenizer

        self.backend: Any = None  # frees the old one first
        with self.tokenizer.as_file() as path:
            try:
                self.backend = BPETokenizer.from_tiktoken(path, self.scheme.name, {SEPARATOR: self.separator})
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # a panic is not an Exception
                raise ValueError(f"gigatoken cannot read this tokenizer ({error}): use --encoder fastokens.") from None
        self.new_text, self.resident = 0, resident_bytes() or 0


def resident_bytes() -> int | None:
    """Memory of this process alone, without mapped files; None where the system does not tell"""
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return None
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
