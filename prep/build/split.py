"""
One split of a build: its conversations in the mixture's order, planned, written and counted.

    table      tokens and trained tokens of every row        what is not wanted is marked, how much is taken decided
    order      (entry, position) of every conversation      shuffled
    pieces     + row in the source, tokens                   rejected rows left out, too long ones cut
    shards     rows and documents                            written by workers
    counts     by source: in = out + rejected

Only lengths, positions, hashes and counts are moved here, no text: `dedup` compares hashes of tokens, and one kind of
`drop_overlap` reads what users say.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array, offsets
from prep.build.options import BuildOptions
from prep.build.rejected import RejectedRows, check_share, count
from prep.build.timings import BuildTimer
from prep.build.write import ShardWriter, WrittenShard, write_shard
from prep.mixture.mixture import MixOptions
from prep.mixture.resolve import Input
from prep.plan.excess import cut_conversations, handle_excess, trained_tokens
from prep.plan.filters import drop_duplicates, filter_lengths, mark
from prep.plan.order import mixture_order
from prep.plan.overlap import drop_overlap
from prep.plan.rows import PIECE, ShardPlan, plan_bfd, plan_wrapped
from prep.plan.sampling import Sample, allocate, describe_share
from prep.plan.table import Table, read_table
from prep.render.block_cache import BlockFiles
from prep.shard import COUNTS, DOC, Manifest, token_dtype, write_array, write_rows
from prep.tokenizer.tokenizer import Tokenizer
from prep.workers import run
from prep.workers.progress import Progress

CHUNK_SIZE = 1 << 16  # conversations looked up at a time


@dataclass(frozen=True)
class SplitJob:
    """A split to be built: its inputs, where their runs are, and how to pack them."""

    name: str
    inputs: list[Input]
    runs: list[BlockFiles]
    tokenizer: Tokenizer
    seed: int
    options: BuildOptions
    mix: MixOptions = field(default_factory=MixOptions)
    held_out: "SplitJob | None" = None  # whose questions must not be in this split

    @property
    def wrapped(self) -> bool:
        return self.options.packing == "wrapped"

    @property
    def cuts(self) -> str | None:
        """What happens to conversations longer than a row; `wrapped` has no use for it"""
        return None if self.wrapped else self.options.excess_length_strategy


def build_split(split: SplitJob, staging: Path, record: BuildTimer) -> tuple[Manifest, list[RejectedRows]]:
    """Plan and write a split; returns its part of the manifest, and the rows that are not in it."""
    with record.measure("plan") as measured:
        table = read_table(split.inputs, split.runs)
        check_rejected(split, table)
        leave_out(split, table)
        taken = take(split, table)
        pieces = order_pieces(split, table, taken)
        sources, rejected = count_rows(split, table, taken)
        num_usable = [len(table.usable(i)) for i in range(len(split.inputs))]
        del table  # what is not needed any more makes room for the plans
        check_some(split, pieces, sources)
        cut_conversations(pieces, split.options.token_limit, sources)
        if not split.wrapped:
            pieces, dropped = handle_excess(
                split.name, pieces, split.inputs, split.runs, split.tokenizer, split.options, sources
            )
            rejected += dropped
            check_some(split, pieces, sources)
        measured.add(len(pieces), int(pieces["length"].sum(dtype=np.int64)))
        plans = make_plans(split, pieces)
    shards = write_all(split, plans, staging, record)
    for i, source in enumerate(sources):
        add_totals(source, i, split, pieces, shards)
    total = {key: sum(one[key] for one in sources) for key in COUNTS}
    for i, one in enumerate(split.inputs):
        describe_share(one.entry, taken[i], num_usable[i], sources[i], total, split.mix.by)
    described = describe(split, shards, sources, total, staging)
    if split.mix.dedup is not None:
        described["duplicates"] = {"left_out": sum(one["rejected"].get("duplicate", 0) for one in sources)}
    return described, rejected


def check_some(split: SplitJob, pieces: Array, sources: list[dict[str, Any]]) -> None:
    """ValueError where no conversation is left"""
    if not len(pieces):
        reasons = "; ".join(
            f"{source['name']}: " + ", ".join(f"{reason} {number:,}" for reason, number in source["rejected"].items())
            for source in sources
        )
        raise ValueError(
            f"no conversation of the {split.name} split is left ({reasons}): give other rows or filters, or a larger "
            "--max-seq-len."
        )


def check_rejected(split: SplitJob, table: Table) -> None:
    """ValueError where more rows of a source are no valid conversations than allowed"""
    for i in range(len(split.inputs)):
        check_share(rejected_of(split, table, i), len(table.selected(i)), split.options.max_rejected)


def rejected_of(split: SplitJob, table: Table, number: int) -> RejectedRows:
    """The rows of an input that the mixture uses and that are left out by now"""
    rows = np.sort(table.selected(number))
    reasons = table.reasons[table.start[number] + rows]
    return RejectedRows(split.name, split.inputs[number], rows[reasons > 0], reasons[reasons > 0])


def leave_out(split: SplitJob, table: Table) -> None:
    """Mark in the table what the mixture does not want."""
    filter_lengths([one.entry for one in split.inputs], table)
    if held := split.held_out:
        tokenizer = split.tokenizer if split.mix.drop_overlap == "13-gram" else None
        drop_overlap(table, split.runs, read_table(held.inputs, held.runs), held.runs, tokenizer)
    if split.mix.dedup is not None:
        drop_duplicates(table, split.runs)


def take(split: SplitJob, table: Table) -> list[Sample]:
    """How much of each input is taken, measured in what would be left of each conversation after cutting"""
    entries = [one.entry for one in split.inputs]
    if any(entry.takes_part for entry in entries) and split.cuts == "drop":
        for i in range(len(entries)):  # what is dropped later is not there to be chosen
            places = table.places(i)
            tokens = np.minimum(table.tokens[places], split.options.token_limit or np.iinfo(np.uint32).max)
            mark(table, places[tokens > split.options.max_seq_len], "too long")
    usable = [table.usable(i) for i in range(len(entries))]
    weights = [np.broadcast_to(np.int64(1), len(some)) for some in usable]
    if split.mix.by != "conversations" and any(entry.proportion is not None for entry in entries):
        weights = [tokens_left(split, table, i, some) for i, some in enumerate(usable)]
    return allocate(entries, usable, weights, split.mix, split.seed)


def tokens_left(split: SplitJob, table: Table, number: int, usable: Array) -> Array:
    """(u,) tokens, or trained tokens, that each usable row of an input has when it is cut to what fits"""
    rows = table.selected(number)[usable]
    longest = split.options.max_seq_len if split.cuts == "truncate" else np.iinfo(np.uint32).max
    limit = min(split.options.token_limit or longest, longest)
    pieces = np.zeros(len(rows), dtype=PIECE)
    pieces["index"], pieces["length"] = rows, np.minimum(table.tokens[table.start[number] + rows], limit)
    return trained_tokens(pieces, split.runs[number]) if split.mix.by == "trained_tokens" else pieces["length"]


def order_pieces(split: SplitJob, table: Table, taken: list[Sample]) -> Array:
    """The conversations of a split in the mixture's order, as pieces (D,) PIECE of one whole conversation each"""
    sizes = np.diff(table.bounds).tolist()
    order = mixture_order(sizes, [one.copies for one in taken], split.seed, [one.part for one in taken])
    pieces = np.zeros(len(order), dtype=PIECE)
    for first in range(0, len(order), CHUNK_SIZE):
        here = slice(first, first + CHUNK_SIZE)
        these = order[here]
        index = table.rows[table.bounds[these.entry] + these.position]
        place = table.start[these.entry] + index
        pieces["source"][here], pieces["repeat"][here], pieces["index"][here] = these.entry, these.repeat, index
        pieces["length"][here] = np.where(table.reasons[place] == 0, table.tokens[place], 0)
    wanted = pieces["length"] > 0
    return pieces if wanted.all() else pieces[wanted]


def count_rows(split: SplitJob, table: Table, taken: list[Sample]) -> tuple[list[dict[str, Any]], list[RejectedRows]]:
    """By source, what goes in and what is rejected: once for each whole copy, and once where there is none."""
    sources, rejected = [], []
    for i, one in enumerate(split.inputs):
        found, copies = rejected_of(split, table, i), max(taken[i].copies, 1)
        num_bad = len(found.rows)
        num_good = len(table.selected(i)) - num_bad
        sources.append(
            {
                **one.describe(),
                "rows": taken[i].copies * num_good + len(taken[i].part) + copies * num_bad,
                "rejected": {reason: number * copies for reason, number in count(found.reasons).items()},
                "truncated": 0,
                "extra_pieces": 0,
            }
        )
        rejected.append(found)
    return sources, rejected


def make_plans(split: SplitJob, pieces: Array) -> list[ShardPlan]:
    """The shards of a split, packed as asked"""
    if split.wrapped:
        return plan_wrapped(pieces, split.options.max_seq_len)
    return plan_bfd(pieces, split.options.max_seq_len, split.seed)


def write_all(split: SplitJob, plans: list[ShardPlan], staging: Path, record: BuildTimer) -> list[WrittenShard]:
    """The write pass: shards in parallel; they come back in their order"""
    dtype = token_dtype(split.tokenizer.vocab_size).str
    width = split.options.max_seq_len + 1
    writer = ShardWriter(
        tuple(split.runs), staging, f"{split.name}-{{:05d}}-of-{len(plans):05d}", width, split.tokenizer.bos_id, dtype
    )
    written: dict[int, WrittenShard] = {}
    total = sum(len(plan.pieces) for plan in plans)
    with Progress("write", total, split.options.quiet) as progress, record.measure("write") as measured:
        for plan, shard in run(write_shard, writer, plans, split.options.where, "threads"):
            written[plan.number] = shard
            num_tokens = int(shard.rows["num_tokens"].sum(dtype=np.int64))
            progress.add(len(shard.docs), num_tokens)
            num_bytes = sum(file["bytes"] for file in shard.entry["files"].values())
            measured.add(len(shard.docs), num_tokens, num_bytes=num_bytes)
    return [written[number] for number in sorted(written)]


def add_totals(source: dict[str, Any], number: int, split: SplitJob, pieces: Array, shards: list[WrittenShard]) -> None:
    """What of a source is in the split: conversations, tokens, trained tokens, and those that train nothing"""
    if split.wrapped:  # rows share tokens, so conversations are counted, not what rows hold of them
        mine = pieces[pieces["source"] == number]
        counted = [(mine["length"], trained_tokens(mine, split.runs[number]))]
    else:
        of_shards = ((shard.docs, shard.docs["source"] == number) for shard in shards)
        counted = [(docs["length"][here], docs["trainable"][here]) for docs, here in of_shards]
    source["conversations"] = sum(len(tokens) for tokens, _ in counted)
    source["total_tokens"] = sum(int(tokens.sum(dtype=np.int64)) for tokens, _ in counted)
    source["trainable_tokens"] = sum(int(trainable.sum(dtype=np.int64)) for _, trainable in counted)
    source["untrained"] = sum(int((trainable == 0).sum()) for _, trainable in counted)


def describe(
    split: SplitJob, shards: list[WrittenShard], sources: list[dict[str, Any]], total: dict[str, int], staging: Path
) -> Manifest:
    """The split's part of the manifest; writes its rows and docs"""
    width, num_docs = split.options.max_seq_len + 1, [len(shard.docs) for shard in shards]
    rows = np.concatenate([shard.rows for shard in shards])
    rows["first_doc"] += np.repeat(offsets(num_docs)[:-1].astype("u8"), [len(shard.rows) for shard in shards])
    filled = int(rows["num_tokens"].sum(dtype=np.int64))
    return {
        "rows": len(rows),
        "docs": sum(num_docs),
        **total,
        "padding_tokens": len(rows) * width - filled,
        "packing_efficiency": round(filled / (len(rows) * width), 6),
        "min_rows": -(-total["total_tokens"] // width),
        "rows_without_trainable": int((rows["num_trainable"] == 0).sum()),
        "sources": sources,
        "shards": [shard.entry for shard in shards],
        "files": {
            f"{split.name}.rows.npy": write_array(staging / f"{split.name}.rows.npy", rows),
            f"{split.name}.docs.npy": write_rows(
                staging / f"{split.name}.docs.npy", DOC, (sum(num_docs),), (shard.docs for shard in shards)
            ),
        },
    }
