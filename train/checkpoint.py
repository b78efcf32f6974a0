"""
Checkpoints in nanochat's layout, read and written.

    runs/mid/mid_checkpoints/d4/            mid_checkpoints, chatsft_checkpoints; base_checkpoints is nanochat's own
        model_000050.pt                     state dict
        optim_000050_rank0.pt               [AdamW's state dict, Muon's]; every rank has the same, so one file is enough
        meta_000050.json                    written last: without it a checkpoint does not count
        metrics.jsonl                       one object per step

Each file is written under a temporary name, synced and renamed, so a killed run leaves complete checkpoints only. A file is
checked before it is used (`train.tensors`, `train.meta`): damage is an error, and a checkpoint from elsewhere cannot run code.
The keys of a model tell its generation; a key that is missing, unknown or of another shape is an error that names it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from prep.files import nanochat_home, write_atomically
from train.meta import Meta, meta_path, missing_files, read_meta, records_noted, sealed, steps_in, steps_with_meta
from train.model import GPT
from train.sizes import ModelConfig
from train.tensors import fresh, read_tensors, records_sha256

STAGES = {"mid": "mid_checkpoints", "sft": "chatsft_checkpoints"}
BASES = {"mid": ("base_checkpoints", "mid_checkpoints"), "sft": ("mid_checkpoints", "base_checkpoints")}
KEYS_2026 = ("value_embeds", "smear_gate", "smear_lambda", "backout_lambda", "resid_lambdas", "x0_lambdas")
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # DDP, torch.compile, FSDP
MOMENTS = {"AdamW": ("step", "exp_avg", "exp_avg_sq"), "Muon": ("momentum_buffer",)}

Checkpoint = tuple[Path, int]  # directory and step


def find_checkpoint(
    name: str | Path, step: int | None = None, stages: tuple[str, ...] = (), out: Path | None = None
) -> Checkpoint:
    """
    The checkpoint of a path, of a tag (d12, or a name that --model-tag gave), or of "": the deepest model that nanochat has.

        a directory       itself, its models, then the same of each stage in it
        a tag, or ""      <NANOCHAT_BASE_DIR>/<stage>/<tag>, and its models, for each stage; then the same in `out`

    Models are the d<number>s, deepest first, then those with a name. The first directory in this order that has checkpoints
    counts; of these the last, or that of `step`. ValueError where several models with a name could be meant.
    """
    found = list(checkpoints_of(name, stages, out))
    if not found:
        homes = f"{nanochat_home()} (NANOCHAT_BASE_DIR)" + (f" or {out}" if name and out else "")
        is_directory = bool(name) and Path(name).is_dir()
        where = name if is_directory else f"{homes}, and {name or 'the path'} is not a directory"
        raise FileNotFoundError(
            f"no checkpoint (model_*.pt with its meta_*.json) in {where}: give the directory of one"
        )
    root, steps = found[0]
    same_place = [other.name for other, _ in found if other.parent == root.parent]
    if len(same_place) > 1 and not is_depth(root.name):
        raise ValueError(f"{root.parent} has several models ({', '.join(same_place)}): give one of them, as {root}")
    if step not in (None, *steps):
        raise FileNotFoundError(f"{root} has no step {step}, it has: {', '.join(map(str, steps))}")
    return root, steps[-1] if step is None else step


def checkpoints_of(
    name: str | Path, stages: tuple[str, ...] = (), out: Path | None = None
) -> Iterator[tuple[Path, list[int]]]:
    """Every directory that `name` can mean and that has checkpoints, in the order of `find_checkpoint`, with their steps"""
    path = Path(name)
    homes = [nanochat_home(), *([out] if name and out else [])]  # without a name, only nanochat's own
    places = list(dict.fromkeys(home / stage / path for home in homes for stage in stages))
    if bool(name) and path.is_dir():
        places = [path, *(path / stage for stage in stages)]
    for place in places:
        models = [child.name for child in place.iterdir() if child.is_dir()] if place.is_dir() else []
        depths = sorted(filter(is_depth, models), key=lambda model: int(model[1:]), reverse=True)
        for root in (place, *(place / model for model in (*depths, *sorted(set(models) - set(depths))))):
            steps = steps_in(root)
            if steps:
                yield root, steps


def is_depth(model: str) -> bool:
    """Whether a model has the name that its depth gives it, as d12"""
    return model[:1] == "d" and model[1:].isdecimal()


def find_run(root: Path, run_config: dict[str, Any], resume: str) -> int:
    """
    The step to resume from: the last complete checkpoint of the same run, or 0. ValueError for another run, or where the
    last checkpoint lost its model.
    """
    steps = steps_in(root)
    last = max(steps_with_meta(root), default=0)
    if resume == "auto" and last not in (0, *steps):
        found = f"{next(missing_files(root, last))} is missing, so the last checkpoint is not whole"
        otherwise = f"go on from step {steps[-1]}" if steps else "start again"
        raise ValueError(f"{found}: put it back, or remove {meta_path(root, last).name} to {otherwise}")
    if not steps:
        return 0
    saved = read_meta(root, steps[-1]).get("midprep")
    if saved is None:
        raise ValueError(f"{root} holds checkpoints that midprep did not write: give another --out")
    if resume == "never":
        return 0
    for name, value in run_config.items():
        saved_value = saved["identity"].get(name, value)  # an older version may not have saved it
        if saved_value != value:
            difference = f"{root} holds a run with {name} {saved_value!s:.24}, this one has {value!s:.24}"
            raise ValueError(f"{difference}: give another --out or --model-tag, or --resume never to replace it")
    return steps[-1]


def remove_run(root: Path) -> None:
    """Remove the checkpoints of a replaced run; the metas first, so that no checkpoint is ever incomplete."""
    for pattern in ("meta_*.json", "model_*.pt", "optim_*_rank*.pt", ".*.tmp"):
        for path in root.glob(pattern):
            path.unlink()


def model_config(saved: Meta, state: dict[str, Tensor], path: Path) -> ModelConfig:
    """The config of a state dict: sizes from meta, generation from the keys. Checked before a model of it is made."""
    names = set(ModelConfig.__dataclass_fields__)
    for name in sorted((names ^ set(saved)) - {"window_pattern"}):
        raise ValueError(f"{path}: model_config has {'no ' if name in names else ''}{name!r}, wanted {sorted(names)}")
    pattern = (saved.get("window_pattern") or "L").upper()
    is_2026 = any(key.startswith(KEYS_2026) for key in state)
    if is_2026 and not re.fullmatch("[SL]+", pattern):
        raise ValueError(f"{path}: window_pattern is {pattern!r:.40}, wanted letters S and L")
    if not is_2026 and "S" in pattern:
        raise ValueError(f"{path}: window_pattern {pattern!r:.40} is of 2026-07, but no key is (no smear_gate)")
    config = ModelConfig(**{**saved, "window_pattern": pattern if is_2026 else None})
    if config.n_embd % (2 * config.n_head) or config.n_head % config.n_kv_head:
        heads = f"{config.n_head} heads, {config.n_kv_head} of keys"
        raise ValueError(f"{path}: width {config.n_embd} cannot be divided among {heads}: its meta is wrong")
    layers = {match[1] for match in map(re.compile(r"transformer\.h\.(\d+)\.").match, state) if match}
    if len(layers) != config.n_layer:
        raise ValueError(f"{path}: n_layer is {config.n_layer} in its meta, its keys have {len(layers)}")
    check_shape("transformer.wte.weight", state, (config.padded_vocab_size, config.n_embd), config, path)
    return config


def load_model(root: str | Path, step: int | None = None, device: str | torch.device = "cpu") -> tuple[GPT, Meta]:
    """
    The model of a checkpoint and its meta. Its weights are contiguous float32 on every device, whatever the file has.

        model, meta = load_model("runs/mid")
        logits = model(torch.tensor([[1, 2, 3]]))   # (1, 3, V) float32
    """
    root, step = find_checkpoint(root, step, (STAGES["sft"], *BASES["sft"]))
    path = root / f"model_{step:06d}.pt"
    meta = read_meta(root, step)
    state = plain_names(read_tensors(path, records_noted(meta, "model")), path)
    config = model_config(meta["model_config"], state, path)
    with torch.device("meta"):
        model = GPT(config)
    if config.is_2026:
        state.setdefault("resid_lambdas", torch.ones(config.n_layer))
        state.setdefault("x0_lambdas", torch.zeros(config.n_layer))
    expected = model.state_dict()
    for name in (*state, *expected):
        check_shape(name, state, tuple(expected[name].shape) if name in expected else None, config, path)
    for name in expected:  # one at a time, so memory holds one copy of the model, and one weight of the file
        state[name] = fresh(state[name], torch.float32, device)
    model.load_state_dict(state, assign=True)
    return model, meta


def plain_names(state: Any, path: Path) -> dict[str, Tensor]:
    """A state dict without what wrappers put into its names: `_orig_mod.module.lm_head.weight` -> `lm_head.weight`"""
    if not isinstance(state, dict) or not all(type(k) is str and isinstance(v, Tensor) for k, v in state.items()):
        raise ValueError(f"{path} is not a state dict (names and tensors)")
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        short = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if short in plain:
            raise ValueError(f"{path}: {short} occurs twice, with and without the prefix of a wrapper ({name})")
        plain[short] = value
    return plain


def check_shape(
    name: str, state: dict[str, Tensor], shape: tuple[int, ...] | None, config: ModelConfig, path: Path
) -> None:
    """ValueError for a key of a state dict that is missing, unknown (`shape` is None) or of another shape."""
    saved_shape = tuple(state[name].shape) if name in state else None
    if saved_shape != shape:
        generation = "2026-07" if config.is_2026 else "2025-12"
        found, wanted = ("missing" if each is None else each for each in (saved_shape, shape))
        raise ValueError(f"{path}: {name} is {found}, in a model of {generation} with this config it is {wanted}")


def load_optimizers(root: Path, step: int, optimizers: tuple[Optimizer, ...]) -> None:
    """
    Moments from optim_<step>_rank0.pt, each a fresh tensor with the dtype of its weight, as torch makes them; learning rates
    stay those of the flags. ValueError if they do not fit.
    """
    path = root / f"optim_{step:06d}_rank0.pt"
    if (root / f"optim_{step:06d}_rank1.pt").exists():
        raise ValueError(f"{path} is one of several parts (there is a rank1): a state in parts cannot be loaded")
    states = read_tensors(path, records_noted(read_meta(root, step), "optim"))
    if not isinstance(states, list) or len(states) != len(optimizers):
        raise ValueError(f"{path} does not hold [AdamW, Muon], as 2025-12 writes them: its state cannot be loaded")
    for optimizer, saved in zip(optimizers, states, strict=True):
        kind = type(optimizer).__name__
        params = [param for group in optimizer.param_groups for param in group["params"]]
        state = saved.get("state") if isinstance(saved, dict) else None
        if not isinstance(state, dict) or state.keys() != set(range(len(params))):
            num_saved = len(state) if isinstance(state, dict) else 0
            raise ValueError(f"{path}: {kind} has state for {num_saved} weights, the model has {len(params)}")
        moments = {  # torch numbers weights in the order of the groups
            number: fresh_moments(state.pop(number), param, MOMENTS[kind], f"{number} of {kind}", path)
            for number, param in enumerate(params)
        }
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})


def fresh_moments(saved: Any, param: Tensor, names: tuple[str, ...], owner: str, path: Path) -> dict[str, Tensor]:
    """The state of one weight: its moments by name, and AdamW's number of steps, a float32 scalar as torch has it"""
    if not isinstance(saved, dict) or saved.keys() != set(names):
        shown = sorted(map(str, saved)) if isinstance(saved, dict) else type(saved).__name__
        raise ValueError(f"{path}: state {owner} is {shown!s:.80}, not {sorted(names)}")
    moments = {}
    for name, value in saved.items():
        is_step = name == "step"
        tensor = torch.tensor(float(value)) if is_step and type(value) in (int, float) and abs(value) < 1e9 else value
        shape = () if is_step else tuple(param.shape)
        saved_shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(value).__name__
        if saved_shape != shape:
            raise ValueError(f"{path}: {name} {owner} is {saved_shape}, not {shape}")
        if is_step and not 0 <= float(tensor) < 1e9:
            raise ValueError(f"{path}: step {owner} is {float(tensor)}, wanted a number of steps")
        moments[name] = fresh(tensor, torch.float32 if is_step else param.dtype, param.device)
    return moments


def save_checkpoint(root: Path, step: int, model: GPT, optimizers: tuple[Optimizer, ...], meta: Meta) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path, optim_path = root / f"model_{step:06d}.pt", root / f"optim_{step:06d}_rank0.pt"
    states = [optimizer.state_dict() for optimizer in optimizers]
    write_atomically(optim_path, lambda file: torch.save(states, file))
    write_atomically(path, lambda file: torch.save(model.state_dict(), file))
    meta = {"step": step, "model_config": model.config.to_meta(), **meta}
    if "midprep" in meta:
        meta = sealed(meta, {"model": records_sha256(path), "optim": records_sha256(optim_path)})
    text = json.dumps(meta, indent=2)
    write_atomically(meta_path(root, step), lambda file: file.write(text.encode()))
    return path
