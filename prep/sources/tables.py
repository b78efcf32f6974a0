"""
What the readers share: how large the tables are that they give, which columns they accept, and the error for a bad file.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from prep.text import one_line

BATCH_ROWS = 8192  # of one table at most, or fewer that have BATCH_BYTES
BATCH_BYTES = 4 << 20  # what is made of them should stay in the processor's cache
READ_ROWS = 1024  # read at once where a file stores a repeated text once: its rows are larger than they seem


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Errors of pyarrow and of the system as one ValueError that names the file"""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable {kind} file: {one_line(error)} Is it complete?") from None


def check_names(path: Path, names: list[str]) -> None:
    """ValueError where two columns have one name"""
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path} has several columns {repeated[0]!r}: give each column a name of its own.")


def has_dictionary(schema: pa.Schema) -> bool:
    """Whether repeated texts are stored once, so that rows are larger than they seem"""
    return any("dictionary<" in str(kind) for kind in schema.types)


def has_message_field(schema: pa.Schema, names: Collection[str]) -> bool:
    """Whether a column holds lists of structs that have a field of one of these names"""
    for kind in schema.types:
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind) and any(kind.get_field_index(name) >= 0 for name in names):
            return True
    return False
