"""
What a run says: a line a step, and metrics.jsonl.

    step 00100/02000 (5.00%) | loss: 2.345678 | lrm: 1.00 | dt: 245.32ms | tok/sec: 2,137,856 | mfu: 45.67 | ...

What stands in metrics.jsonl, how a resumed run goes on with it, and the table at the end are `train.records`.
"""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from train.records import Record, keep_steps

# dense bfloat16 FLOP/s of a device, by a part of its name; the first that occurs counts
PEAK_FLOPS = {
    "GB200": 2.5e15, "B200": 2.25e15, "B100": 1.8e15, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12,
    "H100": 989e12, "H20": 148e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "A10": 125e12,
    "RTX 5090": 209.5e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12, "MI355X": 2.5e15, "MI325X": 1.3e15, "MI300X": 1.3e15,
}  # fmt: skip


def peak_flops(name: str) -> float:
    """Of a device by its name; 0 where it is not known: then mfu is 0 as well."""
    return next((flops for part, flops in PEAK_FLOPS.items() if f" {part} " in f" {name.replace('-', ' ')} "), 0.0)


class Metrics:
    """Rank 0's; on other ranks it stays silent."""

    def __init__(self, path: Path, is_main: bool) -> None:
        self.path, self.is_main = path, is_main
        self.records: list[Record] = []
        self.total_seconds = 0.0
        self.remote: Any = None

    def keep(self, num_steps: int) -> None:
        """Go on after the first steps of an earlier run."""
        self.records = keep_steps(self.path, num_steps) if self.is_main else []
        self.total_seconds = sum(record["dt"] for record in self.records)

    def connect(self, logger: str, run: str, config: Record) -> None:
        """Send the same to wandb or trackio; a run named dummy stays here."""
        if run == "dummy" or not self.is_main:
            return
        try:
            self.remote = importlib.import_module(logger).init(project="midprep", name=run, config=config)
        except Exception as error:  # it is not there, or whatever it raises where nobody is logged in
            raise ValueError(f"--run {run} ({logger}): {' '.join(str(error).split())}: install it, or log in") from None

    def write(self, record: Record) -> None:
        self.total_seconds += record["dt"]
        if not self.is_main:
            return
        self.records.append(record)
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
        step, num_steps, dt = record["step"], record["num_steps"], 1000 * record["dt"]
        line = (
            f"step {step:05d}/{num_steps:05d} ({100 * step / num_steps:.2f}%) | loss: {record['loss']:.6f} | "
            f"lrm: {record['lrm']:.2f} | dt: {dt:.2f}ms | tok/sec: {record['tokens_per_second']:,.0f} | "
            f"mfu: {record['mfu']:.2f} | total time: {self.total_seconds / 60:.2f}m"
        )
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else len(line)
        while len(line) > width and " | " in line:  # the last fields go first
            line = line.rpartition(" | ")[0]
        print(line, flush=True)
        if self.remote is not None:
            self.remote.log(record, step=record["step"])

    def close(self) -> None:
        if self.remote is not None:
            self.remote.finish()
