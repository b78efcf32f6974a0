"""
Where rows come from, and reading them in blocks: the Hub (prep.sources.hub), a local copy in its layout, or files of one's own.

    openai/gsm8k main train  ->  [main/train-00000-of-00001.parquet]  ->  rows 0 .. 7472  ->  tables of about 4 MB

Every source ends up as a list of files whose rows are numbered through: parquet, Arrow, or JSON lines (which travel as a
column `line` of bytes and are parsed by the task). Its identity is the sha256 of the files' contents, wherever they lie;
the Hub and a local copy of it are the same source. A source that is missing is an error, never 0 rows.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prep.arrays import Array
from prep.files import default_cache_dir, sha256_of
from prep.sources.arrow import arrow_batches, check_names, has_dictionary, read_arrow
from prep.sources.detect import kind_of
from prep.sources.jsonl import BATCH_BYTES, COMPRESSED, READ_ROWS, decompressed, index_lines, read_lines
from prep.text import one_line

BLOCK_ROWS = 8192  # rows rendered and cached together; parquet's row groups round it up
UNIT_BLOCKS = 16  # most blocks read in one go, where one row group spans many
BATCH_ROWS = 8192  # in memory at once, or fewer that have BATCH_BYTES


Stamp = tuple[int, int]  # bytes, and when they were last written in nanoseconds


@dataclass(frozen=True)
class Source:
    """Rows of one data set: numbered through its files, cut into units of blocks that are rendered on their own."""

    files: tuple[Path, ...]
    num_rows: int
    units: tuple[tuple[int, ...], ...]  # row numbers at which the blocks of each unit begin and end
    sha256: str  # of the files' contents
    revision: str | None = None  # commit of the Hub
    columns: tuple[str, ...] = ()  # columns to read; () for JSON lines
    file_starts: tuple[int, ...] = ()  # first row of each file
    unit_offsets: tuple[int, ...] = ()  # of JSON lines: byte of its file at which each unit begins
    kind: str = "parquet"  # or arrow, or lines
    stamps: tuple[Stamp, ...] = ()  # of the files, before they were hashed

    @property
    def bounds(self) -> list[int]:
        """Row numbers at which blocks begin, and the end of the last"""
        return sorted({bound for unit in self.units for bound in unit})

    def check_unchanged(self, start: int, stop: int) -> None:
        """ValueError if a file of rows start .. stop - 1 is not what was hashed: what was read of it is of no use"""
        first, last = (bisect_right(self.file_starts, row) for row in (start, stop - 1))
        for number in range(first - 1, last) if self.files else ():
            _check_stamp(self.files[number], self.stamps[number])


def _stamp(path: Path) -> Stamp:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _check_stamp(path: Path, stamp: Stamp) -> None:
    if not path.is_file() or _stamp(path) != stamp:
        raise ValueError(f"{path} changed while it was being read, and nothing of it was kept: build again.")


# ---- finding ----


def local_files(root: Path, repo: str, subset: str, split: str) -> list[Path]:
    """Files of a split in a local copy in the Hub's layout; [] where there are none."""
    folder = root / repo
    patterns = [f"{subset}/{split}-*.parquet", f"{subset}/{split}/*.parquet", f"{subset}/{split}.parquet"]
    if subset == "default":
        patterns += [f"data/{split}-*.parquet", f"data/{split}.parquet", f"{split}-*.parquet", f"{split}.parquet"]
    for kind in ("parquet", "jsonl", "jsonl.gz", "jsonl.zst", "arrow"):
        for pattern in patterns:
            if files := sorted(folder.glob(pattern.removesuffix("parquet") + kind)):
                return files
    return []


# ---- opening ----


def open_files(
    files: list[Path], columns: list[str], revision: str | None = None, cache_dir: Path | None = None
) -> Source:
    """A source over files of one kind, hashed and counted; `columns` [] are all. Compressed lines go to the cache."""
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: give a file that is there.")
    stamps = [_stamp(path) for path in files]
    with ThreadPoolExecutor() as pool:  # hashing and reading release the interpreter
        digests = list(pool.map(sha256_of, files))
    sha256 = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    kinds = [kind_of(path) for path in files]
    plain = {"gzip": "lines", "zstd": "lines", "arrow stream": "arrow"}
    for path, kind in zip(files, kinds, strict=True):
        if plain.get(kind, kind) != plain.get(kinds[0], kinds[0]):
            raise ValueError(
                f"{files[0]} is {kinds[0]}, {path} is {kind}: wanted files of one kind. Make an entry for each."
            )
    if kinds[0] == "parquet":
        source = _open_parquet(files, columns, sha256, revision)
    elif kinds[0].startswith("arrow"):
        source = _open_arrow(files, columns, sha256, revision)
    else:
        readable = [
            decompressed(path, digest, kind, cache_dir or default_cache_dir()) if kind in COMPRESSED else path
            for path, digest, kind in zip(files, digests, kinds, strict=True)
        ]
        source = _open_lines(readable, sha256, revision)
    for path, stamp in zip(files, stamps, strict=True):
        _check_stamp(path, stamp)
    read = zip(files, source.files, stamps, strict=True)
    return replace(source, stamps=tuple(stamp if ours == theirs else _stamp(ours) for theirs, ours, stamp in read))


def generated(num_rows: int, start: int, identity: str) -> Source:
    """A source whose rows are made, not read: rows 0 .. num_rows - 1, of which those before `start` are not needed."""
    first = start // BLOCK_ROWS * BLOCK_ROWS
    bounds = [*range(first, num_rows, BLOCK_ROWS), num_rows]
    units = tuple((a, b) for a, b in pairwise(bounds))
    return Source(files=(), num_rows=num_rows, units=units, sha256=hashlib.sha256(identity.encode()).hexdigest())


def _open_parquet(files: list[Path], columns: list[str], sha256: str, revision: str | None) -> Source:
    file_starts, units, num_rows = [], list[tuple[int, ...]](), 0
    found: set[str] = set()
    for path in files:
        file = _parquet(path)
        meta, names = file.metadata, set(file.schema_arrow.names)
        if found and any(name in found and name not in names for name in columns):
            raise ValueError(
                f"{path} has the columns {sorted(names)}, {files[0]} has {sorted(found)}: wanted the same."
            )
        found |= names
        file_starts.append(num_rows)
        first = num_rows
        for group in range(meta.num_row_groups):
            num_rows += meta.row_group(group).num_rows
            if num_rows - first >= BLOCK_ROWS or (group == meta.num_row_groups - 1 and num_rows > first):
                units += _cut(first, num_rows)
                first = num_rows
    wanted = [name for name in columns if name in found] or ([] if columns else sorted(found))
    if columns and len(wanted) < len(columns):
        nested = found == {"train"}  # MMLU's auxiliary_train: each row in one struct column
        if not nested:
            raise ValueError(f"{files[0]} has the columns {sorted(found)}, wanted {columns}: is it the right data set?")
        wanted = ["train"]
    if not num_rows:
        raise ValueError(f"{files[0]} has no rows: give a file with rows.")
    return Source(tuple(files), num_rows, tuple(units), sha256, revision, tuple(wanted), tuple(file_starts))


def _cut(first: int, stop: int) -> list[tuple[int, ...]]:
    """Row groups of `stop - first` rows -> units of blocks: one block, or many where one group spans them"""
    if stop - first < 2 * BLOCK_ROWS:
        return [(first, stop)]
    bounds = [*range(first, stop, BLOCK_ROWS), stop]
    return [tuple(bounds[i : i + UNIT_BLOCKS + 1]) for i in range(0, len(bounds) - 1, UNIT_BLOCKS)]


def _open_arrow(files: list[Path], columns: list[str], sha256: str, revision: str | None) -> Source:
    file_starts, units, num_rows = list[int](), list[tuple[int, ...]](), 0
    wanted = columns or sorted(arrow_batches(files[0])[1])
    for path in files:
        starts, names = arrow_batches(path)
        if missing := [name for name in wanted if name not in names]:
            raise ValueError(f"{path} has the columns {sorted(names)}, wanted {missing} too: is it the right data set?")
        file_starts.append(num_rows)
        units += _cut(num_rows, num_rows + starts[-1]) if starts[-1] else []
        num_rows += starts[-1]
    if not num_rows:
        raise ValueError(f"{files[0]} has no rows: give a file with rows.")
    return Source(
        tuple(files), num_rows, tuple(units), sha256, revision, tuple(wanted), tuple(file_starts), kind="arrow"
    )


def _open_lines(files: list[Path], sha256: str, revision: str | None) -> Source:
    file_starts, unit_offsets, units, num_rows = list[int](), list[int](), list[tuple[int, ...]](), 0
    for path in files:
        starts, num_lines = index_lines(path, BLOCK_ROWS)
        file_starts.append(num_rows)
        unit_offsets += starts
        units += [(num_rows + a, num_rows + b) for a, b in pairwise([*range(0, num_lines, BLOCK_ROWS), num_lines])]
        num_rows += num_lines
    if not num_rows:
        raise ValueError(f"{files[0]} has no rows: give a file with one JSON value a line.")
    return Source(
        tuple(files), num_rows, tuple(units), sha256, revision, (), tuple(file_starts), tuple(unit_offsets), "lines"
    )  # fmt: skip


# ---- reading ----


def read_rows(source: Source, start: int, stop: int) -> Iterator[pa.Table]:
    """Rows start .. stop - 1 as tables of at most BATCH_ROWS rows, in order. `start` is where a block begins."""
    for number, path in enumerate(source.files):
        first = source.file_starts[number]
        last = source.file_starts[number + 1] if number + 1 < len(source.files) else source.num_rows
        if first < stop and start < last:
            a, b = max(start, first) - first, min(stop, last) - first
            if source.kind == "arrow":
                yield from read_arrow(path, list(source.columns), a, b, BATCH_ROWS)
            elif source.columns:
                yield from _read_parquet(path, list(source.columns), a, b)
            else:
                unit = bisect_right(source.units, (first + a, source.num_rows + 1)) - 1
                yield from read_lines(path, source.unit_offsets[unit], b - a, BATCH_ROWS)


def rows_at(source: Source, rows: Array) -> Iterator[pa.Table]:
    """Some rows (n,), ascending, each as a table of its own; reads the blocks that they are in"""
    for start, stop in pairwise(source.bounds):
        wanted, place = rows[(rows >= start) & (rows < stop)], start
        for table in read_rows(source, start, stop) if len(wanted) else ():
            here = wanted[(wanted >= place) & (wanted < place + len(table))]
            yield from (table.slice(row - place, 1) for row in here.tolist())
            place += len(table)


def _read_parquet(path: Path, columns: list[str], start: int, stop: int) -> Iterator[pa.Table]:
    file, groups, first, skip = _parquet(path), list[int](), 0, 0
    for group in range(file.metadata.num_row_groups):
        num_rows = file.metadata.row_group(group).num_rows
        if first < stop and start < first + num_rows:
            skip = skip if groups else start - first
            groups.append(group)
        first += num_rows
    left, gathered = stop - start, list[pa.RecordBatch]()
    try:
        for batch in file.iter_batches(READ_ROWS, row_groups=groups, columns=columns, use_threads=False):
            rows = batch.slice(min(skip, len(batch)), left)
            skip = max(0, skip - len(batch))
            left -= len(rows)
            if gathered and not _fits([*gathered, rows]):
                yield pa.Table.from_batches(gathered)
                gathered = []
            gathered += [rows] if len(rows) else []
            if not left:
                break
        if gathered:
            yield pa.Table.from_batches(gathered)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)} Is the file whole?") from None


def _fits(batches: list[pa.RecordBatch]) -> bool:
    """Whether batches may be one: what they have is known when they are read, as files say little of texts that recur"""
    num_bytes, num_rows = sum(batch.nbytes for batch in batches), sum(len(batch) for batch in batches)
    return num_bytes <= BATCH_BYTES and num_rows <= BATCH_ROWS and not has_dictionary(batches[0].schema)


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, memory_map=True)
        check_names(path, file.schema_arrow.names)
        return file
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no readable parquet file: {one_line(error)} Is the file whole?") from None
