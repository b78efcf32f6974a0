"""
build.json: what a build was made from, where its time went, and on what machine. Kept out of the manifest, which holds no
time, host or path.

    "inputs": {"mixture": {"name": "mid", "train": [{"task": "gsm8k", ...}]}, "folder": "/home/ann",
               "data_root": "/data/hub", "identity": null}

By the inputs `verify --rebuild` and `show --origin` find the sources again, of builds from the command line and from Python.
"""

import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prep.build.options import BuildOptions
from prep.mixture.mixture import Mixture, load_mixture, mixture_data, parse_mixture
from prep.workers.progress import Progress

PACKAGES = ("midprep", "numpy", "pyarrow", "tiktoken", "fastokens", "gigatoken", "datasets", "ray")
KINDS = {  # of the values that are read again
    "command": list,
    "directory": str,
    "finished": str,
    "seconds": float,
    "passes": dict,
    "encoder": str,
    "versions": dict,
}


@dataclass(frozen=True)
class BuildInputs:
    """A mixture, and where the sources are that it does not name by path."""

    mixture: Mixture
    data_root: Path | None = None
    identity: Path | None = None

    def to_record(self) -> dict[str, Any]:
        """As build.json has it"""
        return {
            "mixture": mixture_data(self.mixture),
            "folder": str(self.mixture.folder.absolute()),
            "data_root": str(self.data_root.absolute()) if self.data_root else None,
            "identity": str(self.identity.absolute()) if self.identity else None,
        }


def find_inputs(root: Path, mixture: str | None, data_root: Path | None, identity: Path | None) -> BuildInputs:
    """
    The inputs of a finished build: what is given, else what its build.json says. FileNotFoundError where nobody says it.
    """
    recorded = (read_record(root) or {}).get("inputs")
    recorded = recorded if isinstance(recorded, dict) else {}
    if mixture is None and not recorded.get("mixture"):
        raise FileNotFoundError(
            f"{root / 'build.json'} does not say what {root} was built from: give --mixture, and --data-root or --identity "
            "where they are needed."
        )
    if mixture is not None:
        chosen = load_mixture(mixture)
    else:
        context = f"the mixture in {root / 'build.json'}"
        chosen = parse_mixture(recorded["mixture"], context, Path(recorded.get("folder", ".")), "recorded")
    return BuildInputs(
        chosen,
        data_root or (Path(recorded["data_root"]) if recorded.get("data_root") else None),
        identity or (Path(recorded["identity"]) if recorded.get("identity") else None),
    )


@dataclass
class PassTiming:
    """One pass: seconds, and what went through it"""

    seconds: float = 0.0
    conversations: int = 0
    tokens: int = 0
    num_bytes: int = 0  # that it left in files: blocks in the cache, shards
    states: Counter[str] = field(default_factory=Counter)  # of blocks
    progress: Progress | None = None  # while it runs

    def add(self, conversations: int, tokens: int, state: str = "", num_bytes: int = 0) -> None:
        self.conversations += conversations
        self.tokens += tokens
        self.num_bytes += num_bytes
        if self.progress is not None:
            self.progress.add(conversations, tokens)
        if state:
            self.states[state] += 1

    def describe(self) -> dict[str, Any]:
        seconds = max(self.seconds, 1e-9)
        return {
            "seconds": round(self.seconds, 3),
            "conversations": self.conversations,
            "tokens": self.tokens,
            "conversations_per_second": round(self.conversations / seconds),
            "tokens_per_second": round(self.tokens / seconds),
            **({"bytes": self.num_bytes} if self.num_bytes else {}),
            **({"blocks": dict(sorted(self.states.items()))} if self.states else {}),
        }


class BuildTimer:
    """Measures the passes of a build, and shows how far they are; a pass may be entered more than once."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.passes: dict[str, PassTiming] = {}
        self.start = time.monotonic()

    @contextmanager
    def measure(self, name: str, total: int | None = None) -> Iterator[PassTiming]:
        """Measure a pass; over `total` conversations, which are shown as they are added"""
        timing = self.passes.setdefault(name, PassTiming())
        start = time.monotonic()
        try:
            with nullcontext() if total is None else Progress(name, total, self.quiet) as timing.progress:
                yield timing
        finally:
            timing.progress = None
            timing.seconds += time.monotonic() - start

    def write(self, staging: Path, root: Path, options: BuildOptions, encoder: str, inputs: BuildInputs) -> None:
        """Write build.json"""
        record = {
            "inputs": inputs.to_record(),
            "command": sys.argv,
            "directory": str(Path.cwd()),
            "output": str(root.resolve()),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seconds": round(time.monotonic() - self.start, 3),
            "passes": {name: timing.describe() for name, timing in self.passes.items()},
            "bytes": sum(path.stat().st_size for path in staging.iterdir()),
            **_describe_engine(options),
            "encoder": encoder,
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {name: number for name in PACKAGES if (number := package_version(name))},
        }
        (staging / "build.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(root: Path) -> dict[str, Any] | None:
    """build.json of a build, or None where it was not copied along. ValueError, in one line, where it is damaged."""
    path = root / "build.json"
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        record["seconds"] = float(record["seconds"])
        sound = all(isinstance(record[name], kind) for name, kind in KINDS.items())
        sound = sound and all(isinstance(timing["seconds"], int | float) for timing in record["passes"].values())
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise ValueError(f"{path} is not as midprep writes it: remove it, or build {root} again with --overwrite.")
    return record


def _describe_engine(options: BuildOptions) -> dict[str, Any]:
    if options.engine == "local":
        return {"engine": "local", "workers": options.workers}
    from prep.workers.ray import cluster

    return {"engine": "ray", "workers": options.workers or None, "cluster": cluster(options.address, options.workers)}


def package_version(package: str) -> str | None:
    """The version of an installed package, None where it is not installed"""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
