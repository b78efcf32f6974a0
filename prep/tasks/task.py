"""
What a task is: it turns rows of a source into conversations, or makes conversations from their numbers alone.

    conversations(rows: pa.Table) -> Conversations                             C rows -> C conversations
    generate(start: int, stop: int, seed: int, split: str) -> Conversations    conversations start .. stop - 1

A task is sent to every worker, so it is small and can be pickled: its functions are found again by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import pyarrow as pa

from prep.conversations.conversation import Conversations
from prep.conversations.layouts import Layout
from prep.tasks.custom import CustomTask


@dataclass(frozen=True)
class BuiltinTask:
    """A task that ships with midprep, made at the end of its module. Its source is one of: the Hub, a file, or `make`."""

    label: str  # its name in mixtures and manifests
    about: str
    example: Any  # a row, or a conversation that is made
    version: int  # part of the cache keys: bump it when the same row gives another conversation
    read: Callable[..., Conversations] | None = None  # rows, and the layout where there is one
    make: Callable[[int, int, int, str], Conversations] | None = None
    size: int = 0  # conversations that are made by default
    hub: str | None = None  # OWNER/NAME of the data set
    download: tuple[int, int] = (0, 0)  # rows and about so many bytes of it, train and val together
    columns: tuple[str, ...] = ()  # that are read
    defaults: dict[str, tuple[str, str]] = field(default_factory=dict)  # split of a build -> (subset, split) on the Hub
    aliases: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)  # other names of the same rows
    file: str | None = None  # its name in nanochat's cache and beside a data root
    layout: Layout | None = None  # how rows are read, where there is more than one way
    is_custom: ClassVar[bool] = False

    @property
    def generates(self) -> bool:
        """Whether its conversations are made, not read"""
        return self.make is not None

    def with_layout(self, layout: Layout) -> Self:
        return replace(self, layout=layout)

    def conversations(self, rows: pa.Table) -> Conversations:
        assert self.read is not None
        return self.read(rows) if self.layout is None else self.read(rows, self.layout)

    def generate(self, start: int, stop: int, seed: int, split: str) -> Conversations:
        assert self.make is not None
        if split not in ("train", "test"):
            raise ValueError(f"{self.label} has no split {split!r}: generated tasks have train and test.")
        return self.make(start, stop, seed, split)


Task = BuiltinTask | CustomTask  # both have the two methods, label, version, layout, generates, is_custom
