"""
Where checkpoints lie, in nanochat's layout, and which of them are whole. Their tensors are `train.checkpoint`.

    runs/mid/mid_checkpoints/d4/            mid_checkpoints, chatsft_checkpoints; base_checkpoints is nanochat's own
        model_000050.pt                     state dict
        optim_000050_rank0.pt               [AdamW's state dict, Muon's]; every rank holds the same, so one file is all
        meta_000050.json                    written last: without it a checkpoint does not count
        metrics.jsonl                       one object a step

Each file is written under a temporary name, synced and renamed, so a killed run leaves whole checkpoints only.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

STAGES = {"mid": "mid_checkpoints", "sft": "chatsft_checkpoints"}
BASES = {"mid": ("base_checkpoints", "mid_checkpoints"), "sft": ("mid_checkpoints", "base_checkpoints")}

Meta = dict[str, Any]


def steps_in(root: Path) -> list[int]:
    """Steps of the whole checkpoints of a directory, ascending."""
    found = [re.fullmatch(r"meta_(\d{6,})\.json", path.name) for path in root.glob("meta_*.json")]
    steps = [int(match[1]) for match in found if match]
    return sorted(step for step in steps if (root / f"model_{step:06d}.pt").is_file())


def find_checkpoint(path: str | Path, step: int | None = None, stages: tuple[str, ...] = ()) -> tuple[Path, int]:
    """(directory, step): the largest step of `path`, or of the deepest d<number> in it, or in the first of `stages`."""
    root = Path(path)
    for stage in stages:
        if not steps_in(root) and (root / stage).is_dir():
            root = root / stage
    tags = [child for child in root.glob("d*") if re.fullmatch(r"d\d+", child.name) and steps_in(child)]
    if not steps_in(root) and tags:
        root = max(tags, key=lambda child: int(child.name[1:]))
    steps = steps_in(root)
    if not steps:
        raise FileNotFoundError(f"no checkpoint (model_*.pt with its meta_*.json) in {path}: give the directory of one")
    if step is not None and step not in steps:
        raise FileNotFoundError(f"{root} has no step {step}, it has: {', '.join(map(str, steps))}")
    return root, steps[-1] if step is None else step


def find_base(name: str, step: int | None, mode: str) -> tuple[Path, int]:
    """`--base`: a path, a tag of nanochat's, or "" for the largest that nanochat has."""
    if name and Path(name).is_dir():
        return find_checkpoint(name, step, BASES[mode])
    nanochat = Path(os.environ.get("NANOCHAT_BASE_DIR") or Path.home() / ".cache" / "nanochat")
    places = [nanochat / stage / name for stage in BASES[mode]]
    for place in places:
        if place.is_dir():
            return find_checkpoint(place, step)
    what = f"--base {name}: no such directory," if name else "--base:"
    raise FileNotFoundError(f"{what} nor a nanochat with {places[0]}: give a path, or set NANOCHAT_BASE_DIR")


def find_run(root: Path, identity: dict[str, Any], resume: str) -> int:
    """The step to go on from: that of the last whole checkpoint of the same run, or 0."""
    steps = steps_in(root)
    if not steps:
        return 0
    ours = read_meta(root, steps[-1]).get("midprep")
    if ours is None:
        raise ValueError(f"{root} holds checkpoints that midprep did not write: give another --out")
    if resume == "never":
        return 0
    for name, value in identity.items():
        theirs = ours["identity"].get(name)
        if theirs != value:
            found = f"{root} holds a run with {name} {theirs}, this one has {value}"
            raise ValueError(f"{found}: give another --out, or --resume never to replace it")
    return steps[-1]


def read_meta(root: Path, step: int) -> Meta:
    path = root / f"meta_{step:06d}.json"
    try:
        meta: Meta = json.loads(path.read_text(encoding="utf-8"))
        meta["model_config"].items()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not a checkpoint's meta with a model_config ({error})") from None
    return meta


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """A reader sees the whole file or none, even after a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def remove_run(root: Path) -> None:
    """Take away the checkpoints of a replaced run; the metas first, so that none of them is ever found half gone."""
    for pattern in ("meta_*.json", "model_*.pt", "optim_*_rank*.pt", ".*.tmp"):
        for path in root.glob(pattern):
            path.unlink()
