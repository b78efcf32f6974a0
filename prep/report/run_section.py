"""
A training run on the build, from its metrics.jsonl: curves of loss, bits per byte, learning rate and speed; by source.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.report.charts import Plot, Shape, Tick, line
from prep.shard import Shards
from train.records import first_and_last, first_and_last_means
from train.watch import find_metrics, read_records

POINTS = 600  # of a curve; more steps are averaged


@dataclass(frozen=True)
class RunSection:
    records: list[dict[str, Any]]
    curves: list[tuple[str, Plot]]  # with their titles
    by_source: list[list[str]]
    num_tokens: float
    path: str  # the end of it


def run_section(shards: Shards, run: Path) -> RunSection:
    path = find_metrics(run)
    check_same_build(path.parent, shards)
    records = read_records(path)
    if not records:
        raise ValueError(f"{path} holds no step yet: wait for the first one, or leave out --run.")
    steps = np.array([record["step"] for record in records])
    curves = [
        curve("Loss", steps, series(records, "loss"), "nats per target", low=None),
        curve("Validation, bits per byte", *evaluations(records), "bits per byte", low=None),
        curve("Learning rate multiplier", steps, series(records, "lrm"), "times the rates of the flags", low=0.0),
        curve("Tokens per second", steps, series(records, "tokens_per_second"), "of all ranks", low=0.0),
    ]
    ends = [first_and_last_means(records, "loss_by_source"), first_and_last(records, "val_bpb_by_source")]
    by_source = [
        [name, *(cell for by in ends for cell in (map("{:.4f}".format, by[name]) if name in by else ("–", "–")))]
        for name in sorted({name for by in ends for name in by})
    ]
    num_tokens = sum(record["dt"] * record["tokens_per_second"] for record in records)
    return RunSection(records, [c for c in curves if c], by_source, num_tokens, "/".join(path.parts[-3:]))


def check_same_build(folder: Path, shards: Shards) -> None:
    """ValueError if the checkpoints beside the metrics are of a run on another build"""
    for meta in sorted(folder.glob("meta_*.json"))[-1:]:
        try:
            trained_on = (
                json.loads(meta.read_text(encoding="utf-8")).get("midprep", {}).get("identity", {}).get("shards")
            )
        except (ValueError, AttributeError, RecursionError):
            raise ValueError(f"{meta} is not a meta as the trainer writes it: give the directory of a run.") from None
        fingerprint = shards.manifest["fingerprint"]
        if trained_on and trained_on != fingerprint:
            raise ValueError(
                f"{folder} is a run on another build (fingerprint {trained_on[:12]}), {shards.root} has "
                f"{fingerprint[:12]}: give the directory of a run on this one."
            )


def series(records: list[dict[str, Any]], key: str) -> Array:
    return np.array([record.get(key, np.nan) for record in records], dtype=float)


def evaluations(records: list[dict[str, Any]]) -> tuple[Array, Array]:
    """(steps done (n,), bits per byte (n,)), the one before training at 0"""
    measured = [(record["step"], record["val_bpb_before"]) for record in records if "val_bpb_before" in record]
    measured += [(record["step"] + 1, record["val_bpb"]) for record in records if "val_bpb" in record]
    measured.sort()
    return np.array([step for step, _ in measured]), np.array([bpb for _, bpb in measured], dtype=float)


def curve(title: str, x: Array, y: Array, unit: str, low: float | None) -> tuple[str, Plot] | None:
    """A titled chart of y over steps x; None where there is nothing to draw"""
    if len(x) < 2:
        return None
    starts = np.arange(0, len(x), -(-len(x) // POINTS))
    means = np.add.reduceat(y, starts) / np.diff(np.append(starts, len(x)))
    bottom, top, ticks = axis(float(np.nanmin(y)) if low is None else low, float(np.nanmax(y)))
    first, last = int(x[0]), int(x[-1])
    d = line((x[starts] - first) / max(last - first, 1), (means - bottom) / (top - bottom))
    label = f"{title}, {unit}, from step {first:,} to {last:,}: {y[0]:.4g} to {y[-1]:.4g}"
    x_ticks = [(0.0, f"{first:,}"), (0.5, f"{(first + last) // 2:,}"), (1.0, f"{last:,}")]
    shapes = [Shape(d, "stroke:var(--c0)", "line main")] if d else []
    return title, Plot(shapes, label, x_ticks, ticks)


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
