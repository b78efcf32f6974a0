"""
JSON lines, plain or compressed: where blocks begin, and reading from there.

    {"messages": ...}\n\n{"messages": ...}\n      two rows: blank lines do not count

Lines travel as bytes in a column `line`; the task parses them. A compressed file cannot be entered in the middle: each
worker would decompress all that lies before its block, half of (blocks x file) in sum. It is decompressed once into the
cache, which can be deleted, one chunk in memory at a time.
"""

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from prep.columns import binary_array
from prep.files import new_file, sha256_of
from prep.sources import tables
from prep.sources.tables import readable

CHUNK_BYTES = 1 << 20
COMPRESSED = ("gzip", "zstd")


@dataclass(frozen=True)
class JsonLines:
    """A file of lines with the byte at which each block of block_rows rows begins."""

    path: Path
    num_rows: int
    block_rows: int
    offsets: tuple[int, ...]
    columns: tuple[str, ...] = ()  # lines have none

    @classmethod
    def open(cls, path: Path, block_rows: int) -> Self:
        offsets = []
        num_rows = place = 0
        with open(path, "rb") as file:
            for line in file:
                if not line.isspace():
                    if num_rows % block_rows == 0:
                        offsets.append(place)
                    num_rows += 1
                place += len(line)
        return cls(path, num_rows, block_rows, tuple(offsets))

    @property
    def starts(self) -> tuple[int, ...]:
        """Rows at which blocks begin, and the end of the last"""
        return *range(0, self.num_rows, self.block_rows), self.num_rows

    def read(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Rows start .. stop - 1 as tables of a column `line`, of bounded size; a block begins at `start`"""
        if not self.path.is_file():  # also in the cache, which can be deleted at any time
            raise ValueError(f"{self.path} was removed while it was read: build again.")
        left = stop - start
        lines: list[bytes] = []
        num_bytes = 0
        with open(self.path, "rb") as file:
            file.seek(self.offsets[start // self.block_rows])
            for line in file:
                if line.isspace():
                    continue
                lines.append(line)
                num_bytes += len(line)
                left -= 1
                if not left or len(lines) == tables.BATCH_ROWS or num_bytes > tables.BATCH_BYTES:
                    yield pa.table({"line": binary_array(lines)})
                    lines = []
                    num_bytes = 0
                if not left:
                    return

    def mentions(self, word: str) -> bool:
        """Whether a word stands anywhere in the file as a string of JSON"""
        if not self.num_rows:
            return False
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(f'"{word}"'.encode()) >= 0


def decompressed(path: Path, sha256: str, kind: str, cache_dir: Path) -> Path:
    """
    The file's contents as a file in the cache: <sha256 of the compressed>-<sha256 of the contents>, checked when it is
    there and made again when it is damaged. ValueError where the file cannot be decompressed.
    """
    folder = cache_dir / "plain"
    for cached in folder.glob(f"{sha256}-*.jsonl"):
        if sha256_of(cached) == cached.stem.partition("-")[2]:
            return cached
        cached.unlink(missing_ok=True)
    digest = hashlib.sha256()
    with new_file(folder, sha256) as (file, keep):
        for chunk in chunks(path, kind):
            digest.update(chunk)
            file.write(chunk)
        target = folder / f"{sha256}-{digest.hexdigest()}.jsonl"
        keep(target)
    return target


def chunks(path: Path, kind: str) -> Iterator[bytes]:
    """What a file of lines holds, decompressed, a chunk at a time"""
    compression = kind if kind in COMPRESSED else None
    with readable(path, compression or "text"), pa.input_stream(str(path), compression=compression) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
