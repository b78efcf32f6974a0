"""
Training runs, from their metrics.jsonl: curves of loss, bits per byte, learning rate and speed, and losses by source.

    --run runs/a                one run: its first steps beside its last
    runs/a runs/b               several: a line each in every chart, a column each in the tables, means over steps compared

Runs with other numbers of tokens per step are also drawn by tokens: after 100 steps they have not seen as much.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.report.charts import Plot, Shape, Tick, colour, line
from prep.shard import Shards
from prep.text import clock, short
from train.records import end_means, first_and_last, first_and_last_means, measured_bpb
from train.watch import find_metrics, read_records

POINTS = 600  # of a curve; more steps are averaged
NONE = "–"


@dataclass(frozen=True)
class Run:
    """A run as it was asked for, its metrics.jsonl and the records in it, and what its last checkpoint says it is"""

    name: str
    path: Path
    records: list[dict[str, Any]]
    identity: dict[str, Any]

    @property
    def tokens_per_step(self) -> int:
        return int(self.records[0]["dt"] * self.records[0]["tokens_per_second"] + 0.5)

    @property
    def num_tokens(self) -> int:
        return len(self.records) * self.tokens_per_step

    @property
    def loss_ends(self) -> tuple[float, float]:
        return end_means([record["loss"] for record in self.records])

    def series(self, key: str) -> tuple[Array, Array]:
        """(steps (n,), values (n,))"""
        steps = np.array([record["step"] for record in self.records])
        return steps, np.array([record.get(key, np.nan) for record in self.records], dtype=float)

    def evaluations(self) -> tuple[Array, Array]:
        """(steps done (n,), bits per byte (n,)), the one before training at 0"""
        measured = [(record["step"], record["val_bpb_before"]) for record in self.records if "val_bpb_before" in record]
        measured += [(record["step"] + 1, record["val_bpb"]) for record in self.records if "val_bpb" in record]
        measured.sort()
        return np.array([step for step, _ in measured]), np.array([bpb for _, bpb in measured], dtype=float)

    def answers(self) -> tuple[Array, Array]:
        """(steps done (n,), right answers over chance (n,)), where the run asked for them"""
        asked = [(record["step"] + 1, record["chat_core"]) for record in self.records if "chat_core" in record]
        return np.array([step for step, _ in asked]), np.array([share for _, share in asked], dtype=float)


@dataclass(frozen=True)
class Table:
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class RunSection:
    runs: list[Run]
    curves: list[tuple[str, Plot]]  # with their titles
    facts: Table
    by_source: Table
    is_alike: bool  # one mode, one build: losses and bits per byte can be compared


def run_section(paths: Sequence[Path], shards: Shards | None = None) -> RunSection:
    """ValueError for a run without steps or on another build than `shards`, or one that is given twice."""
    runs = [read_run(path, shards) for path in paths]
    for number, run in enumerate(runs):
        if run.path in [other.path for other in runs[:number]]:
            raise ValueError(f"{run.path} is given twice: give each run once.")
    kinds = {tuple(run.identity.get(name) for name in ("mode", "shards")) for run in runs}
    table = one_by_source(runs[0]) if len(runs) == 1 else several_by_source(runs)
    return RunSection(runs, all_curves(runs), facts(runs), table, len(kinds) == 1)


def read_run(path: Path, shards: Shards | None) -> Run:
    metrics = find_metrics(path)
    identity = identity_of(metrics.parent)
    trained_on = identity.get("shards")
    if shards and trained_on and trained_on != (fingerprint := shards.manifest["fingerprint"]):
        raise ValueError(
            f"{metrics.parent} is a run on another build (fingerprint {trained_on[:12]}), {shards.root} has "
            f"{fingerprint[:12]}: give the directory of a run on this one."
        )
    records = read_records(metrics)
    if not records:
        raise ValueError(f"{metrics} holds no step yet: wait for the first one, or leave the run out.")
    return Run(str(path), metrics, records, identity)


def identity_of(folder: Path) -> dict[str, Any]:
    """What the last checkpoint beside the metrics notes of its run; {} without one"""
    for meta in sorted(folder.glob("meta_*.json"))[-1:]:
        try:
            return dict(json.loads(meta.read_text(encoding="utf-8")).get("midprep", {}).get("identity", {}))
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise ValueError(f"{meta} is not a meta as the trainer writes it: give the directory of a run.") from None
    return {}


# ---- tables ----


def facts(runs: list[Run]) -> Table:
    """A column for each run"""
    columns = []
    for run in runs:
        bpb = measured_bpb(run.records)
        first, last = run.loss_ends
        columns.append({
            "Mode": run.identity.get("mode", NONE),
            "Layers": str(run.identity.get("depth", NONE)),
            "Base": str(run.identity.get("base") or NONE),
            "Build": str(run.identity.get("shards", NONE))[:12],
            "Steps": f"{len(run.records):,} of {run.records[-1]['num_steps']:,}",
            "Tokens": f"{run.num_tokens:,}",
            "Time of steps": clock(sum(record["dt"] for record in run.records)),
            "Tokens per second": f"{statistics.median(record['tokens_per_second'] for record in run.records):,.0f}",
            "Mean loss, first steps": f"{first:.4f}",
            "Mean loss, last steps": f"{last:.4f}",
            "Val bpb, first": f"{bpb[0]:.4f}" if bpb else NONE,
            "Val bpb, last": f"{bpb[-1]:.4f}" if bpb else NONE,
        })  # fmt: skip
    return Table(["", *(run.name for run in runs)], [[name, *(c[name] for c in columns)] for name in columns[0]])


def one_by_source(run: Run) -> Table:
    ends = [first_and_last_means(run.records, "loss_by_source"), first_and_last(run.records, "val_bpb_by_source")]
    rows = [
        [name, *(cell for by in ends for cell in (map("{:.4f}".format, by[name]) if name in by else (NONE, NONE)))]
        for name in sorted({name for by in ends for name in by})
    ]
    return Table(["Source", "Mean loss, first steps", "last steps", "Val bpb, first", "last"], rows)


def several_by_source(runs: list[Run]) -> Table:
    """The last values of each run"""
    columns = [first_and_last_means(run.records, "loss_by_source") for run in runs]
    columns += [first_and_last(run.records, "val_bpb_by_source") for run in runs]
    rows = [
        [name, *(f"{by[name][1]:.4f}" if name in by else NONE for by in columns)]
        for name in sorted({name for by in columns for name in by})
    ]
    names = [f"{what}, {run.name}" for what in ("Mean loss, last steps", "Val bpb, last") for run in runs]
    return Table(["Source", *names], rows)


# ---- curves ----


def all_curves(runs: list[Run]) -> list[tuple[str, Plot]]:
    losses, bpb, rates, speeds = (
        [run.series("loss") for run in runs],
        [run.evaluations() for run in runs],
        [run.series("lrm") for run in runs],
        [run.series("tokens_per_second") for run in runs],
    )
    curves = [
        curve("Loss", losses, "nats per target", low=None),
        curve("Validation, bits per byte", bpb, "bits per byte", low=None),
        curve("Right answers over chance", [run.answers() for run in runs], "0 for guessing, 1 for all right", low=0.0),
        curve("Learning rate multiplier", rates, "times the rates of the flags", low=0.0),
        curve("Tokens per second", speeds, "of all ranks", low=0.0),
    ]
    if len({run.tokens_per_step for run in runs}) > 1:
        by_tokens = [
            [(steps * run.tokens_per_step, values) for run, (steps, values) in zip(runs, lines, strict=True)]
            for lines in ([(steps + 1, values) for steps, values in losses], bpb)
        ]
        curves[1:2] = [
            curve("Loss, by tokens", by_tokens[0], "nats per target", low=None, along="token"),
            curve("Validation, bits per byte, by tokens", by_tokens[1], "bits per byte", low=None, along="token"),
        ]
    return [made for made in curves if made]


def curve(
    title: str, lines: list[tuple[Array, Array]], unit: str, low: float | None, along: str = "step"
) -> tuple[str, Plot] | None:
    """A titled chart of a line (x, y) for each run; None where there is nothing to draw"""
    drawn = [(k, *averaged(x, y)) for k, (x, y) in enumerate(lines) if len(x) >= 2 and np.isfinite(y).any()]
    if not drawn:
        return None
    bottom = low if low is not None else min(float(np.nanmin(y)) for _, _, y in drawn)
    bottom, top, ticks = axis(bottom, max(float(np.nanmax(y)) for _, _, y in drawn))
    first, last = min(int(lines[k][0][0]) for k, _, _ in drawn), max(int(lines[k][0][-1]) for k, _, _ in drawn)
    kind = "line main" if len(lines) == 1 else "line"
    shapes = [
        Shape(line((x - first) / max(last - first, 1), (y - bottom) / (top - bottom)), f"stroke:{colour(k)}", kind)
        for k, x, y in drawn
    ]
    ends = "; ".join(f"{y[0]:.4g} to {y[-1]:.4g}" for _, y in lines if len(y))
    label = f"{title}, {unit}, from {along} {first:,} to {last:,}: {ends}"
    show = "{:,}".format if along == "step" else short
    x_ticks = [(0.0, show(first)), (0.5, show((first + last) // 2)), (1.0, show(last))]
    return title, Plot([shape for shape in shapes if shape.d], label, x_ticks, ticks)


def averaged(x: Array, y: Array) -> tuple[Array, Array]:
    """At most POINTS points of a line, each the mean of as many values"""
    starts = np.arange(0, len(x), -(-len(x) // POINTS))
    return x[starts], np.add.reduceat(y, starts) / np.diff(np.append(starts, len(x)))


def axis(bottom: float, top: float) -> tuple[float, float, list[Tick]]:
    """
    Round ends and ticks of an axis that holds bottom .. top.

    >>> axis(0.0, 0.93)
    (0.0, 1.0, [(0.0, '0'), (0.5, '0.5'), (1.0, '1')])
    """
    span = (top - bottom) or abs(top) or 1.0
    step = 10.0 ** float(np.floor(np.log10(span)))
    step = next(step * part for part in (0.5, 1.0, 2.0, 5.0) if span / (step * part) <= 4)
    bottom = float(np.floor(bottom / step + 1e-9) * step)
    num = max(1, int(np.ceil((top - bottom) / step - 1e-9)))
    return bottom, bottom + num * step, [(i / num, rounded(bottom + i * step)) for i in range(num + 1)]


def rounded(value: float) -> str:
    """
    >>> rounded(2_500_000.0), rounded(150_000.0), rounded(0.25)
    ('2.5M', '150k', '0.25')
    """
    for least, divisor, unit in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / divisor:,.6g}{unit}"
    return f"{value:,.6g}"
