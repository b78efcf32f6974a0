r"""
gigatoken as an engine that is exact: the fastest there is, made to agree with tiktoken.

    "in 1234"  ->  qwen2's scheme: in, " ", 1, 2, 3, 4  ->  digits paired: in, " ", 12, 34        \p{N}{1,2} of nanochat

It knows no patterns, only fixed schemes, of which SCHEMES names those that were measured over all code points and a
million strings (tests/fuzz_encode.py). What it gets wrong is known by character: its Unicode tables are newer than
tiktoken's, and digits that are not ASCII are not paired; texts with one of these go through tiktoken (0.1 to 0.3 % of
the bytes of GSM8K, MMLU and chats).

All texts of a call are encoded as one, with a separator between them that is a special token: its batch call returns
awkward arrays, which take 0.4 s to import. It uses no threads that way, and none are wanted.
Its cache of words seen has no bound (20 bytes for each byte of random words), so the object is made anew when the process
has grown by GROWTH bytes; that costs 0.04 s.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from prep.tokenizer import PATTERN, Tokenizer

Array = npt.NDArray[Any]

SEPARATOR: Final = "\uffff"  # no character; a text that holds it goes through tiktoken
GROWTH: Final = 256 << 20
FRESH_TEXT: Final = 64 << 20  # bytes of text after which its size is looked at


@dataclass(frozen=True)
class Scheme:
    """A pattern as gigatoken knows it; `pairs`: digits come one by one and are to be paired."""

    name: str
    pairs: bool = False


SCHEMES: Final = {PATTERN: Scheme("qwen2", pairs=True)}
