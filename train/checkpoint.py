"""
Checkpoints in nanochat's layout, read and written.

    runs/mid/mid_checkpoints/d4/            mid_checkpoints, chatsft_checkpoints; base_checkpoints is nanochat's own
        model_000050.pt                     state dict
        optim_000050_rank0.pt               [AdamW's state dict, Muon's]; every rank has the same, so one file is enough
        meta_000050.json                    written last: without it a checkpoint does not count
        metrics.jsonl                       one object per step

Each file is written under a temporary name, synced and renamed, so a killed run leaves complete checkpoints only. Files are
read with `weights_only=True`: a checkpoint from elsewhere cannot run code. The keys of a model tell its generation; a key
that is missing, unknown or of another shape is an error that names it.
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
Checkpoint = tuple[Path, int]  # directory and step


def steps_in(root: Path) -> list[int]:
    """Steps of the complete checkpoints of a directory, ascending."""
    steps = [int(name) for name in (path.stem[5:] for path in root.glob("meta_*.json")) if name.isdigit()]
    return sorted(step for step in steps if (root / f"model_{step:06d}.pt").is_file())


def find_checkpoint(name: str | Path, step: int | None = None, stages: tuple[str, ...] = ()) -> Checkpoint:
    """
    The checkpoint of a path, of a tag of nanochat's (d12), or of "": the deepest model that nanochat has.

        a directory       itself, its d<number>s (deepest first), then the same of each stage in it
        a tag, or ""      <NANOCHAT_BASE_DIR>/<stage>/<tag>, and its d<number>s, for each stage

    The first directory in this order that has checkpoints counts; of these the last, or that of `step`.
    """
    path = Path(name)
    nanochat = Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat").expanduser()
    is_directory = bool(name) and path.is_dir()
    places = [nanochat / stage / path for stage in stages]
    if is_directory:
        places = [path, *(path / stage for stage in stages)]
    for place in places:
        depths = sorted((int(child.name[1:]) for child in place.glob("d*") if child.name[1:].isdigit()), reverse=True)
        for root in (place, *(place / f"d{depth}" for depth in depths)):
            steps = steps_in(root)
            if steps and step not in (None, *steps):
                raise FileNotFoundError(f"{root} has no step {step}, it has: {', '.join(map(str, steps))}")
            if steps:
                return root, steps[-1] if step is None else step
    where = name if is_directory else f"{nanochat} (NANOCHAT_BASE_DIR), and {name or 'the path'} is not a directory"
    raise FileNotFoundError(f"no checkpoint (model_*.pt with its meta_*.json) in {where}: give the directory of one")


def find_run(root: Path, run_config: dict[str, Any], resume: str) -> int:
    """The step to resume from: the last complete checkpoint of the same run, or 0. ValueError for another run."""
    steps = steps_in(root)
    if not steps:
        return 0
    saved = read_meta(root, steps[-1]).get("midprep")
    if saved is None:
        raise ValueError(f"{root} holds checkpoints that midprep did not write: give another --out")
    if resume == "never":
        return 0
    for name, value in run_config.items():
        saved_value = saved.get("identity", {}).get(name, value)  # an older version may not have saved it
        if saved_value != value:
            difference = f"{root} holds a run with {name} {saved_value!s:.24}, this one has {value!s:.24}"
            raise ValueError(f"{difference}: give another --out, or --resume never to replace it")
    return steps[-1]


def read_meta(root: Path, step: int) -> Meta:
    path = root / f"meta_{step:06d}.json"
    try:
        meta: Meta = json.loads(path.read_text(encoding="utf-8"))
        int(meta["model_config"]["n_layer"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is not a meta with a model_config ({error}): remove it, or give another --out"
        ) from None
    return meta


def remove_run(root: Path) -> None:
    """Remove the checkpoints of a replaced run; the metas first, so that no checkpoint is ever incomplete."""
    for pattern in ("meta_*.json", "model_*.pt", "optim_*_rank*.pt", ".*.tmp"):
        for path in root.glob(pattern):
            path.unlink()


def read_tensors(path: Path) -> Any:
    """A .pt file on the CPU. Only tensors, numbers, strings and containers of them are accepted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles it does not know, which are errors here
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        name = re.search(r"GLOBAL (\S+)|Unsupported \w+ (\S+)", str(error))
        reason = f"holds {name[1] or name[2]}" if name else re.split(r"[.:]\s|\n", str(error))[0] or "truncated"
        advice = "nothing in it was run. Remove its meta_*.json to resume from the checkpoint before"
        raise ValueError(f"{path} is not a file of plain tensors ({reason}): {advice}") from None


def model_config(saved: Meta, state: dict[str, Tensor], path: Path) -> ModelConfig:
    """The config of a state dict: sizes from meta, generation from the keys."""
    names = set(ModelConfig.__dataclass_fields__)
    for name in sorted((names ^ set(saved)) - {"window_pattern"}):
        raise ValueError(f"{path}: model_config has {'no ' if name in names else ''}{name!r}, wanted {sorted(names)}")
    pattern = (saved.get("window_pattern") or "L").upper()
    is_2026 = any(key.startswith(KEYS_2026) for key in state)
    if is_2026 and not re.fullmatch("[SL]+", pattern):
        raise ValueError(f"{path}: window_pattern is {pattern!r}, wanted letters S and L")
    if not is_2026 and "S" in pattern:
        raise ValueError(f"{path}: window_pattern {pattern!r} is of 2026-07, but no key is (no smear_gate)")
    return ModelConfig(**{**saved, "window_pattern": pattern if is_2026 else None})


def load_model(root: str | Path, step: int | None = None, device: str | torch.device = "cpu") -> tuple[GPT, Meta]:
    """
    The model of a checkpoint and its meta.

        model, meta = load_model("runs/mid")
        logits = model(torch.tensor([[1, 2, 3]]))   # (1, 3, V) float32
    """
    root, step = find_checkpoint(root, step, (STAGES["sft"], *BASES["sft"]))
    path = root / f"model_{step:06d}.pt"
    meta = read_meta(root, step)
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
    check_shapes(state, model, path)
    model.load_state_dict(state, assign=True)
    on_cpu = torch.device(device).type == "cpu"  # where bfloat16 is slow
    return model.float() if on_cpu else model.to(device), meta


def check_shapes(state: dict[str, Tensor], model: GPT, path: Path) -> None:
    """ValueError for the first key of a state dict that is missing, unknown or of another shape."""
    generation = "2026-07" if model.config.is_2026 else "2025-12"
    expected = model.state_dict()
    for name in (*state, *expected):
        saved_shape, shape = (tuple(each[name].shape) if name in each else "missing" for each in (state, expected))
        if saved_shape != shape:
            raise ValueError(
                f"{path}: {name} is {saved_shape}, in a model of {generation} with this config it is {shape}"
            )


def load_optimizers(root: Path, step: int, optimizers: tuple[Optimizer, ...]) -> None:
    """Moments from optim_<step>_rank0.pt; learning rates stay those of the flags. ValueError if they do not fit."""
    path = root / f"optim_{step:06d}_rank0.pt"
    if (root / f"optim_{step:06d}_rank1.pt").exists():
        raise ValueError(f"{path} is one of several parts (there is a rank1): a state in parts cannot be loaded")
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: remove the meta beside it to resume from the checkpoint before")
    states = read_tensors(path)
    if not isinstance(states, list) or len(states) != len(optimizers):
        raise ValueError(f"{path} does not hold [AdamW, Muon], as 2025-12 writes them: its state cannot be loaded")
    for optimizer, saved in zip(optimizers, states, strict=True):
        kind = type(optimizer).__name__
        params = [param for group in optimizer.param_groups for param in group["params"]]
        num_saved = len(dict(saved).get("state", ()))
        if num_saved != len(params):
            raise ValueError(f"{path}: {kind} has state for {num_saved} weights, the model has {len(params)}")
        for number, state in saved["state"].items():  # torch numbers weights in the order of the groups
            shape = tuple(params[number].shape)
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim and tuple(value.shape) != shape:
                    raise ValueError(f"{path}: {name} {number} of {kind} is {tuple(value.shape)}, not {shape}")
        optimizer.load_state_dict(optimizer.state_dict() | {"state": saved["state"]})


def save_checkpoint(root: Path, step: int, model: GPT, optimizers: tuple[Optimizer, ...], meta: Meta) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"model_{step:06d}.pt"
    states = [optimizer.state_dict() for optimizer in optimizers]
    write_atomically(root / f"optim_{step:06d}_rank0.pt", lambda file: torch.save(states, file))
    write_atomically(path, lambda file: torch.save(model.state_dict(), file))
    text = json.dumps({"step": step, "model_config": model.config.to_meta(), **meta}, indent=2)
    write_atomically(root / f"meta_{step:06d}.json", lambda file: file.write(text.encode()))
    return path
