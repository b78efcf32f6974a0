"""
JSON lines, plain or compressed: where blocks begin, and reading from there.

    {"messages": ...}\n\n{"messages": ...}\n      two rows: blank lines are none

Lines travel as bytes in a column `line`; the task parses them. Compressed lines cannot be entered in the middle: several
workers reading one stream would each decompress all that lies before their block, half of (blocks x file). Decompressed
once, the file costs its size on disk, in a cache that can be deleted, and memory stays at one chunk.
"""

import hashlib
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from prep.files import new_file, sha256_of
from prep.text import one_line

CHUNK_BYTES = 1 << 20
READ_ROWS = 1024  # read at once where files store a text that recurs once: what they hold is more than they seem to
BATCH_BYTES = 4 << 20  # of the rows that are in memory at once; what is made of them should stay in the cache
COMPRESSED = ("gzip", "zstd")


def index_lines(path: Path, block_rows: int) -> tuple[list[int], int]:
    """Byte offset of every block_rows-th row of a JSON lines file, and its number of rows; blank lines are no rows."""
    with open(path, "rb") as file:
        starts, num_rows, place = [], 0, 0
        for line in file:
            if not line.isspace():
                if num_rows % block_rows == 0:
                    starts.append(place)
                num_rows += 1
            place += len(line)
    return starts, num_rows


def read_lines(path: Path, place: int, num_rows: int, batch_rows: int) -> Iterator[pa.Table]:
    """num_rows rows from a byte of the file on, as tables of a column `line`"""
    lines: list[bytes] = []
    num_bytes = 0
    if not path.is_file():  # also in the cache, which can be deleted at any time
        raise ValueError(f"{path} was there a moment ago and is gone: build again.")
    with open(path, "rb") as file:
        file.seek(place)
        for line in file:
            if line.isspace():
                continue
            lines.append(line)
            num_bytes += len(line)
            num_rows -= 1
            if not num_rows or len(lines) == batch_rows or num_bytes > BATCH_BYTES:
                yield _table_of_lines(lines)
                lines, num_bytes = [], 0
            if not num_rows:
                return


def _table_of_lines(lines: list[bytes]) -> pa.Table:
    bounds = np.zeros(len(lines) + 1, dtype=np.int64)
    np.cumsum([len(line) for line in lines], out=bounds[1:])
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(b"".join(lines))]
    return pa.table({"line": pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(lines), buffers)})


def decompressed(path: Path, sha256: str, kind: str, cache_dir: Path) -> Path:
    """
    The file's contents as a file in the cache: <sha256 of the compressed>-<sha256 of the contents>, checked when it is
    there and made again when it is damaged. ValueError where the file cannot be decompressed.
    """
    folder = cache_dir / "plain"
    for found in folder.glob(f"{sha256}-*.jsonl"):
        if sha256_of(found) == found.stem.partition("-")[2]:
            return found
        found.unlink(missing_ok=True)
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
    try:
        with pa.input_stream(str(path), compression=kind if kind in COMPRESSED else None) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except (pa.ArrowException, OSError) as error:
        what = f"decompressed ({kind})" if kind in COMPRESSED else "read"
        raise ValueError(f"{path} cannot be {what}: {one_line(error)} Is the file whole?") from None


def mentions(paths: Iterable[Path], word: str) -> bool:
    """Whether a name stands, as a string of JSON, anywhere in files of lines"""
    for path in paths:
        with open(path, "rb") as file:
            if path.stat().st_size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    if data.find(f'"{word}"'.encode()) >= 0:
                        return True
    return False
