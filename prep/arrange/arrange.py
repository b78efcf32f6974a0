r"""
A batch of conversations as a chat format has them: which parts, in which order, with which texts.

    assistant  REASONING "Hm."  TEXT "\n4"  CALL_ID "1"  CALL_NAME add  CALL_ARGUMENTS {"a": 2}
    qwen3      REASONING "Hm."  TEXT "4"                 CALL_NAME add  CALL_ARGUMENTS {"a": 2}

Every turn has one text, empty or not, its reasoning before it and its calls behind it. Tools, and system texts that the format
puts there itself, are text by now (prep.arrange.systems). A conversation for which the format has no place loses its messages
and gets a reason. nanochat's format takes calls as Python (prep.arrange.python_calls) and roles in turn (prep.arrange.in_turn).
Legend: C conversations, M messages, P parts.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc

from prep.arrange.in_turn import alternate
from prep.arrange.misplaced import without_misplaced
from prep.arrange.parts import (
    end_bytes,
    group_parts,
    insert_parts,
    is_empty_text,
    merge_turns,
    select_parts,
    with_texts,
)
from prep.arrange.python_calls import has_calls, write_calls
from prep.arrange.reasoning import find_reasoning, write_reasoning
from prep.arrange.systems import add_systems
from prep.arrays import Array
from prep.chat import rules
from prep.chat.format import ChatFormat
from prep.chat.template import ChatTemplate
from prep.columns import index_array, text_array
from prep.conversations import turns
from prep.conversations.conversation import (
    CALL_ARGUMENTS,
    CALL_ID,
    REASONING,
    ROLES,
    TEXT,
    TOOL,
    Conversations,
)


@dataclass(frozen=True)
class Arranged:
    """A batch in the order of a format: every message has a part."""

    batch: Conversations
    is_empty: Array  # (P,) bool: says nothing, before anything is trimmed
    num_lost: int = 0  # conversations of which text beside reasoning is left out


def arrange(batch: Conversations, template: ChatTemplate) -> Arranged:
    """C conversations -> the same, as the format has them; those it has no place for have no messages, and a reason"""
    form = template.format
    batch = _as_chosen(batch, template)
    if form.alternates:
        batch = _with_a_part(alternate(batch))
        return Arranged(batch, np.zeros(len(batch.kinds), dtype=bool))
    batch = _one_text_each(without_misplaced(batch, form))
    batch, num_lost = find_reasoning(batch) if form.reasoning else (batch, 0)
    is_empty = is_empty_text(batch.texts)
    batch, keep = write_reasoning(batch, is_empty, template)
    arranged = Arranged(_trimmed(_written_calls(batch, form), form), is_empty[keep], num_lost)
    return replace(arranged, **add_systems(arranged.batch, arranged.is_empty, template))


def normalize(batch: Conversations) -> Conversations:
    """C conversations -> the same in turn, as nanochat's format takes them"""
    return alternate(_as_chosen(batch, ChatTemplate()))


def _as_chosen(batch: Conversations, template: ChatTemplate) -> Conversations:
    """What the entry chose of turns, calls and reasoning. What is context is known before messages become one turn."""
    which = batch.choices.train_on or template.train_on or "all"
    if which == "none":
        batch = turns.train_on(batch, which)
    batch = _write_as_text(batch, template.format)
    if which == "last":  # of turns, which calls and their answers are one of where they are Python
        batch = turns.train_on(batch, which)
    if batch.choices.consecutive == "reject":
        return batch
    return turns.merge(batch) if template.format.alternates else merge_turns(batch)


def _write_as_text(batch: Conversations, form: ChatFormat) -> Conversations:
    """Calls and reasoning that the format, or the entry, wants as text or as Python"""
    if not has_calls(batch):
        return batch
    if form.alternates:
        return write_calls(batch)
    keep_calls = batch.choices.tools != "text"
    keep_reasoning = form.reasoning is not None and batch.choices.reasoning != "drop"
    if keep_calls and (keep_reasoning or not (batch.kinds == REASONING).any()):
        return batch
    return write_calls(batch, keep_calls=keep_calls, keep_reasoning=keep_reasoning)


def explain(batch: Conversations, reason: str, template: ChatTemplate) -> str:
    """Why a batch of one conversation is not as a format has them; "" where its reason says it all"""
    form = template.format
    if reason == "trained in part of a turn" and batch.choices.consecutive == "merge" and not form.alternates:
        return "neighbouring messages of the assistant have other train flags, and are to be one turn"
    if not form.alternates:
        if reason == "tool calls" and form.calls is None:
            return f'chat format {form.name} has no place for calls: tools = "text" writes them as text'
        if reason == "tool calls":
            return f"chat format {form.name} has no place for such calls, or the tools are no list"
        if reason == "unknown part type":
            return f"chat format {form.name} has no place for Python in an answer, wanted text or tool_calls"
        return f"chat format {form.name} has no place for it" if reason == "unknown role" else ""
    if has_calls(batch):
        try:
            write_calls(batch, strict=True)
        except ValueError as error:
            return str(error.args[1])
        batch = write_calls(batch)
    if reason != "roles out of turn":
        return ""
    roles = [ROLES[role] for role in batch.roles.tolist()]
    if any(a == b for a, b in pairwise(roles)) and batch.choices.consecutive == "reject":
        shown = f"{', '.join(roles[:6])}{', ...' if len(roles) > 6 else ''}"
        return f'{shown}: consecutive = "merge" joins neighbours of one role'
    return f"the roles are {', '.join(roles[:6])}{', ...' if len(roles) > 6 else ''}"


def _with_a_part(batch: Conversations) -> Conversations:
    """The batch with an empty text in every message that has no part"""
    return insert_parts(batch, np.flatnonzero(np.diff(batch.parts) == 0), batch.parts[:-1], TEXT)


# ---- one text each, reasoning before it, calls behind it ----


def _one_text_each(batch: Conversations) -> Conversations:
    """Every message with one text: several are joined, none is an empty one. Ids of calls are gone."""
    batch = group_parts(select_parts(batch, batch.kinds != CALL_ID), "")
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))
    is_kind = {
        kind: np.bincount(message[batch.kinds == kind], minlength=len(batch.roles)) for kind in (REASONING, TEXT)
    }
    return insert_parts(batch, np.flatnonzero(is_kind[TEXT] == 0), batch.parts[:-1] + is_kind[REASONING], TEXT)


def _written_calls(batch: Conversations, form: ChatFormat) -> Conversations:
    """Arguments, and what tools answered, as the format writes them"""
    places = np.flatnonzero(batch.kinds == CALL_ARGUMENTS)
    if form.calls and form.calls.strings == "text" and len(places):
        texts = batch.texts.take(index_array(places))
        places = places[np.asarray(pc.starts_with(texts, '"'))]
        strings = [rules.write_arguments(text, "text") for text in batch.texts.take(index_array(places)).to_pylist()]
        batch = with_texts(batch, places, text_array(strings))
    if form.results and form.results.as_json:
        places = batch.parts[:-1][batch.roles == TOOL]
        texts = [rules.to_json(text) for text in batch.texts.take(index_array(places)).to_pylist()]
        batch = with_texts(batch, places, text_array(texts))
    return batch


def _trimmed(batch: Conversations, form: ChatFormat) -> Conversations:
    """Texts without what the format trims"""
    trimmed = [ROLES.index(role) for role, turn in form.turns.items() if turn.trim]
    if not trimmed:
        return batch
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))
    places = np.flatnonzero(np.isin(batch.roles, trimmed)[message] & (batch.kinds == TEXT))
    (trim,) = {form.turns[ROLES[role]].trim for role in trimmed}
    first, last = end_bytes(batch.texts)
    may_change = (first <= ord(" ")) | (first > 0x7F) | (last <= ord(" ")) | (last > 0x7F)
    places = places[may_change[places]]
    texts = batch.texts.take(index_array(places))
    return with_texts(batch, places, pc.utf8_trim(texts, rules.TRIMS[trim]))
