"""
Watch a run from its metrics.jsonl, on this machine or on a copy that grows.

    1,204 of 2,000 steps (60.2%)  loss 1.8342  bpb 0.7123  2.14M tok/s  lr x 1.00  6:41 left

In a terminal a live view with curves; elsewhere a plain line per new step. A resumed run that rewrites the file is read
again from the beginning. Price: each look reads the whole file, 50 MB after 100,000 steps.
"""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.screen import console
from prep.signals import Interrupted
from prep.text import clock, short, visible
from train.records import Record, first_and_last, first_and_last_means, measured_bpb

if TYPE_CHECKING:
    from rich.console import RenderableType

BLOCKS = "▁▂▃▄▅▆▇█"
RECENT = 50  # steps whose speed gives the time left
SILENCE = 300.0  # seconds without a new step after which the line of an unfinished run says so

Summary = dict[str, Any]  # `midprep watch --json`


def find_metrics(run: Path) -> Path:
    """The metrics.jsonl of a run: the file itself, or the newest in the directory. FileNotFoundError if there is none."""
    if run.is_file() and run.suffix == ".jsonl":
        return run
    if run.is_file():
        raise ValueError(f"{run} is not a metrics.jsonl: give that file, or the directory of a run.")
    paths = sorted(run.rglob("metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise FileNotFoundError(
            f"no metrics.jsonl in {run}: give the directory of a run, as runs/mid, once it has trained a step."
        )
    return paths[-1]


class Tail:
    """The records of a file that grows or is rewritten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = b""  # what the records are from
        self.records: list[Record] = []

    def read(self) -> list[Record]:
        """All records of the file as it is now. A last line without its end is read once it is complete."""
        data = self.path.read_bytes()
        lines = data[: data.rfind(b"\n") + 1]
        if not lines.startswith(self.lines):
            self.lines = b""
            self.records = []
        for line in lines[len(self.lines) :].splitlines():
            self._add(line)
        self.lines = lines
        return self.records

    def _add(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return  # truncated by a kill
        if not isinstance(record, dict) or "step" not in record:
            return
        # a resumed run repeats steps: those it has not repeated yet do not count either
        while self.records and self.records[-1]["step"] >= record["step"]:
            self.records.pop()
        self.records.append(record)


def read_records(path: Path) -> list[Record]:
    return Tail(path).read()


def follow(tail: Tail, seconds: float, every_look: bool = False) -> Iterator[list[Record]]:
    """The records at each look that finds another last step, or at every look, until the run has trained its last step."""
    last_step = None
    while True:
        records = tail.read()
        step = records[-1]["step"] if records else -1
        if every_look or step != last_step:
            yield records
        if records and step + 1 >= records[-1]["num_steps"]:
            return
        last_step = step
        time.sleep(seconds)


def live(tail: Tail, seconds: float) -> None:
    """The view in a terminal, until the run has trained its last step or Ctrl-C; it stays on the screen."""
    from rich.live import Live

    with suppress(Interrupted), Live(console=console(), auto_refresh=False) as screen:
        for records in follow(tail, seconds, every_look=True):
            screen.update(view(summary(tail.path, records), records, screen.console.width), refresh=True)


def summary(path: Path, records: list[Record]) -> Summary:
    """The state of a run, as plain values."""
    if not records:
        return {"metrics": str(path), "steps_done": 0}
    last = records[-1]
    recent = records[-RECENT:]
    done = last["step"] + 1
    bpb = measured_bpb(records)
    seconds_per_step = statistics.median(record["dt"] for record in recent)  # not the mean: the first step compiles
    return {
        "metrics": str(path),
        "steps_done": done,
        "num_steps": last["num_steps"],
        "share_done": round(done / last["num_steps"], 6),
        "loss": last["loss"],
        "loss_recent": statistics.fmean(record["loss"] for record in recent),
        "val_bpb": bpb[-1] if bpb else None,
        "val_bpb_first": bpb[0] if bpb else None,
        "lr_multiplier": last["lrm"],
        "tokens_per_second": statistics.median(record["tokens_per_second"] for record in recent),
        "mfu": last.get("mfu", 0.0),
        "targets": sum(record.get("num_targets", 0) for record in records),
        "seconds": round(sum(record["dt"] for record in records), 3),
        "seconds_left": round(seconds_per_step * (last["num_steps"] - done), 1),
        "seconds_since": round(max(0.0, time.time() - path.stat().st_mtime), 1),
        "loss_by_source": first_and_last_means(records, "loss_by_source"),
        "val_bpb_by_source": first_and_last(records, "val_bpb_by_source"),
    }


def line(state: Summary) -> str:
    """A run on one line."""
    if not state["steps_done"]:
        return f"{visible(state['metrics'])}: no step yet"
    bpb = f"  bpb {state['val_bpb']:.4f}" if state["val_bpb"] is not None else ""
    left = f"{clock(state['seconds_left'])} left" if state["seconds_left"] else f"finished in {clock(state['seconds'])}"
    if state["seconds_left"] and state["seconds_since"] > SILENCE:
        left += f", nothing new for {clock(state['seconds_since'])}"
    return (
        f"{state['steps_done']:,} of {state['num_steps']:,} steps ({state['share_done']:.1%})  loss {state['loss']:.4f}{bpb}  "
        f"{short(round(state['tokens_per_second']))} tok/s  lr x {state['lr_multiplier']:.2f}  {left}"
    )


def sparkline(values: list[float], width: int, from_zero: bool = False) -> str:
    """
    >>> sparkline([4.0, 3.0, 2.0, 1.0], 4), sparkline([4.0, 3.0, 2.0, 1.0], 4, from_zero=True)
    ('█▆▃▁', '█▆▅▃')
    """
    if not values:
        return ""
    width = min(width, len(values))
    ends = [len(values) * i // width for i in range(width + 1)]
    means = [statistics.fmean(values[start:end]) for start, end in pairwise(ends)]
    low = 0.0 if from_zero else min(means)
    span = (max(means) - low) or 1.0
    return "".join(BLOCKS[round((mean - low) / span * (len(BLOCKS) - 1))] for mean in means)


def view(state: Summary, records: list[Record], width: int) -> "RenderableType":
    """The live view: a line, a progress bar, curves, a table by source."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Column, Table
    from rich.text import Text

    if not records:
        return Text(line(state))
    curves = Table.grid(padding=(0, 2))
    for name, values, from_zero in (
        ("loss", [record["loss"] for record in records], False),
        ("val bpb", measured_bpb(records), False),
        ("tokens/s", [record["tokens_per_second"] for record in records], True),
        ("lr x", [record["lrm"] for record in records], True),
    ):
        last = f"{values[-1]:,.6g}" if values else "-"
        curve = sparkline(values, max(10, width - 34), from_zero)
        curves.add_row(Text(name, "dim"), Text(last, "bold"), Text(curve, "green"))
    headers = (Column(name, justify="right") for name in ("mean loss, first steps", "last", "val bpb, first", "last"))
    sources = Table("source", *headers, box=None, pad_edge=False, header_style="dim")
    ends = [state["loss_by_source"], state["val_bpb_by_source"]]
    for name in sorted({name for by_source in ends for name in by_source}):
        pairs = [[f"{value:.4f}" for value in by_source.get(name, ())] or ["", ""] for by_source in ends]
        sources.add_row(Text(visible(name)), *pairs[0], *pairs[1])
    bar = ProgressBar(total=state["num_steps"], completed=state["steps_done"], width=min(width, 100))
    path = Text(visible(state["metrics"]), "dim")
    return Group(Text(line(state), "bold"), bar, "", curves, "", sources, path)
