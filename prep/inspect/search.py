"""
Pick conversations of a build: the first, the longest, random ones, those of a source, those that hold a text.

    docs       length 5 3 4 | 2 6 ...        source  0 1 0 | 0 2 ...        row 0 | row 1
    longest    document 4                    source 1: document 1           "2+2" stands in document 2

Picking one of 10 million conversations takes 0.2 s: `docs` says all but the text. A search decodes a few million tokens
at a time, with one memcpy a token by Arrow, and looks for bytes.

Legend: D documents, C conversations (with `wrapped`, one that crosses rows is several documents), B rows of a block.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets
from prep.columns import index_array
from prep.encode.decode import token_words
from prep.shard import Split
from prep.text import nearest
from prep.tokenizer.tokenizer import Tokenizer

FIND_TOKENS = 4 << 20  # decoded at once
SEPARATOR = b"\xff"  # stands for a special token: never in UTF-8, so no match goes across one


def conversations(split: Split) -> tuple[Array, Array]:
    """(first document (C,), tokens (C,)) of every conversation, in stored order"""
    lengths = split.docs["length"].astype(np.int64)
    if not split.wrapped:
        return np.arange(len(lengths)), lengths
    again = np.zeros(len(lengths), dtype=bool)  # a document that the row before began
    first = split.rows["first_doc"][1:].astype(np.int64)
    same = [split.docs[name][first] == split.docs[name][first - 1] for name in ("source", "repeat", "index")]
    again[first] = np.logical_and.reduce(same)
    starts = np.flatnonzero(~again)
    return starts, np.add.reduceat(lengths - again, starts)  # rows share one token, it counts once


def source_number(split: Split, name: str) -> int:
    """Number of a source by its name. ValueError that names the nearest one."""
    names = split.source_names
    if name not in names:
        near = nearest(name, names)
        raise ValueError(f"{split.name} has no source {name!r}, it has: {', '.join(names)}.{near}")
    return names.index(name)


def pick(split: Split, source: str | None, how: str, number: int, seed: int) -> list[int]:
    """First documents of `number` conversations, of one source or all: the "first", the "longest" or "random" ones."""
    starts, lengths = conversations(split)
    if source is not None:
        mine = np.flatnonzero(split.docs["source"][starts] == source_number(split, source))
        starts, lengths = starts[mine], lengths[mine]
    number = min(number, len(starts))
    if how == "longest":
        bound = np.partition(lengths, len(lengths) - number)[len(lengths) - number] if number else 0
        candidates = np.flatnonzero(lengths >= bound)
        chosen = candidates[np.argsort(-lengths[candidates], kind="stable")[:number]]
    elif how == "random":
        chosen = np.random.default_rng(seed).choice(len(starts), number, replace=False)
    else:
        chosen = np.arange(number)
    return [int(doc) for doc in starts[chosen]]


# ---- from documents to conversations ----


def row_of(split: Split, doc: int) -> int:
    """The row that holds a document"""
    return int(np.searchsorted(split.rows["first_doc"], doc, side="right")) - 1


def goes_on(split: Split, doc: int) -> bool:
    """Whether a document goes on with the one before it, which ends the row before"""
    if doc == 0 or not split.wrapped or int(split.rows["first_doc"][row_of(split, doc)]) != doc:
        return False
    here, before = split.docs[doc], split.docs[doc - 1]
    return all(here[name] == before[name] for name in ("source", "repeat", "index"))


def first_doc(split: Split, doc: int) -> int:
    """The document with which the conversation of `doc` begins: itself, unless it crosses rows"""
    while goes_on(split, doc):
        doc -= 1
    return doc


# ---- searching ----


def find(split: Split, tokenizer: Tokenizer, text: str, source: str | None) -> Iterator[int]:
    """First documents of the conversations that hold `text` within one part of a message, as they are found."""
    needle, words, last = text.encode("utf-8", "surrogatepass"), token_words(tokenizer, {}, SEPARATOR), -1
    if not needle:
        raise ValueError("--find '' is found everywhere: give some text.")
    wanted = None if source is None else source_number(split, source)
    num_rows = max(1, FIND_TOKENS // (split.max_seq_len + 1))
    for first in range(0, split.num_rows, num_rows):
        stop = min(first + num_rows, split.num_rows)
        for doc in _search(words, *_stream(split, first, stop, len(needle)), needle):
            begin = first_doc(split, doc)
            if begin > last and wanted in (None, int(split.docs["source"][doc])):
                last = begin
                yield begin


def _stream(split: Split, first: int, stop: int, num_after: int) -> tuple[Array, Array, int]:
    """
    Rows first .. stop - 1 as one stream of tokens (n,), where each of their documents begins in it (Db,), and the number
    of the first of these. Wrapped rows share a token, and are followed by what a match that begins here may need.
    """
    rows = split.read_tokens(np.arange(first, stop))  # (B, T + 1)
    docs = np.arange(split.doc_range(first)[0], split.doc_range(stop - 1)[1])
    in_row = split.rows["first_doc"][first:stop].astype(np.int64) - docs[0]  # (B,)
    before = offsets(split.docs["length"][docs])[:-1]
    counts = np.diff(in_row, append=len(docs))
    stride = split.max_seq_len if split.wrapped else split.max_seq_len + 1
    starts = before + np.repeat(np.arange(stop - first) * stride - before[in_row], counts)
    if not split.wrapped:
        return rows.reshape(-1), starts, int(docs[0])
    after = split.read_tokens(np.array([stop]))[0] if stop < split.num_rows else rows[-1, -1:]
    return np.concatenate([rows[:, :-1].reshape(-1), after[:num_after]]), starts, int(docs[0])


def _search(words: pa.LargeBinaryArray, stream: Array, starts: Array, first: int, needle: bytes) -> Iterator[int]:
    """Documents of a stream in which `needle` begins, ascending"""
    decoded = words.take(index_array(stream))
    places = np.frombuffer(decoded.buffers()[1], dtype=np.int64)[: len(stream) + 1]  # byte at which a token begins
    data = decoded.buffers()[2].to_pybytes()
    ends = np.append(places[starts[1:]], len(data))
    place = data.find(needle)
    while place >= 0:
        doc = int(np.searchsorted(ends, place, side="right"))
        yield first + min(doc, len(starts) - 1)
        place = data.find(needle, int(ends[doc])) if doc < len(starts) - 1 else -1
