"""
Mixtures: which tasks, how much of each, in which split; TOML files, shipped in prep/mixtures/ or one's own.

    name = "mid"
    seed = 42
    [[train]]
    task = "gsm8k"
    repeat = 2

A mixture is data, so a key or name that is not known is an error that names the nearest right one.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

from prep.mixture.mix import FILTERS, SHARES, Mix, check_proportions, check_share, parse_mix
from prep.mixture.own_entry import CHAT, OWN, check_own
from prep.tasks import TASKS
from prep.tasks.custom import is_custom
from prep.text import nearest

MIXTURES = Path(__file__).parents[1] / "mixtures"
SPLITS = ("train", "val")
COMMON = {"name", "start", "stop", "repeat", *SHARES}  # keys that every task takes


@dataclass(frozen=True)
class Entry:
    """One [[train]] or [[val]] of a mixture. `None` means: what the task does by itself."""

    task: str
    name: str | None = None  # in statistics; the name of the task, or of its function, by default
    subset: str | None = None  # configuration on the Hub
    split: str | None = None  # of the source
    revision: str | None = None  # commit, tag or branch on the Hub
    path: str | None = None  # file, directory or pattern, from the mixture's directory or the current one
    hub: str | None = None  # OWNER/NAME of a data set of one's own
    layout: str | None = None  # of chat, as all that follows: recognised by default
    columns: dict[str, str] | None = None  # our names for the data's fields
    roles: dict[str, str] | None = None  # ours for the data's
    train_on: str = "all"  # or last, or none
    consecutive: str = "reject"  # or merge: messages of one role after one another
    tools: str = "parts"  # or text: what calls of tools become
    start: int = 0  # first row of the (permuted) source
    stop: int | None = None  # one past the last
    size: int | None = None  # number of rows of a generated task
    seed: int = 42  # of a generated task
    repeat: float = 1  # whole copies, and a part of one
    proportion: float | None = None  # of the split; see prep.mixture.mix for this and what follows
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


@dataclass(frozen=True)
class Mixture:
    """A named list of entries for each split."""

    name: str
    seed: int
    splits: dict[str, tuple[Entry, ...]]
    folder: Path  # where the mixture's file lies; paths in it are tried from here first
    mix: Mix = field(default_factory=Mix)

    def without(self, tasks: Iterable[str]) -> "Mixture":
        """The mixture without the entries of some tasks. ValueError for a task that it has not."""
        tasks = set(tasks)
        there = {entry.task for entries in self.splits.values() for entry in entries}
        for task in tasks - there:
            raise ValueError(
                f"--without {task}: the mixture {self.name!r} has no such task, it has {', '.join(sorted(there))}."
            )
        splits = {
            split: left
            for split, entries in self.splits.items()
            if (left := tuple(entry for entry in entries if entry.task not in tasks))
        }
        if not splits.get("train"):
            raise ValueError(f"--without {', '.join(sorted(tasks))} leaves nothing to train on.")
        _check_splits(splits, self.mix, f"--without {', '.join(sorted(tasks))}")
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
        raise ValueError(f"{path} is no valid TOML: {error}.") from None
    return parse_mixture(data, str(path), path.parent, default_name=path.stem)


def parse_mixture(data: dict[str, Any], where: str, folder: Path, default_name: str) -> Mixture:
    """The parsed TOML of a mixture -> a Mixture"""
    _check_keys(data, {"name": str, "seed": int, "mix": dict, "train": list, "val": list}, where)
    name = data.get("name", default_name)
    if not name or "/" in name or name.startswith("."):
        raise ValueError(
            f"{where}: name = {name!r} found, wanted a plain name: it is the build's directory in shards/."
        )
    seed = data.get("seed", 42)
    if seed < 0:
        raise ValueError(f"{where}: seed = {seed} found, wanted 0 or more.")
    splits: dict[str, tuple[Entry, ...]] = {}
    for split in SPLITS:
        entries = [_parse_entry(one, f"{where}, {split} entry {i + 1}") for i, one in enumerate(data.get(split, []))]
        if entries:
            splits[split] = _named(tuple(entries), splits.get("train", ()))
    if "train" not in splits:
        raise ValueError(f'{where} has no [[train]] entry: add one, as [[train]] and task = "smoltalk".')
    _check_keys(data.get("mix", {}), {f.name: str for f in fields(Mix)}, f"{where}, [mix]")
    mix = parse_mix(data.get("mix", {}), where)
    _check_splits(splits, mix, where)
    return Mixture(name, seed, splits, folder, mix)


def _check_splits(splits: dict[str, tuple[Entry, ...]], mix: Mix, where: str) -> None:
    for split, entries in splits.items():
        check_proportions([entry.proportion for entry in entries], f"{where}, {split}")
    if mix.drop_overlap and "val" not in splits:
        raise ValueError(f"{where}: drop_overlap = {mix.drop_overlap!r} found without a [[val]] entry: add one.")


def _parse_entry(data: Any, where: str) -> Entry:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {data!r}, wanted a table: write [[train]].")
    integers = {"start", "stop", "size", "seed", "choose", "max_repeats", *FILTERS}
    known: dict[str, type] = {f.name: int if f.name in integers else str for f in fields(Entry)}
    known |= dict.fromkeys(("repeat", "proportion"), float) | dict.fromkeys(("columns", "roles"), dict)
    _check_keys(data, known, where)
    name = str(data.get("task"))
    task = TASKS.get(name)
    if task is None and not is_custom(name):
        raise ValueError(
            f"{where}: task = {name!r} is not known, wanted one of {', '.join(TASKS)}.{nearest(name, TASKS)}"
        )
    entry = Entry(**data)
    if task is None:
        allowed = OWN
    elif task.hub:
        allowed = {"subset", "revision", "split"}
    elif task.generates:
        allowed = {"size", "seed", "split"}
    else:
        allowed = {"path"} if task.file else CHAT
    for key in ({"size", "seed", *CHAT} - allowed) & set(data):
        raise ValueError(
            f"{where}: task {entry.task!r} takes no {key}, it takes {', '.join(sorted(allowed | COMMON))}."
        )
    if task is None or entry.task == "chat":
        check_own(entry, data, where)
    check_share(data, where)
    if entry.start < 0 or (entry.stop is not None and entry.stop <= entry.start):
        raise ValueError(
            f"{where}: start = {entry.start} and stop = {entry.stop} select nothing: wanted 0 <= start < stop."
        )
    if entry.size is not None and entry.size < 1:
        raise ValueError(f"{where}: size = {entry.size} found, wanted 1 or more.")
    if task and task.generates and entry.split not in (None, "train", "test"):
        raise ValueError(f"{where}: split = {entry.split!r} found, wanted train or test.")
    return entry


def _named(entries: tuple[Entry, ...], train: tuple[Entry, ...] = ()) -> tuple[Entry, ...]:
    """
    Entries of the same label get numbers, so that statistics can tell them apart: gsm8k, gsm8k-2. Data of one's own in val
    is called what it is called in `train`; what train does not read takes no name from several that it does.
    """
    own = [entry for entry in train if entry.path or entry.hub]
    of_train = {_place(entry): entry.label for entry in reversed(own)}
    tasks = [entry.task for entry in own]
    several = {entry.label for entry in own if tasks.count(entry.task) > 1}
    inherited = [of_train.get(_place(entry)) for entry in entries]
    names: dict[int, str] = {}
    # what has a name keeps it, whatever stands before
    for i in sorted(range(len(entries)), key=lambda i: (entries[i].name is None, inherited[i] is None)):
        entry = entries[i]
        fixed = entry.name or inherited[i]
        taken = set(names.values()) | (several if fixed is None and (entry.path or entry.hub) else set())
        label = fixed or entry.label
        numbered = (label if number == 1 else f"{label}-{number}" for number in count(1))
        names[i] = next(name for name in numbered if name not in taken)
    return tuple(replace(entry, name=names[i]) for i, entry in enumerate(entries))


def _place(entry: Entry) -> tuple[str | None, ...]:
    return entry.task, entry.path, entry.hub, entry.subset


def _check_keys(data: dict[str, Any], known: dict[str, type], where: str) -> None:
    for key, value in data.items():
        if key not in known:
            raise ValueError(
                f"{where}: key {key!r} is not known, wanted one of {', '.join(known)}.{nearest(key, known)}"
            )
        wanted = (int, float) if known[key] is float else known[key]
        if not isinstance(value, wanted) or isinstance(value, bool):
            kinds = {int: "a whole number", str: "a string", list: "tables, as in [[train]]"}
            kinds |= {
                float: "a whole number or a fraction",
                dict: "a table, as [mix]" if key == "mix" else 'a table, as { theirs = "ours" }',
            }
            raise ValueError(f"{where}: {key} = {value!r} found, wanted {kinds[known[key]]}.")
