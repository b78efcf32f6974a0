"""
Arrow files (Feather) and streams: mapped, never read whole.

    file     record batches with an index         stream    the same without: what lies before is passed over, unread

Text stays where it is in the map; only compressed buffers are decompressed, those of one batch at a time.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from prep.sources.jsonl import BATCH_BYTES, READ_ROWS
from prep.text import one_line

END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream


@functools.lru_cache(maxsize=64)
def arrow_batches(path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Rows before each record batch, with the number of all rows at the end, and the names of the columns"""
    if not _is_file(path) and not _has_end(path):
        raise ValueError(
            f"{path} is an Arrow stream without an end: whoever wrote it did not finish, and rows may be missing. Write it "
            "again, and close its writer."
        )
    starts = [0]
    with _arrow(path, counting=True) as batches:
        for batch in batches:
            starts.append(starts[-1] + batch.num_rows)
    with _reading(path), pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file) if _is_file(path) else pa.ipc.open_stream(file)
        check_names(path, reader.schema.names)
        return tuple(starts), tuple(reader.schema.names)


def read_arrow(path: Path, columns: list[str], start: int, stop: int, batch_rows: int) -> Iterator[pa.Table]:
    """Rows start .. stop - 1 of some columns as tables of at most batch_rows rows; text stays mapped"""
    starts, _ = arrow_batches(path)
    first = next((i for i, end in enumerate(starts[1:]) if end > start), 0)
    with _arrow(path, skip=first) as batches:
        for i, batch in enumerate(batches, first):
            if starts[i] >= stop:
                return
            a, b = max(start - starts[i], 0), min(stop - starts[i], batch.num_rows)
            rows = batch.select(columns).slice(a, b - a)
            most = min(batch_rows, READ_ROWS) if has_dictionary(rows.schema) else batch_rows
            step = max(1, min(most, BATCH_BYTES // max(rows.nbytes // max(len(rows), 1), 1)))
            for place in range(0, len(rows), step):
                yield pa.Table.from_batches([rows.slice(place, step)])


def check_names(path: Path, names: list[str]) -> None:
    """ValueError where two columns have one name"""
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path} has several columns {twice[0]!r}: give a file in which each has a name of its own.")


def has_dictionary(schema: pa.Schema) -> bool:
    """Whether texts that recur are stored once, so that rows are larger than they look"""
    return any("dictionary<" in str(kind) for kind in schema.types)


@contextlib.contextmanager
def _arrow(path: Path, skip: int = 0, counting: bool = False) -> Iterator[Iterator[pa.RecordBatch]]:
    """The record batches of an Arrow file from the one numbered `skip` on; to count, of its first column only"""
    options = pa.ipc.IpcReadOptions(included_fields=[0] if counting else [])
    with _reading(path), pa.memory_map(str(path)) as file:
        if _is_file(path):
            reader = pa.ipc.open_file(file, options=options)
            yield (reader.get_batch(i) for i in range(skip, reader.num_record_batches))
        else:
            stream = pa.ipc.open_stream(file, options=options)
            for _ in range(skip):
                stream.read_next_batch()
            yield iter(stream)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no readable Arrow file: {one_line(error)} Is the file whole?") from None


def _is_file(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(6) == b"ARROW1"


def _has_end(path: Path) -> bool:
    """Whether a stream ends with the mark that says so, https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format"""
    with open(path, "rb") as file:
        file.seek(-min(len(END), path.stat().st_size), os.SEEK_END)
        return file.read() == END
