r"""
Reasoning as a chat format writes it: found in texts, in blocks before them, left out of earlier turns.

    TEXT "<think>\nHm.\n</think>\n\n4"   ->   REASONING "Hm."  TEXT "4"

Legend: C conversations, M messages, P parts.
"""

import numpy as np
import pyarrow.compute as pc

from prep.arrange.parts import end_bytes, insert_parts, select_parts, with_texts
from prep.arrays import Array
from prep.chat import rules
from prep.chat.template import ChatTemplate
from prep.columns import index_array, text_array
from prep.conversations.conversation import (
    ASSISTANT,
    REASONING,
    USER,
    Conversations,
)


def find_reasoning(batch: Conversations) -> tuple[Conversations, int]:
    """Every turn of the assistant's with a reasoning, empty where it has none; what stands in its text is found"""
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))
    has_reasoning = np.bincount(message[batch.kinds == REASONING], minlength=len(batch.roles)) > 0
    lacks = (batch.roles == ASSISTANT) & ~has_reasoning  # (M,)
    batch = insert_parts(batch, np.flatnonzero(lacks), batch.parts[:-1], REASONING)
    reasoning = batch.parts[:-1][lacks]  # (n,) places, each with the text of its turn behind it
    inside = np.asarray(pc.match_substring(batch.texts.take(index_array(reasoning + 1)), rules.THINK_END))
    places = reasoning[inside]
    if not len(places):
        return batch, 0
    found = [rules.find_reasoning(text) for text in batch.texts.take(index_array(places + 1)).to_pylist()]
    both = text_array([text for each in found if each for text in (each.reasoning, each.text)])
    lost = np.array([each is not None and each.lost for each in found])
    conversations = np.searchsorted(batch.parts[batch.messages], places[lost], side="right")
    return with_texts(batch, np.stack([places, places + 1], axis=1).reshape(-1), both), len(np.unique(conversations))


def write_reasoning(batch: Conversations, is_empty: Array, template: ChatTemplate) -> tuple[Conversations, Array]:
    """The batch with the blocks of reasoning that the format writes, and (P,) bool: which parts of it are left"""
    reasoning = template.format.reasoning
    keep = np.ones(len(batch.kinds), dtype=bool)
    if reasoning is None:
        return batch, keep
    blocks = np.flatnonzero(batch.kinds == REASONING)
    message = np.searchsorted(batch.parts, blocks, side="right") - 1
    conversation = np.searchsorted(batch.messages, message, side="right") - 1
    written = ~is_empty[blocks]
    if reasoning.when_empty == "last":
        written |= message + 1 == batch.messages[conversation + 1]
    written |= reasoning.when_empty == "always"
    written &= ~is_empty[blocks] | template.empty_think
    if reasoning.keep == "after_last_user":
        written &= message > _last_queries(batch)[conversation]
    begins, ends = (end == ord("\n") for end in end_bytes(batch.texts))
    places = blocks[written][(begins | ends)[blocks[written]]]
    batch = with_texts(batch, places, pc.ascii_trim(batch.texts.take(index_array(places)), "\n"))
    said = blocks[written] + 1
    places = said[begins[said]]
    batch = with_texts(batch, places, pc.ascii_ltrim(batch.texts.take(index_array(places)), "\n"))
    keep[blocks[~written]] = False
    return select_parts(batch, keep), keep


def _last_queries(batch: Conversations) -> Array:
    """(C,) message of the last question of the user, or the last message"""
    user = np.flatnonzero(batch.roles == USER)
    texts = batch.texts.take(index_array(batch.parts[user]))  # one part each
    start, end = rules.TOOL_RESPONSE
    asks = user[~np.asarray(pc.and_(pc.starts_with(texts, start), pc.ends_with(texts, end)))]
    last = batch.messages[1:] - 1
    place = np.searchsorted(asks, batch.messages[1:]) - 1
    found = np.append(asks, -1)[place] if len(asks) else np.full(len(batch), -1)
    out: Array = np.where((place >= 0) & (found >= batch.messages[:-1]), found, last)
    return out
