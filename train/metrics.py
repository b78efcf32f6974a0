"""
What a run reports: a line per step, an object per step in metrics.jsonl, and a summary at the end.

    step 00100/02000 (5.00%) | loss: 2.345678 | lrm: 1.00 | dt: 245.32ms | tok/sec: 2,137,856 | mfu: 45.67 | ...

The objects, and how they are read again, are in `train.records`.
"""

import errno
import hashlib
import importlib
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.files import dangling_link
from prep.shard.steps import FILLER
from train.records import Record, first_and_last, first_and_last_means, keep_steps, measured_bpb

if TYPE_CHECKING:  # without torch
    from train.setup import Run

# dense bfloat16 FLOP/s of a device, by a part of its name; the first that occurs counts
PEAK_FLOPS = {
    "GB200": 2.5e15, "B200": 2.25e15, "B100": 1.8e15, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12,
    "H100": 989e12, "H20": 148e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12, "A10": 125e12,
    "RTX 5090": 209.5e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12, "MI355X": 2.5e15, "MI325X": 1.3e15, "MI300X": 1.3e15,
}  # fmt: skip


def peak_flops(name: str) -> float:
    """FLOP/s of a device by its name; 0 if it is not known: then mfu is 0 as well."""
    return next((flops for part, flops in PEAK_FLOPS.items() if f" {part} " in f" {name.replace('-', ' ')} "), 0.0)


def ratios(names: Sequence[str], over: Sequence[float], under: Sequence[float], unit: float = 1.0) -> dict[str, float]:
    """{name: sum over / sum under / unit} where `under` is not 0; sources with the same name are added up."""
    sums: dict[str, tuple[float, float]] = {}
    for name, a, b in zip(names, over, under, strict=True):
        a_before, b_before = sums.get(name, (0.0, 0.0))
        sums[name] = a_before + a, b_before + b
    return {name: a / b / unit for name, (a, b) in sums.items() if b}


def step_record(
    run: "Run", step: int, lrm: float, loss: float, loss_by_source: dict[str, float], seconds: float, peak: float
) -> Record:
    """The record of a step that took `seconds`; `peak` is the tokens per second of all devices at full speed, or 0."""
    tokens_per_second = run.plan.rows_per_step * run.split.max_seq_len / seconds
    return {
        "step": step,
        "num_steps": run.plan.num_steps,
        "loss": loss,
        "lrm": lrm,
        "dt": seconds,
        "tokens_per_second": tokens_per_second,
        "mfu": 100 * tokens_per_second / peak if peak else 0.0,
        "num_targets": run.plan.targets_of_step(step),
        "loss_by_source": loss_by_source,
        "rows_sha256": hashlib.sha256(run.plan.rows_of_step(step).tobytes()).hexdigest()[:16],
    }


class Metrics:
    """metrics.jsonl, the lines on the terminal and the logger. Only rank 0 writes."""

    def __init__(self, path: Path, is_main: bool) -> None:
        self.path = path
        self.is_main = is_main
        self.records: list[Record] = []
        self.total_seconds = 0.0
        self.remote: Any = None
        self.unwritten = b""  # lines that could not be written yet
        self.problem: str | None = None  # and why: the loop saves and ends after the next step

    def clear(self) -> None:
        """Remove the records of a run that is replaced."""
        with suppress(OSError):  # not there; `keep` says what else it is
            os.truncate(self.path, 0)

    def keep(self, num_steps: int, say: Callable[[str], None]) -> None:
        """Continue after the first steps of an earlier run; `say` what is removed or missing of its records."""
        if not self.is_main:
            return
        try:
            if self.path.is_fifo():  # opening it would wait for a reader
                raise OSError(errno.EINVAL, "it is a named pipe")
            self.append(b"")
        except OSError as error:
            reason = dangling_link(self.path) or error.strerror
            raise OSError(self.refusal(reason, "mend that, or give another --out")) from None
        self.records = keep_steps(self.path, num_steps, say)
        self.total_seconds = sum(record["dt"] for record in self.records)

    def connect(self, logger: str, run: str, config: Record) -> None:
        """Also send the records to wandb or trackio, unless the run has the name dummy. ValueError if that fails."""
        if run == "dummy" or not self.is_main:
            return
        try:
            self.remote = importlib.import_module(logger).init(project="midprep", name=run, config=config)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # not installed, or whatever it raises where nobody is logged in
            raise ValueError(f"--run {run} ({logger}): {reason_of(error)}: install it, or log in") from None

    def write(self, record: Record) -> None:
        self.total_seconds += record["dt"]
        if not self.is_main:
            return
        self.records.append(record)
        self.unwritten += json.dumps(record).encode() + b"\n"
        try:
            self.append(self.unwritten)
            self.unwritten = b""
        except OSError as error:
            self.problem = error.strerror or str(error)
        print(self.line(record), flush=True)
        self.use_logger(lambda remote: remote.log(record, step=record["step"]))

    def append(self, lines: bytes) -> None:
        """All or nothing: where the disk is full, half a line is taken back."""
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with open(self.path, "ab") as file:
                file.write(lines)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, size)
            raise

    def refusal(self, reason: str | None, advice: str) -> str:
        return f"{self.path} cannot be written ({reason}): {advice}"

    def use_logger(self, use: Callable[[Any], object]) -> None:
        """Call the logger, if there is one. One that fails is not called again, and the run goes on."""
        if self.remote is None:
            return
        try:
            use(self.remote)
        except BaseException as error:  # whatever it raises: SystemExit, the CancelledError of asyncio
            self.remote = None
            line = f"the logger failed ({reason_of(error)}): nothing more is sent to it, {self.path} has every step"
            print(line, file=sys.stderr)

    def line(self, record: Record) -> str:
        step, num_steps = record["step"], record["num_steps"]
        line = (
            f"step {step:05d}/{num_steps:05d} ({100 * step / num_steps:.2f}%) | loss: {record['loss']:.6f} | "
            f"lrm: {record['lrm']:.2f} | dt: {1000 * record['dt']:.2f}ms | tok/sec: {record['tokens_per_second']:,.0f} | "
            f"mfu: {record['mfu']:.2f} | total time: {self.total_seconds / 60:.2f}m"
        )
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else len(line)
        while len(line) > width and " | " in line:  # the last fields go first
            line = line.rpartition(" | ")[0]
        return line

    def close(self, step: int) -> None:
        """OSError that names the file if it could not be written: the run ended with the checkpoint of `step`."""
        self.use_logger(lambda remote: remote.finish())
        if self.problem:
            saved = f"the run is saved at step {step}; mend that, and run the same command to go on"
            raise OSError(self.refusal(self.problem, saved))


def reason_of(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing"""
    with suppress(Exception):
        return " ".join(str(error).split()) or type(error).__name__
    return type(error).__name__


# ---- what a run says when it ends ----


def nonfinite_message(run: "Run", step: int, nats: Sequence[float], saved_steps: list[int]) -> str:
    """Where a loss is not finite: step, rows, and sources by their summed losses `nats` (S,)."""
    rows = run.plan.rows_of_step(step)
    shown_rows = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    pairs = zip(run.split.source_names, nats, strict=True)
    sources = ", ".join(sorted({name for name, value in pairs if not math.isfinite(value)}))
    saved = f"step {saved_steps[-1]} in {run.root}" if saved_steps else "none yet"
    where = f"rows {shown_rows} of {run.split.name}; sources {sources}"
    return f"loss is {sum(nats)} at step {step} ({where}): last checkpoint: {saved}"


def summary(run: "Run", metrics: Metrics, step: int) -> str:
    """What stands at the end of a run that saved `step` last: sizes, losses by source, and the next command."""
    plan = run.plan
    how = "finished" if step == plan.num_steps else "stopped"
    num_fillers = int((plan.rows_of_step(step - 1) == FILLER).sum())
    facts = {
        "steps": f"{step} of {plan.num_steps}",
        "tokens": f"{(step * plan.rows_per_step - num_fillers) * run.split.max_seq_len:,}",
        "time": f"{metrics.total_seconds / 60:.2f}m",
        "checkpoint": f"{run.root}/model_{step:06d}.pt",
    }
    bpb = measured_bpb(metrics.records)
    if bpb:
        facts["val bpb"] = from_to(bpb) + (" before the first step" if len(bpb) == 1 else "")
    over_chance = [record["chat_core"] for record in metrics.records if "chat_core" in record]
    if over_chance:
        facts["answers"] = f"{from_to(over_chance)} over chance"
    facts["metrics"] = str(metrics.path)
    lines = [f"  {name:<12}{value}" for name, value in facts.items()]
    return "\n".join([f"\n{run.config.mode} run {how}", *lines, *closing_table(metrics.records), *next_step(run, step)])


def next_step(run: "Run", step: int) -> Iterator[str]:
    """The commands that continue: the same run, sft after mid, nanochat after sft; and the one that asks the model."""
    config = run.config
    if step < run.plan.num_steps:
        flags = " without --resume never" if config.resume == "never" else ""
        yield f"\nto continue at step {step}, run the same command{flags}"
        return
    if config.mode == "mid" and not run.split.rows["num_trainable"].any():
        return  # text alone: nothing to ask, and nothing that sft could train on
    yield f"\nask it: {shlex.join(['midprep', 'chat', str(run.root)])}"
    if config.mode == "mid":
        words = ["torchrun", sys.argv[0], "--shards", config.shards, "--mode", "sft", "--base", str(run.root)]
        words += ["--split", config.split] if config.split != "train" else []
        words += ["--out", config.out] if config.out else []
        yield "next: " + shlex.join(words + (["--model-tag", config.model_tag] if config.model_tag else []))
    else:
        home = run.root.resolve().parents[1]
        if not (home / "tokenizer" / "tokenizer.pkl").is_file():
            words = ["midprep", "tokenizer", "export", f"{home}/tokenizer", "--tokenizer", config.shards]
            yield f"next: {shlex.join(words)}"
        which = "today's nanochat" if run.model.config.is_2026 else "nanochat of 2025-12 (not today's)"
        model = shlex.quote(run.root.name)
        yield f"next, in {which}: NANOCHAT_BASE_DIR={shlex.quote(str(home))} python -m scripts.chat_cli -i sft -g {model}"


def closing_table(records: list[Record]) -> Iterator[str]:
    """Lines by source: mean training loss of the first and the last steps, bits per byte on val, share of right answers."""
    columns = [first_and_last_means(records, "loss_by_source"), first_and_last(records, "val_bpb_by_source")]
    columns += filter(None, [first_and_last(records, "accuracy_by_task")])
    titles = ("mean train loss", "val bpb", "right answers")[: len(columns)]
    yield f"  {'source':<24}" + "".join(f"{title:>20}" for title in titles)
    for name in sorted({name for column in columns for name in column}):
        yield f"  {name:<24}" + "".join(f"{from_to(column[name]) if name in column else '-':>20}" for column in columns)


def from_to(values: Sequence[float]) -> str:
    """
    >>> from_to([4.26, 3.5, 3.01]), from_to([4.26])
    ('4.2600 -> 3.0100', '4.2600')
    """
    return " -> ".join(f"{value:.4f}" for value in dict.fromkeys((values[0], values[-1])))
