"""How well rows are packed, how fast, and how well steps of them mix: parts of the table of `build.py`."""

import time
from collections import defaultdict
from typing import Any

import numpy as np

from bench.harness import Bench
from prep.arrays import Array
from prep.plan.ordered import pack_in_order
from prep.plan.packing import pack
from prep.shard import open_shards
from prep.shard.mixing import Mixing, measure_mixing


def measure_packing(bench: Bench, sizes: list[int]) -> None:
    """Lengths like those of chats into rows"""
    rng = np.random.default_rng(0)
    for num in sizes:
        for width in (2049, 513):
            lengths = np.clip(rng.lognormal(5.5, 1.1, num).astype(np.int64), 8, width - 1)
            bound = -(-int(lengths.sum()) // width)
            alone = lengths > width - lengths.min()  # nothing fits beside them, whoever packs
            lost = int((width - lengths[alone]).sum()) / int(lengths.sum())
            for name in ("ordered", "bfd"):
                start = time.process_time()
                rows = len(pack_in_order(lengths, width)[1]) if name == "ordered" else pack(lengths, width)[1]
                bench.add(
                    f"{name}: {num:,} lengths into rows of {width:,}",
                    f"{time.process_time() - start:.2f} s",
                    f"bound + {rows / bound - 1:.4%}, of which {lost:.4%} no packing can avoid",
                )


def measure_steps(bench: Bench) -> None:
    """How well steps mix: conversations of the mixture in five random orders, as one stream and packed"""
    bench.build(bench.mixture, "--packing", "ordered", keep="steps")
    docs = np.asarray(open_shards(bench.folder / "steps").split("train").docs)
    for width in (2049, 513):
        lengths, figures = np.minimum(docs["length"], width - 1).astype(np.int64), defaultdict[str, list[Any]](list)
        for seed in range(5):
            order = np.random.default_rng(seed).permutation(len(docs))
            for name, (rows, packed) in lay_out(lengths[order], width, seed).items():
                figures[f"{name} rows"].append(int(rows.max()) + 1)
                places = order[packed]
                figures[f"{name} copies"].append(copies_in_a_row(rows, docs[places]))
                for rows_per_step in (16, 64, 256):
                    found = mixing_of(rows, lengths[places], docs["source"][places], rows_per_step)
                    figures[f"{name} {rows_per_step}"].append(found)
        bound = -(-int(lengths.sum()) // width)
        for name in ("ordered", "bfd"):
            more = float(np.mean(figures[f"{name} rows"])) / bound - 1
            copies = "; ".join(f"{np.mean(figures[f'{which} copies']):.1f}" for which in (name, "stream"))
            bench.add(
                f"{name}, rows of {width:,}: rows over the bound",
                f"{more:.4%}",
                f"copies in a row, in the stream: {copies}",
            )
            for rows_per_step in (16, 64, 256):
                pairs = zip(figures[f"{name} {rows_per_step}"], figures[f"stream {rows_per_step}"], strict=True)
                pairs = [(found, stream) for found, stream in pairs if found is not None and stream is not None]
                if not pairs:
                    continue
                large = pairs[0][0].share > 0.02
                ratio = np.mean([found.deviation[large] / stream.deviation[large] for found, stream in pairs], axis=0)
                bench.add(
                    f"{name}: deviation over the stream's, steps of {rows_per_step} rows",
                    f"{ratio.min():.2f} to {ratio.max():.2f}",
                    f"at most 1.1; figure {np.mean([found.figure for found, _ in pairs]):.2f}",
                )


def lay_out(lengths: Array, width: int, seed: int) -> dict[str, tuple[Array, Array]]:
    """(D,) lengths -> by layout, the row of each document and the documents' places, both in the order of the rows"""
    order, docs_per_row = pack_in_order(lengths, width)
    by_length, num_rows = pack(lengths, width)
    by_length = np.random.default_rng(seed).permutation(num_rows)[by_length]
    return {
        "stream": ((np.cumsum(lengths) - 1) // width, np.arange(len(lengths))),
        "ordered": (np.repeat(np.arange(len(docs_per_row)), docs_per_row), order),
        "bfd": (np.sort(by_length), np.argsort(by_length, kind="stable")),
    }


def mixing_of(rows: Array, lengths: Array, sources: Array, rows_per_step: int) -> Mixing | None:
    num_steps, num_sources = (int(rows[-1]) + 1) // rows_per_step, int(sources.max()) + 1
    tokens = np.zeros((num_steps + 1, num_sources))
    np.add.at(tokens, (np.minimum(rows // rows_per_step, num_steps), sources), lengths)
    squares = np.bincount(sources, weights=lengths.astype(float) ** 2, minlength=num_sources)
    return measure_mixing(tokens, squares, rows_per_step)


def copies_in_a_row(rows: Array, docs: Array) -> int:
    """Documents whose row has another copy of them"""
    conversation = docs["source"].astype(np.int64) << 40 | docs["index"].astype(np.int64)
    order = np.lexsort((rows, conversation))
    same = (np.diff(conversation[order]) == 0) & (np.diff(rows[order]) == 0)
    return int(same.sum())
