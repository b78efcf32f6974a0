"""What measurements need: commands run to their end and timed, and a table whose lines are printed as they come."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLAIN = [sys.executable, str(ROOT / "bench/plain_build.py")]
BUILD = [sys.executable, "-m", "prep", "build", "--quiet"]
HUB = ROOT.parent / "shared/data/hub"
IDENTITY = ROOT / "prep/data/identity.jsonl"
GENERATED = {"simple_spelling": 0.6, "spelling_bee": 0.3, "arithmetic": 0.1}  # shares of a generated mixture
# compiled modules are kept between runs, as an installed package has them
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

Result = dict[str, float]


@dataclass
class Bench:
    """What the measurements need, and the lines of the table as they come"""

    folder: Path
    data_root: Path | None
    mixture: str
    repeats: int
    own: bool = False  # whether the mixture reads files of its own
    lines: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, value: str, note: str = "") -> None:
        self.lines.append((name, value, note))
        print(f"{name:<66} {value:>16}   {note}", flush=True)

    def data(self) -> list[str]:
        if self.own:
            return []
        roots = ["--data-root", str(self.data_root)] if self.data_root else []
        return [*roots, "--identity", str(IDENTITY)]

    def build(self, mixture: str, *options: str, cache: str = "", keep: str = "") -> Result:
        """Run a build; with an empty cache unless `cache` names one. seconds, cpu, peak MB, and what build.json says"""
        root, cache_dir = self.folder / (keep or "out"), self.folder / (cache or "cache")
        shutil.rmtree(root, ignore_errors=True)
        if not cache:
            shutil.rmtree(cache_dir, ignore_errors=True)
        command = [*BUILD, "--mixture", mixture, "-o", str(root), "--cache-dir", str(cache_dir), *self.data(), *options]
        result = run(command)
        record = json.loads((root / "build.json").read_text())
        passes = {f"{name}_seconds": timing["seconds"] for name, timing in record["passes"].items()}
        return {**result, **passes, "tokens": record["passes"]["write"]["tokens"], "inside": record["seconds"]}

    def mixture_file(self, name: str, text: str) -> str:
        path = self.folder / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def generated(self, num: int, seed: int = 42, shares: dict[str, float] = GENERATED) -> str:
        """A mixture of `num` generated conversations"""
        parts = [f'[[train]]\ntask = "{task}"\nsize = {round(num * share)}\n' for task, share in shares.items()]
        return self.mixture_file(f"generated-{num}-{seed}", f'name = "generated"\nseed = {seed}\n' + "".join(parts))


def run(command: list[str]) -> Result:
    """
    Run a command to its end -> seconds by the clock, processor seconds (of workers only where they are its children), and
    peak MB: of its largest process, and of what is its main process's own, mapped files aside (Linux; sampled, else 0)
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors)
        own = [0.0]
        threading.Thread(target=watch_memory, args=(process.pid, own), daemon=True).start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {errors.read().decode()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": time.perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * unit / 1e6,
        "own_mb": max(own),
    }


def watch_memory(pid: int, own: list[float]) -> None:
    """Adds the anonymous memory of a process every hundredth of a second, until it ends"""
    with suppress(OSError, IndexError):
        while True:
            status = Path(f"/proc/{pid}/status").read_text()
            own.append(int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e6)
            time.sleep(0.01)


def plain(bench: Bench, what: str, *options: str, processes: int = 1) -> Result:
    """The plain loop or encoding alone, in as many processes, which start their clocks together"""
    commands = [[*PLAIN, what, bench.mixture, *bench.data(), *options, "--wait"] for _ in range(processes)]
    started = [
        subprocess.Popen([*command, "--part", str(i), "--of", str(processes)], stdin=-1, stdout=-1, text=True)
        for i, command in enumerate(commands)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [json.loads(process.communicate()[0]) for process in started]
    return {
        "seconds": max(result["seconds"] for result in results),
        "cpu": sum(result["cpu"] for result in results),
        "tokens": sum(result["tokens"] for result in results),
    }


def median(results: list[Result]) -> Result:
    return {key: statistics.median(result[key] for result in results) for key in results[0]}
