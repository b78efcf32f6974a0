"""
The files of a build that a run maps, held open beside the maps: are they still what they were when it began?

    written over in place   size or time of the open file differ      the run ends; what trained on mixed rows is not saved
    replaced, removed       the name leads to another file, or none   the run has the old files, whole: it goes on, said once
    cut                     the next read is SIGBUS, which ends the process: nothing here can catch that (docs/training.md)

Looked at before every evaluation and every save, never in a step. Costs a second file descriptor for each file.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prep.files import allow_open_files
from prep.shard import Shards, Split
from train.distributed import Ranks


class OpenFiles:
    """All files that a run reads of these splits. Maps them, so that one that is not complete is an error here."""

    def __init__(self, shards: Shards, mode: str, split: Split, val_split: Split | None) -> None:
        self.root = shards.root
        names = {*files_of(split, mode), *(files_of(val_split, mode) if val_split else ())}
        names |= {"token_bytes.npy"} if val_split else set()
        allow_open_files(2 * len(names) + 256)
        self.opened: dict[Path, tuple[int, os.stat_result]] = {}  # with what they were then
        self.is_replaced = False
        for path in sorted(shards.root / name for name in names):
            with suppress(FileNotFoundError):  # the maps below say it better
                file = os.open(path, os.O_RDONLY)
                self.opened[path] = file, os.fstat(file)
        for each in (split, val_split or split):
            _ = each.rows, each.docs, each.tokens, each.masks if mode == "sft" else None
        _ = shards.token_bytes if val_split else None
        if path := self.replaced():
            raise ValueError(f"{path} was replaced while it was opened: run the same command again")

    def __del__(self) -> None:
        for file, _ in self.opened.values():
            os.close(file)

    def check(self, ranks: Ranks) -> None:
        """ValueError on every rank if a file of one of them was written over. What is only replaced is said once."""
        found = ranks.gather((self.overwritten(), None if self.is_replaced else self.replaced()))
        overwritten, replaced = (next(filter(None, paths), None) for paths in zip(*found, strict=True))
        if overwritten:
            raise ValueError(
                f"{overwritten} was written over while this run read it, so what trained since the last checkpoint is not "
                f"saved: if `midprep verify {self.root}` finds a fault, build again; then run the same command to go on"
            )
        if replaced and not self.is_replaced:
            self.is_replaced = True
            ranks.say(f"{replaced} was replaced or removed: this run goes on with the files that it opened")

    def overwritten(self) -> Path | None:
        """A file that was written to since it was opened"""
        for path, (file, before) in self.opened.items():
            now = os.fstat(file)
            if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                return path
        return None

    def replaced(self) -> Path | None:
        """A file whose name no longer leads to it"""
        for path, (_, before) in self.opened.items():
            try:
                if not os.path.samestat(path.stat(), before):
                    return path
            except OSError:
                return path
        return None


def files_of(split: Split, mode: str) -> Iterator[str]:
    """Names of the files that a run in `mode` reads of a split"""
    yield from split.entry["files"]
    kinds = (".tokens.npy", ".mask.npy") if mode == "sft" else (".tokens.npy",)
    yield from (name for shard in split.entry["shards"] for name in shard["files"] if name.endswith(kinds))
