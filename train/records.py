"""
metrics.jsonl: one JSON object per step of a training run, written as the step ends.

    {"step": 0, "num_steps": 13, "loss": 10.4, "lrm": 1.0, "dt": 0.8, "tokens_per_second": 163840.0, "num_targets": 129870,
     "loss_by_source": {"gsm8k": 10.2, ...}, "rows_sha256": "...", "val_bpb_before": 4.26, ...}

`val_bpb` and `val_bpb_by_source` were measured after that step; with `_before`, in the first record, before it.
"""

import json
import os
import statistics
from pathlib import Path
from typing import Any

Record = dict[str, Any]
MEAN_STEPS = 10  # at either end of a run, whose mean loss is compared


def keep_steps(path: Path, num_steps: int) -> list[Record]:
    """
    The records of a run's first steps. The rest is removed from the file, so that a resumed run has no step twice. A last
    line that a kill has truncated does not count; ValueError for any other line that is not a record.
    """
    records = list[Record]()
    size = 0
    if not path.is_file():
        return records
    for number, text in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not text.endswith(b"\n") or not num_steps:
            break
        try:
            record = json.loads(text)
            step, _ = int(record["step"]), float(record["dt"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number} is not a record of a step: remove the line, or the file") from None
        if step >= num_steps:
            break
        records.append(record)
        size += len(text)
    os.truncate(path, size)
    return records


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
