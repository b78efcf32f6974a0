"""
Kinds of files that rows come in, told by their first bytes and not by their names, and what each needs to be read.

    PAR1          parquet             row groups, read where they lie
    ARROW1        Arrow file          record batches, mapped: Feather is this
    ff ff ff ff   Arrow stream        the same without an index: batches before the wanted ones are passed over
    1f 8b         gzip                JSON lines, decompressed once into the cache
    28 b5 2f fd   Zstandard           the same
    else          JSON lines          read from the byte where a block begins
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prep.sources.arrow import arrow_batches, read_arrow
from prep.sources.jsonl import chunks
from prep.text import one_line

MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow stream",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
}
REFUSED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"FEA1": "Feather of version 1"}
# names that promise what the first bytes do not keep
NO_LINES = {
    ".parquet": "no parquet file, whatever its name says",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".xlsx": "a spreadsheet",
}
LINE_BYTES = 64 << 20  # of a first line that is looked at: more is one JSON array, or no text
# of files in a directory: what lies beside the data (a README, a checksum) is not data
SUFFIXES = tuple(
    kind + packed for kind in (".jsonl", ".ndjson", ".json") for packed in ("", ".gz", ".zst")
) + (".parquet", ".arrow", ".feather", ".ipc")  # fmt: skip


def kind_of(path: Path) -> str:
    """parquet, arrow, arrow stream, gzip, zstd or lines. ValueError for what cannot be read."""
    with open(path, "rb") as file:
        start = file.read(8)
    kind = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "lines")
    refused = next((kind for magic, kind in REFUSED.items() if start.startswith(magic)), None)
    refused = NO_LINES.get(path.suffix.lower(), refused) if kind == "lines" else None
    if refused:
        raise ValueError(
            f"{path} is {refused}, wanted JSON lines (plain, .gz or .zst), parquet or Arrow: convert it first."
        )
    return kind


def find_files(path: Path) -> list[Path]:
    """Data files that a path means: itself, those of a directory, or those that a pattern fits; sorted, [] if none"""
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(SUFFIXES))
    if not any(sign in path.name for sign in "*?["):
        return []
    anchor, pattern = _glob_parts(path)
    return sorted(file for file in anchor.glob(pattern) if file.is_file())


def _glob_parts(path: Path) -> tuple[Path, str]:
    """A pattern of a path, cut before its first part with a sign in it"""
    parts = path.parts
    first = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    return Path(*parts[:first]), str(Path(*parts[first:]))


def first_rows(files: list[Path], num_rows: int) -> tuple[Path, pa.Table]:
    """The first of some files that has rows, and its first rows. ValueError where none has."""
    for path in files:
        if len(rows := first_rows_of(path, num_rows)):
            return path, rows
    raise ValueError(f"{files[0]} has no rows: give a file with rows.")


def first_rows_of(path: Path, num_rows: int) -> pa.Table:
    """The first rows of a file, without reading more of it: its columns, or its lines in a column `line`"""
    kind = kind_of(path)
    if kind == "parquet":
        try:
            file = pq.ParquetFile(path, memory_map=True)
            return pa.Table.from_batches(list(_first(file.iter_batches(num_rows), num_rows)), file.schema_arrow)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no readable parquet file: {one_line(error)} Is the file whole?") from None
    if kind.startswith("arrow"):
        starts, names = arrow_batches(path)
        tables = list(read_arrow(path, list(names), 0, min(num_rows, starts[-1]), num_rows))
        return pa.concat_tables(tables) if tables else pa.table({name: pa.nulls(0) for name in names})
    lines = list[bytes]()
    rest = b""
    for chunk in chunks(path, kind):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES and not lines:
            raise ValueError(f"{path} has a first line of more than {LINE_BYTES >> 20} MB: wanted an object a line.")
        lines += [line for line in whole if line and not line.isspace()]
        if len(lines) >= num_rows:
            break
    else:
        lines += [rest] if rest and not rest.isspace() else []
    return pa.table({"line": pa.array(lines[:num_rows], pa.large_binary())})


def _first(batches: Iterator[pa.RecordBatch], num_rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.slice(0, num_rows)
        num_rows -= len(batch)
        if num_rows <= 0:
            return
