"""
The source row of a conversation, unchanged: read again from the source that the build read.

    gsm8k, row 5321   ->   {"question": "Ann has ...", "answer": "She has 3*4=<<3*4=12>>12 apples.\\n#### 12"}

A manifest holds no path, so build.json says where the sources are, or they are given again. A source must have the same
contents as then, or nothing is shown. Rows of generated tasks are generated again.
"""

import json
from typing import Any

import numpy as np

from prep.build.record import BuildInputs
from prep.conversations.conversation import to_messages
from prep.mixture.mixture import Mixture
from prep.mixture.resolve import Input, resolve
from prep.shard import Split
from prep.sources.source import rows_at


class Origins:
    """Source rows of the conversations of a split. Each source is opened, and hashed, once."""

    def __init__(self, split: Split, inputs: BuildInputs) -> None:
        self.split = split
        self.inputs = inputs
        self.opened: dict[int, Input] = {}

    def row(self, doc: int) -> str:
        """The source row of a document, as JSON or as the line it is in its file"""
        number, index = int(self.split.docs["source"][doc]), int(self.split.docs["index"][doc])
        source = self.source(number)
        if not source.source.files:
            generated = source.task.generate(index, index + 1, source.entry.seed, str(source.split))
            return to_json({"messages": to_messages(generated, 0)})
        return read_row(source, index)

    def source(self, number: int) -> Input:
        """A source by its number in the split. ValueError or FileNotFoundError where it is gone, or is another."""
        if number not in self.opened:
            self.opened[number] = self._open(number)
        return self.opened[number]

    def _open(self, number: int) -> Input:
        described, name, mixture = self.split.manifest["mixture"], self.split.name, self.inputs.mixture
        source = described[name][number]
        if described.get("without"):
            mixture = mixture.without(described["without"])
        entries = mixture.splits.get(name, ())
        if number >= len(entries) or entries[number].label != source["name"]:
            raise ValueError(
                f"mixture {mixture.name!r} has no {source['name']!r} as entry {number + 1} of {name}: give the mixture "
                f"that {self.split.root} was built from with --mixture."
            )
        alone = Mixture(mixture.name, mixture.seed, {name: (entries[number],)}, mixture.folder)
        opened = resolve(alone, self.inputs.data_root, self.inputs.identity)[name][0]
        if opened.source.sha256 != source["sha256"]:
            raise ValueError(
                f"{source['name']} has changed: its source has sha256 {opened.source.sha256[:12]}, {self.split.root} was "
                f"built from {source['sha256'][:12]}. Give the right --data-root or --identity."
            )
        return opened


def read_row(source: Input, index: int) -> str:
    """One row of a source; reads its block only"""
    for table in rows_at(source.source, np.array([index])):
        row = table.to_pylist()[0]
        line = row.get("line")
        return line.decode("utf-8", "backslashreplace").strip() if isinstance(line, bytes) else to_json(row)
    raise ValueError(f"{source.entry.label} has no row {index} any more: did its files change?")


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
