"""
Files that are whole or not there, and directories that one process at a time writes; for builds and for training.

    model_000050.pt     written as .model_000050.pt.tmp, synced, renamed: a reader sees the whole file or none
    .lock               held while a process writes the directory; the kernel drops it with the process
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file by `write(file)`, safe from power cuts. OSError that names the file, where there is no room for it"""
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
            "directory; what was whole before still is."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make sure that names of files in it are on the disk"""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Lock:
    """
    Held from its making to its release, which is also that of its `with`, or to the end of the process. ValueError that
    says `taken` if another process holds it, OSError where its directory cannot be written; both give `advice`.
    """

    def __init__(self, path: Path, taken: str, advice: str) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while not self._acquire(f"{taken} (it holds {path}): wait for it, or {advice}."):
                pass
        except OSError as error:
            raise type(error)(f"{path.parent} cannot be written ({error.strerror}): {advice}.") from None

    def _acquire(self, refusal: str) -> bool:
        self.file = open(self.path, "w")  # noqa: SIM115 - it stays open while the lock is held
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise ValueError(refusal) from None
        except OSError as error:
            self.file.close()
            raise OSError(error.errno, f"its file system gives no locks, {error.strerror}") from None
        # whoever held the lock before may have removed the file that we have just locked
        if self.path.exists() and os.fstat(self.file.fileno()).st_ino == self.path.stat().st_ino:
            return True
        self.file.close()
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        self.path.unlink(missing_ok=True)  # while it is still held: nobody else can have this file open and locked
        self.file.close()
