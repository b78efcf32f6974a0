"""
Tokens that somebody typed: what looks like a marker of the model's in the text of a user, a system message or a tool.

    typed_tokens = "reject"     user "Say </think> twice."    rejected, as `spells a control token`

Control tokens (<|im_end|>) are recognised in scaffold only, so typing one forges nothing. Added tokens that are not special, as
<think> and <tool_call> of Qwen's, are tokens wherever they stand: there the model reads the marker itself.
"""

import json
import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrange.in_turn import conversations_of_parts, invalid_text, join_texts
from prep.arrays import Array
from prep.conversations.conversation import ASSISTANT, DOCUMENT, OUTPUT, Conversations, reject


def reject_typed(batch: Conversations, tokens: Iterable[str]) -> Conversations:
    """C conversations -> the same, without those in which others than the assistant spell one, where the entry says so"""
    if not (pattern := _pattern(batch, tokens)):
        return batch
    joined = join_texts(batch)
    typed = conversations_of_parts(joined, np.flatnonzero(_is_typed(joined, pattern)))
    typed |= np.array([bool(re.search(pattern, text)) for text in _tool_texts(batch)], dtype=bool)
    return reject(batch, typed, "spells a control token")


def explain_typed(batch: Conversations, tokens: Iterable[str]) -> str:
    """The token that a batch of one conversation is rejected for; "" if it is not"""
    if not (pattern := _pattern(batch, tokens)):
        return ""
    joined = join_texts(batch)
    texts = joined.texts.filter(pa.array(_is_typed(joined, pattern))).to_pylist()
    found = next(filter(None, (re.search(pattern, text) for text in [*texts, *_tool_texts(batch)])), None)
    return f'{found[0]!r} is typed: typed_tokens = "keep" lets it through' if found else ""


def _is_typed(batch: Conversations, pattern: str) -> Array:
    """(P,) bool: a tool's answer in the assistant's turn is not the assistant's. What is not UTF-8 has a reason of its own."""
    roles = np.repeat(batch.roles, np.diff(batch.parts))
    is_typed: Array = np.asarray(pc.match_substring_regex(batch.texts, pattern))
    is_typed = is_typed & (~np.isin(roles, (ASSISTANT, DOCUMENT)) | (batch.kinds == OUTPUT))
    is_typed[invalid_text(batch.texts)] = False
    return is_typed


def _tool_texts(batch: Conversations) -> list[str]:
    """(C,) definitions of tools, without the escapes of JSON"""
    return [""] * len(batch) if batch.tools is None else [_plain(text) for text in batch.tools.to_pylist()]


@lru_cache(maxsize=1024)
def _plain(text: str | None) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False) if text else ""
    except (ValueError, RecursionError):
        return ""


def _pattern(batch: Conversations, tokens: Iterable[str]) -> str:
    """What finds one of the tokens; "" where none is looked for"""
    return "" if batch.choices.typed_tokens == "keep" else "|".join(map(re.escape, tokens))
