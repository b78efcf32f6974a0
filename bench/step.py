"""
One training step against the plain one: speed and peak memory, mid and sft, float32 and bfloat16.

    python bench/step.py            # depth 4, width 256, V 32,768, T 512, B 8; ratios within one run

Steps of both alternate in one process, so that a busy machine slows both; medians are compared. Peak memory is measured
in one process each: the highest resident set, minus what was resident before the model was made.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from bench.plain_step import PlainLoss  # noqa: E402
from prep.shard.batches import pack_targets  # noqa: E402
from train.evaluate import SourceSums  # noqa: E402
from train.loss import ROUND_TO, BatchLoss  # noqa: E402
from train.model import GPT  # noqa: E402
from train.optimizer import build_optimizers, set_step  # noqa: E402
from train.sizes import config_of_depth  # noqa: E402

DEPTH, VOCAB, T, B = 4, 32_768, 512, 8
TARGET_SHARE = {"mid": 1.0, "sft": 0.4}  # of all positions


def make_step(kind: str, mode: str, dtype: str, compiled: bool) -> Callable[[], float]:
    """A function that runs one step: forward, backward, both optimizers"""
    model = GPT(config_of_depth(DEPTH, T, VOCAB))
    model.init_weights(0)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.02)
    model.set_dtype(getattr(torch, dtype))
    optimizers = build_optimizers(model)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCAB, (B, T + 1))
    targets = np.where(rng.random((B, T)) < TARGET_SHARE[mode], tokens[:, 1:], -1)
    inputs = torch.from_numpy(tokens[:, :-1].astype(np.int32))
    positions, labels = (torch.from_numpy(array) for array in pack_targets(targets, ROUND_TO))
    targets_tensor, num_targets = torch.from_numpy(targets), int((targets >= 0).sum())
    ours = BatchLoss(model, compiled)
    plain = torch.compile(PlainLoss(model), dynamic=False) if compiled else PlainLoss(model)

    def step() -> float:
        if kind == "ours":
            loss = ours(inputs, positions, labels, None)[0] / num_targets
        else:
            loss = plain(inputs, targets_tensor)
        loss.backward()
        set_step(optimizers, 0, 1e-3)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def peak_memory(kind: str, mode: str, dtype: str, compiled: bool) -> float:
    """MB that three steps add to a process"""
    flags = [kind, mode, dtype, "compile" if compiled else "eager"]
    out = subprocess.run([sys.executable, __file__, "--child", *flags], capture_output=True, text=True, check=True)
    return float(json.loads(out.stdout.splitlines()[-1]))


def child(kind: str, mode: str, dtype: str, compiled: str) -> None:
    if compiled == "compile":
        torch.compile(torch.sin)(torch.ones(2))  # so that the memory of the compiler itself is not counted
    before = highest_mb()
    step = make_step(kind, mode, dtype, compiled == "compile")
    for _ in range(3):
        step()
    print(highest_mb() - before)


def highest_mb() -> float:
    """Highest resident set so far; not from getrusage, whose figure a child inherits from its parent"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def compare(mode: str, dtype: str, compiled: bool, num_steps: int) -> dict[str, float]:
    steps = {kind: make_step(kind, mode, dtype, compiled) for kind in ("plain", "ours")}
    losses = {kind: [step() for _ in range(2)] for kind, step in steps.items()}
    assert abs(losses["plain"][0] - losses["ours"][0]) < 2e-2, losses
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(num_steps):
        for kind, step in steps.items():
            started = time.perf_counter()
            step()
            times[kind].append(time.perf_counter() - started)
    seconds = {kind: statistics.median(values) for kind, values in times.items()}
    memory = {kind: peak_memory(kind, mode, dtype, compiled) for kind in steps}
    return {
        "plain_tokens_per_second": B * T / seconds["plain"],
        "ours_tokens_per_second": B * T / seconds["ours"],
        "speed": seconds["plain"] / seconds["ours"],
        "plain_peak_mb": memory["plain"],
        "ours_peak_mb": memory["ours"],
        "memory": memory["ours"] / memory["plain"],
    }


def by_source_seconds(num_sources: int = 6) -> float:
    """Seconds of the loop's losses by source: float64 sums by source of losses and of targets"""
    losses, labels = torch.rand(B * T), torch.randint(VOCAB, (B * T,), dtype=torch.int32)
    sources, times = torch.randint(num_sources, (B * T,), dtype=torch.int32), []
    for _ in range(50):
        started = time.perf_counter()
        SourceSums(num_sources, losses.device).add(sources, losses, labels >= 0)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description="a training step against the plain one")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--eager", action="store_true", help="neither side compiled")
    args = parser.parse_args()
    if args.child:
        return child(*args.child)
    print(
        f"depth {DEPTH}, V {VOCAB:,}, T {T}, B {B}, {torch.get_num_threads()} threads; sft has targets at 40 % of the positions"
    )
    print(f"{'':14}{'plain tok/s':>12}{'ours tok/s':>12}{'speed':>8}{'plain MB':>10}{'ours MB':>10}{'memory':>8}")
    fastest = float("inf")
    for dtype in ("float32", "bfloat16"):
        for mode in ("mid", "sft"):
            result = compare(mode, dtype, not args.eager, args.steps)
            print(
                f"{mode + ' ' + dtype:14}{result['plain_tokens_per_second']:12,.0f}{result['ours_tokens_per_second']:12,.0f}"
                f"{result['speed']:7.2f}x{result['plain_peak_mb']:10,.0f}{result['ours_peak_mb']:10,.0f}"
                f"{result['memory']:7.2f}x",
                flush=True,
            )
            fastest = min(fastest, B * T / result["ours_tokens_per_second"])
    print(f"losses by source: {by_source_seconds() / fastest:.3%} of the shortest of these steps, at most 2 %")
    return None


if __name__ == "__main__":
    main()
