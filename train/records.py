"""
metrics.jsonl: what a training run says of itself, one JSON object a step, written as the step ends.

    {"step": 0, "num_steps": 13, "loss": 10.4, "lrm": 1.0, "dt": 0.8, "tokens_per_second": 163840.0, "num_targets": 129870,
     "loss_by_source": {"gsm8k": 10.2, ...}, "rows_sha256": "...", "val_bpb_before": 4.26, ...}

`val_bpb` and `val_bpb_by_source` were measured after that step; with `_before`, in the first record, before it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def keep_steps(path: Path, num_steps: int) -> list[Record]:
    """
    The records of a run's first steps; what stands after them is cut off the file, so that a resumed run never tells of a
    step twice. ValueError for a line that is no record; a last line that a kill has cut is none.
    """
    records, size = list[Record](), 0
    if not path.is_file():
        return records
    for number, text in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not text.endswith(b"\n") or not num_steps:
            break
        try:
            record = json.loads(text)
            step, _ = int(record["step"]), float(record["dt"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number} is no record of a step: take that line out, or the file") from None
        if step >= num_steps:
            break
        records.append(record)
        size += len(text)
    os.truncate(path, size)
    return records


def first_and_last(records: list[Record], key: str) -> dict[str, tuple[float, float]]:
    """{source: (first, last)} of what the records say by source under `key`, or before training under `key` + "_before\""""
    out: dict[str, tuple[float, float]] = {}
    for record in records:
        for by_name in (record.get(f"{key}_before"), record.get(key)):
            for name, value in (by_name or {}).items():
                out[name] = (out[name][0] if name in out else value, value)
    return out


def measured_bpb(records: list[Record]) -> list[float]:
    """Bits per byte on val of each evaluation, the one before training first"""
    return [record[key] for record in records for key in ("val_bpb_before", "val_bpb") if key in record]


def from_to(values: Sequence[float]) -> str:
    """
    >>> from_to([4.26, 3.5, 3.01]), from_to([4.26])
    ('4.2600 -> 3.0100', '4.2600')
    """
    return " -> ".join(f"{value:.4f}" for value in dict.fromkeys((values[0], values[-1])))


def closing_table(records: list[Record]) -> Iterator[str]:
    """Lines: train loss and bits per byte on val of each source, first and last"""
    yield f"  {'source':<24}{'train loss':>20}{'val bpb':>20}"
    loss, bpb = (first_and_last(records, key) for key in ("loss_by_source", "val_bpb_by_source"))
    for name in sorted(loss.keys() | bpb.keys()):
        cells = [from_to(found[name]) if name in found else "-" for found in (loss, bpb)]
        yield f"  {name:<24}{cells[0]:>20}{cells[1]:>20}"
