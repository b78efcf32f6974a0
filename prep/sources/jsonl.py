"""
JSON lines, plain or compressed: where blocks begin, and reading from there.

    {"messages": ...}\n\n{"messages": ...}\n      two rows: blank lines do not count

Lines travel as bytes in a column `line`; the task parses them. A compressed file cannot be entered in the middle: each
worker would decompress all that lies before its block, half of (blocks x file) in sum. It is decompressed once into the
cache, which can be deleted, one chunk in memory at a time.
"""

import hashlib
import mmap
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np
import pyarrow as pa

from prep.arrays import Array
from prep.columns import binary_array
from prep.files import new_file, sha256_of
from prep.sources import tables
from prep.sources.tables import readable

CHUNK_BYTES = 1 << 20
CACHE_ATTEMPTS = 10  # to find or make a file that somebody else may be deleting
COMPRESSED = ("gzip", "zstd")
NEWLINE = ord("\n")
IS_SPACE = np.array([bytes((byte,)).isspace() for byte in range(256)])


@dataclass(frozen=True)
class Compressed:
    """A compressed file of lines, and the cache that has its contents"""

    path: Path
    sha256: str
    kind: str
    cache_dir: Path


@dataclass(frozen=True)
class JsonLines:
    """A file of lines with the byte at which each block of block_rows rows begins."""

    path: Path
    num_rows: int
    block_rows: int
    offsets: tuple[int, ...]
    columns: tuple[str, ...] = ()  # lines have none
    made_from: Compressed | None = None  # of a file in the cache

    @classmethod
    def open(cls, path: Path, block_rows: int, made_from: Compressed | None = None) -> Self:
        offsets = list[int]()
        num_rows = place = 0
        with open_lines(path, made_from) as file:
            for data in whole_lines(file):
                starts, _ = line_bounds(data)
                offsets += (place + starts[-num_rows % block_rows :: block_rows]).tolist()
                num_rows += len(starts)
                place += len(data)
        return cls(path, num_rows, block_rows, tuple(offsets), made_from=made_from)

    @property
    def starts(self) -> tuple[int, ...]:
        """Rows at which blocks begin, and the end of the last"""
        return *range(0, self.num_rows, self.block_rows), self.num_rows

    def read(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Rows start .. stop - 1 as tables of a column `line`, of bounded size; a block begins at `start`"""
        left = stop - start
        with open_lines(self.path, self.made_from) as file:
            file.seek(self.offsets[start // self.block_rows])
            for data in whole_lines(file):
                lines = lines_of(data)[:left]
                left -= len(lines)
                for first in range(0, len(lines), tables.BATCH_ROWS):
                    yield pa.table({"line": lines[first : first + tables.BATCH_ROWS]})
                if not left:
                    return

    def mentions(self, words: Collection[str]) -> bool:
        """Whether one of the words stands anywhere in the file as a string of JSON"""
        if not self.num_rows:
            return False
        with (
            open_lines(self.path, self.made_from) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            for start in words:
                if any(start != word and start.startswith(word) for word in words):
                    continue  # "training" is looked for where "train is found
                if data.find(f'"{start}'.encode()) >= 0:
                    longer = [word for word in words if word.startswith(start)]
                    if any(data.find(f'"{word}"'.encode()) >= 0 for word in longer):
                        return True
        return False


def whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """What follows in a file, in pieces of about BATCH_BYTES that end where lines do"""
    while data := file.read(tables.BATCH_BYTES):
        yield data if data.endswith(b"\n") else data + file.readline()


def line_bounds(data: bytes) -> tuple[Array, Array]:
    r"""
    Where the lines that are not blank begin and end (n,) each, their line ends included.

    >>> line_bounds(b"a\n \nbc\n")
    (array([0, 4]), array([2, 7]))
    """
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == NEWLINE) + 1
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.append(0, ends[:-1])
    # a line that begins with white space may be nothing else; JSON lines seldom do
    spaces = np.flatnonzero(IS_SPACE[np.frombuffer(data, dtype=np.uint8)[starts]])
    blank = [i for i in spaces.tolist() if data[starts[i] : ends[i]].isspace()]
    return np.delete(starts, blank), np.delete(ends, blank)


def lines_of(data: bytes) -> pa.LargeBinaryArray:
    """The lines that are not blank, their line ends included; the data themselves, where none is blank"""
    starts, ends = line_bounds(data)
    if len(starts) and starts[0] == 0 and np.array_equal(starts[1:], ends[:-1]):
        bounds = np.append(starts, ends[-1])
        return pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(starts), [None, pa.py_buffer(bounds), pa.py_buffer(data)]
        )
    return binary_array([data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])


def open_lines(path: Path, made_from: Compressed | None) -> IO[bytes]:
    """A file of lines, opened; one in the cache, which can be deleted at any time, is made again. ValueError if it is gone"""
    for _ in range(CACHE_ATTEMPTS if made_from else 1):
        with suppress(FileNotFoundError):
            return open(path, "rb")
        with suppress(FileNotFoundError):
            if made_from and decompressed(made_from) != path:
                break
    raise ValueError(f"{made_from.path if made_from else path} was removed while it was read: build again.")


def decompressed(file: Compressed) -> Path:
    """
    The file's contents as a file in the cache: <sha256 of the compressed>-<sha256 of the contents>, checked when it is
    there and made again when it is damaged. ValueError where the file cannot be decompressed.
    """
    folder = file.cache_dir / "plain"
    for cached in folder.glob(f"{file.sha256}-*.jsonl"):
        with suppress(FileNotFoundError):
            if sha256_of(cached) == cached.stem.partition("-")[2]:
                return cached
        cached.unlink(missing_ok=True)
    digest = hashlib.sha256()
    with new_file(folder, file.sha256) as (plain, keep):
        for chunk in chunks(file.path, file.kind):
            digest.update(chunk)
            plain.write(chunk)
        target = folder / f"{file.sha256}-{digest.hexdigest()}.jsonl"
        keep(target)
    return target


def chunks(path: Path, kind: str) -> Iterator[bytes]:
    """What a file of lines holds, decompressed, a chunk at a time"""
    compression = kind if kind in COMPRESSED else None
    with (
        readable(path, compression or "text"),
        pa.input_stream(pa.OSFile(os.fsencode(path)), compression=compression) as stream,
    ):
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
