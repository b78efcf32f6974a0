"""
Conversations to token ids and a loss mask, a batch at a time.

    <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|>
       0          0          0       0              0            1        1

All texts of a batch are encoded in one call. What stands where is a chat format's (prep.chat), what tokens that
makes prep.render.assemble's. In nanochat's format, which is the default and the drawing, assistant text, its Python calls and
its end are loss tokens; user text and what Python answered are not.

Legend: C conversations, M messages, P parts, N tokens.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from prep.arrange.arrange import Arranged, arrange
from prep.arrange.typed import reject_typed
from prep.arrays import Array, offsets
from prep.chat.choose import AnyTemplate
from prep.chat.template import TRAINED_KINDS, ChatTemplate
from prep.conversations.conversation import ASSISTANT, CONTEXT, Choices, Conversations, reject
from prep.conversations.layouts import ASIDE
from prep.encode.encode import Encoder
from prep.jinja.format import JinjaTemplate
from prep.render.assemble import assemble, lay_out, text_mask
from prep.render.jinja import render_jinja
from prep.render.text_hash import hash_user_texts
from prep.shard import to_tokens
from prep.tokenizer.tokenizer import Tokenizer

NANOCHAT_TEMPLATE = ChatTemplate()
LOST = "text beside <think>"  # what notes call it, among fields that are left aside
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


def render(
    batch: Conversations,
    encode: Encoder,
    tokenizer: Tokenizer,
    generated: bool = False,
    template: AnyTemplate = NANOCHAT_TEMPLATE,
) -> Rendered:
    """
    C conversations, valid or not, -> their tokens and mask. What is generated is not hashed: its train and test rows
    differ by construction, and there may be more of it than of anything else.
    """
    batch = reject_typed(batch, (*tokenizer.special_tokens, *tokenizer.added_tokens))
    if isinstance(template, JinjaTemplate):
        return _render_jinja(batch, encode, tokenizer, generated, template)
    arranged = arrange(batch, template)
    kinds = trained_kinds(batch.choices, template)
    layout = lay_out(arranged, template, kinds, tokenizer)
    ids, lengths = encode(layout.texts)
    if len(lengths) and lengths.min() < 0:
        parts = arranged.batch.parts[arranged.batch.messages]
        failed = np.zeros(len(batch), dtype=bool)
        failed[np.searchsorted(parts, layout.first_part[lengths < 0], side="right") - 1] = True
        rest = reject(batch, failed, "text that the tokenizer cannot encode")
        return render(rest, encode, tokenizer, generated, template)
    ids = to_tokens(ids, tokenizer.vocab_size)
    texts = text_mask(layout, ids, lengths, template.mask, encode, tokenizer)
    tokens, mask, num_tokens, num_trained = assemble(layout, ids, lengths, texts)
    notes = _notes(batch, arranged, template)
    return _rendered(tokens, mask, num_tokens, num_trained, arranged.batch, generated, notes)


def _render_jinja(
    batch: Conversations, encode: Encoder, tokenizer: Tokenizer, generated: bool, template: JinjaTemplate
) -> Rendered:
    tokens, mask, num_tokens, num_trained, written = render_jinja(batch, template, tokenizer, encode)
    left_aside = {name: n for name, n in batch.notes.left_aside.items() if not (template.reads_tools and name in ASIDE)}
    notes = {"left_aside": left_aside, "untrained_answers": _count_untrained(batch)}
    return _rendered(
        tokens, mask, num_tokens, num_trained, written, generated, {key: value for key, value in notes.items() if value}
    )


def _rendered(
    tokens: Array,
    mask: Array,
    num_tokens: Array,
    num_trained: Array,
    batch: Conversations,
    generated: bool,
    notes: dict[str, Any],
) -> Rendered:
    return Rendered(
        tokens=tokens,
        mask=mask,
        lengths=num_tokens.astype(np.uint32),
        trainable=num_trained.astype(np.uint32),
        user_hashes=np.zeros(len(batch), dtype=np.uint64) if generated else hash_user_texts(batch),
        reasons=batch.reasons,
        notes=notes,
    )


def trained_kinds(choices: Choices, template: ChatTemplate) -> tuple[str, ...]:
    """What trains of a turn of the assistant's that trains"""
    train_on = choices.train_on or template.train_on
    return train_on if isinstance(train_on, tuple) else TRAINED_KINDS


def _count_untrained(batch: Conversations) -> int:
    """Turns of the assistant that are context because their rows say so"""
    return 0 if batch.trained is None else int(((batch.roles == ASSISTANT) & (batch.trained == CONTEXT)).sum())


def _notes(batch: Conversations, arranged: Arranged, template: ChatTemplate) -> dict[str, Any]:
    """What is said of a batch; nothing where there is nothing to say"""
    left_aside = {
        name: number for name, number in batch.notes.left_aside.items() if not (template.reads_tools and name in ASIDE)
    }
    if arranged.num_lost:
        left_aside[LOST] = arranged.num_lost
    said = arranged.batch
    num_bytes = offsets(pc.binary_length(said.texts).to_numpy(zero_copy_only=False))[said.parts]  # (M + 1,)
    empty = int(((np.diff(num_bytes) == 0) & (said.roles == ASSISTANT)).sum())
    notes = {"left_aside": left_aside, "empty_answers": empty, "untrained_answers": _count_untrained(batch)}
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
