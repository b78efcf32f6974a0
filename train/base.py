"""
Where a run starts from: scratch, a base, or its own checkpoints, whose base may have moved or gone on since.

    --base d20     noted by the run             -> base
    step 80        step 60, 9f2c... (there)     -> step 60: the base got a newer step
    step 80        step 60, 9f2c... (gone)      -> step 80, and `find_run` refuses: another run
    not found      step 60, 9f2c...             -> none: of a run that has a checkpoint nothing of the base is read
    damaged        step 60, 9f2c...             -> the same

A base of the wrong tokenizer is refused here, a model shorter than the rows is told.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prep.same_tokenizer import is_same_tokenizer, read_pickle
from prep.shard import Manifest
from train.checkpoint import (
    BASES,
    STAGES,
    Checkpoint,
    checkpoints_of,
    find_checkpoint,
    is_depth,
    model_config,
    plain_names,
)
from train.config import Config
from train.meta import Meta, meta_path, read_meta, steps_in
from train.sizes import ModelConfig
from train.tensors import read_layout

Say = Callable[[str], None]


@dataclass(frozen=True)
class Start:
    """The directory of a run's checkpoints, its depth, and its base: `base_name` is known where `base` is gone."""

    root: Path
    depth: int
    base: Checkpoint | None = None
    base_name: str | None = None


def find_start(config: Config, out: Path, default_depth: int, say: Say) -> Start:
    """Of --base, --base-step, --depth and what lies under `out`. FileNotFoundError or ValueError in one line."""
    if config.base is None:
        depth = config.depth or default_depth
        root = run_root(config, out, depth)
        check_generation(config, root)
        return Start(root, depth)
    named = list(checkpoints_of(config.base, BASES[config.mode], out))
    try:
        base = find_checkpoint(config.base, config.base_step, BASES[config.mode], out)
    except FileNotFoundError as error:
        if config.resume == "never" or named:
            raise
        return find_start_without_base(config, out, error, say)
    try:
        depth = depth_of(*base)
    except ValueError as error:  # damaged, or being written: of a run that goes on nothing of it is read
        if config.resume == "never":
            raise
        return find_start_without_base(config, out, error, say)
    check_depth(config.depth, depth, base[0])
    root = run_root(config, out, depth)
    noted = noted_base(root) if config.resume == "auto" else None
    base = noted_checkpoint(base, noted, config.base_step, [place for place, _ in named])
    if base[0].resolve() != root.resolve():
        if others := [str(place) for place, _ in named if place.name == base[0].name and place != base[0]]:
            say(f"--base {config.base} is {base[0]}; to start from {' or '.join(others)}, give its path")
        return Start(root, depth, base, name_of(*base))
    if noted is None or config.base_step is not None or Path(config.base).resolve() == root.resolve():
        raise ValueError(
            f"--base {base[0]} is where this run would write its own checkpoints: give another --out or --model-tag"
        )
    return without_base(config, Start(root, depth, None, noted), say)  # of what --base names, only the run is left


def model_to_plan(base: str, depth: int | None, out: Path, manifest: Manifest) -> tuple[Path, ModelConfig]:
    """The directory of --base and its model, for `midprep plan`: found and checked as for a run, no weight is read"""
    root, step = find_checkpoint(base, None, BASES["mid"], out)
    path = root / f"model_{step:06d}.pt"
    meta = read_meta(root, step)
    config = model_config(meta["model_config"], plain_names(read_layout(path), path), path)
    check_depth(depth, config.n_layer, root)
    check_tokenizer(meta, manifest, root, lambda notice: None)
    check_vocabulary(config, manifest, root)
    return root, config


def check_depth(depth: int | None, num_layers: int, root: Path) -> None:
    if depth not in (None, num_layers):
        raise ValueError(f"--depth {depth}, but --base {root} has {num_layers} layers: leave --depth out")


def check_generation(config: Config, root: Path) -> None:
    """ValueError where a run from scratch would go on with checkpoints of the other generation"""
    steps = steps_in(root) if config.resume == "auto" else []
    if steps:
        found = "2026-07" if read_meta(root, steps[-1])["model_config"].get("window_pattern") else "2025-12"
        if found != (asked := config.generation or "2025-12"):
            problem = f"{root} holds a run of generation {found}, this one is of {asked}"
            raise ValueError(f"{problem}: give --generation {found}, another --out, or --resume never to replace it")


def run_root(config: Config, out: Path, depth: int) -> Path:
    """Where a run of this depth has its checkpoints. ValueError for a --model-tag that is the name of another depth."""
    tag = config.model_tag or f"d{depth}"
    if is_depth(tag) and tag != f"d{depth}":
        raise ValueError(
            f"--model-tag {tag} names a model of {tag[1:]} layers, this one has {depth}: give another name"
        )
    return out / STAGES[config.mode] / tag


def noted_checkpoint(base: Checkpoint, noted: str | None, base_step: int | None, places: list[Path]) -> Checkpoint:
    """The checkpoint that the run noted, where it is in a place that --base names; otherwise `base`"""
    step = step_of(noted)
    if noted is None or step is None or base_step not in (None, step):
        return base
    there = ((root, step) for root in (base[0], *places) if step in steps_in(root) and name_of(root, step) == noted)
    return next(there, base)


def find_start_without_base(config: Config, out: Path, error: OSError | ValueError, say: Say) -> Start:
    """The one run in `out` that notes a base. `error`, which says what --base lacks, where there is none."""
    folder = out / STAGES[config.mode]
    starts = []
    for root in [folder / config.model_tag] if config.model_tag else sorted(folder.glob("d*")):
        noted = noted_base(root)
        if noted is not None and config.base_step in (None, step_of(noted)):
            start = Start(root, depth_of(root, steps_in(root)[-1]), None, noted)
            is_meant = root == run_root(config, out, start.depth) and config.depth in (None, start.depth)
            starts += [start] if is_meant else []
    if len(starts) == 1:
        return without_base(config, starts[0], say, "was not found" if isinstance(error, OSError) else "is damaged")
    names = ", ".join(start.root.name for start in starts)
    several = f"; {folder} has several runs with a base ({names}): give --depth to continue one" if starts else ""
    raise type(error)(f"{error}{several}") from None


def without_base(config: Config, start: Start, say: Say, problem: str = "was not found") -> Start:
    say(f"--base {config.base} {problem}: going on with {start.root}, which began from {start.base_name}")
    return start


def noted_base(root: Path) -> str | None:
    """What the last checkpoint of a run says of its base; None without checkpoint or base"""
    steps = steps_in(root)
    midprep = read_meta(root, steps[-1]).get("midprep", {}) if steps else {}
    noted = midprep.get("identity", {}).get("base")
    return noted if isinstance(noted, str) else None


def depth_of(root: Path, step: int) -> int:
    return int(read_meta(root, step)["model_config"]["n_layer"])


def name_of(root: Path, step: int) -> str:
    """The same for the same checkpoint, however its path is written; another for one that was trained again."""
    return f"step {step}, {hashlib.sha256(meta_path(root, step).read_bytes()).hexdigest()[:12]}"


def step_of(name: str | None) -> int | None:
    match = re.match(r"step (\d{1,18}), ", name or "")
    return int(match[1]) if match else None


# ---- what a loaded model and the shards have to agree on ----


def check_tokenizer(meta: Meta, manifest: Manifest, root: Path, say: Say) -> None:
    """
    ValueError unless the shards hold tokens of the tokenizer that the model was trained with, compared by content: what the
    meta notes, else the tokenizer.pkl in nanochat's home, where the checkpoint lies. A line where there is neither.
    """
    tokenizer = manifest["tokenizer"]
    ours = f"the shards have {tokenizer['sha256'][:12]} ({tokenizer['name']})"
    sha256 = meta.get("midprep", {}).get("tokenizer_sha256")
    if sha256 is not None:
        if sha256 != tokenizer["sha256"]:
            problem = f"{root} was trained with tokenizer {sha256[:12]}, {ours}"
            raise ValueError(f"{problem}: build the shards with the model's tokenizer")
        return
    unchecked = f"{root} does not note its tokenizer, so it could not be checked: {ours}"
    paths = tokenizers_around(root)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        say(f"{unchecked}; a tokenizer.pkl was looked for at {paths[0]}")
        return
    try:
        is_same = is_same_tokenizer(read_pickle(path), tokenizer["sha256"], tokenizer["special_tokens"])
    except ValueError as error:
        say(f"{unchecked}; {path} cannot be read ({error})")
        return
    if not is_same:
        raise ValueError(
            f"{root} was trained with the tokenizer of {path}, {ours}: build the shards with --tokenizer {path}"
        )


def tokenizers_around(root: Path) -> list[Path]:
    """Where nanochat's tokenizer may lie from a checkpoint's directory: its home first, also that of what a link leads to"""
    return [
        folder / "tokenizer" / "tokenizer.pkl"
        for place in (root.absolute(), root.resolve())
        for folder in (place.parent.parent, place.parent, place)
    ]


def check_vocabulary(config: ModelConfig, manifest: Manifest, root: Path) -> None:
    if config.vocab_size != manifest["vocab_size"]:
        problem = f"{root} has a vocabulary of {config.vocab_size:,}, the shards {manifest['vocab_size']:,}"
        raise ValueError(f"{problem}: build the shards with the model's tokenizer")


def notice_of_length(config: ModelConfig, max_seq_len: int) -> str | None:
    """What rows that are longer than the model was made for mean for its windows"""
    if config.sequence_len >= max_seq_len:
        return None
    if config.is_2026:
        meaning = f"no layer sees further back than {config.sequence_len:,} tokens"
    else:
        meaning = (
            f"it has no windows and sees whole rows, but was not trained on positions from {config.sequence_len:,} on"
        )
    return f"rows of {max_seq_len:,} tokens, the model was made for {config.sequence_len:,}: {meaning}"
