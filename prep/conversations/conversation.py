"""
A batch of conversations as columns, and what makes a conversation valid.

    "2+2?" -> "4, checked: " + python "2+2" + output "4"          one conversation, two messages, four parts

    messages   0           2                offsets: conversation c has messages[c] : messages[c + 1]
    roles      USER  ASSISTANT
    parts      0     1            4         offsets: message m has parts[m] : parts[m + 1]
    kinds      TEXT  TEXT  PYTHON  OUTPUT
    texts      2+2?  4, .. 2+2     4

It is Arrow's own layout of list<struct<role, parts: list<struct<type, text>>>> with the offsets as numpy arrays: a task
makes it from Arrow columns without touching a string, and the renderer places tokens by arithmetic on the offsets.

What a row says stands here as it says it, in its own order: roles do not alternate yet, a system message is a message.

    role tool         one message for each answer; parts CALL_ID (where the row has one) and TEXT
    a call            parts CALL_ID, CALL_NAME, CALL_ARGUMENTS of the assistant's message, after its text. Arguments are JSON
                      as text, keys as they came: '{"a": 2}', or '"..."' where the row has a string
    REASONING         before the text of its message
    role document     plain text, alone in its conversation: nobody says it
    tools             (C,) JSON of the tools that a conversation may call, null where there are none

A chat format makes turns of that, as `choices` say (prep.chat). Readers fill in and decide nothing.

A row that is not a valid conversation keeps its place, with the reason why: a batch of C rows always gives C conversations.
Legend: C conversations, M messages, P parts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets
from prep.columns import index_array

SYSTEM, USER, ASSISTANT, TOOL, DOCUMENT = range(5)
ROLES = ["system", "user", "assistant", "tool", "document"]
TEXT, PYTHON, OUTPUT, REASONING, CALL_NAME, CALL_ARGUMENTS, CALL_ID = range(7)
KINDS = ["text", "python", "python_output", "reasoning", "call_name", "call_arguments", "call_id"]
CONTENT_KINDS = KINDS[:3]  # that a part of a content may be
CONTEXT, TRAINS, FLAGGED = range(3)  # what a row says of a message: its flag is false, it has none, its flag is true

# Why a row was rejected, as the manifest says it; the code of a row is the place in this list.
REASONS = [
    "",
    "invalid JSON",
    "not an object",
    "missing field",
    "no messages",
    "unknown role",
    "roles out of turn",
    "content is not text",
    "unknown part type",
    "not valid Unicode",
    "not four choices",
    "answer out of range",
    "text that the tokenizer cannot encode",
    "too long",
    "tool calls",
    "trained in part of a turn",
    "train or weight is not true or false",
    "left out by its task",
    "too few tokens",
    "too many tokens",
    "too few trained tokens",
    "too many trained tokens",
    "asked in val",
    "duplicate",
    "messages are no list",
    "train flags disagree",
    "another layout",
    "call is not Python",
    "left out by where",
    "template raised",
    "spells a control token",
]
WANTED = ("left out by where",)  # that nothing is wrong with: no limit counts them
REASON = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Choices:
    """What the entry of a mixture wants a chat format to make of its messages."""

    # all, last or none: turns of the assistant; or a list of what trains of a turn; None: what the template says, or all
    train_on: str | tuple[str, ...] | None = None
    consecutive: str = "reject"  # or merge: neighbouring messages of one role
    tools: str = "parts"  # or text: what calls and their answers become
    reasoning: str | None = None  # think: text in <think>; drop: left out; None: not decided
    typed_tokens: str = (
        "keep"  # or reject: conversations in which others than the assistant spell a control or added token
    )


@dataclass(frozen=True)
class Notes:
    """What a reader met and did not read, for the whole batch."""

    left_aside: Mapping[str, int] = field(default_factory=dict)  # field -> rows that have a value in it
    refused: tuple[str, ...] = ()  # fields that the entry has to decide on: prep.conversations.layouts.refusal


@dataclass(frozen=True)
class Conversations:
    """
    C conversations, columnar. `reasons` is 0 where the conversation is valid. `trained` says on which messages of the
    assistant SFT trains: not on those where it is CONTEXT; None: it is TRAINS everywhere. `train_on` leaves FLAGGED ones.
    """

    texts: pa.LargeStringArray  # (P,)
    kinds: Array  # (P,) uint8: place in KINDS
    parts: Array  # (M + 1,) int64 offsets into texts
    roles: Array  # (M,) uint8: place in ROLES
    messages: Array  # (C + 1,) int64 offsets into roles
    reasons: Array  # (C,) uint8: place in REASONS
    trained: Array | None = None  # (M,) uint8: CONTEXT, TRAINS or FLAGGED
    tools: pa.LargeStringArray | None = None  # (C,) JSON; None: nobody has any
    choices: Choices = Choices()
    notes: Notes = Notes()

    def __len__(self) -> int:
        return len(self.reasons)

    @classmethod
    def of_turns(cls, turns: list[pa.Array], kinds: list[int], num_parts: list[int]) -> Self:
        """
        C conversations of the same shape from one (C,) string array per part: of_turns([question, answer], [TEXT, TEXT],
        [1, 1]) is a user message and an assistant message of one part each. `num_parts` has one number per message; roles
        alternate.
        """
        num_rows, num_columns = len(turns[0]), len(turns)
        columns = pa.chunked_array([column.cast(pa.large_string()) for column in turns]).combine_chunks()
        by_row = (np.arange(num_rows)[:, None] + num_rows * np.arange(num_columns)).reshape(-1)  # (C * columns,)
        per_message = np.tile(np.array(num_parts, dtype=np.int64), num_rows)
        return cls(
            texts=columns.take(index_array(by_row)),
            kinds=np.tile(np.array(kinds, dtype=np.uint8), num_rows),
            parts=offsets(per_message),
            roles=np.tile((USER + np.arange(len(num_parts)) % 2).astype(np.uint8), num_rows),
            messages=np.arange(num_rows + 1, dtype=np.int64) * len(num_parts),
            reasons=np.zeros(num_rows, dtype=np.uint8),
        )


def reject(batch: Conversations, where: Array, reason: str) -> Conversations:
    """The batch with the conversations where `where` (C,) bool is true rejected, unless they are already."""
    reasons = batch.reasons.copy()
    mark(reasons, where, reason)
    return replace(batch, reasons=reasons)


def slices(batch: Conversations, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of conversations whose texts are of about the same size, at most `max_bytes` and one conversation more."""
    starts = np.frombuffer(batch.texts.buffers()[1], dtype=np.int64)[batch.texts.offset :]
    ends = starts[batch.parts[batch.messages]]  # (C + 1,) bytes before each conversation
    num_slices = max(1, -(-int(ends[-1] - ends[0]) // max_bytes))
    inner = np.searchsorted(ends, ends[0] + (ends[-1] - ends[0]) * np.arange(1, num_slices) // num_slices)
    return pairwise(np.unique([0, *inner, len(batch)]).tolist())


def part_of(batch: Conversations, start: int, stop: int) -> Conversations:
    """Conversations start .. stop - 1 of the batch, without copying text."""
    m0, m1 = batch.messages[start], batch.messages[stop]
    p0, p1 = batch.parts[m0], batch.parts[m1]
    return replace(
        batch,
        texts=batch.texts.slice(p0, p1 - p0),
        kinds=batch.kinds[p0:p1],
        parts=batch.parts[m0 : m1 + 1] - p0,
        roles=batch.roles[m0:m1],
        messages=batch.messages[start : stop + 1] - m0,
        reasons=batch.reasons[start:stop],
        trained=None if batch.trained is None else batch.trained[m0:m1],
        tools=None if batch.tools is None else batch.tools.slice(start, stop - start),
        notes=batch.notes if start == 0 else Notes(),  # said once
    )


def to_messages(batch: Conversations, number: int) -> list[dict[str, Any]]:
    """A conversation of a batch as messages {"role", "content"}; the content of one text part is a string"""
    messages = []
    for m in range(int(batch.messages[number]), int(batch.messages[number + 1])):
        places = range(int(batch.parts[m]), int(batch.parts[m + 1]))
        parts = [{"type": KINDS[batch.kinds[p]], "text": batch.texts[p].as_py()} for p in places]
        is_text = len(parts) == 1 and parts[0]["type"] == "text"
        message = {"role": ROLES[batch.roles[m]], "content": parts[0]["text"] if is_text else parts}
        if batch.trained is not None and not batch.trained[m]:
            message["train"] = False
        messages.append(message)
    return messages


def mark(reasons: Array, where: Array, reason: str) -> None:
    """Set the reason in (C,) `reasons`, in place, where `where` (C,) bool is true; an earlier reason stays."""
    reasons[where & (reasons == 0)] = REASON[reason]
