"""
The numbers of a report. Documents are read once, a million at a time; tokens and masks of a bounded sample of rows.

    docs   -> lengths by source, tokens of each step by source, a few conversations of each source
    rows   -> padding of each row
    sample -> 1 million tokens: share of trained tokens by position in the conversation

10 million documents take 2 s and 200 MB, whatever they say.

Legend: D documents, K sources, S steps, N rows, L bins of length, P bins of position.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.inspect.search import continues_previous_row
from prep.shard import Split
from prep.shard.steps import StepPlan

CHUNK_DOCS = 1 << 20
SAMPLE_TOKENS = 1 << 20
NUM_SAMPLES = 3  # conversations shown of each source
CANDIDATES = 20  # of them drawn for it, so that 3 are found all but surely
REJECTED_LINES = 20


def log_bins(most: int, per_octave: int) -> Array:
    """
    Edges of bins that grow by a part of an octave, up to over `most`.

    >>> log_bins(20, 2).tolist()
    [1, 2, 3, 4, 6, 8, 11, 16, 23]
    """
    num = int(np.ceil(np.log2(most + 1) * per_octave)) + 1
    edges = np.unique(np.rint(2 ** (np.arange(num + 1) / per_octave)).astype(np.int64))
    return edges[: int(np.searchsorted(edges, most, side="right")) + 1]


@dataclass(frozen=True)
class Scan:
    """What one pass over the documents gives."""

    edges: Array  # (L + 1,) tokens
    lengths: Array  # (K, L) documents
    step_tokens: Array  # (S, K)
    square: Array  # (K,) sum of the squared lengths of each source's documents
    samples: list[list[int]]  # K lists of documents


def scan_docs(split: Split, steps: StepPlan, seed: int = 0) -> Scan:
    """One pass over the documents of a split, in chunks; `steps` are those of one epoch."""
    K = len(split.entry["sources"])
    edges = log_bins(split.max_seq_len + 1, 4)
    lengths, step_tokens = np.zeros((K, len(edges) - 1), dtype=np.int64), np.zeros((steps.num_steps, K))
    square, counts = np.zeros(K), np.zeros(K, dtype=np.int64)
    step_of_row = np.full(split.num_rows, -1, dtype=np.int64)
    step_of_row[steps.row_ids] = np.arange(len(steps.row_ids)) // steps.rows_per_step
    rng, wanted = np.random.default_rng(seed), _chance_of(split)
    found: list[tuple[float, int, int]] = []
    bins = len(edges) - 1
    for first, docs, row in _chunks(split):
        source, length = docs["source"].astype(np.int64), docs["length"].astype(np.int64)
        place = np.minimum(np.searchsorted(edges, length, side="right") - 1, bins - 1)
        lengths += np.bincount(source * bins + place, minlength=K * bins).reshape(K, bins)
        square += np.bincount(source, weights=length.astype(float) ** 2, minlength=K)
        counts += np.bincount(source, minlength=K)
        step = step_of_row[row]
        trained = step >= 0
        flat = np.bincount((step * K + source)[trained], weights=length[trained], minlength=step_tokens.size)
        step_tokens += flat.reshape(step_tokens.shape)
        key = rng.random(len(docs))
        drawn = np.flatnonzero(key < wanted[source])
        found += zip(key[drawn].tolist(), source[drawn].tolist(), (first + drawn).tolist(), strict=True)
    found.sort()
    samples = [[doc for _, source, doc in found if source == k][:NUM_SAMPLES] for k in range(K)]
    return Scan(edges, lengths, step_tokens, square, [sorted(some) for some in samples])


def _chance_of(split: Split) -> Array:
    """(K,) chance of a document to be drawn for the samples: about CANDIDATES of each source"""
    return np.array([CANDIDATES / max(source["conversations"], 1) for source in split.entry["sources"]])


def _chunks(split: Split) -> Iterator[tuple[int, Array, Array]]:
    """(number of the first, documents (c,), row of each (c,)) a million at a time"""
    first_docs, num_docs = split.rows["first_doc"].astype(np.int64), int(split.entry["docs"])
    for first in range(0, num_docs, CHUNK_DOCS):
        docs = np.asarray(split.docs[first : first + CHUNK_DOCS])
        rows = np.searchsorted(first_docs, [first, first + len(docs)], side="right")
        ends = np.clip(np.append(first_docs, num_docs)[rows[0] - 1 : rows[1] + 1], first, first + len(docs))
        yield first, docs, np.repeat(np.arange(rows[0] - 1, rows[1]), np.diff(ends))


# ---- mixing ----


@dataclass(frozen=True)
class Mixing:
    """How far the mix of a step is from the mix of all: half the sum of the differences of shares, averaged."""

    found: float
    ideal: float  # of conversations shuffled one by one

    @property
    def ratio(self) -> float:
        return self.found / self.ideal if self.ideal else 1.0


def mixing(step_tokens: Array, square: Array) -> Mixing | None:
    """
    step_tokens (S, K), square (K,) -> mixing against an ideal shuffle; None for fewer than 2 whole steps or 1 source.

    A step that takes conversations one by one at random has of source k the share p_k, with the variance
    sum(length^2 * ([source is k] - p_k)^2) / (S * B^2), B tokens a step; a normal variable is off by sqrt(2 / pi) of its
    deviation on average.
    """
    whole = step_tokens[:-1] if len(step_tokens) > 2 else step_tokens  # the last one is seldom full
    S, K = whole.shape
    if S < 2 or K < 2 or not whole.sum():
        return None
    p = whole.sum(axis=0) / whole.sum()
    found = np.abs(whole / whole.sum(axis=1, keepdims=True) - p).sum(axis=1).mean() / 2
    per_step = whole.sum() / S
    num_steps = step_tokens.sum() / per_step  # the squares are of all documents
    variance = ((1 - p) ** 2 * square + p**2 * (square.sum() - square)) / (num_steps * per_step**2) * (1 - 1 / S)
    return Mixing(float(found), float(np.sqrt(variance * 2 / np.pi).sum() / 2))


# ---- sampled rows ----


@dataclass(frozen=True)
class MaskShare:
    edges: Array  # (P + 1,) positions, counted from 1
    trained: Array  # (K, P) trained tokens of the sample
    tokens: Array  # (K, P)
    num_rows: int
    num_documents: int


def mask_by_position(split: Split) -> MaskShare:
    """Trained tokens by position in the conversation, over rows at even distances, about a million tokens of them"""
    K, width = len(split.entry["sources"]), split.max_seq_len + 1
    num_rows = min(split.num_rows, max(8, SAMPLE_TOKENS // width))
    edges = log_bins(width, 2)
    P, num_documents = len(edges) - 1, 0
    trained, tokens = np.zeros(K * P), np.zeros(K * P)
    for row in np.linspace(0, split.num_rows - 1, num_rows).astype(np.int64).tolist():
        first, stop = split.doc_range(row)
        lengths = split.docs["length"][first:stop].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        position = np.arange(lengths.sum()) - np.repeat(starts, lengths) + 1
        place = np.repeat(split.docs["source"][first:stop].astype(np.int64), lengths) * P
        place += np.searchsorted(edges, position, side="right") - 1
        begin = int(lengths[0]) if continues_previous_row(split, first) else 0  # not from its beginning
        mask = split.read_mask(np.array([row]))[0, : len(position)]
        tokens += np.bincount(place[begin:], minlength=K * P)
        trained += np.bincount(place[begin:], weights=mask[begin:], minlength=K * P)
        num_documents += stop - first - (begin > 0)
    return MaskShare(edges, trained.reshape(K, P), tokens.reshape(K, P), num_rows, num_documents)


def padding_by_row(split: Split) -> list[tuple[str, int]]:
    """Rows by how many of their positions are padding: [("none", 812), ("1", 80), ("2 - 3", 41), ...]"""
    padding = split.max_seq_len + 1 - split.rows["num_tokens"].astype(np.int64)
    place = np.where(padding > 0, np.floor(np.log2(np.maximum(padding, 1))).astype(np.int64) + 1, 0)
    counts = np.bincount(place).tolist()
    names = ["none", "1", *(f"{2**i} – {2 ** (i + 1) - 1}" for i in range(1, len(counts)))]
    return list(zip(names, counts, strict=False))


def rejected_rows(root: Path) -> tuple[list[dict[str, Any]], Counter[tuple[str, str, str]]]:
    """The first lines of rejected.jsonl, at most 7 of a reason, and the number of all by (split, source, reason)"""
    shown: list[dict[str, Any]] = []
    counts: Counter[tuple[str, str, str]] = Counter()
    path = root / "rejected.jsonl"
    if path.is_file():
        with open(path, encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                key = (str(row["split"]), str(row["source"]), str(row["reason"]))
                counts[key] += 1
                if counts[key] <= 7 and len(shown) < REJECTED_LINES:
                    shown.append(row)
    return shown, counts
