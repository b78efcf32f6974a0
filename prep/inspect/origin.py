"""
The source row of a conversation, unchanged: read again from the source that the build read.

    gsm8k, row 5321   ->   {"question": "Ann has ...", "answer": "She has 3*4=<<3*4=12>>12 apples.\\n#### 12"}

A manifest holds no path, so build.json says where the sources are, or they are given again. A source must have the same
contents as then, or nothing is shown. Rows of generated tasks are generated again.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prep.build.timings import read_record
from prep.conversations.conversation import KINDS, ROLES, Conversations
from prep.mixture.mixture import Mixture, load_mixture, mixture_names, parse_mixture
from prep.mixture.resolve import Input, resolve
from prep.shard import Split
from prep.sources.source import rows_at

OPTIONS = {"--mixture": "mixture", "--data-root": "data_root", "--identity": "identity"}


@dataclass(frozen=True)
class BuildInputs:
    """What a build read: the mixture, and where its sources are if they are not on the Hub"""

    mixture: Mixture
    data_root: Path | None = None
    identity: Path | None = None


def recorded_inputs(root: Path, mixture: str | None, data_root: Path | None, identity: Path | None) -> BuildInputs:
    """What is given, else what build.json says. ValueError or FileNotFoundError where neither says it."""
    record = None if mixture and not (root / "build.json").is_file() else read_record(root)
    if record is None and mixture is None:
        raise FileNotFoundError(
            f"{root / 'build.json'} not found, which says what {root} was built from: give --mixture, and --data-root or "
            "--identity where they are needed."
        )
    record = record or {"command": [], "directory": "."}
    inputs = record.get("inputs")
    if not isinstance(inputs, dict):
        inputs = command_inputs(record["command"], Path(record["directory"]))
    return BuildInputs(
        load_mixture(mixture) if mixture else _recorded_mixture(root, inputs, Path(record["directory"])),
        data_root or (Path(inputs["data_root"]) if inputs.get("data_root") else None),
        identity or (Path(inputs["identity"]) if inputs.get("identity") else None),
    )


def _recorded_mixture(root: Path, inputs: dict[str, Any], directory: Path) -> Mixture:
    """A shipped mixture by name; any other from the copy in build.json, or from its file"""
    name, toml = inputs.get("mixture"), inputs.get("mixture_toml")
    if isinstance(toml, dict) and name not in mixture_names():
        path = Path(name) if isinstance(name, str) else directory / root.resolve().name
        return parse_mixture(toml, f"the mixture in {root / 'build.json'}", path.parent, default_name=path.stem)
    if not isinstance(name, str):
        raise ValueError(
            f"{root / 'build.json'} does not say which mixture {root} was built from: give it with --mixture."
        )
    return load_mixture(name)


def command_inputs(command: list[Any], directory: Path) -> dict[str, str]:
    """The inputs that a command line names, of builds whose build.json has no "inputs" """
    words = [str(word) for word in command]
    given = {}
    for word, after in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        if option in OPTIONS:
            given[OPTIONS[option]] = value if equals else after
    is_build = len(words) > 1 and Path(words[0]).name in ("midprep", "__main__.py") and words[1] == "build"
    if is_build:
        given.setdefault("mixture", "default")
    shipped = given.get("mixture") in mixture_names()
    return {key: value if key == "mixture" and shipped else str(directory / value) for key, value in given.items()}


class Origins:
    """Source rows of the conversations of a split. Each source is opened, and hashed, once."""

    def __init__(self, split: Split, inputs: BuildInputs) -> None:
        self.split = split
        self.inputs = inputs
        self.opened: dict[int, Input] = {}

    def row(self, doc: int) -> str:
        """The source row of a document, as JSON or as the line it is in its file"""
        number, index = int(self.split.docs["source"][doc]), int(self.split.docs["index"][doc])
        if number not in self.opened:
            self.opened[number] = self._open(number)
        source = self.opened[number]
        if not source.source.files:
            generated = source.task.generate(index, index + 1, source.entry.seed, str(source.split))
            return to_json({"messages": messages(generated)})
        return read_row(source, index)

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


def messages(batch: Conversations) -> list[dict[str, Any]]:
    """The first conversation of a batch as messages; the content of a single text is a string"""
    texts, out = batch.texts.to_pylist(), []
    for message in range(int(batch.messages[0]), int(batch.messages[1])):
        places = range(int(batch.parts[message]), int(batch.parts[message + 1]))
        parts = [{"type": KINDS[batch.kinds[place]], "text": texts[place]} for place in places]
        is_text = len(parts) == 1 and parts[0]["type"] == "text"
        out.append({"role": ROLES[batch.roles[message]], "content": parts[0]["text"] if is_text else parts})
    return out


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
