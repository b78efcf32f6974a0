"""
Toy tokenizers for formats: every byte is a token, newlines merge with their neighbours, every control is special.

    "assistant" "\\n" + "\\nHi."     "a" "s" ... "t" "\\n\\n" "H" "i" "."     one token stands across the border
"""

from collections.abc import Iterable
from functools import cache

from prep.chat.format import ChatFormat
from prep.chat.tables import FORMATS
from prep.tokenizer.tokenizer import Tokenizer

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = ("\n\n", "\n\n\n\n", ".\n", ".\n\n", ">\n", ">\n\n", " \n", " \n\n", "\r\n", '"\n', "}\n", '",', "as", "us")
ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


@cache
def toy_for(
    formats: tuple[ChatFormat, ...] = tuple(FORMATS.values()),
    added: tuple[str, ...] = ADDED,
    normalizer: str | None = "NFC",
    merges: Iterable[str] = MERGES,
) -> Tokenizer:
    """A byte's token is its value; then merges, controls of all formats, added tokens"""
    ranks = {bytes([i]): i for i in range(256)} | {text.encode(): 256 + i for i, text in enumerate(merges)}
    controls = dict.fromkeys(control for form in formats for control in form.controls)
    special = {text: len(ranks) + i for i, text in enumerate(controls)}
    others = {text: len(ranks) + len(special) + i for i, text in enumerate(added)}
    return Tokenizer("toy", ranks, QWEN_PATTERN, special, others, normalizer)
