"""
Mixtures: which tasks, how much of each, in which split; TOML files, your own or those in prep/mixtures/.

    name = "mid"
    seed = 42
    [[train]]
    task = "gsm8k"
    repeat = 2

A mixture is data, so a key or name that is not known is an error that names the nearest right one.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from prep.mixture import checks
from prep.tasks import TASKS
from prep.tasks.custom import is_custom
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
    train_on: str = "all"  # or last, or none
    consecutive: str = "reject"  # or merge: neighbouring messages of one role
    tools: str = "parts"  # or text: what tool calls become
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

    @property
    def label(self) -> str:
        return self.name or self.task.rpartition("/")[2].rpartition(".py:")[2]

    @property
    def takes_part(self) -> bool:
        """Whether it asks for more or less than whole copies"""
        return self.proportion is not None or self.choose is not None or self.repeat != int(self.repeat)


def _type_of(hint: Any) -> type:
    """int | None -> int, dict[str, str] | None -> dict"""
    kind = get_args(hint)[0] if isinstance(hint, UnionType) else hint
    plain: type = get_origin(kind) or kind
    return plain


ENTRY_KEYS = {name: _type_of(hint) for name, hint in get_type_hints(Entry).items()}


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
        _check_splits(splits, self.mix, option)
        return replace(self, splits=splits)


def mixture_names() -> list[str]:
    """Names of the mixtures that ship with midprep"""
    return sorted(path.stem for path in MIXTURES.glob("*.toml"))


def load_mixture(name: str) -> Mixture:
    """A mixture by name or path. ValueError or FileNotFoundError, in one line, for anything that is not as it should be."""
    path = MIXTURES / f"{name}.toml" if name in mixture_names() else Path(name)
    if not path.is_file():
        known = ", ".join(mixture_names())
        raise FileNotFoundError(
            f"mixture {name!r} not found: give a TOML file or one of {known}.{nearest(name, mixture_names())}"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from None
    return parse_mixture(data, str(path), path.parent, default_name=path.stem)


def parse_mixture(data: dict[str, Any], context: str, folder: Path, default_name: str) -> Mixture:
    """The parsed TOML of a mixture -> a Mixture"""
    checks.check_keys(data, {"name": str, "seed": int, "mix": dict, "train": list, "val": list}, context)
    name = data.get("name", default_name)
    if not name or "/" in name or name.startswith("."):
        raise ValueError(
            f"{context}: name = {name!r} found, wanted a plain name: it is the build's directory in shards/."
        )
    seed = data.get("seed", 42)
    if seed < 0:
        raise ValueError(f"{context}: seed = {seed} found, wanted 0 or more.")
    splits: dict[str, tuple[Entry, ...]] = {}
    for split in SPLITS:
        tables = enumerate(data.get(split, []), start=1)
        if entries := tuple(_parse_entry(table, f"{context}, {split} entry {number}") for number, table in tables):
            splits[split] = _with_distinct_names(entries, splits.get("train", ()))
    if "train" not in splits:
        raise ValueError(f'{context} has no [[train]] entry: add one, as [[train]] and task = "smoltalk".')
    mix = _parse_mix(data.get("mix", {}), f"{context}, [mix]")
    _check_splits(splits, mix, context)
    return Mixture(name, seed, splits, folder, mix)


def _parse_mix(data: dict[str, Any], context: str) -> MixOptions:
    checks.check_keys(data, dict.fromkeys(checks.MIX_VALUES, str), context)
    for key, value in data.items():
        checks.check_value(key, value, checks.MIX_VALUES[key], f"{context}: ")
    return MixOptions(**data)


def _check_splits(splits: dict[str, tuple[Entry, ...]], mix: MixOptions, context: str) -> None:
    for split, entries in splits.items():
        checks.check_proportions([entry.proportion for entry in entries], f"{context}, {split}")
    if mix.drop_overlap and "val" not in splits:
        raise ValueError(f"{context}: drop_overlap = {mix.drop_overlap!r} found without a [[val]] entry: add one.")


def _parse_entry(data: Any, context: str) -> Entry:
    if not isinstance(data, dict):
        raise ValueError(f"{context} is {data!r}, wanted a table: write [[train]].")
    checks.check_keys(data, ENTRY_KEYS, context)
    name = str(data.get("task"))
    task = TASKS.get(name)
    if task is None and not is_custom(name):
        raise ValueError(
            f"{context}: task = {name!r} is not known, wanted one of {', '.join(TASKS)}.{nearest(name, TASKS)}"
        )
    entry = Entry(**data)
    checks.check_task_keys(name, data, context)
    if task is None or name == "chat":
        checks.check_place(data, context)
    checks.check_reading(entry.layout, entry.train_on, entry.consecutive, entry.tools, f"{context}: ")
    checks.check_names(entry.columns, entry.roles, f"{context}: ", entry.layout)
    checks.check_sampling(data, context)
    if entry.start < 0 or (entry.stop is not None and entry.stop <= entry.start):
        raise ValueError(
            f"{context}: start = {entry.start} and stop = {entry.stop} select nothing: wanted 0 <= start < stop."
        )
    if entry.size is not None and entry.size < 1:
        raise ValueError(f"{context}: size = {entry.size} found, wanted 1 or more.")
    if task and task.generates and entry.split not in (None, "train", "test"):
        raise ValueError(f"{context}: split = {entry.split!r} found, wanted train or test.")
    return entry


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


def _source_of(entry: Entry) -> tuple[str | None, ...]:
    return entry.task, entry.path, entry.hub, entry.subset
