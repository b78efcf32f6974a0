"""
One split of a build, decided: which conversation goes to which row of which shard, and what is left out.

    Table       a few numbers of every example              filters, overlap and duplicates exclude some
    Sample      of every entry: copies and a part           how much of it is in the split
    pieces      every conversation in the mixture's order   truncated, split or dropped where too long
    ShardPlan   rows and the pieces in them                 what prep.build.write writes

Only lengths, positions, hashes and counts are moved here, no text: `dedup` compares hashes of tokens, and one kind of
`drop_overlap` reads what users say.
"""

from dataclasses import dataclass

import numpy as np

from prep.arrays import Array, offsets
from prep.chat.choose import AnyTemplate, bos_of
from prep.chat.turn_starts import openings
from prep.conversations.conversation import REASON, REASONS
from prep.encode.decode import Decoder
from prep.mixture.mixture import MixOptions
from prep.mixture.resolve import Input
from prep.plan.filters import drop_duplicates, filter_lengths
from prep.plan.order import mixture_order
from prep.plan.overlap import drop_overlap
from prep.plan.rows import PIECE, RowOptions, ShardPlan, find_split_points, plan_rows, split_pieces
from prep.plan.sampling import Sample, sample_entries, takes_part
from prep.plan.table import RejectedExamples, Table, read_table
from prep.render.block_cache import BlockFiles, count_loss_tokens, read_block
from prep.tokenizer.tokenizer import Tokenizer

CHUNK_SIZE = 1 << 16  # conversations looked up at a time


@dataclass(frozen=True)
class SplitJob:
    """A split to be planned: its inputs, where their blocks are, and what decides its rows."""

    name: str
    inputs: list[Input]
    blocks: list[BlockFiles]
    tokenizer: Tokenizer
    template: AnyTemplate
    seed: int
    options: RowOptions
    mix: MixOptions
    held_out: "SplitJob | None" = None  # what must not be asked in this split


@dataclass(frozen=True)
class Fitted:
    """Pieces of which none is longer than a row takes, and what that changed, by entry."""

    pieces: Array  # (D,) PIECE
    truncated: Array  # (entries,) conversations
    extra_pieces: Array  # (entries,) pieces beyond the first of a conversation
    num_dropped: Array  # (entries,) pieces, copies counted
    dropped: list[RejectedExamples]  # of each entry that has some


@dataclass(frozen=True)
class PlannedCounts:
    """What the plan does with the examples of one entry."""

    num_usable: int
    sample: Sample
    rows: int  # that the entry selects, copies counted
    rejected: dict[str, int]  # by reason: once per whole copy, and once where there is none
    truncated: int
    extra_pieces: int


@dataclass(frozen=True)
class SplitPlan:
    """What is decided of a split."""

    counts: list[PlannedCounts]  # by entry
    rejected: list[RejectedExamples]  # of entries: invalid, excluded or too long
    pieces: Array  # (D,) PIECE, those of the shards
    shards: list[ShardPlan]


def plan_split(split: SplitJob, table: Table) -> SplitPlan:
    """Plan a split from the table of its examples, which is changed. ValueError where no conversation is left."""
    exclude(split, table)
    samples = draw_samples(split, table)
    pieces = order_pieces(table, samples, split.seed)
    rejected = [table.rejected(entry) for entry in range(len(split.inputs))]
    num_usable = [len(table.usable(entry)) for entry in range(len(split.inputs))]
    del table  # what is not needed any more makes room for the plans
    fitted = fit_pieces(split, pieces)
    counts = [
        count_entry(sample, number, examples, fitted, entry)
        for entry, (sample, number, examples) in enumerate(zip(samples, num_usable, rejected, strict=True))
    ]
    if not len(fitted.pieces):
        reasons = [
            f"{source.entry.label}: " + ", ".join(f"{reason} {number:,}" for reason, number in count.rejected.items())
            for source, count in zip(split.inputs, counts, strict=True)
        ]
        raise ValueError(
            f"no conversation of the {split.name} split is left ({'; '.join(reasons)}): give other rows or filters, or a "
            "larger --max-seq-len."
        )
    shards = plan_rows(fitted.pieces, split.options, split.seed, bos_of(split.template, split.tokenizer) is not None)
    return SplitPlan(counts, [*rejected, *fitted.dropped], fitted.pieces, shards)


def count_entry(
    sample: Sample, num_usable: int, rejected: RejectedExamples, fitted: Fitted, entry: int
) -> PlannedCounts:
    copies = max(sample.copies, 1)
    codes, numbers = np.unique(rejected.reasons, return_counts=True)
    by_reason = {REASONS[code]: int(number) * copies for code, number in zip(codes, numbers, strict=True)}
    if num_dropped := int(fitted.num_dropped[entry]):
        by_reason["too long"] = num_dropped
    return PlannedCounts(
        num_usable=num_usable,
        sample=sample,
        rows=sample.size + copies * len(rejected.examples),
        rejected=by_reason,
        truncated=int(fitted.truncated[entry]),
        extra_pieces=int(fitted.extra_pieces[entry]),
    )


def exclude(split: SplitJob, table: Table) -> None:
    """Exclude from the table what the mixture does not want."""
    filter_lengths(table)
    if split.held_out:
        held_out = read_table(split.held_out.inputs, split.held_out.blocks)
        decoder = Decoder(split.tokenizer, split.template) if split.mix.drop_overlap == "13-gram" else None
        drop_overlap(table, held_out, decoder)
    if split.mix.dedup is not None:
        drop_duplicates(table)


# ---- how much of each entry ----


def draw_samples(split: SplitJob, table: Table) -> list[Sample]:
    """How much of each entry is in the split, measured in what a row would take of each conversation"""
    entries = [source.entry for source in split.inputs]
    if any(takes_part(entry) for entry in entries):
        for number in range(len(entries)):  # what is dropped later cannot be chosen
            if excess_strategy(split, number) != "drop":
                continue
            places = table.places(number)
            tokens = np.minimum(table.tokens[places], split.options.token_limit or np.iinfo(np.uint32).max)
            table.exclude(places[tokens > split.options.max_seq_len], "too long")
    usable = [table.usable(number) for number in range(len(entries))]
    weights = [np.broadcast_to(np.int64(1), len(positions)) for positions in usable]
    if split.mix.by != "conversations" and any(entry.proportion is not None for entry in entries):
        weights = [measure(split, table, number) for number in range(len(entries))]
    return sample_entries(entries, usable, weights, split.mix, split.seed)


def is_whole_text(split: SplitJob, entry: int) -> bool:
    """Whether an entry is text whose documents are cut into rows, however long they are"""
    source = split.inputs[entry]
    return source.task.label == "text" and source.entry.excess in (None, "split")


def excess_strategy(split: SplitJob, entry: int) -> str:
    """What becomes of an entry's conversations that are too long for a row; text has a say of its own"""
    if split.options.wrapped:
        return ""
    if split.inputs[entry].task.label == "text":
        return split.inputs[entry].entry.excess or "split"
    return split.options.excess_length_strategy


def measure(split: SplitJob, table: Table, entry: int) -> Array:
    """(u,) tokens, or loss tokens, that each usable example of an entry has when it is truncated to what fits"""
    options, places = split.options, table.usable_places(entry)
    fits = np.iinfo(np.uint32).max
    if not options.wrapped and excess_strategy(split, entry) == "truncate":
        fits = options.max_seq_len
    pieces = np.zeros(len(places), dtype=PIECE)
    pieces["index"] = table.examples[places]
    limit = fits if is_whole_text(split, entry) else min(options.token_limit or fits, fits)
    pieces["length"] = np.minimum(table.tokens[places], limit)
    return piece_loss_tokens(pieces, table.blocks[entry]) if split.mix.by == "trained_tokens" else pieces["length"]


def piece_loss_tokens(pieces: Array, files: BlockFiles) -> Array:
    """(D,) loss tokens of the pieces of one source, each the start of a conversation; reads the mask of truncated ones"""
    counts = np.zeros(len(pieces), dtype=np.uint32)
    for number, here in files.by_block(pieces["index"].astype(np.int64)):
        block = read_block(files.paths[number])
        rows = pieces["index"][here].astype(np.int64) - files.starts[number]
        first = offsets(block.lengths)[rows]
        counts[here] = count_loss_tokens(block, rows, first, pieces["length"][here].astype(np.int64))
    return counts


# ---- from samples to pieces ----


def order_pieces(table: Table, samples: list[Sample], seed: int) -> Array:
    """The usable conversations in the mixture's order, as pieces (D,) PIECE of one whole conversation each"""
    copies, parts = [sample.copies for sample in samples], [sample.part for sample in samples]
    order = mixture_order(np.diff(table.bounds).tolist(), copies, seed, parts)
    pieces = np.zeros(len(order), dtype=PIECE)
    for start in range(0, len(order), CHUNK_SIZE):
        here = slice(start, start + CHUNK_SIZE)
        ordered = order[here]
        place = table.bounds[ordered.entry] + ordered.position
        pieces["source"][here] = ordered.entry
        pieces["repeat"][here] = ordered.repeat
        pieces["index"][here] = table.examples[place]
        pieces["length"][here] = np.where(table.reasons[place] == 0, table.tokens[place], 0)
    used = pieces["length"] > 0
    return pieces if used.all() else pieces[used]


def fit_pieces(split: SplitJob, pieces: Array) -> Fitted:
    """Make what is too long fit, as the options say: truncated (in place), split or dropped. ValueError for "raise"."""
    options, num_entries = split.options, len(split.inputs)
    nothing = np.zeros(num_entries, dtype=np.int64)
    strategies = np.array([excess_strategy(split, entry) for entry in range(num_entries)])
    limited = np.array([not is_whole_text(split, entry) for entry in range(num_entries)])
    truncated = truncate(pieces, options.token_limit, limited)
    too_long = np.flatnonzero(pieces["length"] > options.max_seq_len)
    if options.wrapped or not len(too_long):
        return Fitted(pieces, truncated, nothing, nothing, [])
    truncated += truncate(pieces, options.max_seq_len, strategies == "truncate")
    strategy = strategies[pieces["source"][too_long]]  # of each
    check_too_long(split, pieces[too_long[strategy == "raise"]])
    dropped = too_long[strategy == "drop"]
    num_dropped = np.bincount(pieces["source"][dropped], minlength=num_entries)
    rejected = reject_pieces(split, pieces[dropped])
    extra = nothing
    if len(to_split := too_long[strategy == "split"]):
        message_starts = sorted({opening.ids[0] for opening in openings(split.template, split.tokenizer)})
        points = find_split_points(pieces, to_split, split.blocks, message_starts, options.max_seq_len)
        num_extra = [len(starts) - 1 for starts in points.values()]
        extra = np.bincount(pieces["source"][list(points)], weights=num_extra, minlength=num_entries).astype(np.int64)
        pieces["length"][dropped] = 0
        pieces = split_pieces(pieces, points)
        dropped = np.flatnonzero(pieces["length"] == 0)
    fitted = np.delete(pieces, dropped) if len(dropped) else pieces
    return Fitted(fitted, truncated, extra, num_dropped, rejected)


def check_too_long(split: SplitJob, pieces: Array) -> None:
    """ValueError for "raise", if there is such a piece"""
    if not len(pieces):
        return
    first = pieces[0]
    raise ValueError(
        f"row {first['index']} of {split.inputs[first['source']].entry.label} has {first['length']:,} tokens, "
        f"max_seq_len is {split.options.max_seq_len:,} ({len(pieces):,} are too long): choose another "
        "--excess-length-strategy."
    )


def truncate(pieces: Array, limit: int | None, entries: Array) -> Array:
    """
    Truncate pieces of `entries` (entries,) bool to `limit` tokens, in place, None for no limit -> (entries,) how many of each
    were longer
    """
    longer = pieces["length"] > (np.iinfo(np.uint32).max if limit is None else limit)
    longer &= entries[pieces["source"]]
    if limit is not None:
        pieces["length"][longer] = limit
    return np.bincount(pieces["source"][longer], minlength=len(entries))


def reject_pieces(split: SplitJob, pieces: Array) -> list[RejectedExamples]:
    """Pieces as examples that are too long, each once, by entry"""
    rejected = []
    for number in np.unique(pieces["source"]).tolist():
        rows = np.unique(pieces["index"][pieces["source"] == number]).astype(np.int64)
        reasons = np.full(len(rows), REASON["too long"], dtype=np.uint8)
        rejected.append(RejectedExamples(split.inputs[number], rows, reasons))
    return rejected
