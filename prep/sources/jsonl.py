"""
JSON lines, plain or made of another file: where blocks begin, and reading from there.

    {"messages": ...}\n\n{"messages": ...}\n      two rows: blank lines do not count

Lines travel as bytes in a column `line`; the task parses them. A compressed file, or one of JSON that is not a value a line,
cannot be entered in the middle: each worker would read all that lies before its block, half of (blocks x file) in sum. It
is written as lines into the cache once, which can be deleted, one chunk in memory at a time.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Self

import numpy as np
import pyarrow as pa

from prep.arrays import Array
from prep.columns import binary_array
from prep.files import new_file, sha256_of
from prep.sources import json_documents, tables
from prep.sources.tables import readable

CHUNK_BYTES = 1 << 20
CACHE_ATTEMPTS = 10  # to find or make a file that somebody else may be deleting
REWRITTEN = ("gzip", "zstd", "json", "text")  # as lines, in the cache
NEWLINE = ord("\n")
IS_SPACE = np.array([bytes((byte,)).isspace() for byte in range(256)])


@dataclass(frozen=True)
class Rewritten:
    """A file that is no plain lines, and the cache that has its rows as lines"""

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
    made_from: Rewritten | None = None  # of a file in the cache

    @classmethod
    def open(cls, path: Path, block_rows: int, made_from: Rewritten | None = None) -> Self:
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


def open_lines(path: Path, made_from: Rewritten | None) -> IO[bytes]:
    """A file of lines, opened; one in the cache, which can be deleted at any time, is made again. ValueError if it is gone"""
    for _ in range(CACHE_ATTEMPTS if made_from else 1):
        with suppress(FileNotFoundError):
            return open(path, "rb")
        with suppress(FileNotFoundError):
            if made_from and rewritten(made_from) != path:
                break
    raise ValueError(f"{made_from.path if made_from else path} was removed while it was read: build again.")


def rewritten(file: Rewritten) -> Path:
    """
    The file's rows as lines in the cache: <sha256 of the file>-<sha256 of the lines>, checked when they are there and
    made again when they are damaged. ValueError where the file cannot be read.
    """
    folder = file.cache_dir / "plain"
    name = f"{file.sha256}.text" if file.kind == "text" else file.sha256
    for cached in folder.glob(f"{name}-*.jsonl"):
        with suppress(FileNotFoundError):
            if sha256_of(cached) == cached.stem.partition("-")[2]:
                return cached
        cached.unlink(missing_ok=True)
    digest = hashlib.sha256()
    with new_file(folder, name) as (plain, keep):
        for chunk in chunks(file.path, file.kind):
            digest.update(chunk)
            plain.write(chunk)
        target = folder / f"{name}-{digest.hexdigest()}.jsonl"
        keep(target)
    return target


def chunks(path: Path, kind: str) -> Iterator[bytes]:
    """The lines that a file holds or is made into, a chunk at a time"""
    if kind == "text":
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        yield json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
        return
    contents = decompressed_chunks(path, kind)
    start = b""
    while len(start) < json_documents.START_BYTES and (chunk := next(contents, b"")):
        start += chunk
    contents = chain([start], contents)
    if not json_documents.is_document(start[: json_documents.START_BYTES]):
        yield from contents
        return
    try:
        yield from json_documents.lines(contents)
    except ValueError as error:
        raise ValueError(f"{path} is no readable JSON ({error}): correct it, or write a row a line.") from None


def decompressed_chunks(path: Path, kind: str) -> Iterator[bytes]:
    compression = kind if kind in ("gzip", "zstd") else None
    with (
        readable(path, compression or "text"),
        pa.input_stream(pa.OSFile(os.fsencode(path)), compression=compression) as stream,
    ):
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
