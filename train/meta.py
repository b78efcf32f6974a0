"""
meta_<step>.json: what a checkpoint says of itself, and whether that can be true.

    {"step": 50, "model_config": {"n_layer": 4, ...}, "val_bpb": 0.91, ...         nanochat's keys
     "midprep": {"version": 3, "identity": {...}, "tokenizer_sha256": "9f2c...",   midprep's own
                 "dtype": "bfloat16", "records_sha256": {"model": "51e0...", "optim": "c7a4..."},
                 "config_sha256": "7b90..."}}                                      of model_config

nanochat's loader takes `model_config` literally, so nothing is added there. A step that is not that of the name, sizes that
are no positive whole numbers, a key of `midprep` that is missing or unknown, a model_config that was changed since (rows and
windows leave no trace in the shapes of weights): each is a ValueError in one line.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.config import RUN_CONFIG
from train.sizes import ModelConfig

Meta = dict[str, Any]

VERSION = 3  # of "midprep"; a key that is added to it or to its identity makes a new version
# each key, and the version that brought it
KEYS = {"identity": 1, "tokenizer_sha256": 1, "version": 2, "dtype": 2, "records_sha256": 2, "config_sha256": 3}
IDENTITY = dict.fromkeys((*RUN_CONFIG, "depth", "shards", "rows_per_step", "num_steps", "base"), 2)
SIZE_LIMIT = 1 << 31


def meta_path(root: Path, step: int) -> Path:
    return root / f"meta_{step:06d}.json"


def steps_in(root: Path) -> list[int]:
    """Steps of the complete checkpoints of a directory, ascending."""
    return [step for step in steps_with_meta(root) if not any(missing_files(root, step))]


def steps_with_meta(root: Path) -> list[int]:
    """The same, with those whose model was removed since, or not copied"""
    return sorted(
        int(name) for name in (path.stem[5:] for path in root.glob("meta_*.json")) if re.fullmatch("[0-9]{1,18}", name)
    )


def missing_files(root: Path, step: int) -> Iterator[Path]:
    """What a checkpoint is incomplete without, as far as it is not there (a link may lead to nothing)"""
    yield from (path for path in (meta_path(root, step), root / f"model_{step:06d}.pt") if not path.is_file())


def read_meta(root: Path, step: int) -> Meta:
    """The meta of a checkpoint, with a `model_config` of positive whole numbers. ValueError as the head of this file says."""
    path = meta_path(root, step)
    try:
        meta: Meta = json.loads(path.read_text(encoding="utf-8"))
        sizes = dict(meta["model_config"])
        _ = sizes["n_layer"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise refused(path, f"is not a meta with a model_config ({reason})") from None
    saved_step = meta.get("step", step)  # nanochat's reinforcement learning writes none
    if saved_step != step or isinstance(saved_step, bool):
        raise refused(path, f"says step {saved_step!r:.40}, its name {step}")
    for name in ModelConfig.__dataclass_fields__.keys() & sizes.keys() - {"window_pattern"}:
        if type(sizes[name]) is not int or not 0 < sizes[name] < SIZE_LIMIT:
            raise refused(path, f"has {name} {sizes[name]!r:.40}, wanted a positive whole number")
    if not isinstance(sizes.get("window_pattern", ""), str | None):
        raise refused(path, f"has window_pattern {sizes['window_pattern']!r:.40}, wanted letters")
    if "midprep" in meta:
        for problem in problems_of(meta["midprep"]):
            raise refused(path, problem)
        if "step" not in meta:
            raise refused(path, "has no step")
        if meta["midprep"].get("config_sha256") not in (None, config_sha256(sizes)):
            raise refused(path, "has another model_config than it was written with")
    return meta


def problems_of(midprep: Any) -> list[str]:
    """What cannot be true of "midprep". Version 1 had no number, and its identity not always every key."""
    if not isinstance(midprep, dict) or not isinstance(midprep.get("identity"), dict):
        return ["has no identity of its run under midprep"]
    version = midprep.get("version", 1)
    if type(version) is not int or not 1 <= version <= VERSION:
        return [f"has version {version!r:.40} of midprep's keys, this midprep knows 1 to {VERSION}"]
    problems = []
    for place, keys, known in (("midprep", midprep, KEYS), ("its identity", midprep["identity"], IDENTITY)):
        problems += [
            f"has {name!r:.40} in {place}, which no version writes" for name in sorted(keys.keys() - known.keys())
        ]
        needed = {name for name, since in known.items() if since <= version}
        problems += [f"has no {name!r} in {place}" for name in sorted(needed - keys.keys()) if version > 1]
    hashes: dict[str, Any] = {"tokenizer_sha256": midprep.get("tokenizer_sha256", "0" * 64)}
    if not problems and version > 1:
        records = midprep["records_sha256"]
        noted = records if isinstance(records, dict) else {}
        hashes |= {f"records_sha256 of {name}": noted.get(name) for name in ("model", "optim")}
    if not problems and version > 2:
        hashes["config_sha256"] = midprep["config_sha256"]
    return problems + [
        f"has {value!r:.40} for {name}, wanted 64 hexadecimal digits"
        for name, value in hashes.items()
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value)
    ]


def sealed(meta: Meta, records: dict[str, str]) -> Meta:
    """A meta with the version and the hashes by which reading it, and the files that it tells of, finds what was changed"""
    notes = {"version": VERSION, "records_sha256": records, "config_sha256": config_sha256(meta["model_config"])}
    return meta | {"midprep": meta["midprep"] | notes}


def config_sha256(model_config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(model_config, sort_keys=True).encode()).hexdigest()


def refused(path: Path, problem: str) -> ValueError:
    return ValueError(f"{path} {problem}: remove it to use the checkpoint before it, or give another directory")


def records_noted(meta: Meta, name: str) -> str | None:
    """What `records_sha256` was for "model" or "optim" when they were written; None where nobody noted it"""
    hashes: dict[str, str] = meta.get("midprep", {}).get("records_sha256", {})
    return hashes.get(name)
