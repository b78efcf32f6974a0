"""
Mixtures: which tasks, how much of each, in which split; TOML files, your own or those in prep/mixtures/.

    name = "mid"
    seed = 42
    [[train]]
    task = "gsm8k"
    repeat = 2

A mixture is data, so a key or name that is not known is an error that names the nearest right one. One that `extends`
another starts from its entries (prep.mixture.extends).
"""

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from prep.mixture import checks
from prep.mixture.extends import from_folder, merge
from prep.text import nearest

MIXTURES = Path(__file__).parents[1] / "mixtures"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Entry:
    """One [[train]] or [[val]] of a mixture. `None`: the task's default."""

    task: str
    name: str | None = None  # in statistics; the name of the task, or of its function, by default
    subset: str | None = None  # configuration on the Hub
    split: str | None = None  # of the source
    revision: str | None = None  # commit, tag or branch on the Hub
    path: str | None = None  # file, directory or pattern, from the mixture's directory or the current one
    hub: str | None = None  # OWNER/NAME of a data set of your own
    layout: str | None = None  # of chat, as all that follows: recognised by default
    columns: dict[str, str] | None = None  # field of the data -> midprep's name for it
    roles: dict[str, str] | None = None  # the same for roles
    train_on: Any = None  # all, last or none, or a list of what trains of a turn; by default none of text, else all
    consecutive: str = "reject"  # or merge: neighbouring messages of one role
    tools: str = "parts"  # or text: what tool calls become
    reasoning: str | None = None  # think or drop: what the assistant thinks before it answers
    typed_tokens: str = "keep"  # or reject: rows in which others than the assistant spell a control or added token
    where: dict[str, Any] | None = None  # field of the data -> the value, or list of values, of rows that are kept
    excess: str | None = None  # of text: split (by default), truncate or drop
    start: int = 0  # first row of the (permuted) source
    stop: int | None = None  # one past the last
    size: int | None = None  # number of conversations of a generated task
    seed: int = 42  # of a generated task
    repeat: float = 1  # copies; the last may be a fraction
    proportion: float | None = None  # of the split; prep.mixture.checks explains this and what follows
    choose: int | None = None  # conversations
    max_repeats: int | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    min_trained_tokens: int | None = None
    max_trained_tokens: int | None = None
    answer: str | None = None  # of val: how `midprep evaluate` grades it, in no way part of a build

    @property
    def label(self) -> str:
        return self.name or self.task.rpartition("/")[2].rpartition(".py:")[2]


def _type_of(hint: Any) -> type:
    """int | None -> int, dict[str, str] | None -> dict"""
    kind = get_args(hint)[0] if isinstance(hint, UnionType) else hint
    plain: type = get_origin(kind) or kind
    return plain


ENTRY_KEYS = {name: _type_of(hint) for name, hint in get_type_hints(Entry).items()} | {"train_on": object}


@dataclass(frozen=True)
class MixOptions:
    """The [mix] table of a mixture."""

    by: str = "tokens"
    dedup: str | None = None
    drop_overlap: str | None = None

    def describe(self) -> dict[str, str]:
        """What is not the default: defaults are left out of the fingerprint, which is older than they are"""
        return {key: value for key, value in asdict(self).items() if value not in (None, "tokens")}


@dataclass(frozen=True)
class Mixture:
    """A named list of entries for each split."""

    name: str
    seed: int
    splits: dict[str, tuple[Entry, ...]]
    folder: Path  # of the mixture's file: paths in it are tried from here first
    mix: MixOptions = field(default_factory=MixOptions)
    chat: dict[str, Any] = field(default_factory=dict)  # keys of the chat template: checks.TEMPLATE_KEYS

    def with_train_on(self, train_on: str | tuple[str, ...] | None) -> Self:
        """The mixture whose chats train on this where their entry does not say it"""
        if train_on is None:
            return self
        splits = {
            split: tuple(
                replace(entry, train_on=train_on) if entry.task == "chat" and entry.train_on is None else entry
                for entry in entries
            )
            for split, entries in self.splits.items()
        }
        return replace(self, splits=splits)

    def without(self, tasks: Iterable[str]) -> Self:
        """The mixture without the entries of some tasks. ValueError for a task that it does not have."""
        tasks = set(tasks)
        known = {entry.task for entries in self.splits.values() for entry in entries}
        for task in tasks - known:
            raise ValueError(
                f"--without {task}: the mixture {self.name!r} has no such task, it has {', '.join(sorted(known))}."
            )
        splits: dict[str, tuple[Entry, ...]] = {}
        for split, entries in self.splits.items():
            if kept := tuple(entry for entry in entries if entry.task not in tasks):
                splits[split] = kept
        option = f"--without {', '.join(sorted(tasks))}"
        if not splits.get("train"):
            raise ValueError(f"{option} leaves nothing to train on.")
        proportions = {split: [entry.proportion for entry in entries] for split, entries in splits.items()}
        checks.check_splits(proportions, self.mix.drop_overlap, option)
        return replace(self, splits=splits)


def mixture_names() -> list[str]:
    """Names of the mixtures that ship with midprep"""
    return sorted(path.stem for path in MIXTURES.glob("*.toml"))


def load_mixture(name: str) -> Mixture:
    """A mixture by name or path. ValueError or FileNotFoundError, in one line, for anything that is not as it should be."""
    return _load(name, Path(), ())


def mixture_path(name: str, folder: Path = Path()) -> Path:
    """The file of a shipped mixture, or a file of that path in a folder. FileNotFoundError where there is none."""
    path = MIXTURES / f"{name}.toml" if name in mixture_names() else folder / Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(mixture_names())
        raise FileNotFoundError(
            f"mixture {name!r} not found: give a TOML file or one of {known}.{nearest(name, mixture_names())}"
        )
    return path


def _load(name: str, folder: Path, extended_by: tuple[Path, ...]) -> Mixture:
    path = mixture_path(name, folder)
    chain = (*extended_by, path.resolve())
    if chain[-1] in extended_by:
        files = " extends ".join(file.name for file in chain)
        raise ValueError(f"{files}: a mixture cannot extend itself: take out one extends.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from None
    except RecursionError:
        raise ValueError(f"{path} cannot be read: its tables and lists are nested too deeply.") from None
    return parse_mixture(data, str(path), path.parent, path.stem, chain)


def parse_mixture(
    data: dict[str, Any], context: str, folder: Path, default_name: str, extended_by: tuple[Path, ...] = ()
) -> Mixture:
    """The parsed TOML of a mixture -> a Mixture; `extended_by`: the files that lead here by what they extend"""
    checks.check_extends(data, ENTRY_KEYS, context)
    if "extends" in data:
        parent = _load(data["extends"], folder, extended_by)
        data = merge(data, mixture_data(parent, parent.folder), context)
    data = {"name": default_name, "seed": 42, "mix": {}, **data}
    checks.check_mixture(data, ENTRY_KEYS, context)
    splits: dict[str, tuple[Entry, ...]] = {}
    for split in SPLITS:
        if entries := tuple(Entry(**table) for table in data.get(split, [])):
            splits[split] = _with_distinct_names(entries, splits.get("train", ()))
    chat = {key: data[key] for key in checks.TEMPLATE_KEYS if key in data}
    return Mixture(data["name"], data["seed"], splits, folder, MixOptions(**data["mix"]), chat)


def _with_distinct_names(entries: tuple[Entry, ...], train: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """
    Entries of the same label get numbers, so that statistics can tell them apart: gsm8k, gsm8k-2. Your own data has the
    same name in val as in `train`. Data that only val reads does not take a label that several entries of train share.
    """
    local = [entry for entry in train if entry.path or entry.hub]
    name_in_train = {_source_of(entry): entry.label for entry in reversed(local)}
    tasks = [entry.task for entry in local]
    shared_labels = {entry.label for entry in local if tasks.count(entry.task) > 1}
    fixed = [entry.name or name_in_train.get(_source_of(entry)) for entry in entries]
    names: dict[int, str] = {}
    # given names come first, then those of train, wherever they stand: they keep what they are called
    for i in sorted(range(len(entries)), key=lambda i: (entries[i].name is None, fixed[i] is None)):
        label = fixed[i] or entries[i].label
        taken = set(names.values())
        if fixed[i] is None and (entries[i].path or entries[i].hub):
            taken |= shared_labels
        numbered = (label if number == 1 else f"{label}-{number}" for number in count(1))
        names[i] = next(name for name in numbered if name not in taken)
    return tuple(replace(entry, name=names[i]) for i, entry in enumerate(entries))


def mixture_data(mixture: Mixture, folder: Path | None = None) -> dict[str, Any]:
    """
    A mixture as `parse_mixture` reads it: what its TOML file would hold, defaults left out. With `folder`, files in it are
    named whole.
    """
    plain = Entry("")
    tables = {
        split: [
            {key: value for key in ENTRY_KEYS if (value := getattr(entry, key)) != getattr(plain, key)}
            for entry in entries
        ]
        for split, entries in mixture.splits.items()
    }
    if folder is not None:
        tables = {split: [from_folder(table, folder) for table in entries] for split, entries in tables.items()}
    mix = mixture.mix.describe()
    return {"name": mixture.name, "seed": mixture.seed, **mixture.chat, **({"mix": mix} if mix else {}), **tables}


def _source_of(entry: Entry) -> tuple[str | None, ...]:
    return entry.task, entry.path, entry.hub, entry.subset
