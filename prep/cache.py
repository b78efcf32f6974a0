"""
The cache's directory: where it is, files that are written to it whole or not at all, and what killed writers left.

    <cache>/runs/3f/3f9c...e1.run           rendered blocks (prep.runs)
    <cache>/plain/<sha256>-<sha256>.jsonl   what compressed files hold (prep.lines)
    <cache>/hub/...                         which commit a name on the Hub was (prep.hub)

A file is written under a temporary name that says which machine writes it, locked while it is, and renamed. So builds can
share a cache, at once and over machines, and it can be deleted at any time.
"""

import fcntl
import glob
import os
import platform
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def default_cache_dir() -> Path:
    """$XDG_CACHE_HOME/midprep, by default ~/.cache/midprep"""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "midprep"


@contextmanager
def new_file(folder: Path, name: str) -> Iterator[tuple[IO[bytes], Callable[[Path], None]]]:
    """
    A file to write and a function that gives it its name, all or nothing. OSError names it by `name`: a full disk does not
    say which file it is about.
    """
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file, temporary = _locked_file(folder, name)
        with file:

            def keep(path: Path) -> None:
                file.flush()
                os.replace(temporary, path)

            yield file, keep
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder / name)) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _locked_file(folder: Path, name: str) -> tuple[IO[bytes], Path]:
    """An empty file of this process, and its path; another one where it was taken for abandoned before it was locked"""
    while True:
        path = folder / f"{name}.{platform.node()}-{secrets.token_hex(8)}.tmp"
        file = open(path, "wb")  # noqa: SIM115 (who asks closes it)
        with suppress(OSError):  # a file system without locks; else the kernel drops it with the process
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file, path
        file.close()


def remove_abandoned(cache_dir: Path) -> None:
    """Remove what processes of this machine were killed while they wrote; what is being written is locked."""
    ours = f"*.{glob.escape(platform.node())}-*.tmp"
    for path in (path for folder in ("runs/*", "plain", "hub") for path in cache_dir.glob(f"{folder}/{ours}")):
        with suppress(OSError), open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def list_runs(cache_dir: Path) -> Iterator[Path]:
    """Every run in a cache directory"""
    yield from (cache_dir / "runs").glob("*/*.run")
