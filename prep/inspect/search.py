"""
Select conversations of a build: the first, the longest, random ones, those of a source, those that hold a text.

    docs       length 5 3 4 | 2 6 ...        source  0 1 0 | 0 2 ...        row 0 | row 1
    longest    document 4                    source 1: document 1           "2+2": in document 2

Selecting from 10 million conversations takes 0.2 s: `docs` has all but the text. A search decodes a few million tokens
at a time, by Arrow, and looks for bytes.

Legend: D documents, C conversations. With `wrapped`, a conversation that crosses rows is several documents.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from prep.arrays import Array
from prep.columns import index_array
from prep.encode.decode import conversations_of, token_words
from prep.shard import Split
from prep.text import nearest
from prep.tokenizer.tokenizer import Tokenizer

SAME = ("source", "repeat", "index")  # documents of one conversation agree in these
SEPARATOR = b"\xff"  # stands for a special token: never in UTF-8, so no match goes across one


def conversations(split: Split) -> tuple[Array, Array]:
    """(first document (C,), tokens (C,)) of every conversation, in stored order"""
    lengths = split.docs["length"].astype(np.int64)
    if not split.wrapped:
        return np.arange(len(lengths)), lengths
    continues = np.zeros(len(lengths), dtype=bool)  # (D,) whether a document continues the previous row's last one
    first = split.rows["first_doc"][1:].astype(np.int64)
    continues[first] = np.logical_and.reduce([split.docs[key][first] == split.docs[key][first - 1] for key in SAME])
    starts = np.flatnonzero(~continues)
    return starts, np.add.reduceat(lengths - continues, starts)  # rows share one token, it counts once


def source_number(split: Split, name: str) -> int:
    """Number of a source by its name. ValueError that names the nearest one."""
    names = split.source_names
    if name not in names:
        raise ValueError(f"{split.name} has no source {name!r}, it has: {', '.join(names)}.{nearest(name, names)}")
    return names.index(name)


def select(split: Split, source: str | None, how: str, number: int, seed: int) -> list[int]:
    """First documents of `number` conversations, of one source or all: the "first", the "longest" or "random" ones."""
    starts, lengths = conversations(split)
    if source is not None:
        of_source = split.docs["source"][starts] == source_number(split, source)
        starts, lengths = starts[of_source], lengths[of_source]
    number = min(number, len(starts))
    if how == "longest":
        least = np.partition(lengths, len(lengths) - number)[len(lengths) - number] if number else 0
        candidates = np.flatnonzero(lengths >= least)
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


def continues_previous_row(split: Split, doc: int) -> bool:
    """Whether a document continues the one before it, which ends the previous row"""
    if doc == 0 or not split.wrapped or int(split.rows["first_doc"][row_of(split, doc)]) != doc:
        return False
    return all(split.docs[key][doc] == split.docs[key][doc - 1] for key in SAME)


def conversation_start(split: Split, doc: int) -> int:
    """The document with which the conversation of `doc` begins: itself, unless it crosses rows"""
    while continues_previous_row(split, doc):
        doc -= 1
    return doc


# ---- searching ----


def find(split: Split, tokenizer: Tokenizer, text: str, source: str | None) -> Iterator[int]:
    """First documents of the conversations that hold `text` within one part of a message, in stored order"""
    needle, words = text.encode("utf-8", "surrogatepass"), token_words(tokenizer, {}, SEPARATOR)
    if not needle:
        raise ValueError("--find '' is found everywhere: give some text.")
    number = None if source is None else source_number(split, source)
    docs, first = conversations(split)[0], 0
    for tokens, starts in conversations_of(split):
        for position in _search(words.take(index_array(tokens)), starts, needle):
            doc = int(docs[first + position])
            if number in (None, int(split.docs["source"][doc])):
                yield doc
        first += len(starts)


def _search(decoded: pa.LargeBinaryArray, starts: Array, needle: bytes) -> Iterator[int]:
    """Positions in `starts` (C,) of the conversations that hold `needle`, ascending; `decoded` (n,) is their tokens"""
    token_bytes = np.frombuffer(decoded.buffers()[1], dtype=np.int64)[: len(decoded) + 1]
    data = decoded.buffers()[2].to_pybytes()
    ends = token_bytes[np.append(starts[1:], len(decoded))]  # (C,) byte at which a conversation ends
    place = data.find(needle)
    while place >= 0:
        position = int(np.searchsorted(ends, place, side="right"))
        yield position
        place = data.find(needle, int(ends[position]))
