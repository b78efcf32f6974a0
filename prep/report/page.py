"""
A report: what is in a build, how it got there and what training will see of it, on one HTML page that needs nothing else.

    build -> numbers -> charts, sections -> page.html.j2 -> one file, about 150 KB
    runs             -> run_section      -> runs.html.j2 -> one file, about 50 KB

The page has no script, and a content security policy that forbids any: what is in the data cannot run, even if escaping
it failed. Jinja2 escapes markup, and control characters of the whole page are made visible. The filter of the sample
conversations is radio buttons and CSS. Times and paths are those of build.json.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prep.arrays import Array
from prep.build.record import read_record
from prep.inspect.show import show_conversation
from prep.inspect.stats import histogram, is_uneven, split_stats
from prep.report import charts, numbers, sections
from prep.report.run_section import run_section
from prep.shard import COUNTS, Shards, Split, open_shards
from prep.shard.mixing import mixing
from prep.shard.steps import plan_steps
from prep.text import short, size, visible, with_culprit
from prep.tokenizer.load import load_tokenizer
from train.launch import FACTS, read_plan

CSS = Path(__file__).parents[1] / "data" / "report.css"
MOST_SAMPLES = 90  # on the page, whatever the number of sources


@dataclass(frozen=True)
class Report:
    """A build, opened, and its numbers; each is read when the page first asks for it."""

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
    def scan(self) -> numbers.Scan:
        return numbers.scan_docs(self.split, plan_steps(self.split, "mid", None, 1.0, 42))

    @cached_property
    def plan(self) -> dict[str, Any]:
        return read_plan(self.root, self.split.name, None, None, [1, 2, 4, 8], 1.0, None, None)

    @cached_property
    def shares(self) -> Array:
        """(3, K) shares of conversations, tokens and loss tokens"""
        counts = np.array([[source[key] for source in self.stats["sources"]] for key in COUNTS], dtype=float)
        parts: Array = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return parts

    def heat(self) -> sections.Heat | None:
        measured = mixing(self.split)
        return None if measured is None else sections.heat(self.scan.step_tokens, measured)

    def samples(self) -> list[tuple[int, dict[str, Any], list[list[sections.Piece]]]]:
        """(source, conversation, its turns), a few of each source"""
        tokenizer = load_tokenizer(self.root)
        each = max(1, min(numbers.NUM_SAMPLES, MOST_SAMPLES // len(self.names)))
        docs = [(k, doc) for k, docs in enumerate(self.scan.samples) for doc in docs[:each]]
        shown = [(k, show_conversation(self.split, tokenizer, doc)) for k, doc in docs]
        return [(k, {**conversation}, sections.turns(conversation)) for k, conversation in shown]

    def uneven(self) -> list[tuple[str, list[float]]]:
        """Sources whose shares differ much, with their shares"""
        return [
            (name, self.shares[:, k].tolist())
            for k, (name, source) in enumerate(zip(self.names, self.stats["sources"], strict=True))
            if is_uneven(source)
        ]


def open_report(root: Path, split_name: str) -> Report:
    shards = open_shards(root)
    return Report(root, shards, shards.split(split_name))


def make_page(report: Report, runs: Sequence[Path] = ()) -> str:
    """The whole page. A section that has nothing to say is left out."""
    manifest, split = report.shards.manifest, report.split
    record = read_record(report.root) or {}
    program, *arguments = map(str, record.get("command") or [""])
    mask_sample = numbers.mask_by_position(split)
    values = {
        "css": CSS.read_text(encoding="utf-8"),
        "report": report,
        "manifest": manifest,
        "entry": split.entry,
        "lengths": sections.length_plots(histogram(split, per_octave=4)),
        "mask_sample": mask_sample,
        "mask": sections.mask_plot(mask_sample),
        "padding": numbers.padding_by_row(split),
        "heat": report.heat(),
        "overlap": {
            title: lines
            for title, key in (("Duplicates", "duplicates"), ("Overlap", "overlap"))
            if (lines := sections.manifest_lines(manifest, key))
        },
        "rejected": numbers.rejected_rows(report.root),
        "aside": numbers.left_aside(manifest),
        "run": run_section(runs, report.shards) if runs else None,
        "mode_facts": FACTS,
        "charts": charts,
        "record": record,
        "command": shlex.join([Path(program).name, *arguments]) if program else "",
        "source_origin": sections.source_origin,
    }
    page = environment().get_template("page.html.j2").render(values)
    return visible(page)  # what is in the data drives no terminal and no text direction


def make_runs_page(runs: Sequence[Path]) -> str:
    """A page about runs alone, side by side"""
    section = run_section(runs)
    page = environment().get_template("runs.html.j2").render(css=CSS.read_text(encoding="utf-8"), section=section)
    return visible(page)


def _reason(example: dict[str, Any]) -> str:
    return with_culprit(example["reason"], example.get("culprit", ""))


def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "n": "{:,}".format,
        "percent": charts.percent,
        "short": short,
        "reason": _reason,
        "size": size,
        "colour": charts.colour,
    }
    return made
