"""
Write one shard: gather its pieces from the runs, lay them out in rows, and write tokens and mask.

    runs      [aaaabbc][ddeeee]           mapped files, pieces wanted: e d c a
    gathered  aaaa c dd eeee              run by run, each read from front to back
    rows      eeeedd.. caaaa...           one more move puts everything in its place, padding too

Both moves are Arrow's `take` on variable-length binary: it copies every piece with one memcpy, so no index per token is
ever made. Padding and the bos that leads a split piece are pieces of a buffer of their own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prep.conversation import index_array, offsets
from prep.plan import ShardPlan
from prep.runs import Run, read_run, trained_in
from prep.shard import DOC, ROW, write_array

Array = npt.NDArray[Any]

# a run, the elements wanted of it (their offsets, and which comes when), and the trained tokens of each piece
Part = tuple[Run, tuple[Array, Array], Array]


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


def write_shard(to: ShardWriter, plan: ShardPlan) -> WrittenShard:
    """Gather and write one shard; tokens, then mask, so that only one of them is in memory."""
    name = to.name.format(plan.number)
    order = np.lexsort((plan.pieces["start"], plan.pieces["index"], plan.pieces["source"]))  # as they lie in the runs
    lengths = plan.pieces["length"].astype(np.int64)  # (D,)
    doc_lengths, row_docs = lengths + plan.lead, offsets(plan.docs_per_row)
    filled = np.add.reduceat(doc_lengths, row_docs[:-1])  # (R,)
    places = layout(plan, order, lengths, to.width - filled)
    parts = find_parts(plan.pieces[order], to.runs)
    files = {}

    def write(kind: str, array: Array) -> None:
        files[f"{name}.{kind}.npy"] = write_array(to.root / f"{name}.{kind}.npy", array)

    write(
        "tokens", lay_out([(run.tokens, *elements) for run, elements, _ in parts], *places, to.bos, to.dtype, to.width)
    )
    mask = lay_out([(run.mask, *elements) for run, elements, _ in parts], *places, 0, "u1", to.width)
    write("mask", np.packbits(mask, axis=1, bitorder="little"))
    docs = np.zeros(len(plan.pieces), dtype=DOC)
    for field in ("source", "repeat", "index"):
        docs[field] = plan.pieces[field]
    docs["length"] = doc_lengths
    docs["trainable"][order] = np.concatenate([trainable for _, _, trainable in parts])
    rows = np.zeros(len(filled), dtype=ROW)
    rows["first_doc"] = row_docs[:-1]
    rows["num_tokens"] = filled
    rows["num_targets"] = filled - 1
    rows["num_trainable"] = np.add.reduceat(docs["trainable"], row_docs[:-1]) - mask[:, 0]  # position 0 is no target
    return WrittenShard(rows, docs, {"name": name, "rows": len(rows), "files": files})


def find_parts(pieces: Array, runs: tuple[RunFiles, ...]) -> list[Part]:
    """Where pieces that are sorted by source and row lie: run by run, the elements of it, and what each piece trains"""
    parts = []
    for source, files in enumerate(runs):
        a, b = np.searchsorted(pieces["source"], [source, source + 1])
        cuts = a + np.searchsorted(pieces["index"][a:b], files.starts.astype(np.uint64))
        for block in np.flatnonzero(np.diff(cuts)):
            run, some = read_run(files.paths[block]), pieces[cuts[block] : cuts[block + 1]]
            row, length = some["index"].astype(np.int64) - files.starts[block], some["length"].astype(np.int64)
            first = offsets(run.lengths)[row] + some["start"]
            parts.append((run, _elements(first, length), trained_in(run, row, first, length)))
    return parts


def lay_out(
    parts: list[tuple[Array, Array, Array]],
    bounds: Array,
    which: Array,
    num_extra: int,
    extra: int,
    dtype: str,
    width: int,
) -> Array:
    """Gather one column of the runs, and put its pieces and the `extra` ones between them into rows (R, width)"""
    gathered = np.empty(int(bounds[-1]), dtype=dtype)
    place = 0
    for column, *elements in parts:
        some = take(column, *elements)
        gathered[place : place + len(some)] = some
        place += len(some)
    gathered[place : place + num_extra] = extra
    return take(gathered, bounds, which).reshape(-1, width)


def layout(plan: ShardPlan, order: Array, lengths: Array, free: Array) -> tuple[Array, Array, int]:
    """
    How the pieces, gathered in `order`, and a buffer of bos tokens after them make the rows.

    lengths (D,) of the pieces, free (R,) padding of the rows -> offsets of the elements, which element comes when, and
    the size of the buffer: a token for every lead and for every place of padding.
    """
    num_docs, num_rows = len(lengths), len(free)
    bounds = offsets(np.concatenate([lengths[order], plan.lead.astype(np.int64), free]))
    place = np.empty(num_docs, dtype=np.int64)
    place[order] = np.arange(num_docs)
    # every document is a lead (mostly of no tokens) and a piece; every row ends with its padding
    pairs = np.stack([num_docs + np.arange(num_docs), place], axis=1).reshape(-1)
    which = np.insert(pairs, 2 * np.cumsum(plan.docs_per_row), 2 * num_docs + np.arange(num_rows))
    return bounds, which, int(plan.lead.sum() + free.sum())


def _elements(first: Array, length: Array) -> tuple[Array, Array]:
    """Ranges of a run, which may touch or overlap -> offsets of elements, and the elements that make the ranges in turn"""
    bounds = np.sort(np.concatenate([first, first + length]), kind="stable")  # two sorted runs, nearly: fast
    bounds = bounds[np.diff(bounds, prepend=-1) > 0]
    a, b = np.searchsorted(bounds, first), np.searchsorted(bounds, first + length)
    counts = b - a
    which = np.arange(counts.sum()) - np.repeat(offsets(counts)[:-1] - a, counts)
    return bounds, which


def take(data: Array, bounds: Array, which: Array) -> Array:
    """Elements data[bounds[i] : bounds[i + 1]] for i in `which`, one after the other"""
    if not len(which):
        return data[:0]
    size = data.dtype.itemsize
    binary = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds * size), pa.py_buffer(data.view(np.uint8))]
    )
    taken = binary.take(index_array(which))
    return np.frombuffer(taken.buffers()[2] or b"", dtype=data.dtype)
