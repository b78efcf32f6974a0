"""
The write pass: shards of a split, in parallel. The pieces of a shard are taken out of the blocks, one after the other as
they lie in the rows, and written as tokens and mask.

    blocks    [aaaabbc][ddeeee]           mapped files; pieces in the order of the rows: e d c a
    segments  eeee dd ... | c aaaa ...    each a stretch of a block; padding is a stretch of a buffer of bos
    rows      eeeedd...caaaa...           joined and written, a chunk of rows at a time

Segments are views of binary data as Arrow has them, so Arrow joins them: nothing is computed per token, no Python object
is made per piece, and threads do not wait for each other. In memory are the blocks' mapped pages and a chunk of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets
from prep.build.record import PassTiming
from prep.chat.choose import pad_of
from prep.plan.rows import ShardPlan
from prep.plan.split import SplitJob, SplitPlan
from prep.render.block_cache import BlockFiles, count_loss_tokens, map_block
from prep.render.render import Rendered
from prep.shard import DOC, ROW, token_dtype, write_rows
from prep.workers import run
from prep.workers.engine import Workers

CHUNK_ROWS, CHUNK_TOKENS = 512, 1 << 20  # most that are joined at a time


@dataclass(frozen=True)
class WrittenShard:
    name: str
    rows: Array  # (R,) ROW, first_doc counted from the start of the shard
    docs: Array  # (D,) DOC
    files: dict[str, dict[str, Any]]  # {file: {"bytes", "sha256"}}


@dataclass(frozen=True)
class ShardWriter:
    """What every shard of a split needs; each worker gets it once."""

    blocks: tuple[BlockFiles, ...]  # one per source
    root: Path
    name: str  # format of the shards' names, by number
    width: int  # tokens of a row: T + 1
    fill: int  # what padding is, and the bos of later pieces of a conversation
    dtype: str


def write_split(
    split: SplitJob, plan: SplitPlan, staging: Path, workers: Workers, timing: PassTiming
) -> list[WrittenShard]:
    """Write the shards of a split; they come back in their order"""
    writer = ShardWriter(
        blocks=tuple(split.blocks),
        root=staging,
        name=f"{split.name}-{{:05d}}-of-{len(plan.shards):05d}",
        width=split.options.max_seq_len + 1,
        fill=pad_of(split.template, split.tokenizer),
        dtype=token_dtype(split.tokenizer.vocab_size).str,
    )
    written: dict[int, WrittenShard] = {}
    for planned, shard in run(write_shard, writer, plan.shards, workers, "threads"):
        written[planned.number] = shard
        num_tokens = int(shard.rows["num_tokens"].sum(dtype=np.int64))
        timing.add(len(shard.docs), num_tokens, num_bytes=sum(file["bytes"] for file in shard.files.values()))
    return [written[number] for number in sorted(written)]


def write_shard(writer: ShardWriter, plan: ShardPlan) -> WrittenShard:
    """
    Write one shard: its tokens, and then the bits of its mask, which are kept while the tokens are written. The documents
    returned are the pieces of the plan, made into documents where they are.
    """
    name, num_rows = writer.name.format(plan.number), len(plan.docs_per_row)
    row_docs = offsets(plan.docs_per_row)
    doc_lengths = plan.pieces["length"] + plan.needs_bos  # (D,)
    filled = np.add.reduceat(doc_lengths, row_docs[:-1], dtype=np.int64)  # (R,)
    blocks, block_of, first, trainable = find_pieces(plan.pieces, writer.blocks)
    # the last buffer is what padding and a bos are taken from
    tokens = Column([block.tokens for block in blocks], np.full(writer.width, writer.fill, writer.dtype))
    mask = Column([block.mask for block in blocks], np.zeros(writer.width, "u1"))
    mask_bits, first_masks = list[Array](), list[Array]()

    def token_rows() -> Iterator[Array]:
        chunk = max(1, min(CHUNK_ROWS, CHUNK_TOKENS // writer.width))
        for start in range(0, num_rows, chunk):
            rows = slice(start, min(start + chunk, num_rows))
            docs = slice(row_docs[rows.start], row_docs[rows.stop])
            lengths = plan.pieces["length"][docs].astype(np.int64)
            per_row, free = plan.docs_per_row[rows], writer.width - filled[rows]
            segments = lay_out(block_of[docs], first[docs], lengths, plan.needs_bos[docs], per_row, free, len(blocks))
            mask_rows = mask.rows(*segments)
            first_masks.append(mask_rows[:, 0].copy())
            mask_bits.append(np.packbits(mask_rows, axis=1, bitorder="little"))
            yield tokens.rows(*segments)

    def write(kind: str, dtype: str, width: int, chunks: Any) -> dict[str, Any]:
        return write_rows(writer.root / f"{name}.{kind}.npy", dtype, (num_rows, width), chunks)

    files = {f"{name}.tokens.npy": write("tokens", writer.dtype, writer.width, token_rows())}
    files[f"{name}.mask.npy"] = write("mask", "|u1", -(-writer.width // 8), mask_bits)  # filled by now
    docs = np.require(plan.pieces, requirements="W").view(DOC)  # a copy, where they came through Ray
    docs["length"] = doc_lengths
    docs["trainable"] = trainable
    rows = np.zeros(num_rows, dtype=ROW)
    rows["first_doc"] = row_docs[:-1]
    rows["num_tokens"] = filled
    rows["num_targets"] = filled - 1
    # position 0 is not a target
    rows["num_trainable"] = np.add.reduceat(docs["trainable"], row_docs[:-1]) - np.concatenate(first_masks)
    return WrittenShard(name, rows, docs, files)


def find_pieces(pieces: Array, files_of: tuple[BlockFiles, ...]) -> tuple[list[Rendered], Array, Array, Array]:
    """pieces (D,) PIECE -> the blocks they lie in, and of each piece (D,) its block, first token in it and loss tokens"""
    blocks = list[Rendered]()
    block_of, first, trainable = (np.empty(len(pieces), dtype=dtype) for dtype in (np.int32, np.int64, np.uint32))
    for source, files in enumerate(files_of):
        mine = np.flatnonzero(pieces["source"] == source)
        for number, places in files.by_block(pieces["index"][mine].astype(np.int64)):
            block, here = map_block(files.paths[number]), mine[places]
            rows = pieces["index"][here].astype(np.int64) - files.starts[number]
            starts = offsets(block.lengths)[rows] + pieces["start"][here]
            block_of[here] = len(blocks)
            first[here] = starts
            trainable[here] = count_loss_tokens(block, rows, starts, pieces["length"][here].astype(np.int64))
            blocks.append(block)
    return blocks, block_of, first, trainable


def lay_out(
    block_of: Array, first: Array, lengths: Array, needs_bos: Array, docs_per_row: Array, free: Array, buffer: int
) -> tuple[Array, Array, Array]:
    """
    Pieces (D,) of some rows, how many are in each row (r,) and the room it has left (r,) -> the segments that make the rows
    when they are put one after the other, none of them empty: block, first token in it, and length. Before a piece that
    needs one a bos, after a row's last piece its padding, both from the block numbered `buffer`.
    """
    zeros, row_ends = np.zeros_like(lengths), 2 * np.cumsum(docs_per_row)

    def in_order(of_bos: Array, of_piece: Array, of_padding: Array | int) -> Array:
        return np.insert(np.stack([of_bos, of_piece], axis=1).reshape(-1), row_ends, of_padding)

    segment_lengths = in_order(needs_bos.astype(np.int64), lengths, free)
    used = np.flatnonzero(segment_lengths)
    blocks = in_order(zeros + buffer, block_of, buffer)
    return blocks[used], in_order(zeros, first, 0)[used], segment_lengths[used]


# ---- joining segments ----

# a view of binary data, https://arrow.apache.org/docs/format/Columnar.html; its prefix serves comparisons and is left 0
VIEW = np.dtype(
    {
        "names": ["bytes", "inline", "buffer", "start"],
        "formats": ["<i4", "(12,)u1", "<i4", "<i4"],
        "offsets": [0, 4, 8, 12],
        "itemsize": 16,
    }
)
INLINE = 12  # bytes that fit into the view itself
REACH = 1 << 30  # bytes from which on a block gets another buffer: a view has 31 bits for where it starts


class Column:
    """
    Tokens or mask of all blocks, and what padding is in it. `rows` is, plainly,

        np.concatenate([blocks[b][start : start + n] for b, start, n in segments]).reshape(-1, width)

    in less than half of the time (0.6 s for 1.4 s, 157 M tokens), since no Python object is made per segment.
    """

    def __init__(self, blocks: list[Array], padding: Array) -> None:
        self.dtype, self.width = padding.dtype, len(padding)
        self.blocks = [column.view(np.uint8) for column in (*blocks, padding)]
        self.first_buffer = offsets([-(-len(block) // REACH) for block in self.blocks])
        # each reaches over the start of the next, so that a segment is in the one in which it starts
        parts = [block[i : i + 2 * REACH - 1] for block in self.blocks for i in range(0, len(block), REACH)]
        self.buffers = [pa.py_buffer(part) for part in parts]

    def rows(self, block: Array, first: Array, length: Array) -> Array:
        """Segments (n,) as `lay_out` gives them -> rows (r, width)"""
        start, views = first * self.dtype.itemsize, np.zeros(len(block), dtype=VIEW)
        views["bytes"] = length * self.dtype.itemsize
        views["buffer"] = self.first_buffer[block] + start // REACH
        views["start"] = start % REACH
        short = np.flatnonzero(views["bytes"] <= INLINE)
        short = short[np.argsort(block[short], kind="stable")]
        bounds = np.searchsorted(block[short], np.arange(len(self.blocks) + 1))
        for number in np.flatnonzero(np.diff(bounds)):
            here, data = short[bounds[number] : bounds[number + 1]], self.blocks[number]
            nearby = data[np.minimum(start[here, None] + np.arange(INLINE), len(data) - 1)]  # (n, 12)
            views["inline"][here] = np.where(np.arange(INLINE) < views["bytes"][here, None], nearby, 0)
        segments = pa.Array.from_buffers(pa.binary_view(), len(views), [None, pa.py_buffer(views), *self.buffers])
        joined = segments.cast(pa.large_binary(), memory_pool=pa.system_memory_pool()).buffers()[2]
        return np.frombuffer(joined, dtype=self.dtype, count=int(length.sum())).reshape(-1, self.width)
