"""
The source row of a conversation as it came: read again, from the source that the build read.

    gsm8k, row 5321   ->   {"question": "Ann has ...", "answer": "She has 3*4=<<3*4=12>>12 apples.\\n#### 12"}

A build holds no path, so where the sources are comes from its build.json (the command it was built with) or is given
again. The source must have the same contents as then, or nothing is shown. Rows of generated tasks are made again.
"""

import json
from typing import Any

import numpy as np

from prep.build.inputs import BuildInputs
from prep.conversations.conversation import to_messages
from prep.mixture.mixture import Mixture
from prep.mixture.resolve import Input, resolve
from prep.shard import Split
from prep.sources.source import rows_at


class Origins:
    """Source rows of the conversations of a split. Each source is opened, and hashed, once."""

    def __init__(self, split: Split, made_from: BuildInputs) -> None:
        self.split = split
        self.made_from = made_from
        self.inputs: dict[int, Input] = {}

    def row(self, doc: int) -> str:
        """The source row of a document, as JSON or as the line it was"""
        source, index = int(self.split.docs["source"][doc]), int(self.split.docs["index"][doc])
        one = self._input(source)
        if not one.source.files:
            made = one.task.generate(index, index + 1, one.entry.seed, str(one.split))
            return to_json({"messages": to_messages(made, 0)})
        return read_row(one, index)

    def _input(self, number: int) -> Input:
        if number in self.inputs:
            return self.inputs[number]
        manifest, name = self.split.manifest, self.split.name
        wanted = manifest["mixture"][name][number]
        mixture = self.made_from.mixture
        without = list(manifest["mixture"].get("without", []))
        entries = mixture.without(without).splits.get(name, ()) if without else mixture.splits.get(name, ())
        if number >= len(entries) or entries[number].label != wanted["name"]:
            raise ValueError(
                f"mixture {mixture.name!r} has no {wanted['name']!r} at place {number + 1} of {name}: give the one "
                f"that {self.split.root} was built from with --mixture."
            )
        alone = Mixture(mixture.name, mixture.seed, {name: (entries[number],)}, mixture.folder)
        one = resolve(alone, self.made_from.data_root, self.made_from.identity)[name][0]
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


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
