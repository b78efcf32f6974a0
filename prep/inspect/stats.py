"""
What is in a build: counts, shares, lengths and packing, by source. No token is read.

    train             conversations           tokens      loss tokens
    gsm8k              7,473   2.5%   1.47M     5.9%   0.83M     4.6%

    tokens of each    mean  median  p99  max  truncated  rejected
    gsm8k              197     186  403  613          0         0

Every line fits 80 columns.

Shares stand beside each other because they differ: MMLU has two loss tokens per conversation, SmolTalk hundreds.
"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prep.arrays import Array
from prep.conversations.conversation import WANTED
from prep.inspect.terminal import make_console, make_table
from prep.shard import COUNTS, Split, listed_files, open_shards
from prep.shard.mixing import mixing
from prep.shard.steps import REFERENCE_BATCH, default_rows_per_step
from prep.text import bars, short, size, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MEASURES = {"conversations": "conversations", "total_tokens": "tokens", "trainable_tokens": "loss tokens"}
NOTES = ("culprits", "left_aside", "empty_answers", "untrained_answers")  # of a source, where there are any
UNEVEN = 3.0
TABLE_WIDTH = 80  # of every line that is printed; a narrower terminal wraps them
NAME_WIDTH = 18  # of a source in tables: a longer name goes on in the next line
LENGTHS = ("mean", "median", "p99", "max")


# ---- numbers ----


def read_stats(root: Path) -> dict[str, Any]:
    """Statistics of a finished build as plain values: {"root", "name", ..., "splits": {name: {..., "sources": [...]}}}"""
    shards = open_shards(root)
    manifest = shards.manifest
    return {
        "root": str(root),
        "name": manifest["mixture"]["name"],
        **{key: manifest[key] for key in ("max_seq_len", "packing_strategy", "excess_length_strategy", "seed")},
        "tokenizer": manifest["tokenizer"]["name"],
        "vocab_size": manifest["vocab_size"],
        "chat_template": manifest.get("chat_template", {"name": "nanochat", "mask": "format"}),
        "fingerprint": manifest["fingerprint"],
        "bytes": sum(entry["bytes"] for entry in listed_files(manifest).values()),
        "splits": {name: split_stats(split) for name, split in shards.splits.items()},
    }


def split_stats(split: Split) -> dict[str, Any]:
    entry = split.entry
    files = [*entry["files"].values(), *(file for shard in entry["shards"] for file in shard["files"].values())]
    num_bytes = sum(file["bytes"] for file in files)
    own_batch = default_rows_per_step(entry["rows"], split.max_seq_len) * split.max_seq_len
    sources = zip(entry["sources"], length_stats(split), strict=True)
    return {
        **{key: entry[key] for key in ("rows", "docs", "padding_tokens", "packing_efficiency", "min_rows", *COUNTS)},
        "rows_over_bound": entry["rows"] - entry["min_rows"],
        "rows_without_trainable": entry["rows_without_trainable"],
        "packing_factor": round(entry["docs"] / entry["rows"], 2),
        "bytes": num_bytes,
        "bytes_per_token": round(num_bytes / (entry["rows"] * (split.max_seq_len + 1)), 4),
        "steps": {
            str(batch): num_steps(entry["rows"], batch, split.max_seq_len) for batch in (REFERENCE_BATCH, own_batch)
        },
        "mixing": mixing_stats(split),
        "sources": [source_stats(source, entry, lengths) for source, lengths in sources],
        "histogram": histogram(split),
    }


def source_stats(source: dict[str, Any], whole: dict[str, Any], lengths: dict[str, float]) -> dict[str, Any]:
    """What the manifest says of a source, and its shares of the whole split"""
    keys = ("name", "task", "repeat", "rows", *COUNTS, "truncated", "extra_pieces", "untrained")
    return {
        **{key: source[key] for key in keys},
        "rejected": num_rejected(source),
        "rejected_by_reason": source["rejected"],
        **{key: source[key] for key in ("share", "not_chosen", "overlap", *NOTES) if key in source},
        "shares": {key: round(source[key] / whole[key], 6) if whole[key] else 0.0 for key in COUNTS},
        "lengths": lengths,
    }


def mixing_stats(split: Split) -> dict[str, Any] | None:
    """How well steps mix the sources (prep.shard.mixing); None where there is too little to tell"""
    if (measured := mixing(split)) is None:
        return None
    return {
        "figure": round(measured.figure, 4),
        "rows_per_step": measured.rows_per_step,
        "steps": measured.num_steps,
        "deviation": [round(value, 6) for value in measured.deviation.tolist()],
        "ideal": [round(value, 6) for value in measured.ideal.tolist()],
    }


def num_rejected(source: dict[str, Any]) -> int:
    """Rows of a source in which something is wrong; those that `where` left out are not among them"""
    return sum(number for reason, number in source["rejected"].items() if reason not in WANTED)


def num_steps(rows: int, total_batch_size: int, max_seq_len: int) -> int | None:
    """Steps per epoch; None where a step does not hold whole rows"""
    return None if total_batch_size % max_seq_len else -(-rows * max_seq_len // total_batch_size)


def length_stats(split: Split) -> list[dict[str, float]]:
    """Tokens per document of each source: mean, median, p99 and max"""
    import polars as pl

    docs = pl.DataFrame({"source": split.docs["source"], "length": split.docs["length"]})
    length = pl.col("length")
    table = docs.group_by("source").agg(
        mean=length.mean().round(1),
        median=length.median(),
        p99=length.quantile(0.99, "higher"),
        max=length.max(),
    )
    by_source = {row.pop("source"): row for row in table.to_dicts()}
    empty = {"mean": 0.0, "median": 0.0, "p99": 0.0, "max": 0}
    return [by_source.get(number, empty) for number in range(len(split.entry["sources"]))]


def log_edges(most: int, per_octave: int) -> Array:
    """
    Edges of bins that grow by a fraction of an octave, up to over `most`.

    >>> log_edges(20, 2).tolist()
    [1, 2, 3, 4, 6, 8, 11, 16, 23]
    """
    num = int(np.ceil(np.log2(most + 1) * per_octave)) + 1
    edges = np.unique(np.rint(2 ** (np.arange(num + 1) / per_octave)).astype(np.int64))
    return edges[: int(np.searchsorted(edges, most, side="right")) + 1]


def histogram(split: Split, per_octave: int = 2) -> dict[str, Any]:
    """
    {"edges": (B + 1), "sources": [(B,) documents of each source by their tokens], "shortest", "longest"}: edges[b] <= tokens <
    edges[b + 1], without the empty bins at both ends
    """
    width, num_sources = split.max_seq_len + 2, len(split.entry["sources"])
    key = split.docs["source"].astype(np.int64) * width + split.docs["length"]
    counts = np.bincount(key, minlength=num_sources * width).reshape(num_sources, width)[:, 1:]  # by length, from 1
    edges = log_edges(width - 1, per_octave)
    binned = np.add.reduceat(counts, edges[:-1] - 1, axis=1)
    used, lengths = np.flatnonzero(binned.sum(axis=0)), np.flatnonzero(counts.sum(axis=0)) + 1
    return {
        "edges": edges[used[0] : used[-1] + 2].tolist(),
        "sources": binned[:, used[0] : used[-1] + 1].tolist(),
        "shortest": int(lengths[0]),
        "longest": int(lengths[-1]),
    }


def is_uneven(source: dict[str, Any]) -> bool:
    """Whether a source's shares of conversations, tokens and loss tokens differ by more than a factor of UNEVEN"""
    shares = [source["shares"][key] for key in MEASURES]
    return bool(max(shares) > UNEVEN * min(shares))


# ---- text ----


def print_stats(stats: dict[str, Any], by_length: bool = False) -> None:
    """The statistics as tables, on stdout; `by_length`: also how long the conversations of each source are"""
    from rich.text import Text

    console = make_console(TABLE_WIDTH)
    console.print(Text(visible(stats["name"]), "bold"))
    packing = f"{stats['packing_strategy']}, max_seq_len {stats['max_seq_len']:,}, {stats['excess_length_strategy']}"
    template = stats["chat_template"]
    tokenizer = f"tokenizer {stats['tokenizer']} ({stats['vocab_size']:,} ids)"
    tokenizer += f", chat format {template['name']}, mask {template['mask']}" if template["name"] != "nanochat" else ""
    print_lines(console, [f"{packing}; {size(stats['bytes'])} on disk", tokenizer, ""])
    for name, split in stats["splits"].items():
        console.print(_counts_table(name, split))
        console.print()
        console.print(_lengths_table(split))
        lengths = [*length_lines(split), ""] if by_length else []
        print_lines(console, ["", *_split_lines(split), "", *lengths])


def print_lines(console: "Console", lines: list[str], indent: str = "  ") -> None:
    """Lines of text, indented; one that is too long goes on in the next"""
    for line in lines:
        console.print(textwrap.fill(line, TABLE_WIDTH, initial_indent=indent, subsequent_indent="    ") if line else "")


def _label(source: dict[str, Any]) -> str:
    return visible(source["name"]) + (f" x{source['repeat']:.4g}" if source["repeat"] != 1 else "")


def _counts_table(name: str, split: dict[str, Any]) -> "Table":
    from rich.text import Text

    table = make_table(
        name, *(column for measure in MEASURES.values() for column in (measure, "")), name_width=NAME_WIDTH
    )
    for source in split["sources"]:
        table.add_row(_label(source), *_with_shares(source, source["shares"]))
    table.add_row(Text("all", "bold"), *_with_shares(split, {key: float(split[key] > 0) for key in COUNTS}))
    return table


def _lengths_table(split: dict[str, Any]) -> "Table":
    table = make_table("tokens of each", *LENGTHS, "truncated", "rejected", name_width=NAME_WIDTH)
    for source in split["sources"]:
        lengths = (f"{source['lengths'][key]:,.0f}" for key in LENGTHS)
        truncated = source["truncated"] + source["extra_pieces"]
        table.add_row(_label(source), *lengths, f"{truncated:,}", f"{source['rejected']:,}")
    return table


def _with_shares(counts: dict[str, Any], shares: dict[str, float]) -> list[str]:
    return [text for key in COUNTS for text in (short(counts[key]), f"{shares[key]:.1%}")]


def _split_lines(split: dict[str, Any]) -> list[str]:
    steps = ", ".join(f"{number:,} of {int(batch):,} tokens" for batch, number in split["steps"].items() if number)
    lengths = split["histogram"]
    totals = np.sum(lengths["sources"], axis=0)
    lines = [
        f"{split['rows']:,} rows, packing efficiency {split['packing_efficiency']:.2%}, {split['padding_tokens']:,} tokens of "
        "padding",
        f"{split['rows_over_bound']:,} rows more than the least possible {split['min_rows']:,}",
        f"{size(split['bytes'])}, {split['bytes_per_token']:.3f} bytes per token",
        f"steps per epoch: {steps}",
        f"lengths {bars(totals / totals.max())} {lengths['shortest']:,} to {lengths['longest']:,} tokens "
        "(--lengths: by source)",
        *mixing_lines(split),
        *uneven_lines(split),
        *share_lines(split),
        *overlap_lines(split),
    ]
    if split["rows_without_trainable"]:
        lines.append(f"{split['rows_without_trainable']:,} rows have no loss tokens: SFT skips them")
    return [*lines, *note_lines(split)]


def note_lines(split: dict[str, Any]) -> list[str]:
    """What each source rejected and why, what it left aside, how many answers are empty"""
    lines = []
    for source in split["sources"]:
        name, culprits = visible(source["name"]), source.get("culprits", {})
        by_reason = source["rejected_by_reason"].items()
        wanted = [f"{number:,} {reason}" for reason, number in by_reason if reason in WANTED]
        reasons = [
            f"{number:,} {reason}" + (f" ({visible(culprits[reason])})" if reason in culprits else "")
            for reason, number in by_reason
            if reason not in WANTED
        ]
        lines += [f"{name}: {', '.join(wanted)}"] if wanted else []
        lines += [f"{name}: rejected {', '.join(reasons)}; rejected.jsonl has them"] if reasons else []
        if aside := source.get("left_aside"):
            fields = ", ".join(f"{visible(field)} ({number:,} rows)" for field, number in aside.items())
            lines.append(f"{name}: leaves aside {fields}")
        if empty := source.get("empty_answers"):
            lines.append(f"{name}: {empty:,} empty answers, which train the assistant's end alone")
        if untrained := source.get("untrained_answers"):
            lines.append(f"{name}: {untrained:,} answers are context, as their rows say")
    return lines


def length_lines(split: dict[str, Any]) -> list[str]:
    """
    A line of bars for each source, over an axis of tokens:

        lengths          16         64        256
        simple_spelling    █▂▁
    """
    edges, names = split["histogram"]["edges"][:-1], [visible(source["name"]) for source in split["sources"]]
    width = max(map(len, [*names, "lengths"])) + 2
    axis = ""
    for position, edge in enumerate(edges):
        if edge & (edge - 1) == 0 and position >= len(axis):
            axis = axis.ljust(position) + f"{edge:,} "
    lines = [f"{'lengths':<{width}}{axis.rstrip()}"]
    for name, counts in zip(names, split["histogram"]["sources"], strict=True):
        heights = np.array(counts) / max(*counts, 1)
        lines.append(f"{name:<{width}}{bars(heights).rstrip()}")
    return lines


def mixing_lines(split: dict[str, Any]) -> list[str]:
    if not (mixed := split["mixing"]):
        return []
    return [f"mixing {mixed['figure']:.2f} over steps of {mixed['rows_per_step']:,} rows (1 is an ideal shuffle)"]


def uneven_lines(split: dict[str, Any]) -> list[str]:
    lines = []
    for source in filter(is_uneven, split["sources"]):
        shares = ", ".join(f"{source['shares'][key]:.1%} of {measure}" for key, measure in MEASURES.items())
        lines.append(f"{visible(source['name'])}: {shares}: more than {UNEVEN:.0f}x apart")
    return lines


def share_lines(split: dict[str, Any]) -> list[str]:
    """The share that each source asked for, and what it got"""
    lines = []
    for source in split["sources"]:
        if share := source.get("share"):
            kind, requested, got = share["of"], share["asked"], share["got"]
            if kind in ("choose", "repeat"):
                text = f"{kind} {requested:,}, got {got:,}"
            else:
                of_tokens = "loss tokens" if kind == "trained_tokens" else kind.replace("_", " ")
                text = f"asked {requested:.2%} of {of_tokens}, got {got:.2%}"
            copies = f" ({source['repeat']:.4g} copies" + (", its max_repeats)" if share.get("limited") else ")")
            left = f", {source['not_chosen']:,} not chosen" if source["not_chosen"] else ""
            lines.append(f"{visible(source['name'])}: {text}{copies}{left}")
    return lines


def overlap_lines(split: dict[str, Any]) -> list[str]:
    """Sources of val whose conversations also occur in train"""
    lines = []
    for source in split["sources"]:
        if (overlap := source.get("overlap")) and overlap["asked_in_train"]:
            copies = f"{overlap['asked_in_train']:,} of {overlap['of']:,} are also asked in train"
            lines.append(f"{visible(source['name'])}: {copies} (midprep overlap)")
    return lines
