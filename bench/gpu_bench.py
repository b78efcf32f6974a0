"""
Measure on this machine's GPU what training costs, and write it down: results/gpu-<name>.json, and the tables of README.md.

    make gpu-bench                                            all of it, on one card
    python bench/gpu_bench.py --only step                     one part; --help names them
    python bench/gpu_bench.py --device cpu --size tiny --out DIR      the same code on the CPU: its figures go to DIR alone

Everything is a ratio within one run, or stands beside what it is compared with. The tables of README.md are made of all
results/gpu-*.json that are there, between two comments. Nothing is asserted: a figure beyond its aim is a figure.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from bench.gpu_needs import check_needs  # noqa: E402

check_needs()

from bench import gpu_measures  # noqa: E402
from bench.gpu_place import SIZES, Place, machine  # noqa: E402
from bench.gpu_steps import Figure, free  # noqa: E402
from train.distributed import choose_device  # noqa: E402

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "bench" / "README.md"
BEGIN, END = "<!-- tables of gpu_bench.py -->", "<!-- end of the tables of gpu_bench.py -->"

QUESTIONS: dict[str, tuple[str, Callable[[Place], Iterator[Figure]]]] = {
    "step": ("How fast is a training step, and how much memory does it take?", gpu_measures.step),
    "loss": ("How long does the loss take?", gpu_measures.loss),
    "isolated": ("What do isolated documents cost?", gpu_measures.isolated),
    "optimizers": ("What do the optimizers cost?", gpu_measures.optimizers),
    "data": ("Does the GPU wait for data?", gpu_measures.data),
    "compile": ("How long does compiling take?", gpu_measures.compile_),
    "evaluate": ("How fast is an evaluation?", gpu_measures.evaluate),
    "save": ("How long does a checkpoint take?", gpu_measures.save),
}

Results = dict[str, Any]  # of a file in results/


def measure(place: Place, name: str) -> Results:
    """What one part found, printed as it comes"""
    question, figures = QUESTIONS[name]
    print(f"\n{question}", flush=True)
    results = []
    for figure in figures(place):
        value = rounded(figure.value)
        print(f"{figure.what:<66} {value:>14,} {figure.unit:<16} {figure.aim}", flush=True)
        results.append({"what": figure.what, "value": value, "unit": figure.unit, "aim": figure.aim})
    free(place.device)
    run = {"machine": machine(place.device), "day": date.today().isoformat(), "results": results}
    return {"question": question, "command": f"python bench/gpu_bench.py --only {name}", "runs": [run]}


def rounded(value: float) -> float | int:
    """
    To three digits, and to whole numbers from 1,000 on.

    >>> rounded(0.12345), rounded(61.96), rounded(123456.7)
    (0.123, 62.0, 123457)
    """
    return round(value) if value >= 1000 else float(f"{value:.3g}")


def write_results(folder: Path, name: str, results: Results) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gpu-{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return path


def tables(folder: Path) -> Iterator[str]:
    """Lines of Markdown: a table for each gpu-*.json of a folder, in the order of QUESTIONS"""
    for name in QUESTIONS:
        path = folder / f"gpu-{name}.json"
        if not path.is_file():
            continue
        results = json.loads(path.read_text(encoding="utf-8"))
        yield f"\n### {results['question']}\n"
        for run in results["runs"]:
            yield f"`{results['command']}`, {run['day']}: {run['machine']}. [Raw](results/{path.name})\n"
            yield "| | value | | aim |"
            yield "|---|---:|---|---|"
            for each in run["results"]:
                yield f"| {each['what']} | {each['value']:,} | {each['unit']} | {each['aim']} |"


def write_tables(page: Path, folder: Path) -> None:
    """Put the tables between the two comments of a page, in place of what is there. ValueError without the comments."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} with {END} after it: put them where the tables should stand")
    content = "\n".join(tables(folder)) or "\nNothing has been measured yet."
    page.write_text(f"{before}{BEGIN}\n{content}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="measure training on a GPU")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="tiny: to test the command itself")
    parser.add_argument("--only", action="append", choices=tuple(QUESTIONS), help="may be given several times")
    parser.add_argument("--out", type=Path, help="directory for the results, instead of bench/results and the page")
    args = parser.parse_args()
    if args.out is None and (args.device, args.size) != ("cuda", "full"):
        sys.exit("error: figures of a CPU or of a tiny size are not those of a GPU: give --out DIR for them")
    try:
        device = choose_device(args.device)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(machine(device), flush=True)
    with tempfile.TemporaryDirectory(prefix="midprep-gpu-") as folder:
        place = Place(device, SIZES[args.size], Path(folder))
        for name in args.only or QUESTIONS:
            path = write_results(args.out or RESULTS, name, measure(place, name))
            print(f"written to {path}", flush=True)
            if args.out is None:
                write_tables(PAGE, RESULTS)


if __name__ == "__main__":
    main()
