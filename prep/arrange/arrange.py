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
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrange.in_turn import alternate, conversations_of_parts, invalid_text
from prep.arrange.python_calls import has_calls, write_calls
from prep.arrange.systems import add_systems
from prep.arrays import Array, offsets
from prep.chat import rules
from prep.chat.format import ChatFormat
from prep.chat.template import ChatTemplate
from prep.columns import index_array, text_array
from prep.conversations import turns
from prep.conversations.conversation import (
    ASSISTANT,
    CALL_ARGUMENTS,
    CALL_ID,
    CALL_NAME,
    DOCUMENT,
    OUTPUT,
    PYTHON,
    REASONING,
    ROLES,
    TEXT,
    TOOL,
    USER,
    Conversations,
    mark,
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
    batch = _one_text_each(_without_misplaced(batch, form))
    batch, num_lost = _with_reasoning(batch) if form.reasoning else (batch, 0)
    is_empty = _is_empty(batch.texts)
    batch, keep = _written_reasoning(batch, is_empty, template)
    arranged = Arranged(_trimmed(_written_calls(batch, form), form), is_empty[keep], num_lost)
    return replace(arranged, **add_systems(arranged.batch, arranged.is_empty, template))


def normalize(batch: Conversations) -> Conversations:
    """C conversations -> the same in turn, as nanochat's format takes them"""
    return alternate(_as_chosen(batch, ChatTemplate()))


def _as_chosen(batch: Conversations, template: ChatTemplate) -> Conversations:
    """What the entry chose of turns, calls and reasoning"""
    batch = _write_as_text(batch, template.format)
    if batch.choices.consecutive == "merge":
        batch = turns.merge(batch)
    return turns.train_on(batch, batch.choices.train_on or template.train_on or "all")


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
    if not form.alternates:
        if reason == "tool calls" and form.calls is None:
            return f'chat format {form.name} has no place for calls: tools = "text" writes them as text'
        if reason == "tool calls":
            return f"chat format {form.name} has no place for such calls, or the tools are no list"
        return f"chat format {form.name} has no place for it" if reason in ("unknown role", "unknown part type") else ""
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
    return _insert(batch, np.flatnonzero(np.diff(batch.parts) == 0), batch.parts[:-1], TEXT)


def _insert(batch: Conversations, messages: Array, places: Array, kind: int) -> Conversations:
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


def _select(batch: Conversations, keep: Array) -> Conversations:
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


def _is_empty(texts: pa.LargeStringArray) -> Array:
    return np.asarray(pc.equal(pc.binary_length(texts), 0))


# ---- what the format has no place for ----


def _without_misplaced(batch: Conversations, form: ChatFormat) -> Conversations:
    """Conversations with parts or roles that the format does not have lose their messages and get a reason"""
    conversation = np.repeat(np.arange(len(batch)), np.diff(batch.messages))  # (M,)
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))  # (P,)
    role, kinds = batch.roles[message], batch.kinds
    known = [ROLES.index(name) for name in form.turns] + [DOCUMENT] + [TOOL] * (form.results is not None)
    calls = np.bincount(message[kinds == CALL_NAME], minlength=len(batch.roles))
    texts = np.bincount(message[(kinds == TEXT) & ~_is_empty(batch.texts)], minlength=len(batch.roles))
    misplaced = {
        "not valid Unicode": conversations_of_parts(batch, invalid_text(batch.texts)),
        "unknown part type": _flag(batch, conversation[message[np.isin(kinds, (PYTHON, OUTPUT))]]),
        "tool calls": _flag(batch, conversation[_wrong_calls(batch, calls, texts, form)]),
        "unknown role": _flag(batch, conversation[~np.isin(batch.roles, known) & (batch.roles != TOOL)]),
        "content is not text": _flag(
            batch, conversation[message[(role != ASSISTANT) & (kinds != TEXT) & (kinds != CALL_ID)]]
        )
        | _flag(
            batch,
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


def _flag(batch: Conversations, conversations: Array) -> Array:
    out = np.zeros(len(batch), dtype=bool)
    out[conversations] = True
    return out


# ---- one text each, reasoning before it, calls behind it ----


def _one_text_each(batch: Conversations) -> Conversations:
    """Every message with one text: several are joined, none is an empty one. Ids of calls are gone."""
    batch = _select(batch, batch.kinds != CALL_ID)
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))  # (P,)
    slot = np.where(batch.kinds == REASONING, 0, np.where(batch.kinds == TEXT, 1, 2))
    key = 3 * message + slot
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key, kind="stable")
        batch = replace(batch, texts=batch.texts.take(index_array(order)), kinds=batch.kinds[order])
        key = key[order]
    glued = np.append(False, (key[1:] == key[:-1]) & (batch.kinds[1:] <= REASONING))[: len(key)]
    if glued.any():
        batch = turns.glue(batch, glued, message, "")
        message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))
    is_kind = {
        kind: np.bincount(message[batch.kinds == kind], minlength=len(batch.roles)) for kind in (REASONING, TEXT)
    }
    return _insert(batch, np.flatnonzero(is_kind[TEXT] == 0), batch.parts[:-1] + is_kind[REASONING], TEXT)


def _with_reasoning(batch: Conversations) -> tuple[Conversations, int]:
    """Every turn of the assistant's with a reasoning, empty where it has none; what stands in its text is found"""
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))
    has_reasoning = np.bincount(message[batch.kinds == REASONING], minlength=len(batch.roles)) > 0
    lacks = (batch.roles == ASSISTANT) & ~has_reasoning  # (M,)
    batch = _insert(batch, np.flatnonzero(lacks), batch.parts[:-1], REASONING)
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


def _written_reasoning(batch: Conversations, is_empty: Array, template: ChatTemplate) -> tuple[Conversations, Array]:
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
    begins, ends = (end == ord("\n") for end in _end_bytes(batch.texts))
    places = blocks[written][(begins | ends)[blocks[written]]]
    batch = with_texts(batch, places, pc.ascii_trim(batch.texts.take(index_array(places)), "\n"))
    said = blocks[written] + 1
    places = said[begins[said]]
    batch = with_texts(batch, places, pc.ascii_ltrim(batch.texts.take(index_array(places)), "\n"))
    keep[blocks[~written]] = False
    return _select(batch, keep), keep


def _end_bytes(texts: pa.LargeStringArray) -> tuple[Array, Array]:
    """(P,) uint8: the first byte of each text and its last one, 0 where it is empty"""
    bounds = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"\0", dtype=np.uint8)
    has_text = bounds[:-1] < bounds[1:]
    first, last = np.minimum(bounds[:-1], len(data) - 1), bounds[1:] - 1
    return has_text * data[first], has_text * data[last]


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
    first, last = _end_bytes(batch.texts)
    may_change = (first <= ord(" ")) | (first > 0x7F) | (last <= ord(" ")) | (last > 0x7F)
    places = places[may_change[places]]
    texts = batch.texts.take(index_array(places))
    return with_texts(batch, places, pc.utf8_trim(texts, rules.TRIMS[trim]))
