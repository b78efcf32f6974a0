"""
From the entries of a mixture to the rows they mean: which files, which revision, which rows of them, read in which layout.

    task = "gsm8k"  in [[train]]   ->   openai/gsm8k main train @ 0271a..., 7,473 rows, permuted, all of them
    task = "spelling_bee"          ->   generated, rows 0 .. 79,999 of the words for training
    path = "talks/*.jsonl.gz"      ->   3 files, decompressed into the cache, layout sharegpt by their first rows

Everything that decides the bytes of a build is known after this step, before any text is encoded.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.conversations.layouts import UNUSED, Layout
from prep.conversations.recognise import FIRST_ROWS, recognise
from prep.files import nanochat_home
from prep.mixture.checks import SAMPLING_KEYS, check_value
from prep.mixture.mixture import Entry, Mixture
from prep.sources.detect import heads
from prep.sources.files import check_parts, find_files
from prep.sources.hub import hub_files
from prep.sources.source import Source, generated, open_files
from prep.tasks import TASKS
from prep.tasks.custom import find
from prep.tasks.task import BuiltinTask, Task

DATA = Path(__file__).parents[1] / "data"
SHIPPED = "midprep:"  # before the name of a file that ships
SHIPPED_FILES = (f"{SHIPPED}identity.jsonl",)


@dataclass(frozen=True)
class Input:
    """One entry of the mixture and its source."""

    entry: Entry
    source: Source
    subset: str | None
    split: str | None  # of the source
    content_key: str  # of the conversations that its rows give: source, task and the task's version
    task: Task
    permuted: bool = False  # as every data set of the Hub

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it, and what the fingerprint covers: no path of this machine"""
        entry = self.entry
        return {
            "name": entry.label,
            "task": self.task.label,
            **({"hub": entry.hub} if entry.hub else {}),
            "subset": self.subset,
            "split": self.split,
            "path": Path(entry.path.removeprefix(SHIPPED)).name if entry.path else None,
            "start": entry.start,
            "stop": entry.stop,
            "size": self.source.num_rows if self.task.generates else None,
            "seed": entry.seed if self.task.generates else None,
            "repeat": int(entry.repeat) if entry.repeat == int(entry.repeat) else entry.repeat,
            **({"excess": entry.excess} if entry.excess else {}),
            **{key: value for key in SAMPLING_KEYS if (value := getattr(entry, key)) is not None},
            "revision": self.source.revision,
            "sha256": self.source.sha256,
            "task_version": self.task.version,
            **(self.task.layout.describe() if self.task.layout else {}),
        }


@dataclass(frozen=True)
class Places:
    """Where sources are looked for"""

    mixture: Mixture
    data_root: Path | None
    identity: Path | None  # file that --identity gives
    cache_dir: Path | None


@dataclass(frozen=True)
class SourceFiles:
    """The files of an entry; subset, split and revision are those of a data set on the Hub"""

    paths: list[Path]
    subset: str | None = None
    split: str | None = None
    revision: str | None = None  # commit; None in a local copy


def resolve(
    mixture: Mixture, data_root: Path | None, identity: Path | None, cache_dir: Path | None = None
) -> dict[str, list[Input]]:
    """The inputs of each split. FileNotFoundError or ValueError where a source is missing or cannot be read."""
    if data_root is not None and not data_root.is_dir():
        raise FileNotFoundError(f"--data-root {data_root} not found: give the directory that holds OWNER/NAME/...")
    places = Places(mixture, data_root, identity, cache_dir)
    return {split: [_resolve(entry, split, places) for entry in entries] for split, entries in mixture.splits.items()}


def _resolve(entry: Entry, split: str, places: Places) -> Input:
    task: Task = TASKS[entry.task] if entry.task in TASKS else find(entry.task, places.mixture.folder)
    if task.generates:
        return _generated(entry, split, task)
    files = _find(entry, split, task, places)
    source, task = _open(entry, task, files, places.cache_dir)
    _check_range(entry, source.num_rows)
    layout = ""
    if task.layout and task.layout != Layout():
        layout = f" {json.dumps(task.layout.describe(), sort_keys=True)}"
    key = f"{task.label} {task.version}{layout} {source.sha256}"
    return Input(entry, source, files.subset, files.split, key, task, hub_of(entry, task) is not None)


def _generated(entry: Entry, split: str, task: Task) -> Input:
    if entry.path or entry.hub:
        key = "path" if entry.path else "hub"
        raise ValueError(f"{entry.label}: task {entry.task!r} makes its rows: drop the {key}.")
    size = entry.size or (task.size if isinstance(task, BuiltinTask) else None)
    if size is None:
        raise ValueError(f"{entry.label}: task {entry.task!r} makes its rows: say how many, as size = 1000.")
    _check_range(entry, size)
    source_split = entry.split or usual_split(split)
    content_key = f"{task.label} {source_split} {entry.seed} {task.version}"
    source = generated(size, entry.start, content_key)
    return Input(entry, source, None, source_split, content_key, task)


def _check_range(entry: Entry, num_rows: int) -> None:
    if entry.start >= num_rows:
        raise ValueError(f"{entry.label}: start = {entry.start} selects nothing, the source has {num_rows:,} rows.")


def _find(entry: Entry, split: str, task: Task, places: Places) -> SourceFiles:
    if repo := hub_of(entry, task):
        return find_hub(repo, hub_names(entry, split, task), entry, places)
    if task.label == "identity" and places.identity:
        return SourceFiles([places.identity])
    if entry.path:
        return SourceFiles(_find_path(entry.label, entry.path, places.mixture.folder, task.label == "text"))
    if task.label == "identity":
        return SourceFiles([_find_identity(places)])
    raise ValueError(f'{entry.label}: task {entry.task!r} reads rows: give a path, as path = "mine.jsonl", or a hub.')


def hub_of(entry: Entry, task: Task | None) -> str | None:
    """OWNER/NAME of the data set that an entry reads, if it is on the Hub"""
    return task.hub if isinstance(task, BuiltinTask) and task.hub else entry.hub


def hub_names(entry: Entry, split: str, task: Task | None) -> list[tuple[str, str]]:
    """(subset, split) of the rows on the Hub, and other names that a local copy may have for them"""
    defaults = task.defaults if isinstance(task, BuiltinTask) else {}
    subset, source_split = defaults.get(split, ("default", usual_split(split)))
    if entry.subset is not None and entry.subset != subset:
        subset, source_split = entry.subset, usual_split(split)
    names = (subset, entry.split or source_split)
    return [names, *(task.aliases.get(names, []) if isinstance(task, BuiltinTask) else [])]


def usual_split(split: str) -> str:
    """What data sets call our train and val"""
    return "train" if split == "train" else "test"


def find_hub(repo: str, names: list[tuple[str, str]], entry: Entry, places: Places) -> SourceFiles:
    """Files of the first of `names` (subset, split) on the Hub, or of whichever of them a local copy has."""
    subset, split = names[0]
    if places.data_root is None:
        paths, revision = hub_files(repo, subset, split, entry.revision, places.cache_dir)
        return SourceFiles(paths, subset, split, revision)
    if entry.revision is not None:
        raise ValueError(
            f"{entry.label}: revision = {entry.revision!r} is pinned, --data-root has no revisions: drop one."
        )
    for name in names:
        if paths := local_files(places.data_root, repo, *name):
            return SourceFiles(paths, *name)
    folder = places.data_root / repo
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} not found for {entry.label}: --data-root is the directory that holds {repo} and the other data "
            f"sets, each as OWNER/NAME. Correct it, copy {repo} from the Hub, or build with --without {entry.task}."
        )
    raise FileNotFoundError(
        f"{folder} has no {split!r} of {subset!r} for {entry.label}: wanted {subset}/{split}-*.parquet in it. Give its "
        f"split and subset, copy it from the Hub, or build without --data-root, or with --without {entry.task}."
    )


def local_files(root: Path, repo: str, subset: str, split: str) -> list[Path]:
    """Files of a split in a local copy in the Hub's layout; [] where there are none."""
    folder = root / repo
    patterns = [f"{subset}/{split}-*.parquet", f"{subset}/{split}/*.parquet", f"{subset}/{split}.parquet"]
    if subset == "default":
        patterns += [f"data/{split}-*.parquet", f"data/{split}.parquet", f"{split}-*.parquet", f"{split}.parquet"]
    for kind in ("parquet", "jsonl", "jsonl.gz", "jsonl.zst", "arrow"):
        for pattern in patterns:
            if files := sorted(folder.glob(pattern.removesuffix("parquet") + kind)):
                check_parts(files)
                return files
    return []


def _find_path(label: str, path: str, folder: Path, text: bool) -> list[Path]:
    """The files of a path in a mixture: one that ships, or from the mixture's directory, else from the current one"""
    if path.startswith(SHIPPED):
        check_value("path", path, SHIPPED_FILES, f"{label}: ")
        return [DATA / path.removeprefix(SHIPPED)]
    for place in (folder, Path()):
        if paths := find_files(path, place, text):
            return paths
        if (found := place / Path(path).expanduser()).is_dir():
            raise FileNotFoundError(
                f"{label}: {found} has no data in it: wanted .jsonl, .jsonl.gz, .jsonl.zst, .json, .parquet or .arrow."
            )
    raise FileNotFoundError(f"{label}: {folder / path} not found, nor {path} from here: correct its path.")


def _find_identity(places: Places) -> Path:
    name = TASKS["identity"].file or ""
    root = places.data_root
    candidates = [root / name, root.absolute().parent / name] if root else []
    for candidate in [*candidates, nanochat_home() / name]:
        if candidate.is_file():
            return candidate
    mixture = "default" if places.mixture.name == "mid" else places.mixture.name
    raise FileNotFoundError(
        f"{name} not found: JSON lines, an array of messages per line, that teach the model who it is. Give yours with "
        f"--identity FILE, or build without: midprep build --mixture {mixture} --without identity"
    )


def _open(entry: Entry, task: Task, files: SourceFiles, cache_dir: Path | None) -> tuple[Source, Task]:
    """The source, and the task with its layout"""
    if not isinstance(task, BuiltinTask):
        return open_files(files.paths, [], files.revision, cache_dir), task
    if task.label not in ("chat", "text"):
        return open_files(files.paths, list(task.columns), files.revision, cache_dir), task
    is_text = task.label == "text"
    given = Layout(
        columns=tuple(sorted((entry.columns or {}).items())),
        roles=tuple(sorted((entry.roles or {}).items())),
        train_on=_as_choice(entry.train_on) or ("none" if is_text else "all"),
        consecutive=entry.consecutive,
        tools=entry.tools,
        reasoning=entry.reasoning,
        typed_tokens=entry.typed_tokens,
        where=tuple(sorted((name, as_values(value)) for name, value in (entry.where or {}).items())),
    )
    first_rows = ((entry.hub or path, rows) for path, rows in heads(files.paths, FIRST_ROWS, is_text))
    layout = recognise(first_rows, given, "text" if is_text else entry.layout)
    source = open_files(files.paths, [], files.revision, cache_dir, is_text)
    source = source.without({name for name, canonical in layout.columns if canonical == UNUSED})
    return source, task.with_layout(layout)


def _as_choice(train_on: str | list[str] | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    return train_on if train_on is None or isinstance(train_on, str) else tuple(train_on)


def as_values(value: Any) -> tuple[Any, ...]:
    """What `where` says of a field: one value, or several"""
    return tuple(value) if isinstance(value, list) else (value,)
