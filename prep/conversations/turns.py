r"""
Changes to the turns of a batch: neighbours merged, a system message prepended, some taken out of training.

    user "Hi."  user "2+2?"  assistant "4"     ->     user "Hi.\n\n2+2?"  assistant "4"

Texts are joined by an empty line, as a system message is joined with the user message after it. Everything is arithmetic
on offsets: no text becomes a Python object. Legend: C conversations, M messages, P parts.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import index_array
from prep.conversations.conversation import ASSISTANT, CONTEXT, SYSTEM, TEXT, TOOL, TRAINS, Conversations, reject

TRAIN_ON = ("all", "last", "none")
CONSECUTIVE = ("reject", "merge")
TYPED_TOKENS = ("keep", "reject")


def merge(batch: Conversations) -> Conversations:
    """
    Neighbouring messages of one role become one: texts that meet are joined, other parts follow one another. Messages of
    the assistant of which only one trains cannot be one turn: the conversation is rejected. One flag is the whole turn's.
    """
    conversation, joins = _conversation(batch), joins_before(batch)
    if not joins.any():
        return batch
    if batch.trained is not None:
        trains = batch.trained != CONTEXT
        differ = joins[1:] & (trains[1:] != trains[:-1]) & (batch.roles[1:] == ASSISTANT)
        where = np.zeros(len(batch), dtype=bool)
        where[conversation[1:][differ]] = True
        batch = reject(batch, where, "trained in part of a turn")
    num_parts = np.diff(batch.parts)
    turn = np.repeat(np.cumsum(~joins) - 1, num_parts)  # (P,)
    glued = np.zeros(len(turn), dtype=bool)  # (P,) texts to be joined to the part before
    glued[batch.parts[:-1][joins & (num_parts > 0)]] = True
    text = batch.kinds == TEXT
    glued[1:] &= text[1:] & text[:-1] & (turn[1:] == turn[:-1])
    glued[:1] = False
    merged = replace(
        batch,
        roles=batch.roles[~joins],
        messages=offsets(np.bincount(conversation[~joins], minlength=len(batch))),
        trained=None if batch.trained is None else np.maximum.reduceat(batch.trained, np.flatnonzero(~joins)),
    )
    return glue(merged, glued, turn, "\n\n")


def joins_before(batch: Conversations) -> Array:
    """(M,) bool: messages that are of one turn with the one before. Each answer of a tool is a message of its own."""
    conversation = _conversation(batch)
    joins = np.zeros(len(batch.roles), dtype=bool)
    joins[1:] = (batch.roles[1:] == batch.roles[:-1]) & (conversation[1:] == conversation[:-1])
    joins &= batch.roles != TOOL
    return joins


def glue(batch: Conversations, glued: Array, message: Array, between: str) -> Conversations:
    """The batch with the texts where `glued` (P,) joined to the one before; `message` (P,) is what each part is of"""
    first = np.flatnonzero(~glued)
    bounds = pa.Array.from_buffers(
        pa.int64(), len(first) + 1, [None, pa.py_buffer(np.append(first, len(glued)).astype(np.int64))]
    )
    groups = pa.LargeListArray.from_arrays(bounds, batch.texts)
    return replace(
        batch,
        texts=pc.binary_join(groups, pa.scalar(between, pa.large_string())),
        kinds=batch.kinds[first],
        parts=offsets(np.bincount(message[first], minlength=len(batch.roles))),
    )


def prepend_system(batch: Conversations, systems: pa.Array) -> Conversations:
    """The batch with a system message in front of each conversation whose (C,) text is neither null nor empty"""
    systems = pc.fill_null(systems.cast(pa.large_string()), "")
    has_system = pc.greater(pc.binary_length(systems), 0).to_numpy(zero_copy_only=False)  # (C,)
    if not has_system.any():
        return batch
    at = batch.messages[:-1][has_system]  # (n,) message before which each goes
    part = batch.parts[at]
    source = np.insert(np.arange(len(batch.texts)), part, len(batch.texts) + np.flatnonzero(has_system))
    return replace(
        batch,
        texts=pa.concat_arrays([batch.texts, systems]).take(index_array(source)),
        kinds=np.insert(batch.kinds, part, TEXT).astype(np.uint8),
        parts=offsets(np.insert(np.diff(batch.parts), at, 1)),
        roles=np.insert(batch.roles, at, SYSTEM).astype(np.uint8),
        messages=offsets(np.diff(batch.messages) + has_system),
        trained=None if batch.trained is None else np.insert(batch.trained, at, TRAINS),
    )


def train_on(batch: Conversations, which: str | tuple[str, ...]) -> Conversations:
    """
    all, or a list of what trains of a turn: what the batch says; last: of that, only the last turn of the assistant, all of
    its messages where neighbours are to be merged; none: everything is context. Flags of messages win over all of it.
    """
    if which not in ("last", "none"):
        return batch
    trained = np.full(len(batch.roles), CONTEXT, dtype=np.uint8)
    if which == "last":
        replies = np.flatnonzero(batch.roles == ASSISTANT)
        conversation = _conversation(batch)[replies]
        is_last = np.append(conversation[1:] != conversation[:-1], True)[: len(replies)]
        trained[replies[is_last]] = TRAINS
        if batch.choices.consecutive == "merge":
            turn = np.cumsum(~joins_before(batch))
            trained[np.isin(turn, turn[replies[is_last]])] = TRAINS
    if batch.trained is not None:
        trained = np.where(batch.trained == TRAINS, trained, batch.trained).astype(np.uint8)
    return replace(batch, trained=trained)


def _conversation(batch: Conversations) -> Array:
    """(M,) the conversation of each message"""
    return np.repeat(np.arange(len(batch)), np.diff(batch.messages))
