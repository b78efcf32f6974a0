"""
Two builds side by side: what each holds of every source, and what changed from the first to the second.

    train                     first           second
    gsm8k  conversations      7,473   2.5%    14,946   4.9%
           tokens             1.47M   5.9%     2.95M  11.1%
    changed:
      max_seq_len 2,048 -> 512
"""

from pathlib import Path
from typing import Any

from prep.build.changes import changes
from prep.inspect.stats import MEASURES, NAME_WIDTH, TABLE_WIDTH, print_lines, read_stats, uneven_lines
from prep.inspect.terminal import make_console, make_table
from prep.shard import read_manifest
from prep.text import short, visible


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Two builds' statistics, and what differs, as plain values"""
    builds = [read_stats(root) for root in (first, second)]
    return compare_stats(builds, changes(read_manifest(first), read_manifest(second)))


def compare_stats(builds: list[dict[str, Any]], changed: list[str]) -> dict[str, Any]:
    """The statistics of two builds and what changed between them, side by side"""
    return {"builds": builds, "changed": changed, "side_by_side": side_by_side(*builds)}


def side_by_side(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """{split: [{"name", "first", "second"}]}: of every source the counts and shares in both; None where it is missing"""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in dict.fromkeys([*first["splits"], *second["splits"]]):
        columns = [_column(stats["splits"].get(name)) for stats in (first, second)]
        sources = [*dict.fromkeys(source for column in columns for source in column if source != "all"), "all"]
        rows[name] = [
            {"name": source, "first": columns[0].get(source), "second": columns[1].get(source)} for source in sources
        ]
    return rows


def _column(split: dict[str, Any] | None) -> dict[str, dict[str, list[float]]]:
    """{source: {measure: [count, share]}} of a split, and "all" """
    if split is None:
        return {}
    column = {
        source["name"]: {key: [source[key], source["shares"][key]] for key in MEASURES} for source in split["sources"]
    }
    return column | {"all": {key: [split[key], 1.0] for key in MEASURES}}


def print_comparison(comparison: dict[str, Any]) -> None:
    """The comparison as tables, on stdout"""
    console, builds = make_console(TABLE_WIDTH), comparison["builds"]
    for number, stats in zip(("first ", "second"), builds, strict=True):
        print_lines(console, [f"{number} {stats['root']}"], indent="")
    for name, rows in comparison["side_by_side"].items():
        table = make_table(name, "", "first", "", "second", "", left=2, name_width=NAME_WIDTH)
        for row in rows:
            for key, measure in MEASURES.items():
                label = visible(row["name"]) if key == "conversations" else ""
                table.add_row(label, measure, *_cells(row["first"], row["second"], key))
        console.print(table)
        for stats in builds:
            if split := stats["splits"].get(name):
                efficiency = f"packing efficiency {split['packing_efficiency']:.2%}"
                rows_and_efficiency = f"{split['rows']:,} rows of {stats['max_seq_len']:,}, {efficiency}"
                lines = [f"{stats['root']}: {rows_and_efficiency}", *(f"  {line}" for line in uneven_lines(split))]
                print_lines(console, lines)
        console.print()
    changed = comparison["changed"]
    console.print("changed:" if changed else "changed: nothing that decides the bytes")
    print_lines(console, changed)


def _cells(first: dict[str, Any] | None, second: dict[str, Any] | None, key: str) -> list[str]:
    """Count and share in the first build and in the second"""
    cells = []
    for counts in (first, second):
        cells += ["-", "-"] if counts is None else [short(counts[key][0]), f"{counts[key][1]:.1%}"]
    if first and second and first[key] == second[key]:
        cells[2:] = ["=", "="]
    return cells
