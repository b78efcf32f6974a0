"""
What this machine has for midprep, and what will be fast on it and what not.

    encoder      gigatoken 0.10.0    the fastest there is here
    compiler     none                the trainer runs eager: a C++ compiler makes steps faster on a CPU
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prep import __version__
from prep.encode.encode import choose_engine
from prep.files import default_cache_dir
from prep.render.block_cache import list_blocks
from prep.sources.hub import is_offline
from prep.text import size
from prep.tokenizer.load import load_tokenizer, notice_of_nanochat

PACKAGES = ("numpy", "pyarrow", "polars", "datasets", "tiktoken", "fastokens", "gigatoken", "rustbpe", "torch", "ray")


def findings(cores: int) -> Iterator[tuple[str, str, str]]:
    """(what, what was found, what follows from it or "") of everything that matters"""
    yield "midprep", f"{__version__} on Python {sys.version.split()[0]}", ""
    yield "packages", ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name))), ""
    engine = choose_engine(load_tokenizer(), "auto")
    advice = {
        "tiktoken": "builds take three times as long as with fastokens: pip install fastokens, where there are wheels",
        "fastokens": "gigatoken is faster still: pip install 'midprep[fast]'",
    }
    yield "encoder", f"{engine} {_version(engine)}", advice.get(engine, "")
    yield "cores", str(cores), "" if cores > 1 else "builds and data loading share one core"
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    yield "compiler", compiler or "none", "" if compiler else "the trainer runs eager on a CPU; a C++ compiler helps"
    yield "accelerator", *_accelerator()
    cache = default_cache_dir()
    runs = list(list_blocks(cache))
    yield "cache", f"{cache}: {len(runs):,} runs, {size(sum(run.stat().st_size for run in runs))}", _writable(cache)
    free = shutil.disk_usage(_existing(Path.cwd())).free
    yield (
        "disk",
        f"{size(free)} free here",
        "" if free > 5 << 30 else "the default mixture needs about 3 GiB with its cache",
    )
    hub = os.environ.get("HF_ENDPOINT", "the Hub's own address")
    yield "hub", f"{hub}{', offline' if is_offline() else ''}", "only what is in its cache" if is_offline() else ""
    yield "nanochat", (notice_of_nanochat() or "no tokenizer of an installation found").split(",")[0].rstrip("."), ""


def _accelerator() -> tuple[str, str]:
    """Asked of the driver: importing torch takes seconds"""
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        return "an NVIDIA driver is there", ""
    return "none", "training runs on the CPU: for looking, not for models"


def _writable(folder: Path) -> str:
    return "" if os.access(_existing(folder), os.W_OK) else "cannot be written: give --cache-dir, or set XDG_CACHE_HOME"


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return version(package)
    except PackageNotFoundError:
        return None
