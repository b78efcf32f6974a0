"""
`--inherit`: what is not given comes from the base's meta, as in nanochat's SFT of 2026-07.

    --base d20 --inherit --matrix-lr 0.01      meta of d20                                     the run
    total_batch_size      not given            1048576, at its top (2025-12: in user_config)   1048576
    embedding_lr          not given            0.3, in user_config                             0.3
    unembedding_lr        not given            none                                            0.004, the default
    matrix_lr             0.01                 0.02, in user_config                            0.01
    init_lr_frac          not given                                                            0.8
    warmdown_ratio        not given                                                            0.5
    base_optimizer        not given            optim_*_rank0.pt is the whole state             True

The values become those of the run's Config: they are part of what the run is, and its checkpoints note them. A run that goes
on takes them from there, with its base or without. Rows per micro-batch are not taken: no result depends on them.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.base import Say, Start
from train.config import Config, flag_name
from train.meta import Meta, meta_path, read_meta, steps_in
from train.tensors import read_layout

NANOCHATS = {"init_lr_frac": 0.8, "warmdown_ratio": 0.5}  # of its SFT, whatever the base has
KINDS: dict[str, tuple[type, ...]] = {"total_batch_size": (int,), "base_optimizer": (bool,)}  # others: any number

Settings = dict[str, Any]


def inherit(config: Config, start: Start, say: Say) -> Config:
    """A run's settings, those that were not given included. ValueError where a meta has something else than a value."""
    if not config.inherit:
        return config
    values = settings_of_run(config, start.root)
    if values is not None:
        say(f"--inherit: {as_flags(values)} (as {start.root} has it)")
    elif start.base is not None:
        values = settings_of_base(config, *start.base, say)
    else:
        problem = f"--base {config.base} was not found, and {start.root} began with other flags than these"
        raise ValueError(f"{problem}: give its flags, or the base")
    return replace(config, **{name: value for name, value in values.items() if value is not None})


def settings_of_run(config: Config, root: Path) -> Settings | None:
    """What the run in `root` took over when it began with the same flags; None where there is no such run"""
    steps = steps_in(root) if config.resume == "auto" else []
    noted = read_meta(root, steps[-1]).get("user_config") if steps else None
    if not isinstance(noted, dict) or noted.get("inherit") != list(config.inherit):
        return None
    return {name: checked(noted.get(name), name, meta_path(root, steps[-1])) for name in config.inherit}


def settings_of_base(config: Config, root: Path, step: int, say: Say) -> Settings:
    """What a base gives of the settings that were not given, None where it gives none; where each is from is said."""
    meta = read_meta(root, step)
    values = {name: NANOCHATS.get(name) or value_in(meta, name, meta_path(root, step)) for name in config.inherit}
    missing = [flag_name(name) for name, value in values.items() if value is None and name != "base_optimizer"]
    groups = {
        f"(of {root}, step {step})": as_flags({name: v for name, v in values.items() if name not in NANOCHATS}),
        "(of nanochat's SFT)": as_flags({name: v for name, v in values.items() if name in NANOCHATS}),
        "(not in its meta: as without --inherit)": " ".join(missing),
    }
    say("--inherit: " + ", ".join(f"{flags} {origin}" for origin, flags in groups.items() if flags))
    if "base_optimizer" in config.inherit:
        problem = why_not_loadable(root, step)
        without = f"training starts without the base's optimizer state: {problem}"
        say("--inherit: " + (without if problem else "--base-optimizer (--no-base-optimizer starts without its state)"))
        values["base_optimizer"] = problem is None
    return values


def value_in(meta: Meta, name: str, path: Path) -> Any:
    """A setting at the top of a meta or in its user_config; None where neither has it, or has nanochat's -1"""
    user_config = meta.get("user_config")
    for place in (meta, user_config if isinstance(user_config, dict) else {}):
        if place.get(name) not in (None, -1) and name != "base_optimizer":
            return checked(place[name], name, path)
    return None


def checked(value: Any, name: str, path: Path) -> Any:
    """A setting as a meta has it. ValueError if it cannot be one."""
    is_number = type(value) in KINDS.get(name, (int, float)) and 0 <= value < math.inf
    if value is not None and (not is_number or (name == "total_batch_size" and value == 0)):
        raise ValueError(f"{path} has {value!r:.40} for {name}, wanted a number: give {flag_name(name)}")
    return value


def why_not_loadable(root: Path, step: int) -> str | None:
    """Why the optimizer state of a checkpoint cannot be loaded, by the names and shapes in its file; None if it can"""
    path = root / f"optim_{step:06d}_rank0.pt"
    if not path.is_file():
        return f"there is no {path}"
    if (root / f"optim_{step:06d}_rank1.pt").exists():
        return f"it is in parts, {path} and others for more ranks"
    try:
        state = read_layout(path)
    except ValueError as error:
        raise ValueError(f"{error}, or give --no-base-optimizer") from None
    if isinstance(state, list) and len(state) == 2:
        return None
    return f"{path} does not hold [AdamW, Muon], as 2025-12 and midprep write them"


def as_flags(values: Settings) -> str:
    """
    >>> as_flags({"matrix_lr": 0.02, "embedding_lr": None, "base_optimizer": False})
    '--matrix-lr 0.02 --no-base-optimizer'
    """
    words = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(flag_name(name) if value else f"--no-{name.replace('_', '-')}")
        elif value is not None:
            words.append(f"{flag_name(name)} {value}")
    return " ".join(words)
