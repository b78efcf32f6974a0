"""
In which format a file is: told by its first bytes, not by its name.

    PAR1          Parquet             row groups, read where they lie
    ARROW1        Arrow file          record batches, mapped: Feather is this
    ff ff ff ff   Arrow stream        the same without an index: batches before the first are skipped
    1f 8b         gzip                JSON lines, decompressed once into the cache
    28 b5 2f fd   Zstandard           the same
    [ {           JSON documents      an array of rows, or rows over several lines: written as lines into the cache
    else          JSON lines          read from the byte where a block begins

A .txt file is a document of plain text, for the task that reads them: one row.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from prep.columns import binary_array
from prep.sources.arrow import ArrowFile
from prep.sources.files import TEXT_SUFFIX
from prep.sources.json_documents import START_BYTES, is_document
from prep.sources.jsonl import chunks
from prep.sources.parquet import ParquetFile

MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow stream",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
}
COLUMNAR: dict[str, Callable[[Path], ParquetFile | ArrowFile]] = {
    "parquet": ParquetFile.open,
    "arrow": ArrowFile.open,
    "arrow stream": ArrowFile.open,
}
REFUSED = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"FEA1": "Feather of version 1",
}
NOT_LINES = {  # suffixes of files whose first bytes tell nothing
    ".parquet": "not a Parquet file, whatever its name says",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".xlsx": "a spreadsheet",
}
LINE_BYTES = 64 << 20  # of a first line that is read: a longer one is one JSON array, or not text


def kind_of(path: Path, text: bool = False) -> str:
    """parquet, arrow, arrow stream, gzip, zstd, json, text (where `text`) or lines. ValueError for what cannot be read."""
    if text and path.suffix.lower() == TEXT_SUFFIX:
        return "text"
    with open(path, "rb") as file:
        start = file.read(START_BYTES)
    kind = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "lines")
    refused = next((name for magic, name in REFUSED.items() if start.startswith(magic)), None)
    if kind == "lines":
        refused = NOT_LINES.get(path.suffix.lower(), refused)
    if refused:
        raise ValueError(
            f"{path} is {refused}, wanted JSON lines or a JSON array of rows, in UTF-8 (plain, .gz or "
            ".zst), Parquet or Arrow: convert it first."
        )
    return "json" if kind == "lines" and is_document(start) else kind


def check_kinds(files: list[Path], text: bool = False) -> None:
    """ValueError for files of several kinds"""
    kinds = [kind_of(path, text) for path in files]
    for path, kind in zip(files, kinds, strict=True):
        if COLUMNAR.get(kind) != COLUMNAR.get(kinds[0]):
            raise ValueError(
                f"{files[0]} is {kinds[0]}, {path} is {kind}: wanted files of one kind. Make an entry for each."
            )


def heads(files: list[Path], num_rows: int, text: bool = False) -> Iterator[tuple[Path, pa.Table]]:
    """Each file that has rows, and its first rows, as a source would give them. ValueError where none has any."""
    is_empty = True
    for path in files:
        if len(rows := _rows_of_file(path, num_rows, text)):
            is_empty = False
            yield path, rows
    if is_empty:
        raise ValueError(f"{files[0]} has no rows: give a file with rows.")


def _rows_of_file(path: Path, num_rows: int, text: bool) -> pa.Table:
    kind = kind_of(path, text)
    if kind not in COLUMNAR:
        return pa.table({"line": binary_array(_first_lines(path, kind, num_rows))})
    reader = COLUMNAR[kind](path)
    return pa.concat_tables([*reader.read(0, min(num_rows, reader.num_rows))] or [pa.table({})])


def _first_lines(path: Path, kind: str, num_lines: int) -> list[bytes]:
    """The first lines that are not blank, without decompressing more of the file"""
    lines = list[bytes]()
    rest = b""
    for chunk in chunks(path, kind):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES and not lines:
            raise ValueError(f"{path} has a first line of more than {LINE_BYTES >> 20} MB: wanted an object a line.")
        lines += [line for line in whole if line.strip()]
        if len(lines) >= num_lines:
            return lines[:num_lines]
    return [*lines, rest] if rest.strip() else lines
