"""
Conversations to token ids and a loss mask, a batch at a time.

    <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|>
       0          0          0       0              0            1        1

All texts of a batch are encoded in one call. Where each special token goes follows from the offsets of messages and
parts by arithmetic, and the same code that places a token sets its mask; the mask is never derived afterwards. Assistant
text, its Python calls and its end are loss tokens; user text and what Python answered are not. The rule, one conversation at
a time, is prep.render.reference; tests hold this code against it.

Legend: C conversations, M messages, P parts, N tokens.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from prep.arrays import Array, offsets
from prep.conversations.conversation import ASSISTANT, DOCUMENT, OUTPUT, PYTHON, TEXT, USER, Conversations, reject
from prep.encode.encode import Encoder
from prep.render.nanochat import normalize
from prep.render.text_hash import hash_user_texts
from prep.shard import to_tokens
from prep.tokenizer.tokenizer import Tokenizer

VERSION = 2  # bumped when the same messages give other tokens or another mask, whatever task they are of


@dataclass(frozen=True)
class Rendered:
    """C conversations as flat tokens, in order; rejected ones have length 0 and a reason."""

    tokens: Array  # (N,) uint16 or uint32
    mask: Array  # (N,) uint8: 1 where SFT trains
    lengths: Array  # (C,) uint32
    trainable: Array  # (C,) uint32: tokens with mask 1
    user_hashes: Array  # (C,) uint64: hash of what the user says, see prep.render.text_hash
    reasons: Array  # (C,) uint8: place in REASONS
    # of all C: left_aside {field: rows that have it and were not read}, and turns of the assistant: empty_answers that say
    # nothing, untrained_answers that are context
    notes: dict[str, Any] = field(default_factory=dict)


def render(batch: Conversations, encode: Encoder, tokenizer: Tokenizer, generated: bool = False) -> Rendered:
    """
    C conversations, valid or not, -> their tokens and mask. What is generated is not hashed: its train and test rows
    differ by construction, and there may be more of it than of anything else.
    """
    untrained = _count_untrained(batch)
    batch = normalize(batch)
    ids, lengths = encode(batch.texts)
    if len(lengths) and lengths.min() < 0:
        message = np.searchsorted(batch.parts, np.flatnonzero(lengths < 0), side="right") - 1
        conversation = np.searchsorted(batch.messages, message, side="right") - 1
        failed = np.isin(np.arange(len(batch)), conversation)
        rest = reject(batch, failed, "text that the tokenizer cannot encode")
        return render(rest, encode, tokenizer, generated)
    hashes = np.zeros(len(batch), dtype=np.uint64) if generated else hash_user_texts(batch)
    text = to_tokens(ids, tokenizer.vocab_size)
    rendered = assemble(batch, text, lengths, tokenizer.special_tokens, hashes)
    return replace(rendered, notes=_notes(batch, lengths, untrained))


def _count_untrained(batch: Conversations) -> int:
    """Turns of the assistant that are context because their rows say so"""
    return 0 if batch.trained is None else int(((batch.roles == ASSISTANT) & ~batch.trained).sum())


def _notes(batch: Conversations, lengths: Array, untrained: int) -> dict[str, Any]:
    """What is said of a batch; nothing where there is nothing to say"""
    tokens = offsets(lengths)[batch.parts]  # (M + 1,) before each message
    empty = int(((np.diff(tokens) == 0) & (batch.roles == ASSISTANT)).sum())
    notes = {"left_aside": dict(batch.notes.left_aside), "empty_answers": empty, "untrained_answers": untrained}
    return {name: value for name, value in notes.items() if value}


def add_notes(notes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """
    Notes of several batches as those of one.

    >>> add_notes([{"left_aside": {"id": 3}}, {}, {"left_aside": {"id": 4, "tag": 1}, "empty_answers": 2}])
    {'left_aside': {'id': 7, 'tag': 1}, 'empty_answers': 2}
    """
    left_aside, counts = Counter[str](), Counter[str]()
    for note in notes:
        left_aside.update(note.get("left_aside", {}))
        counts.update({name: number for name, number in note.items() if name != "left_aside"})
    return {**({"left_aside": dict(sorted(left_aside.items()))} if left_aside else {}), **dict(sorted(counts.items()))}


def assemble(batch: Conversations, text: Array, lengths: Array, special: dict[str, int], hashes: Array) -> Rendered:
    """Text tokens (n,) with lengths (P,) of each part -> tokens with the special ones between them, and the mask"""
    num_messages = len(batch.roles)
    has_messages = np.diff(batch.messages) > 0  # (C,) rejected conversations have none and get no bos
    num_bos = np.repeat(np.cumsum(has_messages), np.diff(batch.messages))  # (M,) so far, with the message's own
    message = np.repeat(np.arange(num_messages), np.diff(batch.parts))  # (P,)
    delimited = batch.kinds != TEXT  # (P,) parts with a start and an end token of their own
    before = offsets(lengths + 2 * delimited)  # (P + 1,) tokens of the parts before each part
    said = batch.roles != DOCUMENT  # (M,) messages with a start and an end token; a document has neither
    num_said = offsets(said)  # (M + 1,) so far
    # before message m: a bos per conversation so far, and a start and an end per message
    starts = before[batch.parts[:-1]] + num_bos + 2 * num_said[:-1]  # (M,)
    first = starts + said  # (M,) of what the message says
    ends = first + before[batch.parts[1:]] - before[batch.parts[:-1]]  # (M,)
    part_starts = before[:-1] + (num_bos + 2 * num_said[:-1] + said)[message]  # (P,)
    bos = starts[batch.messages[:-1][has_messages]] - 1
    total = int(before[-1]) + len(bos) + 2 * int(num_said[-1])

    tokens = np.empty(total, dtype=text.dtype)
    is_text = np.ones(total, dtype=bool)

    def write_special(where: Array, if_true: str, condition: Array | bool = True, if_false: str = "<|bos|>") -> None:
        tokens[where] = np.where(condition, special[if_true], special[if_false])
        is_text[where] = False

    is_user, is_python = batch.roles[said] == USER, batch.kinds[delimited] == PYTHON
    opens = part_starts[delimited]
    write_special(bos, "<|bos|>")
    write_special(starts[said], "<|user_start|>", is_user, "<|assistant_start|>")
    write_special(ends[said], "<|user_end|>", is_user, "<|assistant_end|>")
    write_special(opens, "<|python_start|>", is_python, "<|output_start|>")
    write_special(opens + 1 + lengths[delimited], "<|python_end|>", is_python, "<|output_end|>")
    tokens[is_text] = text

    # (M,) turns that train: the assistant's and documents, except those that are kept as context
    trains = (batch.roles == ASSISTANT) | ~said
    trains = trains if batch.trained is None else trains & batch.trained
    is_output = batch.kinds == OUTPUT  # (P,)
    # the mask changes after a turn's start, after its end, and on both sides of an output in it
    output = trains[message] & is_output
    around_outputs = np.stack([part_starts[output], part_starts[output] + 2 + lengths[output]], axis=1)
    turns = np.stack([first[trains], (ends + said)[trains]], axis=1)
    changes = np.concatenate([turns, around_outputs]).reshape(-1)
    changes = np.sort(changes) if len(around_outputs) else changes
    stretches = np.diff(changes, prepend=0, append=total)  # of mask 0, of mask 1, of mask 0, ...
    mask = np.repeat((np.arange(len(stretches)) % 2).astype(np.uint8), stretches)

    conversation_ends = offsets(np.diff(before[batch.parts]) + 2 * said)[batch.messages]  # (C + 1,) without bos
    per_part = offsets(np.where(trains[message] & ~is_output, lengths + 2 * delimited, 0))[batch.parts]
    per_message = offsets(np.diff(per_part) + (trains & said))[batch.messages]
    return Rendered(
        tokens=tokens,
        mask=mask,
        lengths=(np.diff(conversation_ends) + has_messages).astype(np.uint32),
        trainable=np.diff(per_message).astype(np.uint32),
        user_hashes=hashes,
        reasons=batch.reasons,
    )
