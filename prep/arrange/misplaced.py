r"""
What a chat format has no place for: roles, parts and calls that reject a conversation.

    llama3   assistant TEXT "", CALL_NAME add, ...     ->     no messages, reason "tool calls"

Legend: C conversations, M messages, P parts.
"""

from dataclasses import replace

import numpy as np

from prep.arrange.in_turn import conversations_of_parts, flag, invalid_text
from prep.arrange.parts import is_empty_text
from prep.arrays import Array, offsets
from prep.chat.format import ChatFormat
from prep.columns import index_array
from prep.conversations.conversation import (
    ASSISTANT,
    CALL_ID,
    CALL_NAME,
    DOCUMENT,
    OUTPUT,
    PYTHON,
    ROLES,
    TEXT,
    TOOL,
    Conversations,
    mark,
)


def without_misplaced(batch: Conversations, form: ChatFormat) -> Conversations:
    """Conversations with parts or roles that the format does not have lose their messages and get a reason"""
    conversation = np.repeat(np.arange(len(batch)), np.diff(batch.messages))  # (M,)
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))  # (P,)
    role, kinds = batch.roles[message], batch.kinds
    known = [ROLES.index(name) for name in form.turns] + [DOCUMENT] + [TOOL] * (form.results is not None)
    calls = np.bincount(message[kinds == CALL_NAME], minlength=len(batch.roles))
    texts = np.bincount(message[(kinds == TEXT) & ~is_empty_text(batch.texts)], minlength=len(batch.roles))
    misplaced = {
        "not valid Unicode": conversations_of_parts(batch, invalid_text(batch.texts)),
        "unknown part type": flag(len(batch), conversation[message[np.isin(kinds, (PYTHON, OUTPUT))]]),
        "tool calls": flag(len(batch), conversation[_wrong_calls(batch, calls, texts, form)]),
        "unknown role": flag(len(batch), conversation[~np.isin(batch.roles, known) & (batch.roles != TOOL)]),
        "content is not text": flag(
            len(batch), conversation[message[(role != ASSISTANT) & (kinds != TEXT) & (kinds != CALL_ID)]]
        )
        | flag(
            len(batch),
            conversation[
                (batch.roles == TOOL) & (np.bincount(message[kinds == TEXT], minlength=len(batch.roles)) == 0)
            ],
        ),
    }
    reasons = batch.reasons.copy()
    mark(reasons, np.diff(batch.messages) == 0, "no messages")
    for reason, where in misplaced.items():
        mark(reasons, where, reason)
    return only_valid(replace(batch, reasons=reasons))


def _wrong_calls(batch: Conversations, calls: Array, texts: Array, form: ChatFormat) -> Array:
    """(M,) bool: messages that call, or answer, where the format cannot"""
    wrong: Array = (batch.roles == TOOL) & (form.results is None)
    if form.calls is None:
        return wrong | (calls > 0)
    if form.calls.most is not None:
        wrong = wrong | (calls > form.calls.most)
    return wrong | ((calls > 0) & (texts > 0) & (not form.calls.beside_text))


def only_valid(batch: Conversations) -> Conversations:
    """Conversations that have a reason lose their messages"""
    conversation = np.repeat(np.arange(len(batch)), np.diff(batch.messages))
    good = batch.reasons[conversation] == 0
    if good.all():
        return batch
    keep = np.repeat(good, np.diff(batch.parts))
    return replace(
        batch,
        texts=batch.texts.take(index_array(np.flatnonzero(keep))),
        kinds=batch.kinds[keep],
        parts=offsets(np.diff(batch.parts)[good]),
        roles=batch.roles[good],
        messages=offsets(np.bincount(conversation[good], minlength=len(batch))),
        trained=None if batch.trained is None else batch.trained[good],
    )
