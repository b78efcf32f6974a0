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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from prep.files import write_atomically
from train.model import GPT
from train.sizes import ModelConfig

STAGES = {"mid": "mid_checkpoints", "sft": "chatsft_checkpoints"}
BASES = {"mid": ("base_checkpoints", "mid_checkpoints"), "sft": ("mid_checkpoints", "base_checkpoints")}
KEYS_2026 = ("value_embeds", "smear_gate", "smear_lambda", "backout_lambda", "resid_lambdas", "x0_lambdas")

Meta = dict[str, Any]


def steps_in(root: Path) -> list[int]:
    """Steps of the whole checkpoints of a directory, ascending."""
    steps = [int(name) for name in (path.stem[5:] for path in root.glob("meta_*.json")) if name.isdigit()]
    return sorted(step for step in steps if (root / f"model_{step:06d}.pt").is_file())


def find_checkpoint(name: str | Path, step: int | None = None, stages: tuple[str, ...] = ()) -> tuple[Path, int]:
    """
    (directory, step) of a path, of a tag of nanochat's, or of "": the largest that nanochat has.

    The first place that has a checkpoint counts: the path, then its `stages`; in each the directory itself, then its
    d<number>s, the deepest first. Of that the largest step, if none is given.
    """
    path, nanochat = Path(name), Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat").expanduser()
    given = name and path.is_dir()
    places = [path, *(path / stage for stage in stages)] if given else [nanochat / stage / path for stage in stages]
    for place in places:
        depths = sorted((int(child.name[1:]) for child in place.glob("d*") if child.name[1:].isdigit()), reverse=True)
        for root in (place, *(place / f"d{depth}" for depth in depths)):
            steps = steps_in(root)
            if steps and step not in (None, *steps):
                raise FileNotFoundError(f"{root} has no step {step}, it has: {', '.join(map(str, steps))}")
            if steps:
                return root, steps[-1] if step is None else step
    where = name if given else f"{nanochat} (NANOCHAT_BASE_DIR), and {name or 'the path'} is no directory"
    raise FileNotFoundError(f"no checkpoint (model_*.pt with its meta_*.json) in {where}: give the directory of one")


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
        theirs = ours.get("identity", {}).get(name, value)  # what an older version did not note is let be
        if theirs != value:
            found = f"{root} holds a run with {name} {theirs!s:.24}, this one has {value!s:.24}"
            raise ValueError(f"{found}: give another --out, or --resume never to replace it")
    return steps[-1]


def read_meta(root: Path, step: int) -> Meta:
    path = root / f"meta_{step:06d}.json"
    try:
        meta: Meta = json.loads(path.read_text(encoding="utf-8"))
        int(meta["model_config"]["n_layer"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is no meta with a model_config ({error}): remove it, or give another --out") from None
    return meta


def remove_run(root: Path) -> None:
    """Take away the checkpoints of a replaced run; the metas first, so that none of them is ever found half gone."""
    for pattern in ("meta_*.json", "model_*.pt", "optim_*_rank*.pt", ".*.tmp"):
        for path in root.glob(pattern):
            path.unlink()


def read_tensors(path: Path) -> Any:
    """A .pt file on the CPU. Only tensors, numbers, strings and containers of them are let in."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles it does not know, which are errors here
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        found = re.search(r"GLOBAL (\S+)|Unsupported \w+ (\S+)", str(error))
        reason = f"holds {found[1] or found[2]}" if found else re.split(r"[.:]\s|\n", str(error))[0] or "cut short"
        advice = "nothing of it was run. Remove its meta_*.json to go on from the one before"
        raise ValueError(f"{path} is not a file of plain tensors ({reason}): {advice}") from None


def model_config(found: Meta, state: dict[str, Tensor], path: Path) -> ModelConfig:
    """The config of a state dict: sizes from meta, generation from the keys."""
    fields = set(ModelConfig.__dataclass_fields__)
    for name in sorted((fields ^ set(found)) - {"window_pattern"}):
        raise ValueError(f"{path}: model_config has {'no ' if name in fields else ''}{name!r}, wanted {sorted(fields)}")
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
    generation, wanted = "2026-07" if config.is_2026 else "2025-12", model.state_dict()
    for name in (*state, *wanted):
        theirs, ours = (tuple(each[name].shape) if name in each else "missing" for each in (state, wanted))
        if theirs != ours:
            raise ValueError(f"{path}: {name} is {theirs}, in a model of {generation} with this config it is {ours}")
    model.load_state_dict(state, assign=True)
    on_cpu = torch.device(device).type == "cpu"  # where bfloat16 is slow
    return model.float() if on_cpu else model.to(device), meta


def load_optimizers(root: Path, step: int, optimizers: tuple[Optimizer, ...]) -> None:
    """Moments from optim_<step>_rank0.pt; rates stay those of the flags. ValueError says why, if they do not fit."""
    path = root / f"optim_{step:06d}_rank0.pt"
    if (root / f"optim_{step:06d}_rank1.pt").exists():
        raise ValueError(f"{path} is one part of several (a rank1 lies beside it): cut up, it can't be used")
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: remove the meta beside it to go on from the checkpoint before")
    saved = read_tensors(path)
    if not isinstance(saved, list) or len(saved) != len(optimizers):
        raise ValueError(f"{path} does not hold [AdamW, Muon], as 2025-12 writes them: its state can't be used")
    for optimizer, theirs in zip(optimizers, saved, strict=True):
        kind, params = type(optimizer).__name__, [p for group in optimizer.param_groups for p in group["params"]]
        if (num_theirs := len(dict(theirs).get("state", ()))) != len(params):
            raise ValueError(f"{path}: {kind} has state for {num_theirs} weights, the model has {len(params)}")
        for number, state in theirs["state"].items():  # torch numbers weights in the order of the groups
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim and value.shape != params[number].shape:
                    found, wanted = tuple(value.shape), tuple(params[number].shape)
                    raise ValueError(f"{path}: {name} {number} of {kind} is {found}, not {wanted}")
        optimizer.load_state_dict(optimizer.state_dict() | {"state": theirs["state"]})


def save_checkpoint(root: Path, step: int, model: GPT, optimizers: tuple[Optimizer, ...], meta: Meta) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"model_{step:06d}.pt"
    states = [optimizer.state_dict() for optimizer in optimizers]
    write_atomically(root / f"optim_{step:06d}_rank0.pt", lambda file: torch.save(states, file))
    write_atomically(path, lambda file: torch.save(model.state_dict(), file))
    text = json.dumps({"step": step, "model_config": model.config.to_meta(), **meta}, indent=2)
    write_atomically(root / f"meta_{step:06d}.json", lambda file: file.write(text.encode()))
    return path
