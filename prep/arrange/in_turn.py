"""
What a format whose roles alternate, as nanochat's, asks of a conversation before its tokens are placed.

    system "Be brief."  user "2+2?"  assistant "4"     ->     user "Be brief.\\n\\n2+2?"  assistant "4"

Calls become Python (prep.arrange.python_calls), neighbours are merged and turns taken out of training as the entry chose. Then
roles alternate from user on, a leading system message is merged into the user message after it, only the assistant has
parts other than one text. A conversation that is not so loses its messages and gets a reason. Legend: C conversations, M
messages, P parts.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import index_array
from prep.conversations import turns
from prep.conversations.conversation import ASSISTANT, DOCUMENT, SYSTEM, TEXT, USER, Conversations, mark


def alternate(batch: Conversations) -> Conversations:
    """
    Leading system messages merged into the user message after them, roles alternating from user on, valid text.
    Conversations that are not so lose their messages and get a reason.
    """
    batch = join_texts(batch)
    reasons = batch.reasons.copy()
    mark(reasons, np.diff(batch.messages) == 0, "no messages")
    mark(reasons, conversations_of_parts(batch, invalid_text(batch.texts)), "not valid Unicode")
    num_parts, conversation = np.diff(batch.parts), np.repeat(np.arange(len(batch)), np.diff(batch.messages))  # (M,)
    position = np.arange(len(batch.roles)) - batch.messages[conversation]  # (M,) place in the conversation
    system = (batch.roles == SYSTEM) & (position == 0)
    position = position - np.isin(conversation, conversation[system])
    expected = np.where(position % 2 == 0, USER, ASSISTANT)
    wrong = (batch.roles != expected) & ~system & (batch.roles != DOCUMENT)
    mark(reasons, flag(len(batch), conversation[wrong]), "roles out of turn")
    alone = system & (batch.messages[conversation + 1] == batch.messages[conversation] + 1)
    mark(reasons, flag(len(batch), conversation[alone]), "roles out of turn")
    first_kinds = np.append(batch.kinds, TEXT)[batch.parts[:-1]]
    not_text = (batch.roles != ASSISTANT) & ((num_parts != 1) | (first_kinds != TEXT))
    mark(reasons, flag(len(batch), conversation[not_text]), "content is not text")
    good = reasons[conversation] == 0
    if good.all() and not system.any():
        return replace(batch, reasons=reasons)
    return _merge_systems(replace(batch, reasons=reasons), good, system & good, conversation)


def join_texts(batch: Conversations) -> Conversations:
    """Several texts of one message, which is not the assistant's, as one"""
    several = (np.diff(batch.parts) > 1) & (batch.roles != ASSISTANT)  # (M,)
    if not several.any():
        return batch
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))  # (P,)
    glued = several[message]
    glued[batch.parts[:-1][np.diff(batch.parts) > 0]] = False
    text = batch.kinds == TEXT
    glued[1:] &= text[1:] & text[:-1]
    return turns.glue(batch, glued, message, "")


def _merge_systems(batch: Conversations, good: Array, system: Array, conversation: Array) -> Conversations:
    """Keep the messages that are `good` (M,) and join the text of each `system` (M,) message with the next one's."""
    texts, first = batch.texts, batch.parts[:-1][system]  # system and user messages have one part each
    source = np.arange(len(texts), dtype=np.int64)
    if len(first):
        user = batch.parts[1:][system]
        between = pa.scalar("\n\n", pa.large_string())
        joined = pc.binary_join_element_wise(texts.take(index_array(first)), texts.take(index_array(user)), between)
        source[user] = len(texts) + np.arange(len(first))
        texts = pa.concat_arrays([texts, joined])
    kept = good & ~system
    kept_parts = np.repeat(kept, np.diff(batch.parts))
    return replace(
        batch,
        texts=texts.take(index_array(source[kept_parts])),
        kinds=batch.kinds[kept_parts],
        parts=offsets(np.diff(batch.parts)[kept]),
        roles=batch.roles[kept],
        messages=offsets(np.bincount(conversation[kept], minlength=len(batch))),
        trained=None if batch.trained is None else batch.trained[kept],
    )


def flag(num: int, index: Array) -> Array:
    out = np.zeros(num, dtype=bool)
    out[index] = True
    return out


def conversations_of_parts(batch: Conversations, part_ids: Array) -> Array:
    """(C,) bool: which conversations hold one of these parts"""
    message = np.searchsorted(batch.parts, part_ids, side="right") - 1
    return flag(len(batch), np.searchsorted(batch.messages, message, side="right") - 1)


def invalid_text(texts: pa.LargeStringArray) -> Array:
    """Places of the texts that are not UTF-8: parquet files may hold any bytes in a column of strings."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return np.array([i for i, text in enumerate(texts.cast(pa.large_binary()).to_pylist()) if not _is_utf8(text)])
    return np.zeros(0, dtype=np.int64)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
