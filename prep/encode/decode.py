"""
What the user says in each conversation, decoded from the tokens of a cached block or of a finished build.

    <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|> <|user_start|> 3+3? ...
                           ----                                                                     ----
    "2+2? 3+3? ..."

A few million tokens at a time are decoded by Arrow, without a Python object per token. Text never encodes to a special token,
so what is after the start of a turn of the user's and before the next special token is what the user says.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets
from prep.chat.template import ChatTemplate
from prep.chat.turn_starts import find_turns, openings
from prep.columns import index_array
from prep.conversations.conversation import USER, Conversations
from prep.jinja.format import JinjaTemplate
from prep.shard import Split
from prep.tokenizer.tokenizer import Tokenizer

BLOCK_TOKENS = 4 << 20  # decoded at once


class Decoder:
    """Tables of a tokenizer: the bytes of each token, and which are special"""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | JinjaTemplate) -> None:
        if isinstance(template, JinjaTemplate):
            raise ValueError(
                f"chat template {template.name}: what the user says cannot be told from its tokens, so they are not compared: "
                'drop_overlap = "exact" works, as it compares what was read.'
            )
        self.tokenizer, self.template = tokenizer, template
        opened = {opening.ids[0]: b" " for opening in openings(template, tokenizer)}
        added = {id_: text.encode() for text, id_ in tokenizer.added_tokens.items()}
        self.words = token_words(tokenizer, added | opened, b"")
        self.special = np.zeros(tokenizer.vocab_size, dtype=bool)
        self.special[list(tokenizer.special_tokens.values())] = True

    def user_texts(self, tokens: Array, starts: Array) -> list[bytes]:
        """Tokens (n,) of conversations that begin at `starts` (C,) -> C texts, all turns of the user together"""
        turns = find_turns(tokens, self.template, self.tokenizer)
        is_user = turns.roles == USER
        first, said = turns.starts[is_user], turns.said[is_user]
        controls = np.append(np.flatnonzero(self.special[tokens]), len(tokens))
        ends = controls[np.searchsorted(controls, said)]
        change = np.bincount(said, minlength=len(tokens) + 1) - np.bincount(ends, minlength=len(tokens) + 1)
        shown = np.cumsum(change[:-1]) > 0
        shown[first] = True  # a space before each turn
        places = np.flatnonzero(shown)
        if not len(places):
            return [b""] * len(starts)
        decoded = self.words.take(index_array(tokens[places]))
        byte_bounds = np.frombuffer(decoded.buffers()[1], dtype=np.int64)
        data = decoded.buffers()[2].to_pybytes()
        bounds = byte_bounds[np.searchsorted(places, np.append(starts, len(tokens)))].tolist()
        return [data[start:stop] for start, stop in pairwise(bounds)]


def token_words(tokenizer: Tokenizer, special: dict[int, bytes], other: bytes) -> pa.LargeBinaryArray:
    """(V,) bytes of each token as an Arrow array; `special` gives those of some special tokens, the others have `other`"""
    words = [other] * tokenizer.vocab_size
    for word, id_ in tokenizer.ranks.items():
        words[id_] = word
    for text, id_ in tokenizer.added_tokens.items():
        words[id_] = text.encode()
    for id_, word in special.items():
        words[id_] = word
    bounds = offsets([len(word) for word in words])
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(words), [None, pa.py_buffer(bounds), pa.py_buffer(b"".join(words))]
    )


def conversations_of(split: Split) -> Iterator[tuple[Array, Array]]:
    """Tokens (n,) and starts (C,) of the conversations of a split in stored order, some whole ones at a time"""
    wrapped, left = split.wrapped, np.zeros(0, dtype=split.manifest["token_dtype"])
    left_starts = np.zeros(0, dtype=np.int64)
    num_rows = max(1, BLOCK_TOKENS // (split.max_seq_len + 1))
    for first in range(0, split.num_rows, num_rows):
        ids = np.arange(first, min(first + num_rows, split.num_rows))
        rows, num_tokens = split.read_tokens(ids), split.rows["num_tokens"][ids].astype(np.int64)
        last = ids[-1] + 1 == split.num_rows
        if wrapped:  # the last token of a row is also the first one of the next
            num_tokens -= 1
            num_tokens[-1] += last
        tokens = np.concatenate([left, rows[np.arange(rows.shape[1]) < num_tokens[:, None]]])
        starts = np.concatenate([left_starts, len(left) + _starts(split, ids, offsets(num_tokens))])
        left, left_starts = tokens[:0], starts[:0]
        if wrapped and not last and len(starts):  # the last conversation may go on
            left, tokens, starts = tokens[starts[-1] :], tokens[: starts[-1]], starts[:-1]
            left_starts = np.zeros(1, dtype=np.int64)
        if len(starts):
            yield tokens, starts


def _starts(split: Split, rows: Array, before: Array) -> Array:
    """Where conversations begin in the tokens of neighbouring rows, of which `before` (R + 1,) come before each"""
    first, stop = split.doc_range(int(rows[0]))[0], split.doc_range(int(rows[-1]))[1]
    docs = split.docs[first:stop]
    firsts = split.rows["first_doc"][rows].astype(np.int64) - first
    row = np.repeat(np.arange(len(rows)), np.diff(np.append(firsts, len(docs))))
    ends = offsets(docs["length"])
    starts = before[row] + ends[:-1] - ends[firsts[row]]
    begins = np.ones(len(docs), dtype=bool)
    if split.wrapped:
        earlier = split.docs[np.maximum(first + firsts - 1, 0)]
        same = [docs[key][firsts] == earlier[key] for key in ("source", "index", "repeat")]
        begins[firsts] = ~np.logical_and.reduce(same) | (first + firsts == 0)
    out: Array = starts[begins]
    return out


def user_texts_of(batch: Conversations) -> list[bytes]:
    """C conversations that are not rendered -> C texts"""
    texts, out = batch.texts.to_pylist(), [""] * len(batch)
    messages = np.flatnonzero(batch.roles == USER)
    conversations = np.searchsorted(batch.messages, messages, side="right") - 1
    for message, conversation in zip(messages.tolist(), conversations.tolist(), strict=True):
        parts = texts[batch.parts[message] : batch.parts[message + 1]]
        out[conversation] = " ".join([out[conversation], *parts])
    return [text.encode() for text in out]
