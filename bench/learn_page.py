"""
Sections of docs/results.md, written by the experiments themselves: each has one heading, and replaces what stood under it.

    # Results
    ...                        by hand, and so are sections that no experiment writes
    ## Mask                    `replace_section(page, "Mask", body)` changes what is below, up to the next "## "
    ...
"""

import importlib.metadata
import os
import platform
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from bench.learn_jobs import num_cores
from bench.learn_statistics import Cells, Difference

TITLE = "# Results\n"
WIDTH = 136


def replace_section(page: str, title: str, body: str) -> str:
    """
    >>> replace_section("# Results\\n\\n## A\\n\\nold\\n\\n## B\\n\\nb\\n", "A", "new")
    '# Results\\n\\n## A\\n\\nnew\\n\\n## B\\n\\nb\\n'
    """
    section = f"## {title}\n\n{body.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if pattern.search(page):
        return pattern.sub(lambda _: section + "\n", page, count=1).rstrip("\n") + "\n"
    return (page or TITLE).rstrip("\n") + "\n\n" + section


def write_section(path: Path, title: str, body: str) -> None:
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(replace_section(page, title, body), encoding="utf-8")


def origin(command: str) -> str:
    """Where numbers are from: the command, day, machine and versions"""
    model = next(iter(re.findall(r"^model name\s*: (.+)$", cpu_text(), re.MULTILINE)), platform.machine())
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, midprep {midprep_version()}"
    return f"`{command}`, {time.strftime('%Y-%m-%d')}, {num_cores()} cores ({model}), {versions}."


def cpu_text() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if os.access(path, os.R_OK) else ""


def midprep_version() -> str:
    try:
        return importlib.metadata.version("midprep")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout"


def paragraph(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


# ---- measured values: shares of right answers in percent, bits per byte ----


def number(name: str, value: float) -> str:
    """
    >>> number("sums", 93.333), number("bits per byte", 0.21344)
    ('93.3', '0.2134')
    """
    return f"{value:.4f}" if is_bits(name) else f"{value:.1f}"


def is_bits(name: str) -> bool:
    return name.startswith("bits")


def difference_text(name: str, found: Difference) -> str:
    """In bold where 0 is outside its interval"""
    text = f"{'+' if found.value >= 0 else '-'}{number(name, abs(found.value))} ± {number(name, found.margin)}"
    return f"**{text}**" if found.is_seen else text


def comparison(measured: Mapping[str, Cells], contrasts: Mapping[str, Mapping[str, float]]) -> str:
    """Two tables, a line for each value that was measured: of the cells, and of differences between them"""
    names = list(next(iter(measured.values())).values)
    cells, differences = [], []
    for name, values in measured.items():
        shown = [
            f"{number(name, sum(runs) / len(runs))} ({number(name, min(runs))} to {number(name, max(runs))})"
            for runs in values.values.values()
        ]
        cells.append([name, *shown, number(name, values.deviation), number(name, values.least_difference)])
        differences.append([name, *(difference_text(name, values.difference(w)) for w in contrasts.values())])
    head = ["", *names, "deviation", "least difference"]
    return f"{table(head, cells)}\n\n{table(['difference', *contrasts], differences)}"
