"""
Arrow files (Feather) and streams: mapped, never read whole.

    file     record batches with an index         stream    the same without: batches before the first are skipped unread

Text stays where it is in the map; only compressed buffers are decompressed, those of one batch at a time.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from prep.sources import tables
from prep.sources.tables import check_names, has_dictionary, plain_form, readable

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
        with _open(path) as (schema, batches):
            check_names(path, schema.names)
            bounds = tuple(accumulate(map(_checked_rows, batches), initial=0))
            return cls(path, tuple(sorted(schema.names)), bounds)

    @property
    def num_rows(self) -> int:
        return self.batches[-1]

    @property
    def starts(self) -> tuple[int, int]:
        """Blocks may begin at any row"""
        return 0, self.num_rows

    def read(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Rows start .. stop - 1 as tables of bounded size; text stays mapped"""
        skip = bisect_right(self.batches, start) - 1
        with _open(self.path, skip) as (_, batches):
            for first, batch in zip(self.batches[skip:], batches, strict=False):
                if first >= stop:
                    return
                rows = batch.select(list(self.columns)).slice(max(start - first, 0))
                rows = rows.slice(0, stop - max(start, first))
                size = _table_rows(rows)
                for place in range(0, len(rows), size):
                    yield plain_form(pa.Table.from_batches([rows.slice(place, size)]))


def _checked_rows(batch: pa.RecordBatch) -> int:
    """
    How many rows a batch has. ArrowInvalid where it is damaged: Arrow takes offsets, indices and text as the file has them, and
    what follows a wrong one is outside of the file. Once for a file, which is hashed at the same time and must not change.
    """
    batch.validate(full=True)
    return int(batch.num_rows)


def _table_rows(rows: pa.RecordBatch) -> int:
    """How many of the rows make a table"""
    most = min(tables.BATCH_ROWS, tables.READ_ROWS) if has_dictionary(rows.schema) else tables.BATCH_ROWS
    fitting = tables.BATCH_BYTES * len(rows) // max(int(rows.nbytes), 1)
    return max(1, min(most, fitting))


@contextmanager
def _open(path: Path, skip: int = 0) -> Iterator[tuple[pa.Schema, Iterator[Any]]]:
    """The schema, and the record batches from the one numbered `skip` on"""
    with readable(path, "Arrow"), pa.memory_map(os.fsencode(path)) as file:
        if _has_index(path):
            reader = pa.ipc.open_file(file)
            yield reader.schema, (reader.get_batch(i) for i in range(skip, reader.num_record_batches))
        else:
            stream = pa.ipc.open_stream(file)
            yield stream.schema, islice(stream, skip, None)


def _has_index(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(6) == b"ARROW1"


def _has_end(path: Path) -> bool:
    """Whether a stream ends as a finished one does"""
    with open(path, "rb") as file:
        file.seek(-min(len(END_OF_STREAM), path.stat().st_size), os.SEEK_END)
        return file.read() == END_OF_STREAM
