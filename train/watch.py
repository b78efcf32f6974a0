"""
Watch a run from its metrics.jsonl, on this machine or on a copy that grows.

    1,204 of 2,000 steps (60.2%)  loss 1.8342  bpb 0.7123  2.14M tok/s  lr x 1.00  6:41 left

In a terminal a live view with curves; elsewhere a plain line a new step. The file is read on from where it ended; when a
resumed run has rewritten it, from its beginning.
"""

import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.signals import Interrupted
from prep.text import clock, short, visible
from train.records import Record, first_and_last, measured_bpb

if TYPE_CHECKING:
    from rich.console import RenderableType

BLOCKS = "▁▂▃▄▅▆▇█"
RECENT = 50  # steps whose speed says how long the rest takes
SILENCE = 300.0  # seconds after which a run that is not finished is said to be silent


def find_metrics(run: Path) -> Path:
    """The metrics.jsonl of a run: the file itself, or the newest one in the directory. FileNotFoundError if there is none."""
    if run.is_file() and run.suffix == ".jsonl":
        return run
    if run.is_file():
        raise ValueError(f"{run} is no metrics.jsonl: give that file, or the directory of a run.")
    found = sorted(run.rglob("metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f"no metrics.jsonl in {run}: give the directory of a run, as runs/mid, once it has trained a step."
        )
    return found[-1]


class Tail:
    """The records of a file that grows, and may be written anew."""

    def __init__(self, path: Path) -> None:
        self.path, self.place, self.inode = path, 0, -1
        self.last = b""  # the line before `place`: where it stands no more, the file was cut and grew again
        self.records: list[Record] = []

    def read(self) -> list[Record]:
        """Read what is new; returns all records. A last line that is not whole waits for the next time."""
        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            file.seek(max(0, self.place - len(self.last)))
            if file.read(len(self.last)) != self.last or status.st_ino != self.inode:
                self.place, self.inode, self.last, self.records = 0, status.st_ino, b"", []
            file.seek(self.place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.place += len(whole)
        self.last = whole[whole.rfind(b"\n", 0, -1) + 1 :] or self.last
        for line in whole.splitlines():
            record = _parse(line)
            if record is not None:
                self.records = self.records if _goes_on(self.records, record) else _before(self.records, record)
                self.records.append(record)
        return self.records


def _parse(line: bytes) -> Record | None:
    """A line as a record; None for one that was cut by a kill"""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "step" in record else None


def _goes_on(records: list[Record], record: Record) -> bool:
    return not records or record["step"] > records[-1]["step"]


def _before(records: list[Record], record: Record) -> list[Record]:
    """A step that was told before is told again: the run was resumed, what came after does not count"""
    return [one for one in records if one["step"] < record["step"]]


def read_records(path: Path) -> list[Record]:
    return Tail(path).read()


def summary(path: Path, records: list[Record]) -> dict[str, Any]:
    """Where a run stands, as plain values"""
    if not records:
        return {"metrics": str(path), "steps_done": 0}
    last, recent = records[-1], records[-RECENT:]
    done, bpb = last["step"] + 1, measured_bpb(records)
    seconds = statistics.median(record["dt"] for record in recent)  # not the mean: the first step compiles
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
        "seconds_left": round(seconds * (last["num_steps"] - done), 1),
        "seconds_since": round(max(0.0, time.time() - path.stat().st_mtime), 1),
        "loss_by_source": first_and_last(records, "loss_by_source"),
        "val_bpb_by_source": first_and_last(records, "val_bpb_by_source"),
    }


def line(found: dict[str, Any]) -> str:
    """The one line of a run"""
    if not found["steps_done"]:
        return f"{visible(found['metrics'])}: no step yet"
    bpb = f"  bpb {found['val_bpb']:.4f}" if found["val_bpb"] is not None else ""
    left = f"{clock(found['seconds_left'])} left" if found["seconds_left"] else f"finished in {clock(found['seconds'])}"
    if found["seconds_left"] and found["seconds_since"] > SILENCE:
        left += f", nothing new for {clock(found['seconds_since'])}"
    return (
        f"{found['steps_done']:,} of {found['num_steps']:,} steps ({found['share_done']:.1%})  loss {found['loss']:.4f}{bpb}  "
        f"{short(round(found['tokens_per_second']))} tok/s  lr x {found['lr_multiplier']:.2f}  {left}"
    )


def sparkline(values: list[float], width: int, from_zero: bool = False) -> str:
    """
    >>> sparkline([4.0, 3.0, 2.0, 1.0], 4), sparkline([4.0, 3.0, 2.0, 1.0], 4, from_zero=True)
    ('█▆▃▁', '█▆▅▃')
    """
    if not values:
        return ""
    width = min(width, len(values))
    cuts = [len(values) * i // width for i in range(width + 1)]
    means = [statistics.fmean(values[a:b]) for a, b in pairwise(cuts)]
    low = 0.0 if from_zero else min(means)
    span = (max(means) - low) or 1.0
    return "".join(BLOCKS[round((mean - low) / span * (len(BLOCKS) - 1))] for mean in means)


def view(found: dict[str, Any], records: list[Record], width: int) -> "RenderableType":
    """The live view: progress, curves, a table by source"""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if not records:
        return Text(line(found))
    room = max(10, width - 34)
    curves = Table.grid(padding=(0, 2))
    bpb = measured_bpb(records)
    for name, values, shown in (
        ("loss", [r["loss"] for r in records], f"{found['loss']:.4f}"),
        ("val bpb", bpb, f"{bpb[-1]:.4f}" if bpb else "-"),
        ("tokens/s", [r["tokens_per_second"] for r in records], short(round(found["tokens_per_second"]))),
        ("lr x", [r["lrm"] for r in records], f"{found['lr_multiplier']:.3f}"),
    ):
        curve = sparkline(values, room, from_zero=name in ("tokens/s", "lr x"))
        curves.add_row(Text(name, "dim"), Text(shown, "bold"), Text(curve, "green"))
    sources = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("source", "loss, first", "last", "val bpb, first", "last"):
        sources.add_column(column, justify="left" if column == "source" else "right")
    ends = found["loss_by_source"], found["val_bpb_by_source"]
    for name in sorted({name for by in ends for name in by}):
        cells = [text for by in ends for text in (map("{:.4f}".format, by[name]) if name in by else ("", ""))]
        sources.add_row(Text(visible(name)), *cells)
    quiet = found["seconds_since"]
    age = f"nothing new for {clock(quiet)}" if quiet > 60 and found["seconds_left"] else ""
    bar = ProgressBar(total=found["num_steps"], completed=found["steps_done"], width=min(width, 100))
    return Group(
        Text(line(found), "bold"),
        bar,
        Text(""),
        curves,
        Text(""),
        sources,
        Text(age or visible(found["metrics"]), "dim"),
    )


def follow(tail: Tail, seconds: float) -> Iterator[list[Record]]:
    """The records whenever there is another last step, until the run has trained its last one"""
    seen: int | None = None
    while True:
        records = tail.read()
        last = records[-1]["step"] if records else -1
        if last != seen:
            seen = last
            yield records
        if is_finished(records):
            return
        time.sleep(seconds)


def is_finished(records: list[Record]) -> bool:
    return bool(records) and bool(records[-1]["step"] + 1 >= records[-1]["num_steps"])


def live(tail: Tail, seconds: float) -> None:
    """The live view in a terminal, until the run has trained its last step or Ctrl-C; the last look stays"""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with suppress(Interrupted), Live(console=console, auto_refresh=False) as screen:
        while True:
            records = tail.read()
            screen.update(view(summary(tail.path, records), records, console.width), refresh=True)
            if is_finished(records):
                return
            time.sleep(seconds)
