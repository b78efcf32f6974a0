"""
Where rows come from, and reading them in blocks: the Hub (prep.sources.hub), a local copy in its layout, or your own files.

    openai/gsm8k main train  ->  [main/train-00000-of-00001.parquet]  ->  rows 0 .. 7472  ->  tables of about 4 MB

Every source ends up as a list of files whose rows are numbered through: Parquet, Arrow, or JSON lines (which travel as a
column `line` of bytes and are parsed by the task). It is identified by the sha256 of the files' contents, wherever they
are; the Hub and a local copy of it are the same source. A source that is missing is an error, never 0 rows.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from prep.arrays import Array
from prep.files import default_cache_dir, sha256_of
from prep.sources.arrow import ArrowFile
from prep.sources.detect import COLUMNAR, check_kinds, kind_of
from prep.sources.jsonl import REWRITTEN, JsonLines, Rewritten, rewritten
from prep.sources.parquet import ParquetFile

BLOCK_ROWS = 8192  # rows rendered and cached together; Parquet's row groups round it up
UNIT_BLOCKS = 16  # most blocks read in one go, where one row group spans many

Reader = ParquetFile | ArrowFile | JsonLines
Stamp = tuple[int, int]  # bytes, and when they were last written in nanoseconds


@dataclass(frozen=True)
class Source:
    """Rows of one data set: numbered through its files, in units of blocks that are rendered on their own."""

    readers: tuple[Reader, ...]  # () where rows are generated
    num_rows: int
    units: tuple[tuple[int, ...], ...]  # row numbers at which the blocks of each unit begin and end
    sha256: str  # of the files' contents
    revision: str | None = None  # commit of the Hub
    stamps: tuple[Stamp | None, ...] = ()  # of the files, from before they were hashed; none of one in the cache

    @property
    def bounds(self) -> list[int]:
        """Row numbers at which blocks begin, and the end of the last"""
        return sorted({bound for unit in self.units for bound in unit})

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(reader.path for reader in self.readers)

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Rows start .. stop - 1 by file: its place in `readers`, its first row of them and the end of its last"""
        before = 0
        for number, reader in enumerate(self.readers):
            first, end = max(start - before, 0), min(stop - before, reader.num_rows)
            if first < end:
                yield number, first, end
            before += reader.num_rows

    def file_of(self, row: int) -> Path:
        return next(self.readers[number].path for number, _, _ in self.parts(row, row + 1))

    def check_unchanged(self, start: int, stop: int) -> None:
        """ValueError if a file of rows start .. stop - 1 is not what was hashed: what was read of it must not be used"""
        for number, _, _ in self.parts(start, stop):
            if stamp := self.stamps[number]:
                _check_stamp(self.readers[number].path, stamp)

    def without(self, columns: set[str]) -> "Source":
        """The same without some columns, which are never read"""
        readers = [
            reader if isinstance(reader, JsonLines)
            else replace(reader, columns=tuple(name for name in reader.columns if name not in columns))
            for reader in self.readers
        ]  # fmt: skip
        return replace(self, readers=tuple(readers))


def _stamp(path: Path) -> Stamp:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _check_stamp(path: Path, stamp: Stamp) -> None:
    if not path.is_file() or _stamp(path) != stamp:
        raise ValueError(f"{path} changed while it was being read, and nothing of it was kept: build again.")


# ---- opening ----


def open_files(
    files: list[Path],
    columns: list[str],
    revision: str | None = None,
    cache_dir: Path | None = None,
    text: bool = False,
) -> Source:
    """
    A source over files of one kind, hashed and counted; `columns` [] are all. What is no plain lines goes to the cache as
    lines; `text`: a .txt file is a document.
    """
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: give a file that is there.")
    check_kinds(files, text)
    stamps = {path: _stamp(path) for path in files}
    with ThreadPoolExecutor() as pool:  # hashing and reading release the interpreter
        digests = list(pool.map(sha256_of, files))
    readers = [
        _open(path, digest, cache_dir or default_cache_dir(), text) for path, digest in zip(files, digests, strict=True)
    ]
    num_rows = 0
    units = list[tuple[int, ...]]()
    for reader in readers:
        units += _units([num_rows + start for start in reader.starts])
        num_rows += reader.starts[-1]
    if not num_rows:
        raise ValueError(f"{files[0]} has no rows: give a file with rows.")
    for path, stamp in stamps.items():
        _check_stamp(path, stamp)
    return Source(
        readers=tuple(_select(reader, columns) for reader in readers),
        num_rows=num_rows,
        units=tuple(units),
        sha256=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        revision=revision,
        stamps=tuple(stamps.get(reader.path) for reader in readers),
    )


def _open(path: Path, sha256: str, cache_dir: Path, text: bool) -> Reader:
    kind = kind_of(path, text)
    if kind in COLUMNAR:
        return COLUMNAR[kind](path)
    if kind not in REWRITTEN:
        return JsonLines.open(path, BLOCK_ROWS)
    file = Rewritten(path, sha256, kind, cache_dir)
    return JsonLines.open(rewritten(file), BLOCK_ROWS, file)


def _select(reader: Reader, columns: list[str]) -> Reader:
    """The reader for some of its columns. ValueError where it lacks one."""
    if isinstance(reader, JsonLines) or not columns or reader.columns == ("train",):  # MMLU nests auxiliary_train so
        return reader
    if any(name not in reader.columns for name in columns):
        raise ValueError(
            f"{reader.path} has the columns {list(reader.columns)}, wanted {columns}: is it the right data set?"
        )
    return replace(reader, columns=tuple(columns))


def _units(starts: list[int]) -> Iterator[tuple[int, ...]]:
    """Rows where reading may begin, and their end -> units: one block of BLOCK_ROWS or more, or many in one gap"""
    first = starts[0]
    for stop in starts[1:]:
        if stop - first < BLOCK_ROWS and (stop < starts[-1] or stop == first):
            continue
        bounds = [first, stop]
        if stop - first >= 2 * BLOCK_ROWS:
            bounds = [*range(first, stop, BLOCK_ROWS), stop]
        for i in range(0, len(bounds) - 1, UNIT_BLOCKS):
            yield tuple(bounds[i : i + UNIT_BLOCKS + 1])
        first = stop


def generated(num_rows: int, start: int, identity: str) -> Source:
    """A source whose rows are made, not read: rows 0 .. num_rows - 1, of which those before `start` are not needed."""
    first = start // BLOCK_ROWS * BLOCK_ROWS
    units = tuple(pairwise([*range(first, num_rows, BLOCK_ROWS), num_rows]))
    return Source(readers=(), num_rows=num_rows, units=units, sha256=hashlib.sha256(identity.encode()).hexdigest())


# ---- reading ----


def read_rows(source: Source, start: int, stop: int) -> Iterator[pa.Table]:
    """Rows start .. stop - 1 as tables of bounded size, in order. `start` is where a block begins."""
    for number, first, end in source.parts(start, stop):
        yield from source.readers[number].read(first, end)


def rows_at(source: Source, rows: Array) -> Iterator[pa.Table]:
    """(n,) row numbers, ascending -> each row as a table of its own; reads the blocks that they are in"""
    for start, stop in pairwise(source.bounds):
        numbers = rows[(rows >= start) & (rows < stop)]
        place = start
        for table in read_rows(source, start, stop) if len(numbers) else ():
            here = numbers[(numbers >= place) & (numbers < place + len(table))]
            yield from (table.slice(row - place, 1) for row in here.tolist())
            place += len(table)
