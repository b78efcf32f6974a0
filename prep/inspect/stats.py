"""
What is in a build: counts, shares, lengths and fill, by source. Sums are polars' over the mapped arrays; no token is read.

    source      conversations  share  tokens  share  trained  share    mean  median  p99   max  cut  rejected
    gsm8k               7,473   2.5%   1.47M   5.9%    0.83M   4.6%     197     186  403   613    0         0

Shares stand beside each other because they differ: MMLU trains two tokens a conversation, SmolTalk hundreds.
"""

import json
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.inspect.stats_lengths import all_lengths_line, histogram, length_lines, uneven_lines
from prep.shard import COUNTS, Manifest, Split, listed_files, open_shards, read_manifest
from prep.shard.steps import REFERENCE_BATCH, default_rows_per_step
from prep.text import short, size

if TYPE_CHECKING:
    from rich.console import Console

    from prep.build.job import Job


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
        "fingerprint": manifest["fingerprint"],
        "bytes": sum(entry["bytes"] for entry in listed_files(manifest).values()),
        "splits": {name: split_stats(split) for name, split in shards.splits.items()},
    }


def split_stats(split: Split) -> dict[str, Any]:
    entry, width = split.entry, split.max_seq_len + 1
    files = entry["files"] | {name: file for shard in entry["shards"] for name, file in shard["files"].items()}
    lengths = length_stats(split)
    own_batch = default_rows_per_step(entry["rows"], split.max_seq_len) * split.max_seq_len
    total = {key: entry[key] for key in COUNTS}
    return {
        **{key: entry[key] for key in ("rows", "docs", "padding_tokens", "packing_efficiency", "min_rows")},
        **total,
        "rows_over_bound": entry["rows"] - entry["min_rows"],
        "rows_without_trainable": entry["rows_without_trainable"],
        "packing_factor": round(entry["docs"] / entry["rows"], 2),
        "bytes": sum(file["bytes"] for file in files.values()),
        "bytes_per_token": round(sum(file["bytes"] for file in files.values()) / (entry["rows"] * width), 4),
        "steps": {
            str(batch): num_steps(entry["rows"], batch, split.max_seq_len) for batch in (REFERENCE_BATCH, own_batch)
        },
        "sources": [
            {
                **{
                    key: source[key]
                    for key in ("name", "task", "repeat", "rows", *total, "truncated", "extra_pieces", "untrained")
                },
                "rejected": sum(source["rejected"].values()),
                "rejected_by_reason": source["rejected"],
                **{key: source[key] for key in ("share", "not_chosen", "overlap") if key in source},
                "shares": {key: round(source[key] / total[key], 6) if total[key] else 0.0 for key in total},
                "lengths": lengths[i],
            }
            for i, source in enumerate(entry["sources"])
        ],
        "histogram": histogram(split),
    }


def num_steps(rows: int, total_batch_size: int, max_seq_len: int) -> int | None:
    """Steps of an epoch; None where a step does not hold whole rows"""
    return None if total_batch_size % max_seq_len else -(-rows * max_seq_len // total_batch_size)


def length_stats(split: Split) -> list[dict[str, float]]:
    """Tokens of the documents of each source: mean, median, p99 and max"""
    import polars as pl

    docs = pl.DataFrame({"source": split.docs["source"], "length": split.docs["length"]})
    length = pl.col("length")
    table = docs.group_by("source").agg(
        mean=length.mean().round(1),
        median=length.median(),
        p99=length.quantile(0.99, "higher"),
        max=length.max(),
    )
    found = {row.pop("source"): row for row in table.to_dicts()}
    nothing = {"mean": 0.0, "median": 0.0, "p99": 0.0, "max": 0}
    return [found.get(i, nothing) for i in range(len(split.entry["sources"]))]


def compare_builds(root: Path, other: Path, as_json: bool) -> None:
    """Two builds side by side, on stdout"""
    from prep.inspect.compare import compare, print_comparison

    found = compare(read_stats(root), read_stats(other), (read_manifest(root), read_manifest(other)))
    if as_json:
        print_json(found)
    else:
        print_comparison(found, make_console())


def print_json(stats: dict[str, Any]) -> None:
    print(json.dumps(stats, ensure_ascii=False, indent=1))


def make_console() -> "Console":
    """Standard output, at least as wide as the tables"""
    from rich.console import Console

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # bars, in a terminal that has none
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, TABLE_WIDTH)
    return console


def print_stats(stats: dict[str, Any], by_length: bool = False) -> None:
    """The statistics as tables, on stdout; `by_length`: how long the conversations of each source are, too"""
    from rich.table import Table

    console = make_console()
    console.print(
        f"[bold]{stats['name']}[/]  {stats['packing_strategy']}, max_seq_len {stats['max_seq_len']:,}, "
        f"{stats['excess_length_strategy']}, tokenizer {stats['tokenizer']} ({stats['vocab_size']:,} ids), "
        f"{size(stats['bytes'])} on disk"
    )
    for name, split in stats["splits"].items():
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(name)
        columns = "conversations - tokens - trained - mean median p99 max cut rejected"
        for column in columns.replace("-", "").split(" "):
            table.add_column(column, justify="right", no_wrap=True)
        for source in split["sources"]:
            label = source["name"] + (f" x{source['repeat']:.4g}" if source["repeat"] != 1 else "")
            lengths, cut = source["lengths"], source["truncated"] + source["extra_pieces"]
            table.add_row(
                label,
                *_with_shares(source, source["shares"]),
                *(f"{lengths[key]:,.0f}" for key in ("mean", "median", "p99", "max")),
                f"{cut:,}",
                f"{source['rejected']:,}",
            )
        table.add_row("[bold]all[/]", *_with_shares(split, dict.fromkeys(COUNTS, 1.0)))
        console.print(table)
        console.print(*_split_lines(split), *(length_lines(split) if by_length else []), sep="\n", markup=False)


TABLE_WIDTH = 118  # less would cut numbers; a narrower terminal wraps lines


def _with_shares(counts: dict[str, Any], shares: dict[str, float]) -> list[str]:
    return [text for key in COUNTS for text in (short(counts[key]), f"{shares[key]:.1%}")]


def _split_lines(split: dict[str, Any]) -> list[str]:
    steps = ", ".join(f"{number:,} of {int(batch):,} tokens" for batch, number in split["steps"].items() if number)
    lines = [
        f"  {split['rows']:,} rows, filled to {split['packing_efficiency']:.2%}, {split['rows_over_bound']:,} over the least "
        f"possible {split['min_rows']:,}; {split['padding_tokens']:,} tokens of padding",
        f"  {size(split['bytes'])}, {split['bytes_per_token']:.3f} bytes a token; steps of an epoch: {steps}",
        all_lengths_line(split),
        *uneven_lines(split),
        *share_lines(split),
        *overlap_lines(split),
    ]
    if split["rows_without_trainable"]:
        lines.append(f"  {split['rows_without_trainable']:,} rows train nothing in SFT, it skips them")
    for source in split["sources"]:
        if source["rejected"]:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in source["rejected_by_reason"].items())
            lines.append(f"  {source['name']}: rejected {reasons} (rejected.jsonl)")
    return [*lines, ""]


def share_lines(split: dict[str, Any]) -> list[str]:
    """What a split's sources asked for and got, a line each"""
    lines = []
    for source in split["sources"]:
        if share := source.get("share"):
            of, asked, got = share["of"], share["asked"], share["got"]
            if of in ("choose", "repeat"):
                text = f"{of} {asked:,}, got {got:,}"
            else:
                text = f"asked {asked:.2%} of {of.replace('_', ' ')}, got {got:.2%}"
            copies = f" ({source['repeat']:.4g} copies" + (", its max_repeats)" if share.get("limited") else ")")
            left = f", {source['not_chosen']:,} not chosen" if source["not_chosen"] else ""
            lines.append(f"  {source['name']}: {text}{copies}{left}")
    return lines


def overlap_lines(split: dict[str, Any]) -> list[str]:
    """Sources of val that training asks, too"""
    return [
        f"  {source['name']}: {found['asked_in_train']:,} of {found['of']:,} are asked in train, too (midprep overlap)"
        for source in split["sources"]
        if (found := source.get("overlap")) and found["asked_in_train"]
    ]


def built_lines(root: Path, manifest: Manifest, built: bool) -> list[str]:
    """What a build says at its end"""
    if not built:
        return [f"{root} is up to date: nothing to do."]
    lines = [f"{root} built:"]
    for name, split in manifest["splits"].items():
        rejected = sum(sum(source["rejected"].values()) for source in split["sources"])
        cut, pieces = (sum(source[key] for source in split["sources"]) for key in ("truncated", "extra_pieces"))
        lines.append(
            f"  {name:<6} {split['conversations']:,} conversations, {split['total_tokens']:,} tokens "
            f"({split['trainable_tokens']:,} trained), {split['rows']:,} rows of {manifest['max_seq_len']:,}, filled to "
            f"{split['packing_efficiency']:.2%}"
            + (f", {rejected:,} rejected" if rejected else "")
            + (f", {cut:,} cut to fit" if cut else "")
            + (f", {pieces:,} of them further pieces of long ones" if pieces else "")
        )
        if not split["trainable_tokens"]:
            lines.append(f"  nothing of {name} trains in SFT: longer rows, or other data, would give it something.")
        lines += [f"  {line}" for line in (*share_lines(split), *overlap_lines(split))]
    return lines


def dry_run_lines(job: "Job", root: Path) -> list[str]:
    """What a build would do: sources, where they come from, how much of it is cached"""
    from prep.build.output import state

    found, words = state(root, job.fingerprint, job.description())
    lines = [words or f"{root}: {'is up to date' if found == 'current' else 'would be built'}"]
    for split, inputs in job.inputs.items():
        for one in inputs:
            paths = job.block_files(one).paths
            cached = sum(path.is_file() for path in paths)
            files = one.source.files
            where = os.path.normpath(files[0]) if files else "generated"
            where += f" and {len(files) - 1} more" if len(files) > 1 else ""
            lines.append(
                f"  {split:<6} {one.entry.label:<16} {one.source.num_rows:>9,} rows  {cached} of {len(paths)} blocks cached  "
                f"{where}{f' @ {one.source.revision[:12]}' if one.source.revision else ''}"
            )
    return lines
