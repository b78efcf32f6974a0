"""
Write one shard: cut its pieces out of the runs, one after the other as they lie in the rows, and write tokens and mask.

    runs      [aaaabbc][ddeeee]           mapped files, pieces wanted: e d c a
    segments  eeee dd ... | c aaaa ...    a view of a run each; padding is a view of a buffer of bos
    rows      eeeedd...caaaa...           joined and written, a few rows at a time

Nothing is computed for a token: a piece costs two views and two copies of its bytes, whatever its length. In memory are the
runs' mapped pages and CHUNK_ROWS rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prep.conversation import offsets
from prep.plan import ShardPlan
from prep.runs import Run, read_run, trained_in
from prep.shard import DOC, ROW, write_rows

CHUNK_ROWS = 512  # joined at a time

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RunFiles:
    """The runs of one source: block i holds its rows starts[i] .. starts[i + 1] - 1."""

    starts: Array  # (blocks + 1,)
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class WrittenShard:
    rows: Array  # (R,) ROW, first_doc counted from the start of the shard
    docs: Array  # (D,) DOC
    entry: dict[str, Any]  # of the manifest


@dataclass(frozen=True)
class ShardWriter:
    """What every shard of a split needs; each worker gets it once."""

    runs: tuple[RunFiles, ...]  # one a source
    root: Path
    name: str  # format of the shards' names, by number
    width: int  # tokens of a row: T + 1
    bos: int
    dtype: str


@dataclass(frozen=True)
class Segments:
    """S stretches of tokens that make the rows when they are put one after the other, none of them empty."""

    run: Array  # (S,) number of the run; one past the last run: the buffer of bos
    start: Array  # (S,) first token of it
    stop: Array  # (S,)
    chunks: list[int]  # bounds of the segments that make CHUNK_ROWS rows each


def write_shard(to: ShardWriter, plan: ShardPlan) -> WrittenShard:
    """Cut out and write one shard: tokens, then mask."""
    name, num_rows = to.name.format(plan.number), len(plan.docs_per_row)
    row_docs = offsets(plan.docs_per_row)
    doc_lengths = plan.pieces["length"].astype(np.int64) + plan.lead  # (D,)
    filled = np.add.reduceat(doc_lengths, row_docs[:-1])  # (R,)
    runs, run_of, first, trainable = find_pieces(plan.pieces, to.runs)
    segments = lay_out(plan, run_of, first, len(runs), to.width - filled, to.width)
    first_trained = list[Array]()

    def packed() -> Iterator[Array]:
        for mask in rows_of([run.mask for run in runs], np.zeros(to.width, "u1"), segments):
            first_trained.append(mask[:, 0].copy())
            yield np.packbits(mask, axis=1, bitorder="little")

    tokens = rows_of([run.tokens for run in runs], np.full(to.width, to.bos, to.dtype), segments)
    shapes = {"tokens": (to.dtype, to.width, tokens), "mask": ("|u1", -(-to.width // 8), packed())}
    files = {}
    for kind, (dtype, width, chunks) in shapes.items():
        file = f"{name}.{kind}.npy"
        files[file] = write_rows(to.root / file, dtype, (num_rows, width), chunks)
    docs = np.zeros(len(plan.pieces), dtype=DOC)
    for field in ("source", "repeat", "index"):
        docs[field] = plan.pieces[field]
    docs["length"], docs["trainable"] = doc_lengths, trainable
    rows = np.zeros(num_rows, dtype=ROW)
    rows["first_doc"] = row_docs[:-1]
    rows["num_tokens"] = filled
    rows["num_targets"] = filled - 1
    # position 0 is no target
    rows["num_trainable"] = np.add.reduceat(docs["trainable"], row_docs[:-1]) - np.concatenate(first_trained)
    return WrittenShard(rows, docs, {"name": name, "rows": num_rows, "files": files})


def find_pieces(pieces: Array, runs: tuple[RunFiles, ...]) -> tuple[list[Run], Array, Array, Array]:
    """pieces (D,) PIECE -> the runs they lie in, and of each piece (D,) its run, first token there, and what it trains"""
    found = list[Run]()
    run_of, first, trainable = (np.empty(len(pieces), dtype=np.int64) for _ in range(3))
    order = np.lexsort((pieces["index"], pieces["source"]))
    ordered = pieces[order]
    for source, files in enumerate(runs):
        a, b = np.searchsorted(ordered["source"], [source, source + 1])
        cuts = a + np.searchsorted(ordered["index"][a:b], files.starts.astype(np.uint64))
        for block in np.flatnonzero(np.diff(cuts)):
            here, some = order[cuts[block] : cuts[block + 1]], ordered[cuts[block] : cuts[block + 1]]
            run = read_run(files.paths[block])
            row = some["index"].astype(np.int64) - files.starts[block]
            start = offsets(run.lengths)[row] + some["start"]
            run_of[here], first[here] = len(found), start
            trainable[here] = trained_in(run, row, start, some["length"].astype(np.int64))
            found.append(run)
    return found, run_of, first, trainable


def lay_out(plan: ShardPlan, run_of: Array, first: Array, buffer: int, free: Array, width: int) -> Segments:
    """
    The segments of a shard's rows: before a piece that needs one a bos, after a row's last piece its padding, (R,) `free`,
    both from the run numbered `buffer`.
    """
    lead, nothing = plan.lead.astype(np.int64), np.zeros(len(first), dtype=np.int64)
    ends = 2 * np.cumsum(plan.docs_per_row)

    def in_order(of_lead: Array, of_piece: Array, of_padding: Array | int) -> Array:
        return np.insert(np.stack([of_lead, of_piece], axis=1).reshape(-1), ends, of_padding)

    lengths = in_order(lead, plan.pieces["length"].astype(np.int64), free)
    there = np.flatnonzero(lengths)
    start, lengths = in_order(nothing, first, 0)[there], lengths[there]
    row_ends = np.arange(CHUNK_ROWS, len(free), CHUNK_ROWS) * width
    chunks = [0, *np.searchsorted(np.cumsum(lengths), row_ends, side="right").tolist(), len(there)]
    return Segments(in_order(nothing + buffer, run_of, buffer)[there], start, start + lengths, chunks)


def rows_of(columns: list[Array], buffer: Array, segments: Segments) -> Iterator[Array]:
    """One column of the runs, and what padding is in it -> rows (r, width), a chunk at a time"""
    views, size = [column.view(np.uint8).data for column in (*columns, buffer)], buffer.itemsize
    for a, b in pairwise(segments.chunks):
        places = (segments.run[a:b], segments.start[a:b] * size, segments.stop[a:b] * size)
        joined = b"".join([views[run][x:y] for run, x, y in zip(*(each.tolist() for each in places), strict=True)])
        yield np.frombuffer(joined, dtype=buffer.dtype).reshape(-1, len(buffer))
