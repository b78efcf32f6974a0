"""
Parquet files: mapped; blocks begin where row groups do, and inside of row groups that are large.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from prep.sources import tables
from prep.sources.tables import check_names, has_dictionary, plain_form, readable


@dataclass(frozen=True)
class ParquetFile:
    """A file with its row groups: group i holds rows starts[i] .. starts[i + 1] - 1."""

    path: Path
    columns: tuple[str, ...]  # to read
    starts: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """With all columns, sorted. ValueError where it is not a Parquet file."""
        file = _open(path)
        check_names(path, file.schema_arrow.names)
        sizes = (file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        return cls(path, tuple(sorted(file.schema_arrow.names)), tuple(accumulate(sizes, initial=0)))

    @property
    def num_rows(self) -> int:
        return self.starts[-1]

    def read(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Rows start .. stop - 1 as tables of bounded size"""
        groups = [i for i, (first, end) in enumerate(pairwise(self.starts)) if first < stop and start < end]
        skip = start - self.starts[groups[0]] if groups else 0
        left = stop - start
        gathered = list[pa.RecordBatch]()
        with readable(self.path, "Parquet"):
            batches = _open(self.path).iter_batches(
                tables.READ_ROWS, row_groups=groups, columns=list(self.columns), use_threads=False
            )
            for batch in batches:
                rows = batch.slice(min(skip, len(batch)), left)
                skip = max(0, skip - len(batch))
                left -= len(rows)
                if gathered and not _fit([*gathered, rows]):
                    yield plain_form(pa.Table.from_batches(gathered))
                    gathered = []
                if len(rows):
                    gathered.append(rows)
                if not left:
                    break
        if gathered:
            yield plain_form(pa.Table.from_batches(gathered))


def _open(path: Path) -> pq.ParquetFile:
    with readable(path, "Parquet"):
        return pq.ParquetFile(pa.memory_map(os.fsencode(path)))


def _fit(batches: list[pa.RecordBatch]) -> bool:
    """Whether batches fit into one table; only what was read tells, as files store repeated texts once"""
    num_bytes = sum(batch.nbytes for batch in batches)
    num_rows = sum(len(batch) for batch in batches)
    return num_bytes <= tables.BATCH_BYTES and num_rows <= tables.BATCH_ROWS and not has_dictionary(batches[0].schema)
