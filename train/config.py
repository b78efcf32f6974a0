"""
Every setting of a run: one flat frozen dataclass, from which the flags are made and which is saved in each checkpoint.

    device_batch_size: int | None = flag(None, int, "rows ...")   <->   --device-batch-size 8

Names and defaults are nanochat's where it has them. None means: chosen from the shards and the machine, and said.
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn

from train.schedule import LR_FRAC

DESCRIPTION = "Train on finished shards: mid (every token trains) or sft (only what the assistant says trains)."


def flag(default: Any, kind: type, text: str, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"kind": kind, "help": text, "choices": choices})


@dataclass(frozen=True)
class Config:
    shards: str = flag("", str, "directory of a finished build (required)")
    mode: str = flag("mid", str, "mid: every filled position is a target; sft: those the mask marks", ("mid", "sft"))
    split: str = flag("train", str, "split to train on")
    val_split: str = flag("val", str, "split to evaluate on")
    attention: str = flag("causal", str, "isolated: conversations do not see each other", ("causal", "isolated"))
    base: str | None = flag(None, str, "checkpoint to start from: path, or tag of nanochat's (d12); alone: its largest")
    base_step: int | None = flag(None, int, "step of --base (default: its last)")
    base_optimizer: bool = flag(False, bool, "go on with the optimizer state of --base")
    depth: int | None = flag(None, int, "layers of a model from scratch (default: 4 on a CPU, 12 on a GPU)")
    out: str | None = flag(None, str, "where checkpoints go (default: runs/<name of the shards>)")
    resume: str = flag("auto", str, "auto: go on with an unfinished run in --out; never: replace it", ("auto", "never"))
    run: str = flag("dummy", str, "name of the run for --logger; dummy: metrics.jsonl only")
    logger: str | None = flag(None, str, "where a named run is sent (default: wandb)", ("wandb", "trackio"))
    device: str = flag("auto", str, "auto: CUDA where there is a GPU", ("auto", "cpu", "cuda"))
    dtype: str = flag("auto", str, "of activations; auto: bfloat16 on a GPU", ("auto", "float32", "bfloat16"))
    compile: bool | None = flag(None, bool, "torch.compile (default: on a GPU)")
    device_batch_size: int | None = flag(None, int, "rows a micro-batch of one rank (default: up to 32; CPU: 8)")
    total_batch_size: int | None = flag(None, int, "tokens a step (default: 524288, less if that gives under 50 steps)")
    num_iterations: int | None = flag(None, int, "steps, instead of --num-epochs")
    num_epochs: float = flag(1.0, float, "times through the rows")
    embedding_lr: float = flag(0.2, float, "of wte, AdamW")
    unembedding_lr: float = flag(0.004, float, "of lm_head, AdamW")
    matrix_lr: float = flag(0.02, float, "of the other matrices, Muon")
    weight_decay: float = flag(0.0, float, "of AdamW")
    init_lr_frac: float | None = flag(None, float, "all learning rates times this (default: 1 for mid, 0.02 for sft)")
    warmdown_ratio: float = flag(0.2, float, "part of the steps in which the learning rate falls to 0")
    eval_every: int = flag(150, int, "steps between evaluations; also before the first and after the last; 0: none")
    eval_tokens: int | None = flag(None, int, "tokens an evaluation (default: 10485760, at most a tenth of the run's)")
    save_every: int = flag(500, int, "steps between checkpoints; also after the last")
    seed: int = flag(42, int, "of the weights from scratch and of the order of later epochs")
    verify: bool = flag(False, bool, "compare the shards with their checksums first")
    dry_run: bool = flag(False, bool, "everything but training: the plan, and the first batch decoded")

    @property
    def isolated(self) -> bool:
        return self.attention == "isolated"

    @property
    def lr_frac(self) -> float:
        return self.init_lr_frac if self.init_lr_frac is not None else LR_FRAC[self.mode]


# what makes a run another run; everything else (ranks, micro-batches, device, what is logged) may change when resuming
IDENTITY = (
    *("mode", "split", "val_split", "attention", "base_optimizer", "num_epochs", "num_iterations", "eval_tokens"),
    *("embedding_lr", "unembedding_lr", "matrix_lr", "weight_decay", "init_lr_frac", "warmdown_ratio", "seed"),
)
POSITIVE = "depth device_batch_size total_batch_size num_iterations num_epochs eval_tokens save_every"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n" if os.environ.get("LOCAL_RANK", "0") == "0" else None)


def parse_args(argv: Sequence[str] | None = None) -> Config:
    """Flags -> Config. Wrong usage ends with one line of usage and exit code 2."""
    parser = _Parser(prog="train/mid.py", description=DESCRIPTION, allow_abbrev=False)
    for entry in fields(Config):
        name, kind = "--" + entry.name.replace("_", "-"), entry.metadata["kind"]
        options: dict[str, Any] = {"default": entry.default, "help": entry.metadata["help"]}
        if kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, **options)
            continue
        options |= {"type": kind, "choices": entry.metadata["choices"], "required": entry.name == "shards"}
        if entry.name == "base":
            options |= {"nargs": "?", "const": ""}
        parser.add_argument(name, **options)
    config = Config(**vars(parser.parse_args(argv)))
    if config.num_iterations == -1:  # nanochat's "not given"
        config = replace(config, num_iterations=None)
    for name, value in vars(config).items():
        least = "more than 0" if name in POSITIVE.split() else "0 or more"
        if isinstance(value, int | float) and not (0 <= value < math.inf and (value or least == "0 or more")):
            parser.error(f"--{name.replace('_', '-')} is {value}, it has to be {least}")
    if config.base is None and (config.base_step is not None or config.base_optimizer):
        parser.error("--base-step and --base-optimizer are about --base: give that too, or leave them out")
    if config.num_iterations is not None and config.num_epochs != 1:
        parser.error("--num-iterations and --num-epochs both say how long: give one of them")
    if config.warmdown_ratio > 1:
        parser.error(f"--warmdown-ratio is {config.warmdown_ratio}, it is a part of 1")
    if config.logger is not None and config.run == "dummy":
        parser.error("--logger is about a named run: give --run NAME too, or leave it out")
    if config.resume == "never" and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        parser.error("--resume never would replace the run at each of torchrun's --max-restarts: remove it first")
    return config
