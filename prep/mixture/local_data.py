"""
Data of one's own, from an entry to a source: which files, which layout, and whether messages say what trains.

    path = "talks/*.jsonl.gz"   ->   3 files, decompressed into the cache   ->   layout sharegpt, from their first rows
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from prep.conversations.layouts import OPTIONAL, REQUIRED, Layout
from prep.conversations.recognise import FIRST_ROWS, recognise
from prep.mixture.mixture import Entry, Mixture
from prep.sources.detect import find_files, first_rows, first_rows_of
from prep.sources.hub import hub_files
from prep.sources.jsonl import mentions
from prep.sources.source import Source, local_files, open_files
from prep.tasks.custom import CustomTask
from prep.tasks.task import Task


@dataclass(frozen=True)
class OwnData:
    """A source that is open, how it is read, and what of the Hub it is"""

    source: Source
    task: Task
    subset: str | None
    split: str | None
    train_flags: bool  # a message may say "train": false


def open_own(
    entry: Entry, split: str, mixture: Mixture, data_root: Path | None, cache_dir: Path | None, task: Task
) -> OwnData:
    """FileNotFoundError or ValueError where it is not there, or not recognised"""
    subset: str | None = None
    source_split: str | None = None
    revision: str | None = None
    if entry.hub:
        names = [(entry.subset or "default", entry.split or usual_split(split))]
        files, revision, subset, source_split = find_hub(entry.hub, names, entry, data_root, cache_dir)
    else:
        files = find_own(entry, mixture)
    if isinstance(task, CustomTask):
        source = open_files(files, [], revision, cache_dir)
        return OwnData(source, task, subset, source_split, train_flags=True)
    first, rows = first_rows(files, FIRST_ROWS)
    layout = recognise(rows, entry.hub or first, wanted_layout(entry), entry.layout)
    source = open_files(files, columns_of(layout, rows.column_names), revision, cache_dir)
    if source.kind == "lines":
        flags = any(mentions(source.files, name) for name in layout.flags)
    else:
        schemas = [first_rows_of(path, 1).schema for path in source.files]
        types = [schema.field(name).type for schema in schemas for name in source.columns if name in schema.names]
        flags = any(has_field(kind, name) for kind in types for name in layout.flags)
    return OwnData(source, task.with_layout(layout), subset, source_split, flags)


def wanted_layout(entry: Entry) -> Layout:
    """What an entry says of the layout, before it is recognised"""
    return Layout(
        columns=tuple(sorted((entry.columns or {}).items())),
        roles=tuple(sorted((entry.roles or {}).items())),
        train_on=entry.train_on,
        consecutive=entry.consecutive,
        tools=entry.tools,
    )


def columns_of(layout: Layout, names: list[str]) -> list[str]:
    """Which of the names of columns, or of fields of lines, a layout reads"""
    wanted = [layout.theirs(name) for name in (*REQUIRED[layout.name], *OPTIONAL[layout.name])]
    return [name for name in wanted if name in names]


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


def find_hub(
    repo: str, names: list[tuple[str, str]], entry: Entry, data_root: Path | None, cache_dir: Path | None
) -> tuple[list[Path], str | None, str, str]:
    """
    Files of a data set of the Hub, their commit, subset and split: the first of `names` (subset, split) on the Hub, or
    whichever of them a local copy has.
    """
    subset, split = names[0]
    if data_root is None:
        files, revision = hub_files(repo, subset, split, entry.revision, cache_dir)
        return files, revision, subset, split
    if entry.revision is not None:
        raise ValueError(
            f"{entry.label}: revision = {entry.revision!r} is pinned, --data-root has no revisions: drop one."
        )
    for found_subset, found_split in names:
        if files := local_files(data_root, repo, found_subset, found_split):
            return files, None, found_subset, found_split
    raise FileNotFoundError(
        f"{data_root / repo} has no {split!r} of {subset!r} for {entry.label}: wanted {subset}/{split}-*.parquet in it. Give "
        "its split and subset, copy it from the Hub, or build without --data-root, or with --without "
        f"{entry.task}."
    )


def usual_split(split: str) -> str:
    """What data sets call our train and val"""
    return "train" if split == "train" else "test"
