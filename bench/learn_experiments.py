"""
Experiments on the recipe of `make learn`: one thing changed, everything else and the questions kept.

    mask       mid and sft, each on every token or on what the assistant says alone: four cells
    packing    mid on rows packed in three ways, attention causal: a conversation sees those before it in its row
    curves     mid of 125 steps to all of the recipe's 1,800 from one base, each run with a warmdown of its own

Cells differ in flags of `midprep build` and `train/mid.py` alone. A seed decides the weights from scratch and the order of the
conversations, so runs of one seed read the same ones in the same order. The mask is read with `--mode sft`, whatever the
stage; without it every token is a target, `--mode mid`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from bench.learn_jobs import Job
from bench.learn_recipe import (
    FROM_SCRATCH,
    ISOLATED,
    MID,
    SFT_RATE,
    TOKENS_PER_STEP,
    build_command,
    score_command,
    tokenizer_command,
    train_command,
    write_base,
    write_reordered,
)
from bench.learn_statistics import Cells
from train.checkpoint import STAGES as CHECKPOINTS

Contrasts = Mapping[str, Mapping[str, float]]  # by name, the weight of each cell
Score = dict[str, Any]
MID_SHARE = 5 / 7  # of the tokens of a run that has mid and sft
MODES = {"all": "mid", "mask": "sft"}
PACKINGS = ("ordered", "bfd", "wrapped")
CURVE_STEPS = (125, 250, 500, 1_000)  # of mid, beside the recipe's 1,800
TASKS = {"simple_spelling": "spelling", "spelling_bee": "counting", "arithmetic": "sums", "facts": "facts"}
COUNT = "the count written out"
DRAWN = ("spelling", "counting", "sums", COUNT)  # facts come with sft


@dataclass
class Plan:
    """Jobs, and of each cell the files that they write its scores into"""

    out: Path
    num_questions: int
    jobs: list[Job] = field(default_factory=list)
    scores: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, name: str, command: tuple[str, ...], *needs: str, run: Path | None = None) -> str:
        job = Job(name, command, needs, run)
        if job not in self.jobs:
            self.jobs.append(job)
        return name

    def build(self, mixture: str | Path, name: str, *options: str) -> str:
        is_there = (self.out / "tokenizer").is_dir()
        needs = [] if is_there else [self.add("tokenizer", tokenizer_command(self.out))]
        return self.add(f"build-{name}", build_command(self.out, mixture, name, *options), *needs)

    def train(self, shards: str, name: str, seed: int, *flags: str, base: str | None = None) -> str:
        """A run on the shards of that name, from scratch or from the checkpoint of another run, NAME or NAME/STAGE"""
        start = FROM_SCRATCH if base is None else ("--base", str(self.out / "runs" / base))
        command = train_command(self.out, shards, name, seed, *start, *flags)
        needs = [f"build-{shards}", *([base.partition("/")[0]] if base else [])]
        return self.add(name, command, *needs, run=self.out / "runs" / name)

    def score(self, cell: str, run: str) -> None:
        """What a run has learned, as one of the cell's"""
        shards = self.build("learn", "mid")
        path = self.out / "scores" / f"{run}.json"
        self.add(f"score-{run}", score_command(self.out, run, path, self.num_questions), run, shards)
        self.scores.setdefault(cell, []).append(path)

    def read(self) -> dict[str, list[Score]]:
        """By cell, the scores of its runs, once the jobs are done"""
        return {
            cell: [json.loads(path.read_text(encoding="utf-8")) for path in paths]
            for cell, paths in self.scores.items()
        }


def num_steps(tokens: float) -> str:
    return str(max(1, round(tokens / TOKENS_PER_STEP)))


def plan_mask(plan: Plan, seeds: Sequence[int], tokens: int) -> Contrasts:
    mid_steps, sft_steps = num_steps(tokens * MID_SHARE), num_steps(tokens * (1 - MID_SHARE))
    for seed in seeds:
        for stage, mixture in (("mid", "learn"), ("sft", "learn-sft")):
            plan.build(write_reordered(plan.out, mixture, seed), f"{stage}-{seed}")
        for mid, sft in product(MODES, MODES):
            flags = (*ISOLATED, "--mode", MODES[mid], "--init-lr-frac", "1", "--num-iterations", mid_steps)
            base = plan.train(f"mid-{seed}", f"mask-{mid}-{seed}", seed, *flags)
            flags = (*ISOLATED, "--mode", MODES[sft], *SFT_RATE, "--num-iterations", sft_steps)
            run = plan.train(
                f"sft-{seed}", f"mask-{mid}-{sft}-{seed}", seed, *flags, base=f"{base}/{CHECKPOINTS[MODES[mid]]}"
            )
            plan.score(f"mid {mid}, sft {sft}", run)
    halves = {"all": -0.5, "mask": 0.5}
    return {
        "mask in mid": {f"mid {mid}, sft {sft}": halves[mid] for mid, sft in product(MODES, MODES)},
        "mask in sft": {f"mid {mid}, sft {sft}": halves[sft] for mid, sft in product(MODES, MODES)},
    }


def plan_packing(plan: Plan, seeds: Sequence[int], tokens: int) -> Contrasts:
    for seed, packing in product(seeds, PACKINGS):
        shards = f"mid-{packing}-{seed}"
        plan.build(write_reordered(plan.out, "learn", seed), shards, "--packing", packing)
        flags = ("--attention", "causal", "--num-iterations", num_steps(tokens))
        plan.score(packing, plan.train(shards, f"packing-{packing}-{seed}", seed, *flags))
    return {f"{packing} - ordered": {packing: 1.0, "ordered": -1.0} for packing in PACKINGS if packing != "ordered"}


def plan_curves(plan: Plan, seed: int) -> None:
    """Base, and from it runs of the recipe's mid, each a cell of its own, the whole of it last"""
    write_base(plan.out)
    plan.build(plan.out / "base.toml", "base")
    plan.score("base", plan.train("base", "base", seed, *ISOLATED))
    plan.build("learn", "mid")
    for steps in CURVE_STEPS:
        flags = (*ISOLATED, "--num-iterations", str(steps))
        plan.score(str(steps), plan.train("mid", f"mid-of-{steps}", seed, *flags, base="base"))
    plan.score("mid", plan.train("mid", "mid", seed, *MID, base="base"))


# ---- what was measured, by name ----


def measures(score: Score) -> dict[str, float]:
    """Shares of right answers in percent, bits per byte: of all tokens, and of what the assistant says by source"""
    shares = {TASKS[name]: 100 * task["accuracy"] for name, task in score["tasks"].items()}
    written = {COUNT: 100 * score["tasks"]["spelling_bee"]["written"]}
    bits = score["bits_per_byte"]
    by_source = {f"bits per byte, {TASKS[name]}": value for name, value in bits["answers"]["by_source"].items()}
    whole = {"bits per byte, answers": bits["answers"]["all"], "bits per byte, every token": bits["text"]["all"]}
    return shares | written | whole | by_source


def cells_by_measure(scores: Mapping[str, Sequence[Score]]) -> dict[str, Cells]:
    by_cell = {cell: [measures(score) for score in each] for cell, each in scores.items()}
    names = list(next(iter(by_cell.values()))[0])
    return {name: Cells({cell: [m[name] for m in each] for cell, each in by_cell.items()}) for name in names}
