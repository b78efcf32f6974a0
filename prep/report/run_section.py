"""
The section of a report about a run, from its metrics.jsonl: loss, bits per byte, learning rate, speed, and by source.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.report.charts import Tick, esc, line, plot, table
from prep.shard import Shards
from train.records import first_and_last
from train.watch import find_metrics, read_records

POINTS = 600  # of a curve; more steps are averaged


def run_section(shards: Shards, run: Path) -> str:
    path = find_metrics(run)
    check_same_build(path.parent, shards)
    records = read_records(path)
    if not records:
        raise ValueError(f"{path} holds no step yet: wait for the first one, or leave out --run.")
    last = records[-1]
    steps = np.array([record["step"] for record in records])
    charts = [
        curve("Loss", steps, series(records, "loss"), "nats a trained token", low=None),
        curve("Validation, bits per byte", *evaluations(records), "bits per byte", low=None),
        curve("Learning rate multiplier", steps, series(records, "lrm"), "times the rates of the flags", low=0.0),
        curve("Tokens a second", steps, series(records, "tokens_per_second"), "of all ranks", low=0.0),
    ]
    ends = [first_and_last(records, key) for key in ("loss_by_source", "val_bpb_by_source")]
    rows = [
        [esc(name), *(cell for by in ends for cell in (map("{:.4f}".format, by[name]) if name in by else ("–", "–")))]
        for name in sorted({name for by in ends for name in by})
    ]
    tokens = sum(record["dt"] * record["tokens_per_second"] for record in records)
    return (
        f"<p>{len(records):,} of {last['num_steps']:,} steps, {tokens:,.0f} tokens. The loss went from "
        f'{records[0]["loss"]:.4f} to {last["loss"]:.4f}.</p><div class="two">{"".join(charts)}</div>'
        + table(["Source", "Loss, first", "last", "Val bpb, first", "last"], rows, "Losses and bits per byte by source")
        + f'<p class="note">From {esc("/".join(path.parts[-3:]))}.</p>'
    )


def check_same_build(folder: Path, shards: Shards) -> None:
    """ValueError if the checkpoints beside the metrics are of a run on another build"""
    for meta in sorted(folder.glob("meta_*.json"))[-1:]:
        about = json.loads(meta.read_text(encoding="utf-8"))
        theirs = about.get("midprep", {}).get("identity", {}).get("shards", "")
        ours = shards.manifest["fingerprint"]
        if theirs and theirs != ours:
            raise ValueError(
                f"{folder} is a run on another build (fingerprint {theirs[:12]}), {shards.root} has {ours[:12]}: give the "
                "directory of a run on this one."
            )


def series(records: list[dict[str, Any]], key: str) -> Array:
    return np.array([record.get(key, np.nan) for record in records], dtype=float)


def evaluations(records: list[dict[str, Any]]) -> tuple[Array, Array]:
    """(steps done (n,), bits per byte (n,)), the one before training at 0"""
    found = [(record["step"], record["val_bpb_before"]) for record in records if "val_bpb_before" in record]
    found += [(record["step"] + 1, record["val_bpb"]) for record in records if "val_bpb" in record]
    found.sort()
    return np.array([step for step, _ in found]), np.array([bpb for _, bpb in found], dtype=float)


def curve(title: str, x: Array, y: Array, unit: str, low: float | None) -> str:
    """A titled chart of y over steps x; '' where there is nothing to draw"""
    if len(x) < 2:
        return ""
    width = -(-len(x) // POINTS)
    cuts = np.arange(0, len(x), width)
    counts = np.diff(np.append(cuts, len(x)))
    means = np.add.reduceat(y, cuts) / counts
    bottom, top = float(np.nanmin(y)) if low is None else low, float(np.nanmax(y))
    bottom, top, ticks = axis(bottom, top)
    first, last = int(x[0]), int(x[-1])
    places = (x[cuts] - first) / max(last - first, 1)
    shape = line(places, (means - bottom) / (top - bottom), "stroke:var(--c0)", "line main")
    label = f"{title}, {unit}, from step {first:,} to {last:,}: {y[0]:.4g} to {y[-1]:.4g}"
    x_ticks: list[Tick] = [(0.0, f"{first:,}"), (0.5, f"{(first + last) // 2:,}"), (1.0, f"{last:,}")]
    return f"<div><h3>{title}</h3>{plot(shape, label, x_ticks, ticks, '10rem')}</div>"


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
