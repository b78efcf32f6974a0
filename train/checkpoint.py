"""
Checkpoints in nanochat's layout, read and written.

    runs/mid/mid_checkpoints/d4/            mid_checkpoints, chatsft_checkpoints; base_checkpoints is nanochat's own
        model_000050.pt                     state dict
        optim_000050_rank0.pt               [AdamW's state dict, Muon's]; every rank holds the same, so one file is all
        meta_000050.json                    written last: without it a checkpoint does not count
        metrics.jsonl                       one object a step

Each file is written under a temporary name, synced and renamed, so a killed run leaves whole checkpoints only. Files are
read with `weights_only=True`: a checkpoint from elsewhere can't run code. Which generation a model is, its keys say; a
key that is missing, left over or of another shape is an error that names it.
"""

import json
import os
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.optim import Optimizer

from train.model import GPT, ModelConfig

STAGES = {"mid": "mid_checkpoints", "sft": "chatsft_checkpoints"}
BASES = {"mid": ("base_checkpoints", "mid_checkpoints"), "sft": ("mid_checkpoints", "base_checkpoints")}
KEYS_2026 = ("value_embeds", "smear_gate", "smear_lambda", "backout_lambda", "resid_lambdas", "x0_lambdas")

Meta = dict[str, Any]

# ---- where they lie ----


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


# ---- what is in them ----


def read_tensors(path: Path) -> Any:
    """A .pt file on the CPU. Only tensors, numbers, strings and containers of them are let in."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: the checkpoint is not whole, give another --base or --base-step")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles it does not know, which are errors here
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        found = re.search(r"GLOBAL (\S+)|Unsupported \w+ (\S+)", str(error))
        reason = f"holds {found[1] or found[2]}" if found else (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is not a file of plain tensors ({reason}): nothing of it was run") from None


def model_config(found: Meta, state: dict[str, Tensor], path: Path) -> ModelConfig:
    """The config of a state dict: sizes from meta, generation from the keys."""
    fields = set(ModelConfig.__dataclass_fields__)
    for name in sorted(set(found) - fields):
        raise ValueError(f"{path}: model_config has {name!r}, which neither generation of nanochat has")
    for name in sorted(fields - {"window_pattern"} - set(found)):
        raise ValueError(f"{path}: model_config has no {name!r}")
    pattern = (found.get("window_pattern") or "L").upper()
    is_2026 = any(key.startswith(KEYS_2026) for key in state)
    if is_2026 and not re.fullmatch("[SL]+", pattern):
        raise ValueError(f"{path}: window_pattern is {pattern!r}, wanted letters S and L")
    if not is_2026 and "S" in pattern:
        raise ValueError(f"{path}: window_pattern {pattern!r} is of 2026-07, but no key is (no smear_gate)")
    return ModelConfig(**{**found, "window_pattern": pattern if is_2026 else None})


def load_model(root: str | Path, step: int | None = None, device: str | torch.device = "cpu") -> tuple[GPT, Meta]:
    """
    The model of a checkpoint and its meta.

        model, meta = load_model("runs/mid")
        logits = model(torch.tensor([[1, 2, 3]]))   # (1, 3, V) float32
    """
    root, step = find_checkpoint(root, step, (STAGES["sft"], *BASES["sft"]))
    path, meta = root / f"model_{step:06d}.pt", read_meta(root, step)
    state = read_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is not a state dict (names and tensors)")
    state = {name.removeprefix("_orig_mod."): value for name, value in state.items()}
    config = model_config(meta["model_config"], state, path)
    with torch.device("meta"):
        model = GPT(config)
    if config.is_2026:
        state.setdefault("resid_lambdas", torch.ones(config.n_layer))
        state.setdefault("x0_lambdas", torch.zeros(config.n_layer))
    check_keys(state, model.state_dict(), path, "2026-07" if config.is_2026 else "2025-12")
    model.load_state_dict(state, assign=True)
    on_cpu = torch.device(device).type == "cpu"  # where bfloat16 is slow
    return model.float() if on_cpu else model.to(device), meta


def check_keys(state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path, generation: str) -> None:
    for name in (*state, *wanted):
        if name not in wanted:
            raise ValueError(f"{path} has the key {name}, which a model of {generation} with this config has not")
        if name not in state:
            raise ValueError(f"{path} has no key {name}, which a model of {generation} with this config has")
        found, shape = tuple(state[name].shape), tuple(wanted[name].shape)
        if found != shape:
            raise ValueError(f"{path}: {name} is {found}, model_config wants {shape}")


def load_optimizers(root: Path, step: int, optimizers: tuple[Optimizer, ...]) -> None:
    """Moments from optim_<step>_rank0.pt; rates stay those of the flags. ValueError says why, if they do not fit."""
    path = root / f"optim_{step:06d}_rank0.pt"
    if (root / f"optim_{step:06d}_rank1.pt").exists():
        raise ValueError(f"{path} is one part of several (a rank1 lies beside it): cut up, it can't be used")
    saved = read_tensors(path)
    if not isinstance(saved, list) or len(saved) != len(optimizers):
        raise ValueError(f"{path} does not hold [AdamW, Muon], as 2025-12 writes them: its state can't be used")
    for optimizer, theirs in zip(optimizers, saved, strict=True):
        kind, state = type(optimizer).__name__, theirs["state"]
        ids = [number for group in theirs["param_groups"] for number in group["params"]]
        params = [p for group in optimizer.param_groups for p in group["params"]]
        if len(ids) != len(params):
            raise ValueError(f"{path}: {kind} has state for {len(ids)} weights, the model has {len(params)}")
        for number, p in zip(ids, params, strict=True):
            for name, value in state.get(number, {}).items():
                if isinstance(value, Tensor) and value.ndim and value.shape != p.shape:
                    raise ValueError(f"{path}: {name} {number} of {kind} is {tuple(value.shape)}, not {tuple(p.shape)}")
        ours = optimizer.state_dict()
        ours["state"] = {at: state[number] for at, number in enumerate(ids) if number in state}
        optimizer.load_state_dict(ours)


def save_checkpoint(root: Path, step: int, model: GPT, optimizers: tuple[Optimizer, ...], meta: Meta) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"model_{step:06d}.pt"
    states = [optimizer.state_dict() for optimizer in optimizers]
    write_atomically(root / f"optim_{step:06d}_rank0.pt", lambda file: torch.save(states, file))
    write_atomically(path, lambda file: torch.save(model.state_dict(), file))
    text = json.dumps({"step": step, "model_config": model.config.to_meta(), **meta}, indent=2)
    write_atomically(root / f"meta_{step:06d}.json", lambda file: file.write(text.encode()))
    return path
