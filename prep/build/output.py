"""
The output of a build: a lock that keeps others out, a staging directory, and one rename at the end.

    shards/.mid.lock         held while a build of shards/mid runs; the kernel drops it with the process
    shards/.mid.building     where files are written; whatever lies there is from a build that was killed
    shards/mid               appears, or is replaced, in one step, whole

A directory with a manifest is a finished build; nothing half-written ever has that name.
"""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prep.build.changes import changes, fingerprint
from prep.files import Lock, sync_folder
from prep.shard import Manifest, listed_files, read_manifest
from prep.signals import signals_later


class Output:
    """The output directory of a build, locked while the object is open."""

    def __init__(self, root: Path) -> None:
        self.name = root
        self.root = root.resolve()  # a link stays one
        self.staging, self.old, self.lock_path = (
            self.root.parent / f".{self.root.name}.{kind}" for kind in ("building", "old", "lock")
        )

    def __enter__(self) -> Self:
        """ValueError if somebody else builds here. What a build was replacing when it was killed is put back, or removed."""
        self._lock = Lock(self.lock_path, f"another build of {self.name} is running", "give another -o DIR")
        if self.old.exists():
            if not self.root.exists():
                os.replace(self.old, self.root)
            shutil.rmtree(self.old, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self._lock.release()

    def holds(self, fingerprint: str, description: dict[str, Any], overwrite: bool) -> bool:
        """
        Whether the output is the build that is described (Job.description). ValueError, with what is different, where it is
        another one that may not be replaced, or not a build.
        """
        what, words = state(self.name, fingerprint, description)
        if what == "foreign" or (what in ("different", "broken") and not overwrite):
            advice = "give another -o DIR"
            if what != "foreign":
                advice = f"replace it with --overwrite, or {advice}"
            if what == "different" and packed_by_old_default(self.name, description):
                advice += "; bfd was the default packing: --packing bfd keeps this build"
            raise ValueError(words if what == "broken" and words.endswith(".") else f"{words}: {advice}.")
        return what == "current"

    def prepare(self) -> Path:
        """An empty staging directory; what a killed build left is removed."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir()
        return self.staging

    def publish(self) -> None:
        """The staging directory becomes the output."""
        sync_folder(self.staging)
        with signals_later():
            if self.root.exists():
                os.replace(self.root, self.old)
            os.replace(self.staging, self.root)
            sync_folder(self.root.parent)
            shutil.rmtree(self.old, ignore_errors=True)


def state(root: Path, fingerprint: str, description: dict[str, Any]) -> tuple[str, str]:
    """
    What stands at an output: ("absent" | "current" | "different" | "foreign" | "broken", what is the matter in words).
    `description` is of the build that is to be there (Job.description).
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return "absent", ""
    try:
        manifest = read_manifest(root)
    except FileNotFoundError:
        return "foreign", f"{root} exists and is not a build of midprep"
    except ValueError as error:
        return "broken", str(error)
    if manifest.get("fingerprint") != fingerprint:
        words = changes(manifest, description)
        said = "; ".join(words[:3]) + (f"; {len(words) - 3} more" if len(words) > 3 else "")
        return "different", f"{root} holds another build ({about(manifest)}; {said})"
    for name, entry in listed_files(manifest).items():
        path = root / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return "broken", f"{path} is missing or cut short"
    return "current", ""


def packed_by_old_default(root: Path, description: dict[str, Any]) -> bool:
    """Whether what stands at `root` differs from what is to be there in nothing but the packing, which was bfd by default"""
    manifest = read_manifest(root)
    packing = {key: manifest[key] for key in ("packing_strategy", "planner_version")}
    kept: bool = fingerprint({**description, **packing}) == manifest["fingerprint"]
    return kept and packing["packing_strategy"] == "bfd"


def about(manifest: Manifest) -> str:
    """A few words on what a build is, for the one who is about to replace it"""
    return (
        f"mixture {manifest['mixture']['name']}, seed {manifest['seed']}, max_seq_len {manifest['max_seq_len']}, "
        f"{manifest['packing_strategy']}, tokenizer {manifest['tokenizer']['name']}"
    )
