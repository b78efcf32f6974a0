"""
A report: what is in a build, how it got there and what training will see of it, on one HTML page that needs nothing else.

    build -> numbers (report_data) -> charts (report_charts) -> sections -> one file, about 150 KB

The page has no script, and a content security policy that forbids any: what is in the data cannot run, even if escaping
it failed. The filter of the sample conversations is radio buttons and CSS. Times and paths are those of build.json.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.inspect.stats import split_stats
from prep.report import (
    build_sections as report_build,
)
from prep.report import (
    numbers as report_data,
)
from prep.report import (
    run_section as report_run,
)
from prep.report import (
    training_sections as report_training,
)
from prep.report.charts import colour, esc, log_places, log_ticks, percent, plot, share_bars, steps_area, table
from prep.shard import COUNTS, Shards, Split, open_shards
from prep.shard.steps import plan_steps
from prep.text import short
from train.launch import read_plan

CSS = Path(__file__).parents[1] / "data" / "report.css"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Report:
    """A build, opened, and its numbers; each is read when a section first asks for it."""

    root: Path
    shards: Shards
    split: Split

    @cached_property
    def stats(self) -> dict[str, Any]:
        return split_stats(self.split)

    @cached_property
    def names(self) -> list[str]:
        return [
            source["name"] + f" × {source['repeat']:.4g}" * (source["repeat"] > 1) for source in self.stats["sources"]
        ]

    @cached_property
    def scan(self) -> report_data.Scan:
        return report_data.scan_docs(self.split, plan_steps(self.split, "mid", None, 1.0, 42))

    @cached_property
    def plan(self) -> dict[str, Any]:
        return read_plan(self.root, self.split.name, None, None, [1, 2, 4, 8], 1.0, None, None)


def open_report(root: Path, split_name: str) -> Report:
    shards = open_shards(root)
    return Report(root, shards, shards.split(split_name))


def make_page(report: Report, run: Path | None) -> str:
    """The whole page. A section that has nothing to say is left out."""
    sections: list[tuple[str, str, Callable[[], str]]] = [
        ("way", "The way of the data", lambda: way(report)),
        ("shares", "Shares", lambda: shares(report)),
        ("lengths", "Lengths", lambda: lengths(report)),
        ("mask", "What trains, by position", lambda: report_training.mask_share(report)),
        ("rows", "Rows", lambda: report_build.rows(report)),
        ("mixing", "Mixing", lambda: report_training.mixing(report)),
        ("samples", "Conversations", lambda: report_build.samples(report)),
        ("overlap", "Duplicates and overlap", lambda: report_build.overlap(report)),
        ("rejected", "Rejected rows", lambda: report_build.rejected(report)),
        ("run", "The run", lambda: report_run.run_section(report.shards, run) if run else ""),
        ("launch", "Launch", lambda: report_training.launch(report)),
        ("built", "How it was built", lambda: report_build.built(report)),
    ]
    made = [(id_, title, text) for id_, title, make in sections if (text := make())]
    links = "".join(f'<li><a href="#{id_}">{title}</a></li>' for id_, title, _ in made)
    body = "".join(
        f'<section id="{id_}" aria-labelledby="{id_}-h"><h2 id="{id_}-h">{title}</h2>{text}</section>'
        for id_, title, text in made
    )
    name, entry = report.shards.manifest["mixture"]["name"], report.split.entry
    said = (
        f"{entry['conversations']:,} conversations of {len(entry['sources'])} sources became {short(entry['total_tokens'])} "
        f"tokens in {entry['rows']:,} rows of {report.split.max_seq_len:,}. SFT trains on "
        f"{percent(entry['trainable_tokens'] / max(entry['total_tokens'], 1))} of them, mid-training on all."
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f'<meta name="generator" content="midprep"><title>{esc(name)} – midprep report</title>'
        f"<style>{CSS.read_text(encoding='utf-8')}</style></head><body>"
        f'<a class="skip" href="#way">Skip to the report</a><header><p class="kicker">midprep report · {esc(report.split.name)}'
        f'</p><h1>{esc(name)}</h1><p class="lead">{said}</p><nav aria-label="Sections"><ul>{links}</ul></nav></header>'
        f"<main>{body}</main><footer>Made by midprep from {esc(report.root.name)}, fingerprint "
        f"<code>{esc(report.shards.manifest['fingerprint'][:16])}</code>. This page holds no script and loads nothing."
        "</footer></body></html>\n"
    )


# ---- sections ----


def way(report: Report) -> str:
    entry, plan = report.split.entry, report.plan
    sources = entry["sources"]
    num_rows = sum(source["rows"] for source in sources)
    num_rejected = sum(sum(source["rejected"].values()) for source in sources)
    num_cut = sum(source["truncated"] + source["extra_pieces"] for source in sources)
    trained = entry["trainable_tokens"] / max(entry["total_tokens"], 1)
    mid = plan["modes"]["mid"]
    stages = [
        ("Source rows", short(num_rows), f"{len(sources)} sources, repeats counted"),
        ("Conversations", short(entry["conversations"]), f"{num_rejected:,} rejected, {num_cut:,} cut to fit"),
        ("Tokens", short(entry["total_tokens"]), f"{percent(trained)} of them trained in SFT"),
        ("Rows", short(entry["rows"]), f"of {plan['max_seq_len']:,}, filled to {entry['packing_efficiency']:.2%}"),
        ("Steps", short(mid["steps"]), f"of {plan['rows_per_step']:,} rows, {short(plan['total_batch_size'])} tokens"),
    ]
    items = "".join(
        f"<li><span>{name}</span><strong>{number}</strong><small>{about}</small></li>" for name, number, about in stages
    )
    return f'<ol class="way">{items}</ol>'


def shares(report: Report) -> str:
    stats = report.stats
    values = np.array([[source[key] for source in stats["sources"]] for key in COUNTS], dtype=float)
    parts = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    titles = [("Conversations", f"{stats['conversations']:,}"), ("Tokens", f"{stats['total_tokens']:,}"),
              ("Trained tokens", f"{stats['trainable_tokens']:,}")]  # fmt: skip
    rows = [
        [
            f'<i class="dot" style="background:{colour(k)}"></i>{esc(report.names[k])}',
            *(cell for j, key in enumerate(COUNTS) for cell in (short(source[key]), percent(parts[j, k]))),
            *(f"{source['lengths'][key]:,.0f}" for key in ("mean", "median", "p99", "max")),
        ]
        for k, source in enumerate(stats["sources"])
    ]
    head = ["Source", "Conversations", "share", "Tokens", "share", "Trained", "share", "Mean", "Median", "p99", "Max"]
    return (
        f"<p>{differing(report.names, parts)}</p>"
        + share_bars(report.names, titles, parts)
        + table(head, rows, "Counts and shares by source")
    )


def differing(names: list[str], parts: Array) -> str:
    """The sources whose share of trained tokens is more than three times, or under a third of, that of conversations"""
    said = []
    for k, name in enumerate(names):
        a, b = float(parts[0, k]), float(parts[2, k])
        if a and (b > 3 * a or 3 * b < a):
            said.append(f"{esc(name)} is {percent(a)} of the conversations and {percent(b)} of what trains")
    if not said:
        return (
            "Conversations, tokens and trained tokens have similar shares: no source differs by more than three times."
        )
    return "; ".join(said[:4]) + "."


def lengths(report: Report) -> str:
    used = np.flatnonzero(report.scan.lengths.sum(axis=0))
    first, stop = int(used[0]), int(used[-1]) + 1
    edges, counts = report.scan.edges[first : stop + 1], report.scan.lengths[:, first:stop]
    density = counts / np.diff(np.log2(edges))
    cells = []
    for k, name in enumerate(report.names):
        found = report.stats["sources"][k]["lengths"]
        label = (
            f"Lengths of {name}: median {found['median']:,.0f}, 99th percentile {found['p99']:,.0f}, "
            f"longest {found['max']:,.0f} tokens"
        )
        shape = steps_area(log_places(edges), density[k] / max(density[k].max(), 1e-9), f"fill:{colour(k)}")
        cells.append(
            f"<span>{esc(name)}<small>{found['median']:,.0f} · p99 {found['p99']:,.0f}</small></span>"
            + plot(shape, label, [], [], "2.9rem")
        )
    ticks = "".join(f'<span style="left:{100 * at:.2f}%">{text}</span>' for at, text in log_ticks(edges))
    return (
        "<p>Tokens of a conversation, special tokens included, on an axis that doubles at even distances. Each source is "
        f'drawn to its own height.</p><div class="ridges">{"".join(cells)}<div class="ticks" aria-hidden="true">'
        f"{ticks}</div></div><p class='note'>All {report.split.entry['docs']:,} documents. Under each name: median and 99th "
        "percentile.</p>"
    )
