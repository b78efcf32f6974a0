"""
What the tables of a mixture may say, checked before anything is opened. Each check raises ValueError in one line.

    [mix]                          # all of it may be left out
    by = "trained_tokens"          # what a proportion is of: tokens (the default), trained_tokens or conversations
    dedup = "exact"                # leave out a conversation whose tokens occurred before, for each split
    drop_overlap = "exact"         # leave out training conversations that ask what val asks; or "13-gram"

    [[train]]
    task = "gsm8k"
    proportion = 0.3               # or choose = 5000, or repeat = 1.5
    max_repeats = 4                # most copies of it that proportion and choose may take; 1 by default
    min_tokens = 20                # as rendered; also max_tokens, min_trained_tokens and max_trained_tokens

prep.plan.sampling turns them into numbers of conversations.
"""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from prep.chat.choose import KEYS
from prep.chat.template import MASKS, TRAINED_KINDS
from prep.conversations.layouts import LAYOUTS, MAPPED_ROLES, OLD_NAMES, PAIR_FIELDS, TURN_FIELDS, UNUSED
from prep.conversations.turns import CONSECUTIVE, TRAIN_ON, TYPED_TOKENS
from prep.tasks import TASKS
from prep.tasks.custom import is_custom
from prep.text import nearest

MIX_VALUES = {
    "by": ("tokens", "trained_tokens", "conversations"),
    "dedup": ("exact",),
    "drop_overlap": ("exact", "13-gram"),
}
FILTERS = ("min_tokens", "max_tokens", "min_trained_tokens", "max_trained_tokens")
SAMPLING_KEYS = ("proportion", "choose", "max_repeats", *FILTERS)
ANSWERS = ("exact", "####", "letter")  # by what an answer is right
COMMON_KEYS = {"name", "start", "stop", "repeat", "answer", *SAMPLING_KEYS}  # that every task takes
PLACE_KEYS = {"path", "hub", "subset", "split", "revision"}
CHAT_KEYS = PLACE_KEYS | {
    *("layout", "columns", "roles", "train_on", "consecutive", "tools", "reasoning", "typed_tokens", "where")
}
TEXT_KEYS = PLACE_KEYS | {"columns", "train_on", "where", "excess"}
MOST_ROWS = 1 << 32  # an order has 4 bytes for each
CUSTOM_KEYS = PLACE_KEYS | {"size", "seed"}
MOST_REPEATS = (1 << 16) - 1
TEMPLATE_KEYS = dict.fromkeys(KEYS, str) | {"empty_think": bool, "train_on": object}
READING = {  # words of each key
    "layout": (*LAYOUTS, *OLD_NAMES),
    "consecutive": CONSECUTIVE,
    "tools": ("parts", "text"),
    "reasoning": ("think", "drop"),
    "typed_tokens": TYPED_TOKENS,
    "excess": ("split", "truncate", "drop"),
}
TYPE_NAMES = {
    int: "a whole number",
    bool: "true or false",
    object: "a string or a list",
    float: "a whole number or a fraction",
    str: "a string",
    list: "tables, as in [[train]]",
    dict: 'a table, as { human = "user" }',
}

KEY_TYPE_NAMES = {"mix": "a table, as [mix]", "drop": 'a list of names, as ["identity"]'}


def check_extends(data: dict[str, Any], entry_keys: dict[str, type], context: str) -> None:
    """A mixture as it is written, before it gets the entries of the one that it extends"""
    known = {
        "name": str,
        "extends": str,
        "drop": list,
        "seed": int,
        **TEMPLATE_KEYS,
        "mix": dict,
        "train": list,
        "val": list,
    }
    check_keys(data, known, context)
    check_train_on(data.get("train_on"), f"{context}: ")
    check_value("mask", data.get("mask"), MASKS, f"{context}: ")
    drop = data.get("drop", [])
    if not all(isinstance(name, str) for name in drop):
        raise ValueError(f'{context}: drop = {drop!r} found, wanted names of entries, as ["identity", "val.mmlu"].')
    if "drop" in data and "extends" not in data:
        raise ValueError(
            f"{context}: drop found without extends, of whose entries it is: take the entries out instead."
        )
    if "extends" in data:
        for split in ("train", "val"):
            for number, entry in enumerate(data.get(split, []), start=1):
                check_entry(entry, entry_keys, f"{context}, {split} entry {number}")


def check_mixture(data: dict[str, Any], entry_keys: dict[str, type], context: str) -> None:
    """All tables of a mixture that extends nothing (more); name, seed and mix are there. `entry_keys`: with their types."""
    name, seed, mix = data["name"], data["seed"], data["mix"]
    if not name or "/" in name or name.startswith("."):
        raise ValueError(
            f"{context}: name = {name!r} found, wanted a plain name: it is the build's directory in shards/."
        )
    if seed < 0:
        raise ValueError(f"{context}: seed = {seed} found, wanted 0 or more.")
    splits = {split: data[split] for split in ("train", "val") if data.get(split)}
    for split, entries in splits.items():
        for number, entry in enumerate(entries, start=1):
            check_entry(entry, entry_keys, f"{context}, {split} entry {number}")
            if split == "train" and "answer" in entry:
                raise ValueError(
                    f"{context}, train entry {number}: answer found, wanted in [[val]], which evaluate asks."
                )
    if "train" not in splits:
        raise ValueError(f'{context} has no [[train]] entry: add one, as [[train]] and task = "smoltalk".')
    check_keys(mix, dict.fromkeys(MIX_VALUES, str), f"{context}, [mix]")
    for key, value in mix.items():
        check_value(key, value, MIX_VALUES[key], f"{context}, [mix]: ")
    proportions = {split: [entry.get("proportion") for entry in entries] for split, entries in splits.items()}
    check_splits(proportions, mix.get("drop_overlap"), context)


def check_entry(data: Any, keys: dict[str, type], context: str) -> None:
    """One [[train]] or [[val]]"""
    if not isinstance(data, dict):
        raise ValueError(f"{context} is {data!r}, wanted a table: write [[train]].")
    check_keys(data, keys, context)
    name = str(data.get("task"))
    task = TASKS.get(name)
    if task is None and not is_custom(name):
        raise ValueError(
            f"{context}: task = {name!r} is not known, wanted one of {', '.join(TASKS)}.{nearest(name, TASKS)}"
        )
    check_task_keys(name, data, context)
    if name == "text":
        check_value("train_on", data.get("train_on"), ("all", "none"), f"{context}: ")
    if task is None or name in ("chat", "text"):
        check_place(data, context)
        for key, known in READING.items():
            check_value(key, data.get(key), known, f"{context}: ")
        check_train_on(data.get("train_on"), f"{context}: ")
        check_names(data.get("columns"), data.get("roles"), f"{context}: ")
        check_where(data.get("where"), f"{context}: ")
    check_sampling(data, context)
    check_value("answer", data.get("answer"), ANSWERS, f"{context}: ")
    start, stop, size, split = (data.get(key) for key in ("start", "stop", "size", "split"))
    if (start or 0) < 0 or (stop is not None and stop <= (start or 0)):
        raise ValueError(f"{context}: start = {start or 0} and stop = {stop} select nothing: wanted 0 <= start < stop.")
    if size is not None and not 1 <= size <= MOST_ROWS:
        raise ValueError(f"{context}: size = {size} found, wanted 1 to {MOST_ROWS:,}.")
    if split not in (None, "train", "test") and task and task.generates:
        raise ValueError(f"{context}: split = {split!r} found, wanted train or test.")


def check_keys(data: dict[str, Any], known: dict[str, type], context: str) -> None:
    """Every key is one of the known ones, and its value of the known type"""
    for key, value in data.items():
        if key not in known:
            raise ValueError(
                f"{context}: key {key!r} is not known, wanted one of {', '.join(known)}.{nearest(key, known)}"
            )
        types = (int, float) if known[key] is float else known[key]
        if not isinstance(value, types) or (isinstance(value, bool) and known[key] not in (bool, object)):
            type_name = KEY_TYPE_NAMES.get(key) or TYPE_NAMES[known[key]]
            raise ValueError(f"{context}: {key} = {value!r} found, wanted {type_name}.")


def check_train_on(value: Any, prefix: str, key: str = "train_on") -> None:
    """all, last, none, or a list of what trains of the assistant's turns"""
    if isinstance(value, list | tuple):
        unknown = next((each for each in value if each not in TRAINED_KINDS), None)
        if unknown is None and value:
            return
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        raise ValueError(
            f"{prefix}{key} = {shown!r} found, wanted {', '.join(TRAIN_ON)}, or a list of {', '.join(TRAINED_KINDS)}."
        )
    check_value(key, value, TRAIN_ON, prefix)


def check_value(key: str, value: str | None, known: Iterable[str], prefix: str) -> None:
    """A key that takes one of a few words; None is its default"""
    if value is not None and value not in known:
        raise ValueError(f"{prefix}{key} = {value!r} found, wanted {' or '.join(known)}.{nearest(value, known)}")


def check_task_keys(name: str, keys: Iterable[str], context: str) -> None:
    """The task takes every key of its entry; a name that is not in TASKS is a custom task"""
    if name not in TASKS:
        allowed = CUSTOM_KEYS
    elif TASKS[name].hub:
        allowed = {"subset", "revision", "split"}
    elif TASKS[name].generates:
        allowed = {"size", "seed", "split"}
    else:
        allowed = {"path"} if TASKS[name].file else TEXT_KEYS if name == "text" else CHAT_KEYS
    for key in ({"size", "seed", *CHAT_KEYS, *TEXT_KEYS} - allowed) & set(keys):
        known = ", ".join(sorted(allowed | COMMON_KEYS))
        raise ValueError(f"{context}: task {name!r} takes no {key}, it takes {known}.")


def check_place(data: dict[str, Any], context: str) -> None:
    """Where an entry of chat or of a custom task says that its rows are"""
    path, hub, is_chat = data.get("path"), data.get("hub"), data["task"] in ("chat", "text")
    if path and hub:
        raise ValueError(f"{context}: path and hub are given, wanted one of them.")
    if is_chat and not path and not hub:
        raise ValueError(
            f'{context}: task "{data["task"]}" needs a path, as path = "mine.jsonl", or a hub, as hub = "owner/name".'
        )
    for key in {"subset", "split", "revision"} & set(data):
        if not hub and (key != "split" or is_chat or path):
            raise ValueError(f"{context}: {key} is of a data set on the Hub: give hub, or drop {key}.")
    if hub and (hub.count("/") != 1 or ".." in hub or hub.startswith("/")):
        raise ValueError(f'{context}: hub = {hub!r} found, wanted "owner/name".')


def check_names(columns: dict[str, str] | None, roles: dict[str, str] | None, prefix: str) -> None:
    """Fields and roles of the data are renamed to fields and roles that midprep has"""
    fields = {name for table in LAYOUTS.values() for name in table.fields} | {
        *TURN_FIELDS,
        *PAIR_FIELDS,
        UNUSED,
        "text",
    }
    for key, renames, known in (("columns", columns, fields), ("roles", roles, {*MAPPED_ROLES})):
        for source_name, name in (renames or {}).items():
            if not isinstance(name, str) or name not in known:
                raise ValueError(
                    f"{prefix}{key} makes {source_name!r} {name!r}, wanted one of {', '.join(sorted(known))}."
                    f"{nearest(str(name), known)}"
                )
    names = [name for name in (columns or {}).values() if name != UNUSED]
    if len(set(names)) < len(names):
        raise ValueError(f"{prefix}columns gives two fields the same name, wanted different names.")


def check_where(where: dict[str, Any] | None, prefix: str) -> None:
    """A filter names the values that a field may have"""
    for name, value in (where or {}).items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, bool | int | float | str) for each in values):
            raise ValueError(
                f"{prefix}where has {name} = {value!r}, wanted a value or a list of values, as {{ {name} = true }}."
            )


def exact(number: float) -> Fraction:
    """
    The number as it is written: 0.3 is three tenths.

    >>> exact(0.1) + exact(0.2) == exact(0.3)
    True
    """
    return Fraction(str(number))


def check_sampling(data: dict[str, Any], context: str) -> None:
    """How much of an entry is taken: at most one key says it, and every number is possible"""
    amounts = [key for key in ("proportion", "choose", "repeat") if key in data]
    if len(amounts) > 1:
        raise ValueError(f"{context}: {' and '.join(amounts)} found, each says how much is taken: wanted one of them.")
    repeat, proportion = data.get("repeat", 1), data.get("proportion", 0.5)
    if not math.isfinite(repeat) or not 0 < repeat <= MOST_REPEATS:
        raise ValueError(f"{context}: repeat = {repeat} found, wanted 1 to 65,535, or a fraction, as 0.5 or 1.5.")
    if not math.isfinite(proportion) or not 0 < proportion <= 1:
        raise ValueError(f"{context}: proportion = {proportion} found, wanted more than 0 and at most 1, as 0.3.")
    for key in ("choose", "max_repeats", *FILTERS):
        least = 0 if key == "max_trained_tokens" else 1
        if data.get(key, least) < least:
            raise ValueError(f"{context}: {key} = {data[key]} found, wanted {least} or more.")
    if "max_repeats" in data and not {"proportion", "choose"} & set(data):
        raise ValueError(f"{context}: max_repeats found without proportion or choose, which it limits: take it out.")
    if data.get("max_repeats", 1) > MOST_REPEATS:
        raise ValueError(f"{context}: max_repeats = {data['max_repeats']:,} found, wanted at most {MOST_REPEATS:,}.")
    for kind in ("tokens", "trained_tokens"):
        low, high = data.get(f"min_{kind}"), data.get(f"max_{kind}")
        if low is not None and high is not None and low > high:
            raise ValueError(f"{context}: min_{kind} = {low} is more than max_{kind} = {high}, which leaves nothing.")


def check_splits(proportions: dict[str, list[float | None]], drop_overlap: str | None, context: str) -> None:
    """The proportions of a split leave room for the entries without one, or add up to 1; an overlap is with val"""
    for split, of_entries in proportions.items():
        given = [exact(proportion) for proportion in of_entries if proportion is not None]
        total, num_others = sum(given, Fraction(0)), len(of_entries) - len(given)
        if not given or (total < 1 if num_others else total == 1):
            continue
        limit = f"less than 1, for the {num_others} entries without one" if num_others else "1, as every entry has one"
        raise ValueError(f"{context}, {split}: the proportions add up to {float(total):g}, wanted {limit}.")
    if drop_overlap and "val" not in proportions:
        raise ValueError(f"{context}: drop_overlap = {drop_overlap!r} found without a [[val]] entry: add one.")
