"""
From the entries of a mixture to the rows they mean: which files, which revision, which rows of them, in which order.

    task = "gsm8k"  in [[train]]   ->   openai/gsm8k main train @ 0271a..., 7,473 rows, permuted, all of them
    task = "spelling_bee"          ->   generated, rows 0 .. 79,999 of the words for training

Everything that decides the bytes of a build is known after this step, before any text is encoded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.conversations.messages import FLAGS
from prep.files import nanochat_home
from prep.mixture.local_data import find_hub, find_own, open_own, usual_split
from prep.mixture.mix import SHARES
from prep.mixture.mixture import Entry, Mixture
from prep.sources.jsonl import mentions
from prep.sources.source import Source, generated, open_files
from prep.tasks import TASKS
from prep.tasks.custom import CustomTask, find
from prep.tasks.task import BuiltinTask, Task


@dataclass(frozen=True)
class Input:
    """One entry of the mixture and its source."""

    entry: Entry
    source: Source
    subset: str | None
    split: str | None  # of the source
    content_key: str  # of the conversations that its rows give: source, task and the task's version
    task: Task
    train_flags: bool = False  # its messages may say that they do not train

    @property
    def permuted(self) -> bool:
        return (self.entry.hub or getattr(self.task, "hub", None)) is not None

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it, and what the fingerprint covers: no path of this machine"""
        entry = self.entry
        return {
            "name": entry.label,
            "task": self.task.label,
            **({"hub": entry.hub} if entry.hub else {}),
            "subset": self.subset,
            "split": self.split,
            "path": Path(entry.path).name if entry.path else None,
            "start": entry.start,
            "stop": entry.stop,
            "size": self.source.num_rows if self.task.generates else None,
            "seed": entry.seed if self.task.generates else None,
            "repeat": int(entry.repeat) if entry.repeat == int(entry.repeat) else entry.repeat,
            **{key: value for key in SHARES if (value := getattr(entry, key)) is not None},
            "revision": self.source.revision,
            "sha256": self.source.sha256,
            "task_version": self.task.version,
            **(self.task.layout.describe() if self.task.layout else {}),
            **(
                {"train_flags": self.train_flags} if self.train_flags or self.task.layout or self.task.is_custom else {}
            ),
        }


def resolve(
    mixture: Mixture, data_root: Path | None, identity: Path | None, cache_dir: Path | None = None
) -> dict[str, list[Input]]:
    """The inputs of each split. FileNotFoundError or ValueError where a source is missing or cannot be read."""
    if data_root is not None and not data_root.is_dir():
        raise FileNotFoundError(f"--data-root {data_root} not found: give the directory that holds OWNER/NAME/...")
    return {
        split: [_resolve(entry, split, mixture, data_root, identity, cache_dir) for entry in entries]
        for split, entries in mixture.splits.items()
    }


def _resolve(
    entry: Entry, split: str, mixture: Mixture, data_root: Path | None, identity: Path | None, cache_dir: Path | None
) -> Input:
    task: Task = TASKS[entry.task] if entry.task in TASKS else find(entry.task, mixture.folder)
    subset: str | None = None
    source_split: str | None = None
    flags = False
    if task.generates:
        return _generated(entry, split, task)
    if entry.task == "chat" or isinstance(task, CustomTask):
        if not (entry.path or entry.hub):
            raise ValueError(
                f'{entry.label}: task {entry.task!r} reads rows: give a path, as path = "mine.jsonl", or a hub.'
            )
        found = open_own(entry, split, mixture, data_root, cache_dir, task)
        source, task, flags = found.source, found.task, found.train_flags
        subset, source_split = found.subset, found.split
    elif task.hub:
        source, subset, source_split = _open_hub(task, entry, split, data_root, cache_dir)
    else:
        files = [identity] if identity else _find_identity(entry, mixture, data_root)
        source = open_files(files, ["messages"], None, cache_dir)
        flags = source.kind == "lines" and any(mentions(source.files, name) for name in FLAGS)
    _check_range(entry, source.num_rows)
    return Input(entry, source, subset, source_split, f"{task.content_key} {source.sha256}", task, flags)


def _generated(entry: Entry, split: str, task: Task) -> Input:
    source_split = entry.split or usual_split(split)
    if entry.path or entry.hub:
        raise ValueError(
            f"{entry.label}: task {entry.task!r} makes its rows: drop the {'path' if entry.path else 'hub'}."
        )
    if task.is_custom and entry.size is None:
        raise ValueError(f"{entry.label}: task {entry.task!r} makes its rows: say how many, as size = 1000.")
    made_from = f"{task.label} {source_split} {entry.seed}"
    size = task.size if isinstance(task, BuiltinTask) and entry.size is None else entry.size or 0
    source = generated(size, entry.start, f"{made_from} {task.version}")
    _check_range(entry, size)
    return Input(entry, source, None, source_split, f"{made_from} {task.version}", task, task.is_custom)


def _check_range(entry: Entry, num_rows: int) -> None:
    if entry.start >= num_rows:
        raise ValueError(f"{entry.label}: start = {entry.start} selects nothing, the source has {num_rows:,} rows.")


def _open_hub(
    task: BuiltinTask, entry: Entry, split: str, data_root: Path | None, cache_dir: Path | None
) -> tuple[Source, str, str]:
    assert task.hub is not None
    subset, source_split = task.defaults[split]
    if entry.subset is not None and entry.subset != subset:
        subset, source_split = entry.subset, usual_split(split)
    source_split = entry.split or source_split
    names = [(subset, source_split), *task.aliases.get((subset, source_split), [])]
    files, revision, subset, source_split = find_hub(task.hub, names, entry, data_root, cache_dir)
    return open_files(files, list(task.columns), revision, cache_dir), subset, source_split


def _find_identity(entry: Entry, mixture: Mixture, data_root: Path | None) -> list[Path]:
    if entry.path:
        return find_own(entry, mixture)
    name = TASKS["identity"].file or ""
    places = [data_root / name, data_root.absolute().parent / name] if data_root else []
    for candidate in [*places, nanochat_home() / name]:
        if candidate.is_file():
            return [candidate]
    raise FileNotFoundError(
        f"{name} not found: JSON lines, an array of messages a line, that teach the model who it is. Give yours with "
        f"--identity FILE, or build without: midprep build --mixture {mixture.name if mixture.name != 'mid' else 'default'} "
        "--without identity"
    )
