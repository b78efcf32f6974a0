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
from prep.conversations.conversation import (
    Conversations,
)


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


def is_empty_text(texts: pa.LargeStringArray) -> Array:
    return np.asarray(pc.equal(pc.binary_length(texts), 0))


def end_bytes(texts: pa.LargeStringArray) -> tuple[Array, Array]:
    """(P,) uint8: the first byte of each text and its last one, 0 where it is empty"""
    bounds = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"\0", dtype=np.uint8)
    has_text = bounds[:-1] < bounds[1:]
    first, last = np.minimum(bounds[:-1], len(data) - 1), bounds[1:] - 1
    return has_text * data[first], has_text * data[last]
