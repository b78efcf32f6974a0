"""
The source row of a conversation as it came: read again, from the source that the build read.

    gsm8k, row 5321   ->   {"question": "Ann has ...", "answer": "She has 3*4=<<3*4=12>>12 apples.\\n#### 12"}

A build holds no path, so where the sources are comes from its build.json (the command it was built with) or is given
again. The source must have the same contents as then, or nothing is shown. Rows of generated tasks are made again.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prep.build.timings import read_record
from prep.conversations.conversation import KINDS, ROLES, Conversations
from prep.mixture.mixture import Mixture, load_mixture, mixture_names
from prep.mixture.resolve import Input, resolve
from prep.shard import Split
from prep.sources.source import rows_at

OPTIONS = {"--mixture": "mixture", "--data-root": "data_root", "--identity": "identity"}


@dataclass(frozen=True)
class Where:
    """What a build was asked to read; None where it was not asked"""

    mixture: str
    data_root: Path | None = None
    identity: Path | None = None


def where_from(root: Path, mixture: str | None, data_root: Path | None, identity: Path | None) -> Where:
    """What was given, else what the command in build.json says"""
    asked, directory = ({}, Path()) if mixture and not (root / "build.json").is_file() else command_options(root)
    then = asked.get("mixture", "default")
    return Where(
        mixture or (then if then in mixture_names() else str(directory / then)),
        data_root or (directory / asked["data_root"] if "data_root" in asked else None),
        identity or (directory / asked["identity"] if "identity" in asked else None),
    )


def command_options(root: Path) -> tuple[dict[str, str], Path]:
    """The options in the command of a build and the directory it was given in"""
    about = read_record(root)
    if about is None:
        raise FileNotFoundError(
            f"{root / 'build.json'} not found, which says what {root} was built from: give --mixture, and --data-root or "
            "--identity where they are needed."
        )
    command = [str(word) for word in about["command"]]
    found = {}
    for word, after in pairwise([*command, ""]):
        option, equals, value = word.partition("=")
        if option in OPTIONS:
            found[OPTIONS[option]] = value if equals else after
    return found, Path(about["directory"])


class Origins:
    """Source rows of the conversations of a split. Each source is opened, and hashed, once."""

    def __init__(self, split: Split, where: Where) -> None:
        self.split = split
        self.where = where
        self.inputs: dict[int, Input] = {}

    def row(self, doc: int) -> str:
        """The source row of a document, as JSON or as the line it was"""
        source, index = int(self.split.docs["source"][doc]), int(self.split.docs["index"][doc])
        one = self._input(source)
        if not one.source.files:
            made = one.task.generate(index, index + 1, one.entry.seed, str(one.split))
            return to_json({"messages": messages(made)})
        return read_row(one, index)

    def _input(self, number: int) -> Input:
        if number in self.inputs:
            return self.inputs[number]
        manifest, name = self.split.manifest, self.split.name
        wanted = manifest["mixture"][name][number]
        mixture = load_mixture(self.where.mixture)
        without = list(manifest["mixture"].get("without", []))
        entries = mixture.without(without).splits.get(name, ()) if without else mixture.splits.get(name, ())
        if number >= len(entries) or entries[number].label != wanted["name"]:
            raise ValueError(
                f"mixture {self.where.mixture!r} has no {wanted['name']!r} at place {number + 1} of {name}: give the one "
                f"that {self.split.root} was built from with --mixture."
            )
        alone = Mixture(mixture.name, mixture.seed, {name: (entries[number],)}, mixture.folder)
        one = resolve(alone, self.where.data_root, self.where.identity)[name][0]
        if one.source.sha256 != wanted["sha256"]:
            raise ValueError(
                f"{wanted['name']} is not what it was: its source has sha256 {one.source.sha256[:12]}, "
                f"{self.split.root} was built from {wanted['sha256'][:12]}. Give the right --data-root or --identity."
            )
        self.inputs[number] = one
        return one


def read_row(one: Input, index: int) -> str:
    """One row of a source; reads its block only"""
    for found in rows_at(one.source, np.array([index])):
        row = found.to_pylist()[0]
        line = row.get("line")
        return line.decode("utf-8", "backslashreplace").strip() if isinstance(line, bytes) else to_json(row)
    raise ValueError(f"{one.entry.label} has no row {index} any more: did its files change?")


def messages(batch: Conversations) -> list[dict[str, Any]]:
    """The first conversation of a batch as messages; a content of one text is a string"""
    texts, out = batch.texts.to_pylist(), []
    for m in range(int(batch.messages[0]), int(batch.messages[1])):
        places = range(int(batch.parts[m]), int(batch.parts[m + 1]))
        parts = [{"type": KINDS[batch.kinds[p]], "text": texts[p]} for p in places]
        alone = len(parts) == 1 and parts[0]["type"] == "text"
        out.append({"role": ROLES[batch.roles[m]], "content": parts[0]["text"] if alone else parts})
    return out


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
