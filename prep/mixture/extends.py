"""
A mixture that starts from another one: its entries, without those that are dropped, then the entries of its own.

    extends = "default"              # a shipped mixture, or a TOML file, relative to this one
    drop = ["identity", "val.mmlu"]  # entries by name: of both splits, or of one; "val.*" is all of val
    [[train]]
    task = "chat"
    path = "mine.jsonl"

    entries of default     smoltalk mmlu gsm8k identity simple_spelling spelling_bee | val: smoltalk mmlu gsm8k
    entries of this one    smoltalk mmlu gsm8k simple_spelling spelling_bee chat     | val: smoltalk gsm8k

The seed and each key of [mix] are this mixture's where it says them, else those of the other one. The name is never
inherited, so a build of one does not replace a build of the other.
"""

from pathlib import Path
from typing import Any

from prep.chat.choose import KEYS as TEMPLATE_KEYS
from prep.sources.files import find_files
from prep.text import nearest

Tables = dict[str, list[dict[str, Any]]]  # entries of each split


def merge(own: dict[str, Any], inherited: dict[str, Any], context: str) -> dict[str, Any]:
    """The tables of both, as one mixture that extends nothing; the inherited entries have names"""
    tables: Tables = {split: inherited.get(split, []) for split in ("train", "val")}
    kept = without(tables, own.get("drop", []), f"{context}: drop")
    for split, entries in kept.items():
        names = {entry["name"] for entry in entries}
        for entry in own.get(split, []):
            if entry.get("name") in names:
                raise ValueError(
                    f"{context}: name = {entry['name']!r} is an entry of {own['extends']!r} too: give another name, or "
                    f'replace that one with drop = ["{split}.{entry["name"]}"].'
                )
    merged = {split: [*entries, *own.get(split, [])] for split, entries in kept.items()}
    given: dict[str, Any] = {key: own[key] for key in ("name", "seed") if key in own}
    template = {key: tables[key] for tables in (inherited, own) for key in TEMPLATE_KEYS if key in tables}
    mix = inherited.get("mix", {}) | own.get("mix", {})
    return {
        "seed": inherited["seed"],
        **given,
        **template,
        "mix": mix,
        **{split: merged[split] for split in merged if merged[split]},
    }


def without(tables: Tables, drops: list[Any], prefix: str) -> Tables:
    """The entries that no drop names. ValueError for a drop that names none."""
    dropped: set[tuple[str, str]] = set()
    names = [(split, entry["name"]) for split, entries in tables.items() for entry in entries]
    for drop in drops:
        matches = {(split, name) for split, name in names if drop in (name, f"{split}.{name}", f"{split}.*")}
        if not matches:
            known = dict.fromkeys(name for _, name in names)
            raise ValueError(
                f"{prefix} = {drop!r} names no inherited entry, wanted one of {', '.join(known)}, as train.NAME or val.NAME "
                f'of one split, or "val.*".{nearest(str(drop), known)}'
            )
        dropped |= matches
    return {
        split: [entry for entry in entries if (split, entry["name"]) not in dropped]
        for split, entries in tables.items()
    }


def from_folder(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An inherited entry, whose files are found from its own mixture's directory"""
    found = dict(entry)
    if (path := entry.get("path")) and find_files(path, folder):
        found["path"] = str((folder / Path(path).expanduser()).absolute())
    file, colon, function = entry["task"].rpartition(".py:")
    if colon and (folder / f"{file}.py").is_file():
        found["task"] = f"{(folder / file).absolute()}.py:{function}"
    return found
