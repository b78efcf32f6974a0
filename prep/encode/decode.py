"""
What the user says in each conversation, decoded from the tokens of a cached block or of a finished build.

    <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|> <|user_start|> 3+3? ...
                           ----                                                                     ----
    "2+2? 3+3? ..."

A few million tokens at a time are decoded by Arrow, without a Python object per token. Text never encodes to a special token,
so what is after <|user_start|> and before the next special token is the user's, and every <|bos|> begins a conversation.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets
from prep.columns import index_array
from prep.conversations.conversation import USER, Conversations
from prep.shard import Split
from prep.tokenizer.tokenizer import Tokenizer

BLOCK_TOKENS = 4 << 20  # decoded at once


class Decoder:
    """Tables of a tokenizer: the bytes of each token, and which are special"""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.user = tokenizer.special_tokens["<|user_start|>"]
        self.bos = tokenizer.bos_id
        self.words = token_words(tokenizer, {self.user: b" "}, b"")
        self.special = np.zeros(tokenizer.vocab_size, dtype=bool)
        self.special[list(tokenizer.special_tokens.values())] = True

    def user_texts(self, tokens: Array, starts: Array) -> list[bytes]:
        """Tokens (n,) of conversations that begin at `starts` (C,) -> C texts, all turns of the user together"""
        is_special = self.special[tokens]
        starts_user = np.append(False, tokens[is_special] == self.user)
        said = np.flatnonzero(starts_user[np.cumsum(is_special)])  # by the last special token up to each token
        if not len(said):
            return [b""] * len(starts)
        decoded = self.words.take(index_array(tokens[said]))
        byte_bounds = np.frombuffer(decoded.buffers()[1], dtype=np.int64)
        data = decoded.buffers()[2].to_pybytes()
        bounds = byte_bounds[np.searchsorted(said, np.append(starts, len(tokens)))].tolist()
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


def conversations_of(split: Split, bos: int | None) -> Iterator[tuple[Array, Array]]:
    """
    Tokens (n,) and starts (C,) of the conversations of a split in stored order, some whole ones at a time. ValueError for a
    chat format without a bos.
    """
    if bos is None:
        raise ValueError(f"{split.root}: its chat format has no bos, by which conversations are found here.")
    wrapped, left = split.wrapped, np.zeros(0, dtype=split.manifest["token_dtype"])
    num_rows = max(1, BLOCK_TOKENS // (split.max_seq_len + 1))
    for first in range(0, split.num_rows, num_rows):
        ids = np.arange(first, min(first + num_rows, split.num_rows))
        rows, num_tokens = split.read_tokens(ids), split.rows["num_tokens"][ids].astype(np.int64)
        last = ids[-1] + 1 == split.num_rows
        if wrapped:  # the last token of a row is also the first one of the next
            num_tokens -= 1
            num_tokens[-1] += last
        tokens = np.concatenate([left, rows[np.arange(rows.shape[1]) < num_tokens[:, None]]])
        starts = np.flatnonzero(tokens == bos)
        left = tokens[:0]
        if wrapped and not last:  # the last conversation may go on
            left, tokens, starts = tokens[starts[-1] :], tokens[: starts[-1]], starts[:-1]
        if len(starts):
            yield tokens, starts


def user_texts_of(batch: Conversations) -> list[bytes]:
    """C conversations that are not rendered -> C texts"""
    texts, out = batch.texts.to_pylist(), [""] * len(batch)
    messages = np.flatnonzero(batch.roles == USER)
    conversations = np.searchsorted(batch.messages, messages, side="right") - 1
    for message, conversation in zip(messages.tolist(), conversations.tolist(), strict=True):
        parts = texts[batch.parts[message] : batch.parts[message + 1]]
        out[conversation] = " ".join([out[conversation], *parts])
    return [text.encode() for text in out]
