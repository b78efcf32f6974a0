"""
Write one shard: cut its pieces out of the runs, one after the other as they lie in the rows, and write tokens and mask.

    runs      [aaaabbc][ddeeee]           mapped files, pieces wanted: e d c a
    segments  eeee dd ... | c aaaa ...    each a stretch of a run; padding is a stretch of a buffer of bos
    rows      eeeedd...caaaa...           joined and written, some at a time

Segments are views of binary data as Arrow has them, so Arrow joins them: nothing is computed for a token, no Python object
is made for a piece, and threads do not wait for each other. In memory are the runs' mapped pages and a chunk of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets
from prep.plan.rows import ShardPlan
from prep.render.block_cache import BlockFiles, read_block, trained_in
from prep.render.render import Rendered
from prep.shard import DOC, ROW, write_rows

CHUNK_ROWS, CHUNK_TOKENS = 512, 1 << 20  # most that are joined at a time

# a view of binary data, https://arrow.apache.org/docs/format/Columnar.html; its prefix serves comparisons and is left 0
VIEW = np.dtype(
    {
        "names": ["bytes", "inline", "buffer", "start"],
        "formats": ["<i4", "(12,)u1", "<i4", "<i4"],
        "offsets": [0, 4, 8, 12],
        "itemsize": 16,
    }
)
INLINE = 12  # so few bytes lie in the view itself
REACH = 1 << 30  # bytes from which on a run gets another buffer: a view has 31 bits for where it starts

_mapped: WeakValueDictionary[Path, Rendered] = WeakValueDictionary()  # what some shard is being cut out of


@dataclass(frozen=True)
class WrittenShard:
    rows: Array  # (R,) ROW, first_doc counted from the start of the shard
    docs: Array  # (D,) DOC
    entry: dict[str, Any]  # of the manifest


@dataclass(frozen=True)
class ShardWriter:
    """What every shard of a split needs; each worker gets it once."""

    runs: tuple[BlockFiles, ...]  # one a source
    root: Path
    name: str  # format of the shards' names, by number
    width: int  # tokens of a row: T + 1
    bos: int
    dtype: str


def write_shard(to: ShardWriter, plan: ShardPlan) -> WrittenShard:
    """
    Cut out and write one shard: tokens, then the bits of its mask, which are kept until then. The documents returned are the
    pieces of the plan, made into documents where they are.
    """
    name, num_rows = to.name.format(plan.number), len(plan.docs_per_row)
    row_docs = offsets(plan.docs_per_row)
    doc_lengths = plan.pieces["length"] + plan.lead  # (D,)
    filled = np.add.reduceat(doc_lengths, row_docs[:-1], dtype=np.int64)  # (R,)
    runs, run_of, first, trainable = find_pieces(plan.pieces, to.runs)
    # last is what padding and a lead are cut out of
    tokens = Column([run.tokens for run in runs], np.full(to.width, to.bos, to.dtype))
    mask = Column([run.mask for run in runs], np.zeros(to.width, "u1"))
    bits, first_trained = list[Array](), list[Array]()

    def token_rows() -> Iterator[Array]:
        chunk = max(1, min(CHUNK_ROWS, CHUNK_TOKENS // to.width))
        for start in range(0, num_rows, chunk):
            rows = slice(start, min(start + chunk, num_rows))
            docs = slice(row_docs[rows.start], row_docs[rows.stop])
            lengths = plan.pieces["length"][docs].astype(np.int64)
            per_row, free = plan.docs_per_row[rows], to.width - filled[rows]
            segments = lay_out(run_of[docs], first[docs], lengths, plan.lead[docs], per_row, free, len(runs))
            trained = mask.rows(*segments)
            first_trained.append(trained[:, 0].copy())
            bits.append(np.packbits(trained, axis=1, bitorder="little"))
            yield tokens.rows(*segments)

    kinds = {"tokens": (to.dtype, to.width, token_rows()), "mask": ("|u1", -(-to.width // 8), bits)}
    files = {}
    for kind, (dtype, width, chunks) in kinds.items():
        file = f"{name}.{kind}.npy"
        files[file] = write_rows(to.root / file, dtype, (num_rows, width), chunks)
    docs = np.require(plan.pieces, requirements="W").view(DOC)  # a copy, where they came through Ray
    docs["length"], docs["trainable"] = doc_lengths, trainable
    rows = np.zeros(num_rows, dtype=ROW)
    rows["first_doc"] = row_docs[:-1]
    rows["num_tokens"] = filled
    rows["num_targets"] = filled - 1
    # position 0 is no target
    rows["num_trainable"] = np.add.reduceat(docs["trainable"], row_docs[:-1]) - np.concatenate(first_trained)
    return WrittenShard(rows, docs, {"name": name, "rows": num_rows, "files": files})


def find_pieces(pieces: Array, runs: tuple[BlockFiles, ...]) -> tuple[list[Rendered], Array, Array, Array]:
    """pieces (D,) PIECE -> the runs they lie in, and of each piece (D,) its run, first token there, and what it trains"""
    found = list[Rendered]()
    run_of, first, trainable = (np.empty(len(pieces), dtype=kind) for kind in (np.int32, np.int64, np.uint32))
    for source, files in enumerate(runs):
        here = np.flatnonzero(pieces["source"] == source)
        here = here[np.argsort(pieces["index"][here])]
        cuts = np.searchsorted(pieces["index"][here], files.starts.astype(np.uint64))
        for block in np.flatnonzero(np.diff(cuts)):
            run, some = map_block(files.paths[block]), here[cuts[block] : cuts[block + 1]]
            row = pieces["index"][some].astype(np.int64) - files.starts[block]
            start = offsets(run.lengths)[row] + pieces["start"][some]
            run_of[some], first[some] = len(found), start
            trainable[some] = trained_in(run, row, start, pieces["length"][some].astype(np.int64))
            found.append(run)
    return found, run_of, first, trainable


def map_block(path: Path) -> Rendered:
    """A run, mapped once for all shards that are being written"""
    run = _mapped.get(path)
    if run is None:
        run = _mapped[path] = read_block(path)
    return run


def lay_out(
    run_of: Array, first: Array, lengths: Array, lead: Array, docs_per_row: Array, free: Array, buffer: int
) -> tuple[Array, Array, Array]:
    """
    Pieces (D,) of some rows, how many are in each (r,) and the room it has left (r,) -> the segments that make the rows
    when they are put one after the other, none of them empty: run, first token in it, and how many. Before a piece that
    needs one a bos, after a row's last piece its padding, both of the run numbered `buffer`.
    """
    nothing, ends = np.zeros_like(lengths), 2 * np.cumsum(docs_per_row)

    def in_order(of_lead: Array, of_piece: Array, of_padding: Array | int) -> Array:
        return np.insert(np.stack([of_lead, of_piece], axis=1).reshape(-1), ends, of_padding)

    long = in_order(lead.astype(np.int64), lengths, free)
    there = np.flatnonzero(long)
    return in_order(nothing + buffer, run_of, buffer)[there], in_order(nothing, first, 0)[there], long[there]


class Column:
    """Tokens or mask of all runs, and what padding is in it"""

    def __init__(self, runs: list[Array], padding: Array) -> None:
        self.dtype, self.width = padding.dtype, len(padding)
        self.runs = [column.view(np.uint8) for column in (*runs, padding)]
        self.first_buffer = offsets([-(-len(run) // REACH) for run in self.runs])
        # each reaches over the start of the next, so that a segment is in the one in which it starts
        parts = [run[i : i + 2 * REACH - 1] for run in self.runs for i in range(0, len(run), REACH)]
        self.buffers = [pa.py_buffer(part) for part in parts]

    def rows(self, run: Array, first: Array, length: Array) -> Array:
        """Segments (n,) as `lay_out` gives them -> rows (r, width)"""
        start, views = first * self.dtype.itemsize, np.zeros(len(run), dtype=VIEW)
        views["bytes"] = length * self.dtype.itemsize
        views["buffer"], views["start"] = self.first_buffer[run] + start // REACH, start % REACH
        short = np.flatnonzero(views["bytes"] <= INLINE)
        short = short[np.argsort(run[short], kind="stable")]
        cuts = np.searchsorted(run[short], np.arange(len(self.runs) + 1))
        for number in np.flatnonzero(np.diff(cuts)):
            here, data = short[cuts[number] : cuts[number + 1]], self.runs[number]
            found = data[np.minimum(start[here, None] + np.arange(INLINE), len(data) - 1)]  # (n, 12)
            views["inline"][here] = np.where(np.arange(INLINE) < views["bytes"][here, None], found, 0)
        segments = pa.Array.from_buffers(pa.binary_view(), len(views), [None, pa.py_buffer(views), *self.buffers])
        joined = segments.cast(pa.large_binary(), memory_pool=pa.system_memory_pool()).buffers()[2]
        return np.frombuffer(joined, dtype=self.dtype, count=int(length.sum())).reshape(-1, self.width)
