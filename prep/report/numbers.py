"""
The numbers of a report. Documents are read once, a million at a time; tokens and masks of a bounded sample of rows.

    docs   -> tokens of each step by source, a few conversations of each source
    rows   -> padding of each row
    sample -> 1 million tokens: share of loss tokens by position in the conversation

10 million documents take 2 s and 200 MB, whatever their text.

Legend: D documents, K sources, S steps, N rows, P bins of position.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.inspect.search import continues_previous_row
from prep.inspect.stats import log_edges
from prep.shard import Manifest, Split
from prep.shard.batches import document_chunks
from prep.shard.steps import StepPlan

SAMPLE_TOKENS = 1 << 20
NUM_SAMPLES = 3  # conversations shown of each source
CANDIDATES = 20  # drawn of each source, so that 3 are found all but surely
REJECTED_LINES = 20
LINES_PER_REASON = 7


@dataclass(frozen=True)
class Scan:
    """What one pass over the documents gives."""

    step_tokens: Array  # (S, K)
    samples: list[list[int]]  # K lists of documents


def scan_docs(split: Split, steps: StepPlan, seed: int = 0) -> Scan:
    """One pass over the documents of a split, in chunks; `steps` are those of one epoch."""
    K = len(split.entry["sources"])
    step_tokens = np.zeros((steps.num_steps, K))
    step_of_row = np.full(split.num_rows, -1, dtype=np.int64)
    step_of_row[steps.row_ids] = np.arange(len(steps.row_ids)) // steps.rows_per_step
    rng = np.random.default_rng(seed)
    chance = np.array([CANDIDATES / max(source["conversations"], 1) for source in split.entry["sources"]])
    candidates: list[tuple[float, int, int]] = []  # random key, source, document
    for first, docs, row in document_chunks(split):
        source, length = docs["source"].astype(np.int64), docs["length"].astype(np.int64)
        step = step_of_row[row]
        in_step = step >= 0
        flat = np.bincount((step * K + source)[in_step], weights=length[in_step], minlength=step_tokens.size)
        step_tokens += flat.reshape(step_tokens.shape)
        key = rng.random(len(docs))
        drawn = np.flatnonzero(key < chance[source])
        candidates += zip(key[drawn].tolist(), source[drawn].tolist(), (first + drawn).tolist(), strict=True)
    candidates.sort()
    samples = [[doc for _, source, doc in candidates if source == k][:NUM_SAMPLES] for k in range(K)]
    return Scan(step_tokens, [sorted(docs) for docs in samples])


# ---- sampled rows ----


@dataclass(frozen=True)
class MaskShare:
    edges: Array  # (P + 1,) positions, counted from 1
    trained: Array  # (K, P) loss tokens of the sample
    tokens: Array  # (K, P)
    num_rows: int
    num_documents: int


def mask_by_position(split: Split) -> MaskShare:
    """Loss tokens by position in the conversation, over rows at even distances, about a million tokens of them"""
    K, width = len(split.entry["sources"]), split.max_seq_len + 1
    num_rows = min(split.num_rows, max(8, SAMPLE_TOKENS // width))
    edges = log_edges(width, 2)
    P, num_documents = len(edges) - 1, 0
    trained, tokens = np.zeros(K * P), np.zeros(K * P)
    for row in np.linspace(0, split.num_rows - 1, num_rows).astype(np.int64).tolist():
        first, stop = split.doc_range(row)
        lengths = split.docs["length"][first:stop].astype(np.int64)
        position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
        place = np.repeat(split.docs["source"][first:stop].astype(np.int64), lengths) * P
        place += np.searchsorted(edges, position, side="right") - 1
        begin = int(lengths[0]) if continues_previous_row(split, first) else 0  # its positions do not count from 1
        mask = split.read_mask(np.array([row]))[0, : len(position)]
        tokens += np.bincount(place[begin:], minlength=K * P)
        trained += np.bincount(place[begin:], weights=mask[begin:], minlength=K * P)
        num_documents += stop - first - (begin > 0)
    return MaskShare(edges, trained.reshape(K, P), tokens.reshape(K, P), num_rows, num_documents)


def padding_by_row(split: Split) -> list[tuple[str, int]]:
    """Rows by how many of their positions are padding: [("none", 812), ("1", 80), ("2 – 3", 41), ...]"""
    padding = split.max_seq_len + 1 - split.rows["num_tokens"].astype(np.int64)
    counts = np.bincount(np.frexp(padding)[1]).tolist()  # 0, 1, 2 - 3, 4 - 7, ...
    names = ["none", "1", *(f"{2**i} – {2 ** (i + 1) - 1}" for i in range(1, len(counts)))]
    return list(zip(names, counts, strict=False))


def left_aside(manifest: Manifest) -> list[tuple[str, str, str, int]]:
    """Split, source, field, rows: what no source read"""
    return [
        (name, source["name"], field, rows)
        for name, split in manifest["splits"].items()
        for source in split["sources"]
        for field, rows in source.get("left_aside", {}).items()
    ]


@dataclass(frozen=True)
class RejectedRows:
    counts: Counter[tuple[str, str, str]]  # by split, source and reason
    first: list[dict[str, Any]]  # lines of rejected.jsonl, a few of each reason


def rejected_rows(root: Path) -> RejectedRows:
    counts: Counter[tuple[str, str, str]] = Counter()
    first: list[dict[str, Any]] = []
    if not (root / "rejected.jsonl").is_file():
        return RejectedRows(counts, first)
    with open(root / "rejected.jsonl", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            key = (str(row["split"]), str(row["source"]), str(row["reason"]))
            counts[key] += 1
            if counts[key] <= LINES_PER_REASON and len(first) < REJECTED_LINES:
                first.append(row)
    return RejectedRows(counts, first)
