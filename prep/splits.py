"""
One split of a build: its conversations in the mixture's order, planned, written and counted.

    order      (entry, position) of every conversation      shuffled
    pieces     + row in the source, tokens                   rejected rows left out, too long ones cut
    shards     rows and documents                            written by workers
    counts     by source: in = out + rejected

Nothing here depends on what a conversation says: lengths, positions and counts are all that is moved.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prep.conversation import offsets
from prep.excess import cut_conversations, handle_excess, trained_tokens
from prep.options import Options
from prep.order import mixture_order, select_rows
from prep.plan import PIECE, ShardPlan, plan_bfd, plan_wrapped
from prep.progress import Progress
from prep.record import Record
from prep.rejected import RejectedRows, check_share, count
from prep.resolve import Input
from prep.runs import read_run
from prep.shard import Manifest, token_dtype, write_array
from prep.tokenizer import Tokenizer
from prep.write import RunFiles, ShardWriter, WrittenShard, write_shard

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SplitJob:
    """A split to be built: its inputs, where their runs are, and how to pack them."""

    name: str
    inputs: list[Input]
    runs: list[RunFiles]
    tokenizer: Tokenizer
    seed: int
    options: Options

    @property
    def wrapped(self) -> bool:
        return self.options.packing == "wrapped"


@dataclass(frozen=True)
class Table:
    """All rows of all inputs, one after the other: row r of input i is at start[i] + r."""

    start: Array  # (inputs,) int64
    tokens: Array  # (n,) uint32, 0 where the row is rejected
    reasons: Array  # (n,) uint8
    selected: list[Array]  # of each input: the rows that the mixture uses, in their order


def build_split(split: SplitJob, staging: Path, record: Record) -> tuple[Manifest, list[RejectedRows]]:
    """Plan and write a split; returns its part of the manifest, and the rows that are not in it."""
    with record.measure("plan") as measured:
        table = read_table(split)
        pieces = order_pieces(split, table)
        sources, rejected = count_rows(split, table)
        if not len(pieces):
            raise ValueError(
                f"no conversation of the {split.name} split is valid: its rows say {sources[0]['rejected']}."
            )
        cut_conversations(pieces, split.options.token_limit, sources)
        if not split.wrapped:
            pieces, dropped = handle_excess(
                split.name, pieces, split.inputs, split.runs, split.tokenizer, split.options, sources
            )
            rejected += dropped
        plans = make_plans(split, pieces)
        measured.add(len(pieces), int(pieces["length"].sum(dtype=np.int64)))
    rows, docs, shards = write_all(split, plans, staging, record)
    for i, source in enumerate(sources):
        add_totals(source, i, split, pieces, docs)
    return describe(split, rows, docs, shards, sources, staging), rejected


def read_table(split: SplitJob) -> Table:
    """Lengths of every rendered row, from the runs"""
    runs = [[read_run(path) for path in files.paths] for files in split.runs]
    sizes = [int(files.starts[-1] - files.starts[0]) for files in split.runs]
    first = np.array([files.starts[0] for files in split.runs], dtype=np.int64)

    def column(name: str) -> Array:
        return np.concatenate([getattr(one, name) for some in runs for one in some])

    return Table(
        start=offsets(np.array(sizes))[:-1] - first,
        tokens=column("lengths"),
        reasons=column("reasons"),
        selected=[
            select_rows(one.source.num_rows, one.permuted, one.entry.start, one.entry.stop) for one in split.inputs
        ],
    )


def order_pieces(split: SplitJob, table: Table) -> Array:
    """The valid conversations of a split in the mixture's order, as pieces (D,) PIECE of one whole conversation each"""
    sizes = [len(rows) for rows in table.selected]
    order = mixture_order(sizes, [one.entry.repeat for one in split.inputs], split.seed)
    index = np.concatenate(table.selected)[offsets(np.array(sizes))[order.entry] + order.position]
    place = table.start[order.entry] + index
    pieces = np.zeros(len(index), dtype=PIECE)
    pieces["source"], pieces["repeat"], pieces["index"] = order.entry, order.repeat, index
    pieces["length"] = table.tokens[place]
    valid: Array = pieces[table.reasons[place] == 0]
    return valid


def count_rows(split: SplitJob, table: Table) -> tuple[list[dict[str, Any]], list[RejectedRows]]:
    """By source, what goes in and what is rejected. ValueError where more is rejected than allowed."""
    sources, rejected = [], []
    for i, one in enumerate(split.inputs):
        rows = np.sort(table.selected[i])
        reasons = table.reasons[table.start[i] + rows]
        bad = reasons > 0
        found = RejectedRows(split.name, one, rows[bad], reasons[bad])
        check_share(found, len(rows), split.options.max_rejected)
        repeat = one.entry.repeat
        sources.append(
            {
                **one.describe(),
                "rows": len(rows) * repeat,
                "rejected": {reason: number * repeat for reason, number in count(reasons).items()},
                "truncated": 0,
                "extra_pieces": 0,
            }
        )
        rejected.append(found)
    return sources, rejected


def make_plans(split: SplitJob, pieces: Array) -> list[ShardPlan]:
    """ValueError where a dtype of the format would overflow; nothing of a size that real data has"""
    if split.wrapped:
        return plan_wrapped(pieces, split.options.max_seq_len)
    return plan_bfd(pieces, split.options.max_seq_len, split.seed)


def write_all(
    split: SplitJob, plans: list[ShardPlan], staging: Path, record: Record
) -> tuple[Array, Array, list[dict[str, Any]]]:
    """The write pass: shards in parallel; rows (N,) ROW and docs (D,) DOC of the split, and the shards' entries"""
    dtype = token_dtype(split.tokenizer.vocab_size).str
    width = split.options.max_seq_len + 1
    writer = ShardWriter(
        tuple(split.runs), staging, f"{split.name}-{{:05d}}-of-{len(plans):05d}", width, split.tokenizer.bos_id, dtype
    )
    written: dict[int, WrittenShard] = {}
    total = sum(len(plan.pieces) for plan in plans)
    with Progress("write", total, split.options.quiet) as progress, record.measure("write") as measured:
        for plan, shard in split.options.run(write_shard, writer, plans):
            written[plan.number] = shard
            num_tokens = int(shard.rows["num_tokens"].sum(dtype=np.int64))
            progress.add(len(shard.docs), num_tokens)
            measured.add(len(shard.docs), num_tokens)
    shards = [written[number] for number in sorted(written)]
    rows = np.concatenate([shard.rows for shard in shards])
    rows["first_doc"] += np.repeat(offsets([len(s.docs) for s in shards])[:-1], [len(s.rows) for s in shards]).astype(
        "u8"
    )
    return rows, np.concatenate([shard.docs for shard in shards]), [shard.entry for shard in shards]


def add_totals(source: dict[str, Any], number: int, split: SplitJob, pieces: Array, docs: Array) -> None:
    """What of a source is in the split: conversations, tokens, trained tokens, and those that train nothing"""
    if split.wrapped:  # rows share tokens, so conversations are counted, not what rows hold of them
        mine = pieces[pieces["source"] == number]
        tokens, trainable = mine["length"], trained_tokens(mine, split.runs[number])
    else:
        mine = docs[docs["source"] == number]
        tokens, trainable = mine["length"], mine["trainable"]
    source["conversations"] = len(mine)
    source["total_tokens"] = int(tokens.sum(dtype=np.int64))
    source["trainable_tokens"] = int(trainable.sum(dtype=np.int64))
    source["untrained"] = int((trainable == 0).sum())


def describe(
    split: SplitJob,
    rows: Array,
    docs: Array,
    shards: list[dict[str, Any]],
    sources: list[dict[str, Any]],
    staging: Path,
) -> Manifest:
    """The split's part of the manifest; writes its rows and docs"""
    total = {key: sum(one[key] for one in sources) for key in ("conversations", "total_tokens", "trainable_tokens")}
    width = split.options.max_seq_len + 1
    filled = int(rows["num_tokens"].sum(dtype=np.int64))
    return {
        "rows": len(rows),
        "docs": len(docs),
        **total,
        "padding_tokens": len(rows) * width - filled,
        "packing_efficiency": round(filled / (len(rows) * width), 6),
        "min_rows": -(-total["total_tokens"] // width),
        "rows_without_trainable": int((rows["num_trainable"] == 0).sum()),
        "sources": sources,
        "shards": shards,
        "files": {
            f"{split.name}.{name}.npy": write_array(staging / f"{split.name}.{name}.npy", array)
            for name, array in (("rows", rows), ("docs", docs))
        },
    }
