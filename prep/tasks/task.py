"""
Which task, and how it reads: what a worker needs to turn the rows of a source into conversations. It is small, is sent to
each worker, and is part of the identity of what comes out.
"""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from prep.conversations.conversation import Conversations
from prep.conversations.layouts import Layout
from prep.tasks import TASKS, chat
from prep.tasks.custom import OwnTask


@dataclass(frozen=True)
class Task:
    """One of midprep's by name, chat with its layout, or one's own."""

    name: str
    layout: Layout | None = None  # of chat
    own: OwnTask | None = None

    @property
    def generates(self) -> bool:
        """Whether its rows are made, not read"""
        return self.own.takes == "generate" if self.own else hasattr(TASKS[self.name], "generate")

    @property
    def label(self) -> str:
        """Its name in manifests: nothing of this machine"""
        return self.own.label if self.own else self.name

    @property
    def version(self) -> int | str:
        return self.own.sha256 if self.own else int(TASKS[self.name].VERSION)

    @property
    def identity(self) -> str:
        """With the identity of the rows, that of the conversations"""
        plain = self.layout is None or self.layout == chat.PLAIN
        return f"{self.label} {self.version}" + (
            "" if plain or self.layout is None else f" {json.dumps(self.layout.describe(), sort_keys=True)}"
        )

    def conversations(self, rows: pa.Table) -> Conversations:
        """C rows -> C conversations"""
        if self.own:
            return self.own.conversations(rows)
        if self.layout is not None:
            return chat.conversations(rows, self.layout)
        found: Conversations = TASKS[self.name].conversations(rows)
        return found

    def generate(self, start: int, stop: int, seed: int, split: str) -> Conversations:
        """Conversations start .. stop - 1"""
        maker: Any = self.own or TASKS[self.name]
        found: Conversations = maker.generate(start, stop, seed, split)
        return found
