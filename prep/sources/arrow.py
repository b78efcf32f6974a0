"""
Arrow files (Feather) and streams: mapped, never read whole.

    file     record batches with an index         stream    the same without: batches before the first are skipped unread

Text stays where it is in the map; only compressed buffers are decompressed, those of one batch at a time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from prep.sources import tables
from prep.sources.tables import check_names, has_dictionary, has_message_field, readable

# https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass(frozen=True)
class ArrowFile:
    """A file or stream with its record batches: batch i holds rows batches[i] .. batches[i + 1] - 1."""

    path: Path
    columns: tuple[str, ...]  # to read
    batches: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """With all columns, sorted. ValueError where it is not an Arrow file, or a stream that was not finished."""
        if not _has_index(path) and not _has_end(path):
            raise ValueError(
                f"{path} is an Arrow stream without an end: its writer did not finish, and rows may be missing. Write it "
                "again, and close its writer."
            )
        bounds = [0]
        with _open(path, [0]) as reader:  # one column is enough to count rows
            for batch in _batches(reader):
                bounds.append(bounds[-1] + batch.num_rows)
        with _open(path) as reader:
            check_names(path, reader.schema.names)
            return cls(path, tuple(sorted(reader.schema.names)), tuple(bounds))

    @property
    def num_rows(self) -> int:
        return self.batches[-1]

    @property
    def starts(self) -> tuple[int, int]:
        """Blocks may begin at any row"""
        return 0, self.num_rows

    def mentions(self, name: str) -> bool:
        """Whether messages may have a field of this name"""
        return any(has_message_field(rows.schema, name) for rows in self.read(0, min(self.num_rows, 1)))

    def read(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Rows start .. stop - 1 as tables of bounded size; text stays mapped"""
        skip = next((i for i, end in enumerate(self.batches[1:]) if end > start), 0)
        with _open(self.path) as reader:
            for i, batch in enumerate(_batches(reader, skip), skip):
                first = self.batches[i]
                if first >= stop:
                    return
                rows = batch.select(list(self.columns)).slice(max(start - first, 0))
                rows = rows.slice(0, stop - max(start, first))
                size = _table_rows(rows)
                for place in range(0, len(rows), size):
                    yield pa.Table.from_batches([rows.slice(place, size)])


def _table_rows(rows: pa.RecordBatch) -> int:
    """How many of the rows make a table"""
    most = min(tables.BATCH_ROWS, tables.READ_ROWS) if has_dictionary(rows.schema) else tables.BATCH_ROWS
    row_bytes = int(rows.nbytes) // max(len(rows), 1)
    return max(1, min(most, tables.BATCH_BYTES // max(row_bytes, 1)))


@contextmanager
def _open(path: Path, fields: list[int] | None = None) -> Iterator[Any]:
    """A reader of a file or stream, of some of its columns (None: all)"""
    options = pa.ipc.IpcReadOptions(included_fields=fields or [])
    with readable(path, "Arrow"), pa.memory_map(str(path)) as file:
        yield (pa.ipc.open_file if _has_index(path) else pa.ipc.open_stream)(file, options=options)


def _batches(reader: Any, skip: int = 0) -> Iterator[pa.RecordBatch]:
    """The record batches of a file or stream from the one numbered `skip` on"""
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from (reader.get_batch(i) for i in range(skip, reader.num_record_batches))
        return
    for _ in range(skip):
        reader.read_next_batch()
    yield from reader


def _has_index(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(6) == b"ARROW1"


def _has_end(path: Path) -> bool:
    """Whether a stream ends as a finished one does"""
    with open(path, "rb") as file:
        file.seek(-min(len(END_OF_STREAM), path.stat().st_size), os.SEEK_END)
        return file.read() == END_OF_STREAM
