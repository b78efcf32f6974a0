"""
Conversations that are longer than a row: cut, split, dropped, or the end of the build, as asked.

    max_seq_len 6     tokens  <|bos|> u u u a a a a u u
    truncate          <|bos|> u u u a a                               as nanochat does
    split             <|bos|> u u u | <|bos|> a a a a | <|bos|> u u   at message starts where they are in reach
    drop              counted as rejected, listed in rejected.jsonl

Only lengths are looked at, but for `split`, which looks for the message starts of the conversations that it cuts.
"""

from typing import Any

import numpy as np

from prep.arrays import Array, offsets
from prep.build.options import BuildOptions
from prep.build.rejected import RejectedRows
from prep.conversations.conversation import REASON
from prep.mixture.resolve import Input
from prep.plan.rows import split_pieces, split_points
from prep.render.block_cache import BlockFiles, read_block, trained_in
from prep.tokenizer.tokenizer import Tokenizer


def handle_excess(
    split: str, pieces: Array, inputs: list[Input], runs: list[BlockFiles], tokenizer: Tokenizer, options: BuildOptions,
    sources: list[dict[str, Any]],
) -> tuple[Array, list[RejectedRows]]:  # fmt: skip
    """Pieces (D,) PIECE with none longer than max_seq_len; counts what it did in `sources`, returns the rows dropped."""
    long = np.flatnonzero(pieces["length"] > options.max_seq_len)
    if not len(long):
        return pieces, []
    by_source = np.bincount(pieces["source"][long], minlength=len(inputs))
    if options.excess_length_strategy == "raise":
        first = pieces[long[0]]
        raise ValueError(
            f"row {first['index']} of {inputs[first['source']].entry.label} has {first['length']:,} tokens, max_seq_len is "
            f"{options.max_seq_len:,} ({len(long):,} are too long): choose another --excess-length-strategy."
        )
    if options.excess_length_strategy == "drop":
        return np.delete(pieces, long), _drop(split, pieces[long], inputs, sources, by_source)
    if options.excess_length_strategy == "truncate":
        cut_conversations(pieces, options.max_seq_len, sources)
        return pieces, []
    points = _split(pieces, long, runs, tokenizer, options.max_seq_len)
    for place, cuts in points.items():
        sources[pieces["source"][place]]["extra_pieces"] += len(cuts) - 1
    return split_pieces(pieces, points), []


def cut_conversations(pieces: Array, limit: int | None, sources: list[dict[str, Any]]) -> None:
    """Cut to the first `limit` tokens, in place, counted in `sources`; None cuts nothing."""
    if limit is not None:
        long = pieces["length"] > limit
        for source, number in zip(sources, np.bincount(pieces["source"][long], minlength=len(sources)), strict=True):
            source["truncated"] += int(number)
        pieces["length"][long] = limit


def trained_tokens(pieces: Array, files: BlockFiles) -> Array:
    """(D,) trained tokens of the pieces of one source, each the start of a conversation; reads the mask of those cut"""
    out = np.zeros(len(pieces), dtype=np.uint32)
    for block, here in files.by_block(pieces["index"].astype(np.int64)):
        run = read_block(files.paths[block])
        rows = pieces["index"][here].astype(np.int64) - files.starts[block]
        out[here] = trained_in(run, rows, offsets(run.lengths)[rows], pieces["length"][here].astype(np.int64))
    return out


def _drop(
    split: str, long: Array, inputs: list[Input], sources: list[dict[str, Any]], by_source: Array
) -> list[RejectedRows]:
    dropped = []
    for number in np.flatnonzero(by_source):
        sources[number]["rejected"]["too long"] = int(by_source[number])
        rows = np.unique(long["index"][long["source"] == number]).astype(np.int64)
        dropped.append(
            RejectedRows(split, inputs[number], rows, np.full(len(rows), REASON["too long"], dtype=np.uint8))
        )
    return dropped


def _split(
    pieces: Array, long: Array, runs: list[BlockFiles], tokenizer: Tokenizer, max_seq_len: int
) -> dict[int, list[int]]:
    """{place of a piece: where to cut it} for the pieces that are too long"""
    names = [tokenizer.special_tokens[name] for name in ("<|user_start|>", "<|assistant_start|>")]
    points = {}
    for source, files in enumerate(runs):
        mine = long[pieces["source"][long] == source]
        for block, found in files.by_block(pieces["index"][mine].astype(np.int64)):
            run, here = read_block(files.paths[block]), mine[found]
            first = offsets(run.lengths)[pieces["index"][here].astype(np.int64) - files.starts[block]]
            # text never encodes to a special token, so these are the message starts and nothing else
            starts = np.flatnonzero(np.isin(run.tokens, names))
            for place, a, b in zip(here.tolist(), first, first + pieces["length"][here], strict=True):
                inside = starts[np.searchsorted(starts, a) : np.searchsorted(starts, b)] - a
                points[place] = split_points(int(b - a), inside, max_seq_len)
    return points
