"""
Two builds side by side: what each holds of every source, and what changed from the first to the second.

    train        conversations                      tokens                       trained
    gsm8k        7,473  2.5%  14,946  4.9%    1.47M  5.9%  2.95M  11.1%  ...
    mmlu        99,842 33.0%       =       =
    changed: max_seq_len 2,048 -> 512; gsm8k repeat 1 -> 2; identity is new
"""

import json
from typing import TYPE_CHECKING, Any

from prep.inspect.stats_lengths import MEASURES, uneven_lines
from prep.shard import COUNTS, Manifest
from prep.text import short

if TYPE_CHECKING:
    from rich.console import Console

SETTINGS = (
    "seed", "max_seq_len", "packing_strategy", "excess_length_strategy", "max_tokens", "vocab_size", "renderer_version",
    "planner_version",
)  # fmt: skip


def changes(one: Manifest, other: Manifest) -> list[str]:
    """What of two builds differs, in words: settings, tokenizer, sources"""
    out = [
        f"{key} {_said(one.get(key))} -> {_said(other.get(key))}" for key in SETTINGS if one.get(key) != other.get(key)
    ]
    if one["tokenizer"]["sha256"] != other["tokenizer"]["sha256"]:
        out.append(f"tokenizer {one['tokenizer']['name']} -> {other['tokenizer']['name']}")
    if one["mixture"].get("mix") != other["mixture"].get("mix"):
        out.append(f"[mix] {json.dumps(one['mixture'].get('mix'))} -> {json.dumps(other['mixture'].get('mix'))}")
    for split in dict.fromkeys([*one["splits"], *other["splits"]]):
        before, after = ({e["name"]: e for e in m["mixture"].get(split, [])} for m in (one, other))
        out += [f"{split} {name} is gone" for name in before if name not in after]
        out += [f"{split} {name} is new" for name in after if name not in before]
        for name in (name for name in before if name in after):
            keys = dict.fromkeys([*before[name], *after[name]])
            values = [(key, before[name].get(key), after[name].get(key)) for key in keys]
            out += [f"{split} {name} {key} {_said(a)} -> {_said(b)}" for key, a, b in values if a != b]
    return out


def _said(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "none" if value is None else str(value)[:12]


def side_by_side(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """{split: [{"name", "first", "second"}]}: of every source the counts and shares in both; None where it is not"""
    out = {}
    for split in dict.fromkeys([*one["splits"], *other["splits"]]):
        both = [stats["splits"].get(split, {"sources": []}) for stats in (one, other)]
        found = [{source["name"]: source for source in some["sources"]} for some in both]
        out[split] = [
            {"name": name, "first": _counts(found[0].get(name)), "second": _counts(found[1].get(name))}
            for name in dict.fromkeys([*found[0], *found[1]])
        ]
        whole = [{**some, "shares": dict.fromkeys(MEASURES, 1.0)} if some["sources"] else None for some in both]
        out[split].append({"name": "all", "first": _counts(whole[0]), "second": _counts(whole[1])})
    return out


def _counts(source: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if source is None else {key: [source[key], source["shares"][key]] for key in MEASURES}


def compare(one: dict[str, Any], other: dict[str, Any], manifests: tuple[Manifest, Manifest]) -> dict[str, Any]:
    """Two builds' statistics (prep.inspect.stats.read_stats) and what differs, as plain values"""
    return {"builds": [one, other], "changed": changes(*manifests), "side_by_side": side_by_side(one, other)}


def print_comparison(found: dict[str, Any], console: "Console") -> None:
    """The comparison as tables, on a console"""
    from rich.table import Table

    builds = found["builds"]
    for number, stats in zip(("first ", "second"), builds, strict=True):
        console.print(f"{number} {stats['root']}", markup=False)
    for split, rows in found["side_by_side"].items():
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(split, no_wrap=True)
        for column in ("", "first", "", "second", ""):
            table.add_column(column, justify="right" if column or table.columns[1:] else "left", no_wrap=True)
        for row in rows:
            for key, name in MEASURES.items():
                table.add_row(row["name"] * (key == COUNTS[0]), name, *_cells(row["first"], row["second"], key))
        console.print(table)
        for stats in builds:
            there = stats["splits"].get(split)
            if there is None:
                continue
            filled = f"{there['rows']:,} rows of {stats['max_seq_len']:,}, filled to {there['packing_efficiency']:.2%}"
            console.print(f"  {stats['root']}: {filled}", markup=False)
            for line in uneven_lines(there):
                console.print(f"  {line}", markup=False)
        console.print()
    changed = found["changed"]
    for line in (
        ["changed:", *(f"  {one}" for one in changed)] if changed else ["changed: nothing that decides the bytes"]
    ):
        console.print(line, markup=False)


def _cells(first: dict[str, Any] | None, second: dict[str, Any] | None, key: str) -> list[str]:
    if first is not None and second is not None and first[key] == second[key]:
        return [short(first[key][0]), f"{first[key][1]:.1%}", "=", "="]
    return [
        text for one in (first, second) for text in ((short(one[key][0]), f"{one[key][1]:.1%}") if one else ("-", "-"))
    ]
