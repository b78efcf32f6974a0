"""
Every setting of a run: one flat frozen dataclass, from which the flags are made and which is saved in each checkpoint.

    device_batch_size: int | None = flag(None, int, "rows ...")   <->   --device-batch-size 8

Names and defaults are nanochat's where it has them. None means: chosen for the shards and the machine, and printed.
"""

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn

from train.schedule import LR_FRAC

DESCRIPTION = "Train on finished shards: mid (every token is a target) or sft (only what the assistant says is)."


def flag(default: Any, kind: type, text: str, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"kind": kind, "help": text, "choices": choices})


@dataclass(frozen=True)
class Config:
    shards: str = flag("", str, "directory of a finished build (required)")
    mode: str = flag(
        "mid", str, "mid: every filled position is a target; sft: only what the mask marks", ("mid", "sft")
    )
    split: str = flag("train", str, "split to train on")
    val_split: str = flag("val", str, "split to evaluate on")
    attention: str = flag("causal", str, "isolated: documents do not see each other", ("causal", "isolated"))
    base: str | None = flag(
        None, str, "start from a checkpoint: a path, or nanochat's tag (d12); alone: its largest model"
    )
    base_step: int | None = flag(None, int, "step of --base (default: its last)")
    base_optimizer: bool = flag(False, bool, "also load the optimizer state of --base")
    inherit: tuple[str, ...] = flag(
        (), bool, "take what is not given from --base, as nanochat's SFT of 2026-07 does: batch size, rates, optimizer"
    )
    depth: int | None = flag(None, int, "layers of a model from scratch (default: 4 on a CPU, 12 on a GPU)")
    generation: str | None = flag(
        None, str, "nanochat's generation of a model from scratch (default: 2025-12)", ("2025-12", "2026-07")
    )
    out: str | None = flag(None, str, "directory for checkpoints (default: runs/<name of the shards>)")
    model_tag: str | None = flag(None, str, "name of the model's directory in --out (default: d<depth>)")
    resume: str = flag("auto", str, "auto: continue an unfinished run in --out; never: replace it", ("auto", "never"))
    run: str = flag("dummy", str, "name of the run for --logger; dummy: only metrics.jsonl")
    logger: str | None = flag(None, str, "where a named run is logged (default: wandb)", ("wandb", "trackio"))
    device: str = flag("auto", str, "auto: CUDA if there is a GPU", ("auto", "cpu", "cuda"))
    dtype: str = flag("auto", str, "dtype of activations; auto: bfloat16 on a GPU", ("auto", "float32", "bfloat16"))
    compile: bool | None = flag(None, bool, "use torch.compile (default: on a GPU)")
    device_batch_size: int | None = flag(None, int, "rows per micro-batch of a rank (default: up to 32; CPU: 8)")
    total_batch_size: int | None = flag(None, int, "tokens per step (default: 524288, or less to have 50 steps)")
    num_iterations: int | None = flag(None, int, "number of steps, instead of --num-epochs")
    num_epochs: float = flag(1.0, float, "number of passes over the rows")
    embedding_lr: float = flag(0.2, float, "learning rate of wte (AdamW)")
    unembedding_lr: float = flag(0.004, float, "learning rate of lm_head (AdamW)")
    matrix_lr: float = flag(0.02, float, "learning rate of the other matrices (Muon)")
    weight_decay: float = flag(0.0, float, "weight decay of AdamW")
    init_lr_frac: float | None = flag(None, float, "factor of all learning rates (default: 1 for mid, 0.02 for sft)")
    warmdown_ratio: float = flag(0.2, float, "part of the steps in which the learning rate falls to 0")
    eval_every: int = flag(150, int, "steps between evaluations; also before the first and after the last; 0: none")
    eval_at_end: bool = flag(False, bool, "evaluate after the last step only, whatever --eval-every is")
    eval_tasks_every: int = flag(
        0,
        int,
        "steps between asking what the build's mixture holds out, as midprep evaluate; also after the last; 0: never",
    )
    eval_tokens: int | None = flag(None, int, "tokens per evaluation (default: 10485760, at most a tenth of the run's)")
    save_every: int = flag(500, int, "steps between checkpoints; also after the last")
    seed: int = flag(42, int, "seed of weights from scratch, and of the order of later epochs")
    verify: bool = flag(False, bool, "first compare the shards with their checksums")
    dry_run: bool = flag(False, bool, "print the plan and the first batch as text; train nothing")

    @property
    def isolated(self) -> bool:
        return self.attention == "isolated"

    @property
    def lr_frac(self) -> float:
        return self.init_lr_frac if self.init_lr_frac is not None else LR_FRAC[self.mode]


# what makes it another run; everything else (ranks, micro-batches, device, logging) may change when a run is resumed
RUN_CONFIG = (
    *("mode", "split", "val_split", "attention", "base_optimizer", "num_epochs", "num_iterations", "eval_tokens"),
    *("embedding_lr", "unembedding_lr", "matrix_lr", "weight_decay", "init_lr_frac", "warmdown_ratio", "seed"),
)
# what --inherit takes from the base, or sets as nanochat does, where it is not given; `inherit` of a Config lists those
INHERITED = (
    *("total_batch_size", "embedding_lr", "unembedding_lr", "matrix_lr"),
    *("init_lr_frac", "warmdown_ratio", "base_optimizer"),
)
# positive numbers, and their limits: far beyond them arithmetic overflows
LIMITS = {
    "depth": 1000, "device_batch_size": 10**6, "total_batch_size": 10**12, "num_iterations": 10**15, "num_epochs": 1e12,
    "eval_tokens": 10**15, "save_every": 10**15,
}  # fmt: skip
PATHS = ("shards", "base", "out")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n" if os.environ.get("LOCAL_RANK", "0") == "0" else None)


def parse_args(argv: Sequence[str] | None = None) -> Config:
    """Flags -> Config. Wrong usage ends with one line of usage and exit code 2."""
    parser = _Parser(prog="train/mid.py", description=DESCRIPTION, allow_abbrev=False)
    for entry in fields(Config):
        name = flag_name(entry.name)
        kind = entry.metadata["kind"]
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": entry.metadata["help"]}
        if kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, **options)
            continue
        options |= {"type": kind, "choices": entry.metadata["choices"], "required": entry.name == "shards"}
        if entry.name == "base":
            options |= {"nargs": "?", "const": ""}
        parser.add_argument(name, **options)
    given = vars(parser.parse_args(argv))
    not_given = tuple(name for name in INHERITED if name not in given)
    config = Config(**given | {"inherit": not_given if given.get("inherit") else ()})
    if config.num_iterations == -1:  # nanochat's "not given"
        config = replace(config, num_iterations=None)
    paths = {name: getattr(config, name) for name in PATHS}  # a shell leaves the ~ of --out=~/runs
    config = replace(config, **{name: os.path.expanduser(path) for name, path in paths.items() if path})
    for problem in problems(config):
        parser.error(problem)
    return config


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def is_name(tag: str) -> bool:
    """Whether it can be the name of a directory that is not hidden"""
    return tag != "" and tag.isprintable() and os.path.basename(tag) == tag and not tag.startswith(".")


def problems(config: Config) -> Iterator[str]:
    """What is wrong with values that have the right type."""
    for name, value in vars(config).items():
        if not isinstance(value, int | float):
            continue
        if name in LIMITS and not 0 < value <= LIMITS[name]:
            yield f"{flag_name(name)} is {value}, it has to be more than 0 and at most {LIMITS[name]:,}"
        elif not 0 <= value < math.inf:
            yield f"{flag_name(name)} is {value}, it has to be 0 or more"
    if config.base is None and (config.base_step is not None or config.base_optimizer or config.inherit):
        yield "--base-step, --base-optimizer and --inherit have no effect without --base: also give it, or leave them out"
    if config.model_tag is not None and not is_name(config.model_tag):
        yield f"--model-tag is {config.model_tag!r}, wanted a name for a directory, without / and not hidden"
    if config.base is not None and config.generation is not None:
        yield "--generation is of models from scratch, --base has its own: leave one of them out"
    if config.num_iterations is not None and config.num_epochs != 1:
        yield "--num-iterations and --num-epochs both set the length of the run: give one of them"
    if config.warmdown_ratio > 1:
        yield f"--warmdown-ratio is {config.warmdown_ratio}, it has to be at most 1"
    if config.logger is not None and config.run == "dummy":
        yield "--logger has no effect without a named run: also give --run NAME, or leave it out"
    if config.resume == "never" and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        yield "--resume never would replace the run at each of torchrun's --max-restarts: remove it first"
