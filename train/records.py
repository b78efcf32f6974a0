"""
metrics.jsonl: one JSON object per step of a training run, written as the step ends.

    {"step": 0, "num_steps": 13, "loss": 10.4, "lrm": 1.0, "dt": 0.8, "tokens_per_second": 163840.0, "num_targets": 129870,
     "loss_by_source": {"gsm8k": 10.2, ...}, "rows_sha256": "...", "val_bpb_before": 4.26, ...}

`val_bpb` and `val_bpb_by_source` were measured after that step; with `_before`, in the first record, before it. So were
`accuracy_by_task` and `chat_core`, the mean over tasks of (accuracy - chance) / (1 - chance), with --eval-tasks-every.
"""

import json
import math
import os
import shutil
import statistics
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from prep.files import write_atomically

Record = dict[str, Any]
BY_SOURCE = ("loss_by_source", "val_bpb_by_source")
MEAN_STEPS = 10  # at either end of a run, whose mean loss is compared


def keep_steps(path: Path, num_steps: int, say: Callable[[str], None]) -> list[Record]:
    """
    The records of a run's first steps, 0 .. num_steps - 1. The rest is removed from the file, so that a resumed run has no step
    twice, and `say` tells how much. Of a file that is out of order a copy is kept. A last line that a kill has truncated does
    not count; ValueError for any other line that is not a record.
    """
    data = path.read_bytes() if path.is_file() else b""
    lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    records = [read_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    steps = [record["step"] for record in records]
    numbers = {step: number for number, step in enumerate(steps) if step < num_steps}  # of a step its last line
    kept = [numbers[step] for step in sorted(numbers)]
    num_removed = len(lines) - len(kept)
    if len(kept) < num_steps:
        say(f"{path} has {len(kept)} of the {num_steps} steps before: the others are missing there from now on")
    if [*sorted(numbers), *range(num_steps, num_steps + num_removed)] == steps:
        if num_removed:
            say(f"{path}: {num_removed} records from step {num_steps} on are removed, they are trained again")
        if data:
            os.truncate(path, sum(len(lines[number]) + 1 for number in kept))
    else:
        copy = next(free for n in count(1) if not (free := path.with_name(f"{path.stem}-{n}.jsonl")).exists())
        shutil.copyfile(path, copy)
        wrong = next(number for number, step in enumerate(steps) if step != number)
        problem = f"{path}, line {wrong + 1} is of step {steps[wrong]}, wanted {wrong}"
        say(f"{problem}: {num_removed} of {len(lines)} lines are removed, all are kept in {copy}")
        write_atomically(path, lambda file: file.write(b"".join(lines[number] + b"\n" for number in kept)))
    return [records[number] for number in kept]


def read_record(line: bytes, where: str) -> Record:
    """The record of a line; ValueError unless the values that are read again have their types"""
    try:
        record: Record = json.loads(line)
        by_source = [record.get(f"{key}{when}") or {} for key in BY_SOURCE for when in ("", "_before")]
        numbers = [record["dt"], *(value for values in by_source for value in values.values())]
        numbers += [record[key] for key in ("val_bpb", "val_bpb_before") if record.get(key) is not None]
        if type(record["step"]) is int and record["step"] >= 0 and all(map(math.isfinite, numbers)):
            return record
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        pass
    raise ValueError(f"{where} is not a record of a step: remove the line, or the file")


def first_and_last(records: list[Record], key: str) -> dict[str, tuple[float, float]]:
    """{source: (first, last)} of the values under `key` + "_before" (before training) and `key` (after a step)."""
    return {name: (values[0], values[-1]) for name, values in values_by_source(records, key).items()}


def first_and_last_means(records: list[Record], key: str) -> dict[str, tuple[float, float]]:
    """{source: (mean, mean)} over the first and the last steps that have a value under `key`."""
    return {name: end_means(values) for name, values in values_by_source(records, key).items()}


def end_means(values: list[float]) -> tuple[float, float]:
    """
    Means over the first and the last values: up to 10, never one in both. A single step is noisy: rows hold different
    conversations.
    """
    num = max(1, min(MEAN_STEPS, len(values) // 2))
    return statistics.fmean(values[:num]), statistics.fmean(values[-num:])


def values_by_source(records: list[Record], key: str) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for record in records:
        for by_name in (record.get(f"{key}_before"), record.get(key)):
            for name, value in (by_name or {}).items():
                out.setdefault(name, []).append(value)
    return out


def measured_bpb(records: list[Record]) -> list[float]:
    """Bits per byte on val of each evaluation, the one before training first."""
    return [record[key] for record in records for key in ("val_bpb_before", "val_bpb") if key in record]
