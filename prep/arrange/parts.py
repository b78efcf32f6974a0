r"""
Parts of a batch put in, taken out, or with another text. No text becomes a Python object.

Legend: M messages, P parts.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import index_array, text_array
from prep.conversations import turns
from prep.conversations.conversation import REASONING, TEXT, Conversations


def insert_parts(batch: Conversations, messages: Array, places: Array, kind: int) -> Conversations:
    """The batch with an empty part of this kind in each of (n,) messages, at its place in (M,) `places`"""
    if not len(messages):
        return batch
    at, num_parts = places[messages], np.diff(batch.parts)
    source = np.insert(np.arange(len(batch.texts)), at, len(batch.texts))
    num_parts[messages] += 1
    return replace(
        batch,
        texts=pa.concat_arrays([batch.texts, text_array([""])]).take(index_array(source)),
        kinds=np.insert(batch.kinds, at, kind).astype(np.uint8),
        parts=offsets(num_parts),
    )


def select_parts(batch: Conversations, keep: Array) -> Conversations:
    """The batch with the parts where `keep` (P,) is true"""
    if keep.all():
        return batch
    return replace(
        batch,
        texts=batch.texts.take(index_array(np.flatnonzero(keep))),
        kinds=batch.kinds[keep],
        parts=offsets(keep)[batch.parts],
    )


def with_texts(batch: Conversations, places: Array, texts: pa.LargeStringArray) -> Conversations:
    """The batch with other texts in (n,) places"""
    if not len(places):
        return batch
    source = np.arange(len(batch.texts))
    source[places] = len(batch.texts) + np.arange(len(places))
    return replace(batch, texts=pa.concat_arrays([batch.texts, texts]).take(index_array(source)))


def group_parts(batch: Conversations, between: str) -> Conversations:
    """The batch with reasoning before the text in every message, and calls after it; several of a kind are joined"""
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))
    key = 3 * message + np.where(batch.kinds == REASONING, 0, np.where(batch.kinds == TEXT, 1, 2))
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key, kind="stable")
        batch = replace(batch, texts=batch.texts.take(index_array(order)), kinds=batch.kinds[order])
        key = key[order]
    may_join = (batch.kinds == REASONING) | (batch.kinds == TEXT)
    glued = np.append(False, (key[1:] == key[:-1]) & may_join[1:])[: len(key)]
    return turns.glue(batch, glued, message, between) if glued.any() else batch


def merge_turns(batch: Conversations) -> Conversations:
    """
    Neighbouring messages of one role as one, for formats with one reasoning and one text a turn: those are joined by an empty
    line, calls follow.
    """
    joins = turns.joins_before(batch)
    if not joins.any():
        return batch
    batch = group_parts(batch, "")
    turn = np.repeat(np.cumsum(~joins) - 1, np.diff(batch.parts))  # (P,)
    text, is_empty = batch.kinds == TEXT, is_empty_text(batch.texts)
    says = np.isin(
        turn, turn[text & ~is_empty]
    )  # in turns with a text, empty ones are none; in the others the first stays
    is_first = np.zeros(len(turn), dtype=bool)
    is_first[np.flatnonzero(text)[np.unique(turn[text], return_index=True)[1]]] = True
    in_run = (joins | np.append(joins[1:], False))[np.repeat(np.arange(len(joins)), np.diff(batch.parts))]
    batch = select_parts(batch, ~(in_run & text & is_empty & (says | ~is_first)))
    return group_parts(turns.merge(batch), "\n\n")


def is_empty_text(texts: pa.LargeStringArray) -> Array:
    return np.asarray(pc.equal(pc.binary_length(texts), 0))


def end_bytes(texts: pa.LargeStringArray) -> tuple[Array, Array]:
    """(P,) uint8: the first byte of each text and its last one, 0 where it is empty"""
    bounds = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"\0", dtype=np.uint8)
    has_text = bounds[:-1] < bounds[1:]
    first, last = np.minimum(bounds[:-1], len(data) - 1), bounds[1:] - 1
    return has_text * data[first], has_text * data[last]
