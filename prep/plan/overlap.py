"""
Does the training split ask what val, or a benchmark, asks? At every build the cheap answer, on request the full one.

    at build     counts val conversations whose hash of what the user says (render.text_hash), kept in the runs, is that of a
                 training conversation too; costs a look-up
    full         prep.plan.grams over the decoded shards: runs of 13 words as well, for val and for files and tasks given
    drop         [mix] drop_overlap = "exact" or "13-gram": training conversations that hold so much of a val one are
                 left out, counted as "asked in val"

Only what users say is compared: two conversations may have the same answer and ask something else. What midprep generates
has no hashes (its rows for training and for val differ by construction); the full look and "13-gram" compare it, too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array, offsets
from prep.encode.decode import Decoder
from prep.plan.filters import mark
from prep.plan.grams import HeldOut
from prep.plan.table import Table
from prep.render.block_cache import BlockFiles, read_block
from prep.tokenizer.tokenizer import Tokenizer

REASON = "asked in val"
THRESHOLD = 0.5  # of the runs of 13 words of a held-out text: what holds so much of it is a copy


def asked_by(files: BlockFiles, rows: Array) -> Array:
    """(n,) row numbers of a source, ascending -> (n,) hashes of what the user says in each"""
    cuts = np.searchsorted(rows, files.starts)
    hashes = [
        read_block(files.paths[block]).asked[rows[cuts[block] : cuts[block + 1]] - files.starts[block]]
        for block in np.flatnonzero(np.diff(cuts))
    ]
    return np.concatenate([*hashes, np.zeros(0, dtype=np.uint64)])


def exact_overlap(folder: Path, runs: dict[str, list[BlockFiles]], splits: dict[str, dict[str, Any]]) -> None:
    """Write into each val source's part of the manifest how many of its conversations training asks, too."""
    rows = {}
    for split in ("train", "val"):
        docs = np.load(folder / f"{split}.docs.npy", mmap_mode="r")
        source, index = docs["source"], docs["index"].astype(np.int64)
        mine = [np.sort(index[source == i]) for i in range(len(runs[split]))]
        rows[split] = [some[np.diff(some, prepend=-1) > 0] for some in mine]  # each row once
    hashes = {
        split: [asked_by(files, some) for files, some in zip(runs[split], rows[split], strict=True)] for split in runs
    }
    held = np.sort(np.concatenate(hashes["val"]))  # the smaller side: training's are looked up in it
    is_asked = np.zeros(len(held), dtype=bool)
    for some in hashes["train"]:
        place = np.minimum(np.searchsorted(held, some), len(held) - 1)
        is_asked[place[held[place] == some]] = True
    trained = held[is_asked]
    for source_entry, some in zip(splits["val"]["sources"], hashes["val"], strict=True):
        found = int((np.isin(some, trained) & (some != 0)).sum())
        if some.any():  # what is generated has no hashes: nothing was compared, so nothing is said
            source_entry["overlap"] = {"asked_in_train": found, "of": len(some)}


def drop_overlap(
    table: Table, runs: list[BlockFiles], held: Table, held_runs: list[BlockFiles], tokenizer: Tokenizer | None
) -> None:
    """Mark training conversations that ask what a valid one of val asks; by runs of 13 words, too, with a tokenizer."""
    held_rows = [np.sort(held.selected(i)[held.usable(i)]) for i in range(len(held_runs))]
    if tokenizer is None:
        known = np.concatenate([asked_by(files, rows) for files, rows in zip(held_runs, held_rows, strict=True)])
        known = known[known != 0]
    else:
        decoder = Decoder(tokenizer)
        texts = [
            text
            for files, rows in zip(held_runs, held_rows, strict=True)
            for _, some in texts_of_runs(files, rows, decoder)
            for text in some
        ]
        held_out = HeldOut(texts)
    for i, files in enumerate(runs):
        rows = np.sort(table.selected(i)[table.usable(i)])
        if tokenizer is None:
            hits = rows[np.isin(asked_by(files, rows), known)]
        else:
            found = [some[held_out.match(texts) >= THRESHOLD] for some, texts in texts_of_runs(files, rows, decoder)]
            hits = np.concatenate([*found, rows[:0]])
        mark(table, table.start[i] + hits, REASON)


def texts_of_runs(files: BlockFiles, rows: Array, decoder: Decoder) -> Iterator[tuple[Array, list[bytes]]]:
    """Row numbers of a source, ascending -> (some of them, what the user says in each), a run at a time"""
    cuts = np.searchsorted(rows, files.starts)
    for block in np.flatnonzero(np.diff(cuts)):
        run, some = read_block(files.paths[block]), rows[cuts[block] : cuts[block + 1]]
        texts = decoder.user_texts(run.tokens, offsets(run.lengths)[:-1])
        yield some, [texts[row] for row in (some - files.starts[block]).tolist()]
