"""
Where the time of a build went, from its build.json: `midprep stats DIR --build`.

    pass     seconds  share  conversations        /s   tokens         /s     bytes       /s
    render      0.55  87.4%          5,522     9,986  487,688    881,896   1.5 MiB  2.7 MiB
    other       0.04   6.8%                                                             what is in no pass: sources opened, ...

The manifest holds no time; a build that was copied without its build.json has none to show.
"""

from pathlib import Path
from typing import Any

from prep.build.timings import read_record
from prep.text import short, size

CLEAR = 0.001  # seconds from which on a speed means something


def read_build(root: Path) -> dict[str, Any]:
    """build.json. FileNotFoundError or ValueError where there is none, or none that can be read."""
    about = read_record(root)
    if about is None:
        raise FileNotFoundError(
            f"{root / 'build.json'} not found: is {root} a finished build? Its times stand there and nowhere else."
        )
    return about


def print_build(about: dict[str, Any]) -> None:
    """The passes as a table, and what they ran on, on stdout"""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.width = max(console.width, 100)
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(("pass", "seconds", "share", "conversations", "/s", "tokens", "/s", "bytes", "/s")):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    total = max(about["seconds"], 1e-9)
    for name, one in about["passes"].items():
        table.add_row(name, *_time(one["seconds"], total), *_rates(one))
    rest = max(0.0, total - sum(one["seconds"] for one in about["passes"].values()))
    table.add_row("other", *_time(rest, total))
    table.add_row("all", *_time(total, total), "", "", "", "", size(about.get("bytes", 0)))
    console.print(table)
    for line in _lines(about):
        console.print(line)


def _time(seconds: float, total: float) -> tuple[str, str]:
    return f"{seconds:,.2f}", f"{seconds / total:.1%}"


def _rates(one: dict[str, Any]) -> list[str]:
    """Counts of a pass, each with what it is in a second"""
    kinds = [("conversations", short), ("tokens", short), *([("bytes", size)] if one.get("bytes") else [])]
    return [
        text
        for key, in_words in (kinds if one["conversations"] else [])
        for text in (in_words(one[key]), in_words(round(one[key] / one["seconds"])) if one["seconds"] >= CLEAR else "")
    ]


def _lines(about: dict[str, Any]) -> list[str]:
    blocks = about["passes"].get("render", {}).get("blocks", {})
    engine = about.get("engine", "local")
    workers = about.get("workers") or "all cores"
    where = f"ray, {about.get('cluster')}, workers: {workers}" if engine == "ray" else f"workers: {workers}"
    return [
        f"blocks rendered or found in the cache: {', '.join(f'{number:,} {state}' for state, number in blocks.items())}",
        f"encoder {about.get('encoder')}, {where}; {about.get('cores')} cores, Python {about.get('python')}, "
        f"{about.get('platform')}",
        " ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()),
        f"finished {about.get('finished')}: {' '.join(map(str, about.get('command', [])))}",
    ]
