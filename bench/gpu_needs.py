"""
What `gpu.py` and `gpu_bench.py` need, looked at before anything is imported that needs it: one line each.

    error: torch 2.4.1 found, 2.9 or newer is needed: make gpu PYTHON=...
"""

import platform
import sys

OLDEST = {"Python": (3, 11), "torch": (2, 9)}


def check_needs() -> None:
    refuse_old("Python", platform.python_version())
    for name in ("numpy", "torch"):
        try:
            module = __import__(name)
        except ImportError:
            sys.exit(f"error: {sys.executable} has no {name}: install it, or name another Python: make gpu PYTHON=...")
        if name in OLDEST:
            refuse_old(name, module.__version__)


def refuse_old(what: str, version: str) -> None:
    found = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if found < OLDEST[what]:
        wanted = ".".join(map(str, OLDEST[what]))
        sys.exit(f"error: {what} {version} found, {wanted} or newer is needed: make gpu PYTHON=...")
