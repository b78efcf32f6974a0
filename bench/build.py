"""
The whole build against the plain loop and against encoding alone, with the aims beside each line, in one table.

    python bench/build.py [--data-root DIR] [--quick] [--real SHARE]       about 5 minutes on 2 cores, 1 with --quick

Everything is compared within one run. What uses one core is compared by processor seconds, which a busy machine disturbs
least; two workers against one by the clock. A build is the whole command, from its start to its end, with an empty cache;
the plain loop and encoding alone start with their rows in memory. Repetitions take turns, medians are reported.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from bench.harness import HUB, Bench, Result, median, plain  # noqa: E402
from bench.packing import measure_packing, measure_steps  # noqa: E402
from bench.real_size import make_data_root, scaled_mixture, write_chats  # noqa: E402
from prep.encode.encode import ENGINES, why_not  # noqa: E402
from prep.tokenizer.load import load_tokenizer  # noqa: E402

DEFAULT = ROOT / "prep/mixtures/default.toml"

# ---- the parts of the table ----


def installed_engines() -> list[str]:
    tokenizer = load_tokenizer()
    return [engine for engine in ENGINES if not why_not(tokenizer, engine)]


def compare_speed(bench: Bench) -> dict[str, Result]:
    """Whole builds, plain loop and encoding alone, in turns"""
    engines = installed_engines()
    results = defaultdict[str, list[Result]](list)
    for _ in range(bench.repeats):
        results["plain"].append(plain(bench, "plain"))
        for engine in engines:
            results[f"encode {engine}"].append(plain(bench, "encode", "--encoder", engine))
            results[f"build {engine}"].append(bench.build(bench.mixture, "--encoder", engine, "--workers", "1"))
            if engine != "tiktoken":
                two = plain(bench, "encode", "--encoder", engine, processes=2)
                results[f"encode {engine} 2"].append(two)
                results[f"build {engine} 2"].append(
                    bench.build(bench.mixture, "--encoder", engine, "--workers", "2", keep=engine)
                )
    medians = {name: median(runs) for name, runs in results.items()}
    base = medians["plain"]
    bench.add("plain loop, Mtok/s", f"{base['tokens'] / base['cpu'] / 1e6:.2f}")
    targets = {"gigatoken": "at least 5x", "fastokens": "at least 2.5x", "tiktoken": ""}
    for engine in engines:
        alone, whole = medians[f"encode {engine}"], medians[f"build {engine}"]
        bench.add(f"whole build over the plain loop, {engine}", f"{base['cpu'] / whole['cpu']:.2f}x", targets[engine])
        bench.add(f"whole build over encoding alone, {engine}", f"{whole['cpu'] / alone['cpu']:.2f}x", "at most 1.3x")
        passes = ", ".join(f"{p} {whole[f'{p}_seconds']:.2f}" for p in ("render", "plan", "write"))
        outside = whole["seconds"] - whole["inside"]
        bench.add("    seconds by the clock", f"{whole['seconds']:.2f}", f"{passes}, start and sources {outside:.2f}")
        if engine == "tiktoken":
            continue
        alone2, whole2 = medians[f"encode {engine} 2"], medians[f"build {engine} 2"]
        bench.add(
            f"whole build over encoding alone, {engine}, 2 workers", f"{whole2['seconds'] / alone2['seconds']:.2f}x"
        )
        bench.add(
            f"two workers over one, {engine}: build", f"{whole['seconds'] / whole2['seconds']:.2f}x", "at least 1.85x"
        )
        bench.add(f"two workers over one, {engine}: encoding alone", f"{alone['seconds'] / alone2['seconds']:.2f}x")
    return medians


def compare_own(bench: Bench, copies: int) -> None:
    """Own chats as JSON lines and as Parquet: whole builds, plain loop and encoding alone, processor seconds, in turns"""
    if bench.data_root is None:
        return
    paths = write_chats(bench.data_root, bench.folder, copies)
    benches = {
        kind: replace(
            bench, own=True, mixture=bench.mixture_file(f"own-{kind}", f'[[train]]\ntask = "chat"\npath = "{path}"\n')
        )
        for kind, path in paths.items()
    }
    results = defaultdict[str, list[Result]](list)
    engines = [engine for engine in installed_engines() if engine != "tiktoken"]
    for _ in range(bench.repeats):
        results["plain"].append(plain(benches["Parquet"], "plain"))
        for engine in engines:
            results[f"encode {engine}"].append(plain(benches["Parquet"], "encode", "--encoder", engine))
            for kind, own in benches.items():
                for workers in "12":
                    built = own.build(own.mixture, "--encoder", engine, "--workers", workers)
                    results[f"{kind} {engine} {workers}"].append(built)
    medians = {name: median(runs) for name, runs in results.items()}
    aims = {"JSON lines": {"fastokens": "2.9", "gigatoken": "5.0"}, "Parquet": {"fastokens": "3.2", "gigatoken": "6.5"}}
    for engine in engines:
        cpu = {kind: medians[f"{kind} {engine} 1"]["cpu"] for kind in paths}
        alone, base = medians[f"encode {engine}"]["cpu"], medians["plain"]["cpu"]
        ratio = cpu["JSON lines"] / cpu["Parquet"]
        bench.add(f"own JSON lines over own Parquet, {engine}", f"{ratio:.2f}x", "at most 1.15x")
        most = {"fastokens": "1.5", "gigatoken": "2.0"}[engine]
        bench.add(f"own Parquet over encoding alone, {engine}", f"{cpu['Parquet'] / alone:.2f}x", f"at most {most}x")
        for kind in paths:
            bench.add(
                f"own {kind} over the plain loop, {engine}",
                f"{base / cpu[kind]:.2f}x",
                f"at least {aims[kind][engine]}x",
            )
            one, two = (medians[f"{kind} {engine} {workers}"]["seconds"] for workers in "12")
            bench.add(
                f"two workers over one, own {kind}, {engine}", f"{one / two:.2f}x", "at least 1.85x, from 300 Mtok"
            )


def compare_tasks(bench: Bench) -> None:
    """Render pass of generated tasks, and of SmolTalk where it is there, one worker, tokens a processor second"""
    # so many rows have about as many tokens as SmolTalk's stand-in: what a pass costs before its first weighs the same
    tasks = {"simple_spelling": 80_000, "spelling_bee": 14_000, "arithmetic": 33_000}
    hub = bench.data_root is not None
    for engine in installed_engines():
        speeds = defaultdict[str, list[float]](list)
        for _ in range(bench.repeats):
            for task in ["smoltalk"] * hub + list(tasks):
                size = "" if task == "smoltalk" else f"size = {tasks[task]}\n"
                mixture = bench.mixture_file(task, f'name = "one"\nseed = 42\n[[train]]\ntask = "{task}"\n{size}')
                result = bench.build(mixture, "--encoder", engine, "--workers", "1")
                speeds[task].append(result["tokens"] / result["render_seconds"])
        smoltalk = statistics.median(speeds["smoltalk"]) if hub else 0.0
        for task, values in speeds.items():
            speed = statistics.median(values)
            ratio = f"{speed / smoltalk:.2f}x SmolTalk's, at least 1x" if hub and task != "smoltalk" else ""
            bench.add(f"render pass of {task}, {engine}, Mtok/s", f"{speed / 1e6:.2f}", ratio)


def compare_warm(bench: Bench) -> None:
    """Builds that find a cache against the cold one, by the clock, with all workers"""
    text = (DEFAULT if bench.mixture == "default" else Path(bench.mixture)).read_text()
    seed = bench.mixture_file("seed", text.replace("seed = 42", "seed = 43"))
    without = bench.mixture_file(
        "remix", re.sub(r"(spelling_bee.\nsize = )(\w+)", lambda m: f"{m[1]}{int(m[2]) // 2}", text)
    )
    added = bench.mixture_file("added", text + '\n[[train]]\ntask = "arithmetic"\nsize = 5000\n')
    results = defaultdict[str, list[Result]](list)
    for _ in range(bench.repeats):
        shutil.rmtree(bench.folder / "warm", ignore_errors=True)
        results["cold"].append(bench.build(bench.mixture, cache="warm"))
        results["the same again, other output"].append(bench.build(bench.mixture, cache="warm"))
        results["re-mix"].append(bench.build(without, cache="warm"))
        results["re-seed"].append(bench.build(seed, cache="warm"))
        results["re-pack to 512"].append(bench.build(bench.mixture, "--max-seq-len", "512", cache="warm"))
        results["one source of 5,000 added"].append(bench.build(added, cache="warm"))
    cold = median(results.pop("cold"))
    for name, runs in results.items():
        bench.add(f"warm over cold: {name}", f"{median(runs)['seconds'] / cold['seconds']:.3f}x", "at most 0.1x")


def measure_disk(bench: Bench, root: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    split = manifest["splits"]["train"]
    payload = sum(file["bytes"] for shard in split["shards"] for file in shard["files"].values())
    places = split["rows"] * (manifest["max_seq_len"] + 1)
    bench.add("bytes a token, tokens and mask", f"{payload / places:.4f}", "at most 2.13")
    extra = sum(file["bytes"] for file in split["files"].values()) / split["conversations"]
    bench.add("bytes a conversation, rows and docs", f"{extra:.1f}", "at most 24")
    bench.add(
        "rows filled", f"{split['packing_efficiency']:.4%}", f"bound + {split['rows'] / split['min_rows'] - 1:.4%}"
    )


def scale(bench: Bench, sizes: tuple[int, int, int]) -> None:
    """Processor time and peak memory of many generated conversations"""
    alone = [bench.build(bench.generated(num), "--workers", "1") for num in sizes[:2]]
    two = [bench.build(bench.generated(num), "--workers", "2") for num in sizes]
    for num, result in zip(sizes, alone, strict=False):
        bench.add(f"{num:,} generated conversations, µs of processor each", f"{result['cpu'] / num * 1e6:.1f}")
    few, many = (result["cpu"] / num for num, result in zip(sizes, alone, strict=False))
    bench.add("cost of a conversation, many over few", f"{many / few:.2f}x", "at most 1.1x")
    speed = alone[1]["seconds"] / two[1]["seconds"]
    bench.add(f"two workers over one, {sizes[1]:,} generated conversations", f"{speed:.2f}x", "at least 1.85x")
    for num, result in zip(sizes, two, strict=True):
        memory = f"{result['peak_mb']:.0f}; {result['own_mb']:.0f}"
        bench.add(f"peak MB of {num:,}, 2 workers, largest process; without mapped files", memory)
    for key, what in (("peak_mb", "of peak"), ("own_mb", "without mapped files")):
        for (a, less), (b, more) in pairwise(zip(sizes, two, strict=True)):
            growth = (more[key] - less[key]) * 1e6 / (b - a)
            bench.add(f"bytes {what} for each conversation more, {a:,} to {b:,}", f"{growth:.0f}", "at most 32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="data sets in the Hub's layout")
    parser.add_argument("--quick", action="store_true", help="one repetition, smaller sizes")
    parser.add_argument("--real", type=float, metavar="SHARE", help="so large a part of the real data sets' rows")
    parser.add_argument("--only", default="speed,own,tasks,warm,pack,steps,scale", help="parts, with commas")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_root = args.data_root or (HUB if HUB.is_dir() else None)
        bench = Bench(Path(folder), data_root, "default", 1 if args.quick else 3)
        if args.real and data_root is None:
            parser.error("--real wants --data-root: it repeats the rows that are there")
        if data_root is None:
            bench.mixture = bench.generated(100_000)
        elif args.real:
            bench.data_root = bench.folder / "real"
            make_data_root(data_root, bench.data_root, args.real)
            bench.mixture = bench.mixture_file("mid", scaled_mixture(DEFAULT.read_text(), args.real))
        versions = subprocess.run(
            [sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=False
        ).stdout.split()
        names = ("numpy", "pyarrow", "tiktoken", "fastokens", "gigatoken")
        print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        print(", ".join(line for line in versions if line.split("=")[0] in names))
        parts: dict[str, Any] = {
            "speed": lambda: compare_speed(bench),
            "own": lambda: compare_own(bench, 4 if args.quick else 12),
            "tasks": lambda: compare_tasks(bench),
            "warm": lambda: compare_warm(bench),
            "pack": lambda: measure_packing(bench, [850_000] if args.quick else [850_000, 10_000_000]),
            "steps": lambda: measure_steps(bench),
            "scale": lambda: scale(
                bench, (20_000, 100_000, 400_000) if args.quick else (100_000, 1_000_000, 4_000_000)
            ),
        }
        for name in args.only.split(","):
            parts[name]()
            if name == "speed":
                measure_disk(
                    bench, bench.folder / "fastokens" if (bench.folder / "fastokens").is_dir() else bench.folder / "out"
                )


if __name__ == "__main__":
    main()
