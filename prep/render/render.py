"""
Conversations to token ids and a loss mask, a batch at a time.

    <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|>
       0          0          0       0              0            1        1

All texts of a batch are encoded in one call. Where each special token goes follows from the offsets of messages and
parts by arithmetic, and the same code that places a token sets its mask; the mask is never derived afterwards. Assistant
text, its Python calls and its end are trained; user text and what Python answered are not.

Legend: C conversations, M messages, P parts, N tokens.
"""

from dataclasses import dataclass

import numpy as np

from prep.arrays import Array, offsets
from prep.conversations.conversation import ASSISTANT, OUTPUT, PYTHON, TEXT, USER, Conversations, reject
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
    mask: Array  # (N,) uint8
    lengths: Array  # (C,) uint32
    trainable: Array  # (C,) uint32: tokens with mask 1
    asked: Array  # (C,) uint64: hash of what the user says, see prep.render.text_hash
    reasons: Array  # (C,) uint8: place in conversation.REASONS


def render(batch: Conversations, encode: Encoder, tokenizer: Tokenizer, generated: bool = False) -> Rendered:
    """
    C conversations, valid or not, -> their tokens and mask. What is generated is not hashed: its train and test rows
    differ by construction, and there may be more of it than of anything else.
    """
    batch = normalize(batch)
    ids, lengths = encode(batch.texts)
    if len(lengths) and lengths.min() < 0:
        message = np.searchsorted(batch.parts, np.flatnonzero(lengths < 0), side="right") - 1
        conversation = np.searchsorted(batch.messages, message, side="right") - 1
        bad = np.isin(np.arange(len(batch)), conversation)
        rest = reject(batch, bad, "text that the tokenizer cannot encode")
        return render(rest, encode, tokenizer, generated)
    hashes = np.zeros(len(batch), dtype=np.uint64) if generated else hash_user_texts(batch)
    return place(batch, ids, lengths, tokenizer, hashes)


def place(batch: Conversations, ids: Array, lengths: Array, tokenizer: Tokenizer, hashes: Array) -> Rendered:
    """Text ids (n,) with lengths (P,) of each part -> tokens with the special ones between them, and the mask"""
    special = tokenizer.special_tokens
    num_messages = len(batch.roles)
    there = np.diff(batch.messages) > 0  # (C,) rejected conversations have no messages and get no bos
    num_bos = np.repeat(np.cumsum(there), np.diff(batch.messages))  # (M,) so far, with the message's own
    message = np.repeat(np.arange(num_messages), np.diff(batch.parts))  # (P,)
    fenced = batch.kinds != TEXT  # parts with a start and an end token of their own
    before = offsets(lengths + 2 * fenced)  # (P + 1,) tokens of the parts before each part
    # before message m: a bos for each conversation so far, and a start and an end for each message
    starts = before[batch.parts[:-1]] + num_bos + 2 * np.arange(num_messages)  # (M,)
    ends = starts + 1 + before[batch.parts[1:]] - before[batch.parts[:-1]]  # (M,)
    part_starts = before[:-1] + (num_bos + 1 + 2 * np.arange(num_messages))[message]  # (P,)
    bos = starts[batch.messages[:-1][there]] - 1
    total = int(before[-1]) + len(bos) + 2 * num_messages
    # (M,) turns that train: the assistant's, but those that the data keeps as context
    says = batch.roles == ASSISTANT if batch.trained is None else (batch.roles == ASSISTANT) & batch.trained
    in_turn, is_output = says[message], batch.kinds == OUTPUT  # (P,)
    trained = in_turn & ~is_output

    text = to_tokens(ids, tokenizer.vocab_size)
    tokens = np.empty(total, dtype=text.dtype)
    is_text = np.ones(total, dtype=bool)

    def put(where: Array, names: Array | int) -> None:
        tokens[where], is_text[where] = names, False

    def either(condition: Array, a: str, b: str) -> Array:
        return np.where(condition, special[a], special[b])

    user = batch.roles == USER
    python, opens = batch.kinds[fenced] == PYTHON, part_starts[fenced]
    put(bos, special["<|bos|>"])
    put(starts, either(user, "<|user_start|>", "<|assistant_start|>"))
    put(ends, either(user, "<|user_end|>", "<|assistant_end|>"))
    put(opens, either(python, "<|python_start|>", "<|output_start|>"))
    put(opens + 1 + lengths[fenced], either(python, "<|python_end|>", "<|output_end|>"))
    tokens[is_text] = text

    # the mask changes after a turn's start, after its end, and on both sides of an output in it
    output = in_turn & is_output
    outputs = np.stack([part_starts[output], part_starts[output] + 2 + lengths[output]], axis=1)
    changes = np.concatenate([np.stack([starts[says], ends[says]], axis=1) + 1, outputs]).reshape(-1)
    changes = np.sort(changes) if len(outputs) else changes
    runs = np.diff(changes, prepend=0, append=total)
    mask = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs)

    conv_lengths = offsets(np.diff(before[batch.parts]) + 2)[batch.messages]  # (C + 1,) without bos
    per_part = offsets(np.where(trained, lengths + 2 * fenced, 0))[batch.parts]
    per_message = offsets(np.diff(per_part) + says)[batch.messages]
    return Rendered(
        tokens=tokens,
        mask=mask,
        lengths=(np.diff(conv_lengths) + there).astype(np.uint32),
        trainable=np.diff(per_message).astype(np.uint32),
        asked=hashes,
        reasons=batch.reasons,
    )
