"""
Files that are whole or not there, the cache's directory, and directories that one process at a time writes.

    <cache>/runs/3f/3f9c...e1.run           rendered blocks (prep.render.block_cache)
    <cache>/plain/<sha256>-<sha256>.jsonl   what compressed files hold (prep.sources.jsonl)
    <cache>/hub/...                         which commit a name on the Hub was (prep.sources.hub)
    <cache>/shared.*.tmp                    by which tasks on other machines know the cache (prep.workers.ray)
    <cache>/scratch/...                     whole builds that are compared and thrown away (prep.check.verify)
    model_000050.pt     written as .model_000050.pt.tmp, synced, renamed: a reader sees the whole file or none
    .lock               held while a process writes the directory; the kernel drops it with the process

A file of the cache is written under a temporary name that names the machine, locked while it is written, then renamed.
So builds can share a cache at the same time, on several machines, and it can be deleted at any time.
"""

import errno
import fcntl
import glob
import hashlib
import os
import platform
import resource
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def default_cache_dir() -> Path:
    """$XDG_CACHE_HOME/midprep, by default ~/.cache/midprep"""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "midprep"


@contextmanager
def new_file(folder: Path, name: str) -> Iterator[tuple[IO[bytes], Callable[[Path], None]]]:
    """
    A file to write and a function that gives it its name, all or nothing. OSErrors name the file, which that of a full disk
    does not.
    """
    temporary: Path | None = None
    try:
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
    """An empty file of this process, and its path; a second one where the first was removed before it was locked"""
    while True:
        path = folder / f"{name}.{platform.node()}-{secrets.token_hex(8)}.tmp"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "wb")  # noqa: SIM115 (the caller closes it)
        except FileNotFoundError:  # the folder was deleted meanwhile
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file, path
        file.close()


def nameless_file() -> IO[bytes]:
    """A file that is gone when it is closed, or its process killed"""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("midprep"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def scratch_folder(cache_dir: Path) -> Iterator[Path]:
    """A directory in the cache while the block runs; `remove_abandoned` removes that of a process that was killed."""
    remove_abandoned(cache_dir)
    folder = cache_dir / "scratch" / f"{platform.node()}-{secrets.token_hex(8)}"
    with Lock(folder.with_suffix(".lock"), "another process uses it", "give another --cache-dir"):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(cache_dir: Path) -> None:
    """Remove temporary files that processes of this machine left when they were killed; those being written are locked."""
    for path in cache_dir.glob(f"scratch/{glob.escape(platform.node())}-*.lock"):
        with suppress(OSError, ValueError), Lock(path, "", ""):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    for folder in ("", "runs/*/", "plain/", "hub/"):
        for path in cache_dir.glob(f"{folder}*.{glob.escape(platform.node())}-*.tmp"):
            with suppress(OSError), open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def nanochat_home() -> Path:
    """The directory of a nanochat installation: its tokenizer, its data"""
    return Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat").expanduser()


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file by `write(file)`, safe from power cuts. OSError that names the file where the disk is full."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # what torch.save raises where a disk is full is a RuntimeError
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"{path} could not be written ({reason}; {free / 1e6:,.0f} MB are free there): make room, or give another "
            "directory; the file that was there before is unchanged."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make sure that the names of its files are on the disk"""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def dangling_link(path: Path) -> str | None:
    """Says of a path that leads through a link to nothing where that is"""
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not place.exists():
            return f"{place} is a link to {os.readlink(place)}, which does not exist"
    return None


def allow_open_files(number: int) -> None:
    """
    Raise the limit on open files to `number`, as far as the hard limit lets a process raise its own. Most systems start with
    1,024. Where that is not enough, opening says so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class Lock:
    """
    Held from construction to `release`, which the end of a `with` calls, or to the end of the process. ValueError that
    says `taken` if another process holds it, OSError where its directory cannot be written; both give `advice`.
    """

    def __init__(self, path: Path, taken: str, advice: str) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while not self._acquire(f"{taken} (it holds {path}): wait for it, or {advice}."):
                pass
        except OSError as error:
            reason = dangling_link(path) or error.strerror
            raise type(error)(f"{path.parent} cannot be written ({reason}): {advice}.") from None

    def _acquire(self, refusal: str) -> bool:
        self.file = open(self.path, "w")  # noqa: SIM115 (open while the lock is held)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise ValueError(refusal) from None
        except OSError as error:
            self.file.close()
            raise OSError(error.errno, f"its file system has no locks, {error.strerror}") from None
        # the process that held the lock before may have removed the file that is locked now
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self.file.fileno()), self.path.stat()):
                return True
        self.file.close()
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        self.path.unlink(missing_ok=True)  # while it is held: no other process can have locked this file
        self.file.close()
