"""
Which files a path means: itself, what a directory's writer says is in it, or what matches a pattern. Sorted by name.

    talks/                      .jsonl, .json, .parquet, .arrow and the like; nothing whose name begins with . or _
    saved/ with a state.json    what datasets' save_to_disk wrote: the files that it lists, in its order, and no caches
    talks/*/part-*.jsonl        a pattern, in any part of the path; folders that are there are taken literally, "data [v1]" too

A part `name-00001-of-00003` without its fellows is refused: two of three would be taken for all.
"""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

SIGNS = re.compile(r"[*?[]")
PART = re.compile(r"(?P<name>.*)-(?P<number>\d{3,})-of-(?P<total>\d{3,})(?P<suffix>\.[^/]*)?")
TEXT_SUFFIX = ".txt"
# of data in a directory: a README or a checksum beside it is not data
SUFFIXES = (
    *(kind + packed for kind in (".jsonl", ".ndjson", ".json") for packed in ("", ".gz", ".zst")),
    *(".parquet", ".arrow", ".feather", ".ipc"),
)


def find_files(path: str | Path, folder: Path = Path(), text: bool = False) -> list[Path]:
    """
    Data files that a path in a folder means, [] if none; `text`: .txt files of a directory too. ValueError where a part is
    missing, or a directory is not as its writer says.
    """
    pattern = Path(path).expanduser()
    place = folder / pattern
    if place.is_file():
        return [place]
    if place.is_dir():
        found = _saved_files(place)
        if found is None:
            suffixes = (*SUFFIXES, *([TEXT_SUFFIX] if text else []))
            found = sorted(file for file in place.iterdir() if file.is_file() and file.name.lower().endswith(suffixes))
            found = [file for file in found if not file.name.startswith((".", "_"))]
        check_parts(found)
        return found
    if not SIGNS.search(str(pattern)):
        return []
    root = Path(pattern.anchor) if pattern.is_absolute() else folder
    parts = pattern.relative_to(pattern.anchor).parts
    while (root / parts[0]).is_dir():  # a folder that is there, whatever signs are in its name
        root, parts = root / parts[0], parts[1:]
    matches = sorted(file for file in root.glob(str(Path(*parts))) if file.is_file())
    listed = {parent: _listed(parent) for parent in {file.parent for file in matches}}
    found = [
        file
        for file in matches
        if file in (listed[file.parent] or [file]) and not _is_hidden(file.relative_to(root).parts, parts)
    ]
    check_parts(found, parts[-1])
    return found


def _is_hidden(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether one of the names begins with . or _ that no part of the pattern does"""
    asked = [part for part in pattern if part.startswith((".", "_"))]
    return any(name.startswith((".", "_")) and not any(fnmatch(name, part) for part in asked) for name in names)


def _saved_files(folder: Path) -> list[Path] | None:
    """The files of what save_to_disk wrote, None for another directory. Source: datasets.Dataset.save_to_disk"""
    if (folder / "dataset_dict.json").is_file():
        splits = _read(folder / "dataset_dict.json", "splits")
        if len(splits) != 1:
            advice = " or ".join(f"{folder.name}/{split}" for split in splits)
            raise ValueError(f"{folder} has the splits {', '.join(map(str, splits))}: give one of them, as {advice}.")
        return _saved_files(folder / str(splits[0]))
    return _listed(folder)


def _listed(folder: Path) -> list[Path] | None:
    """The files that a saved data set consists of, None for another directory"""
    if not (folder / "state.json").is_file() or not (folder / "dataset_info.json").is_file():
        return None
    names = [
        entry.get("filename") if isinstance(entry, dict) else None
        for entry in _read(folder / "state.json", "_data_files")
    ]
    files = [folder / str(name) for name in names]
    if missing := next((file for file in files if not file.is_file()), None):
        raise ValueError(f"{missing} not found, which {folder / 'state.json'} lists: save the data set again.")
    return files


def _read(path: Path, key: str) -> list[object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))[key]
    except (ValueError, KeyError, TypeError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise ValueError(f"{path} has no list {key!r}, as datasets writes it: save the data set again.")
    return value


def check_parts(files: list[Path], pattern: str = "*") -> None:
    """ValueError where one of the parts `name-00001-of-00003` is missing that the pattern would have taken"""
    parts: dict[tuple[Path, str, str, str], set[int]] = {}
    for file in files:
        if match := PART.fullmatch(file.name):
            key = (file.parent, match["name"], match["total"], match["suffix"] or "")
            parts.setdefault(key, set()).add(int(match["number"]))
    for (folder, name, total, suffix), numbers in parts.items():
        first = min(numbers, default=0) if int(total) in numbers else 0  # counted from 1 by some
        for number in range(first, first + int(total)):
            missing = f"{name}-{number:0{len(total)}}-of-{total}{suffix}"
            if number not in numbers and fnmatch(missing, pattern):
                raise ValueError(
                    f"{folder / missing} is missing, {len(numbers)} of {int(total)} parts are there: copy it, or name the "
                    "files that are to be read."
                )
