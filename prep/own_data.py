"""
Data of one's own, from an entry to a source: which files, which layout, and whether messages say what trains.

    path = "talks/*.jsonl.gz"   ->   3 files, decompressed into the cache   ->   layout sharegpt, from their first rows
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from prep.formats import find_files, first_rows
from prep.hub import hub_files
from prep.lines import mentions
from prep.mixture import Entry, Mixture
from prep.own_tasks import OwnTask
from prep.sources import Source, local_files, open_files
from prep.task import Task
from prep.tasks.layouts import OPTIONAL, REQUIRED, Layout, with_weights
from prep.tasks.recognise import FIRST_ROWS, recognise


@dataclass(frozen=True)
class OwnData:
    """A source that is open, how it is read, and what of the Hub it is"""

    source: Source
    task: Task
    subset: str | None
    split: str | None
    train_flags: bool  # a message may say "train": false


def open_own(
    entry: Entry, split: str, mixture: Mixture, data_root: Path | None, cache_dir: Path | None, own: OwnTask | None
) -> OwnData:
    """FileNotFoundError or ValueError where it is not there, or not recognised"""
    subset = (entry.subset or "default") if entry.hub else None
    source_split = (entry.split or ("train" if split == "train" else "test")) if entry.hub else None
    revision: str | None = None
    if subset is not None and source_split is not None:
        files, revision = _hub(entry, subset, source_split, data_root, cache_dir)
    else:
        files = find_own(entry, mixture)
    if own:
        source = open_files(files, [], revision, cache_dir)
        return OwnData(source, Task(entry.task, own=own), subset, source_split, train_flags=True)
    first, rows = first_rows(files, FIRST_ROWS)
    layout = recognise(rows, entry.hub or first, wanted_layout(entry), entry.layout)
    source = open_files(files, columns_of(layout, rows), revision, cache_dir)

    def is_there(field: str) -> bool:
        """Whether messages have a field; of lines, whether its name stands in them at all"""
        if source.kind == "lines":
            return mentions(source.files, field)
        return any(has_field(rows[name].type, field) for name in source.columns)

    layout = with_weights(layout, is_there)
    flags = is_there(layout.theirs("train"))
    return OwnData(source, Task(entry.task, layout), subset, source_split, flags)


def wanted_layout(entry: Entry) -> Layout:
    """What an entry says of the layout, before it is recognised"""
    return Layout(
        columns=tuple(sorted((entry.columns or {}).items())),
        roles=tuple(sorted((entry.roles or {}).items())),
        train_on=entry.train_on,
        consecutive=entry.consecutive,
        tools=entry.tools,
    )


def columns_of(layout: Layout, rows: pa.Table) -> list[str]:
    """Columns that a layout reads, by the data's names; [] of lines"""
    wanted = [layout.theirs(name) for name in (*REQUIRED[layout.name], *OPTIONAL[layout.name])]
    return [name for name in wanted if name in rows.column_names]


def has_field(kind: pa.DataType, name: str) -> bool:
    """Whether lists of structs in a column have a field"""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_struct(kind) and kind.get_field_index(name) >= 0)


def find_own(entry: Entry, mixture: Mixture) -> list[Path]:
    """The files of a path in a mixture: from the mixture's directory, else from the current one"""
    path = Path(str(entry.path)).expanduser()
    for candidate in (mixture.folder / path, path):
        if files := find_files(candidate):
            return files
        if candidate.is_dir():
            raise FileNotFoundError(
                f"{entry.label}: {candidate} has no data in it: wanted .jsonl, .jsonl.gz, .jsonl.zst, .parquet or .arrow."
            )
    raise FileNotFoundError(
        f"{entry.label}: {mixture.folder / path} not found, nor {path} from here: correct its path."
    )


def _hub(
    entry: Entry, subset: str, split: str, data_root: Path | None, cache_dir: Path | None
) -> tuple[list[Path], str | None]:
    if data_root is None:
        return hub_files(str(entry.hub), subset, split, entry.revision, cache_dir)
    if entry.revision is not None:
        raise ValueError(
            f"{entry.label}: revision = {entry.revision!r} is pinned, --data-root has no revisions: drop one."
        )
    if files := local_files(data_root, str(entry.hub), subset, split):
        return files, None
    raise FileNotFoundError(
        f"{data_root / str(entry.hub)} has no {split!r} of {subset!r}: wanted {subset}/{split}-*.parquet in it. Give its "
        "split and subset, copy it from the Hub, or build without --data-root."
    )
