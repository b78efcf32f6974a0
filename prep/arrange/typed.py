"""
Tokens that somebody typed: what looks like a marker of the model's in the text of a user, a system message or a tool.

    typed_tokens = "reject"     user "Say </think> twice."    rejected, as `spells a control token`

Control tokens (<|im_end|>) are recognised in scaffold only, so typing one forges nothing. Added tokens that are not special, as
<think> and <tool_call> of Qwen's, are tokens wherever they stand: there the model reads the marker itself.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pyarrow.compute as pc

from prep.arrange.in_turn import conversations_of_parts
from prep.arrays import Array
from prep.conversations.conversation import ASSISTANT, DOCUMENT, Conversations, reject


def reject_typed(batch: Conversations, tokens: Iterable[str]) -> Conversations:
    """C conversations -> the same, without those in which others than the assistant spell one, where the entry says so"""
    if batch.choices.typed_tokens == "keep":
        return batch
    return reject(
        batch, conversations_of_parts(batch, np.flatnonzero(_is_typed(batch, tokens))), "spells a control token"
    )


def explain_typed(batch: Conversations, tokens: Iterable[str]) -> str:
    """The token that a batch of one conversation is rejected for; "" if it is not"""
    tokens = tuple(tokens)
    if batch.choices.typed_tokens == "keep" or not (typed := np.flatnonzero(_is_typed(batch, tokens))).size:
        return ""
    found = re.search(_pattern(tokens), batch.texts[typed[0]].as_py())
    return f'{found[0]!r} is typed: typed_tokens = "keep" lets it through' if found else ""


def _is_typed(batch: Conversations, tokens: Iterable[str]) -> Array:
    """(P,) bool"""
    roles = np.repeat(batch.roles, np.diff(batch.parts))
    spells = np.asarray(pc.match_substring_regex(batch.texts, _pattern(tuple(tokens))))
    is_typed: Array = spells & ~np.isin(roles, (ASSISTANT, DOCUMENT))
    return is_typed


@lru_cache(maxsize=8)
def _pattern(tokens: tuple[str, ...]) -> str:
    return "|".join(map(re.escape, tokens))
