"""
Teach a very small model to spell, to count letters, to do sums and to say what it is, and measure what it learned.

    make learn                                               the recipe: base, mid and sft of one seed, and what each can do
    python bench/learn.py --seed 7 --out DIR                 another seed; a run that was stopped goes on
    python bench/learn.py --only mask,packing --seeds 3      experiments on it, so many seeds each, side by side

    learn_recipe.py        what is built and trained                learn_page.py, learn_plot.py     sections, a picture
    learn_score.py         what a checkpoint knows                  learn_statistics.py              what few runs can tell
    learn_experiments.py   mask, packing, curves                    learn_jobs.py                    runs side by side
    learn_gradients.py     denominators

Every stage answers questions of which no training split has the word, the numbers or the phrasing. Results go into sections of
a page (--page), each with the command, day, machine and versions.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402

from bench import learn_experiments as experiments  # noqa: E402
from bench import learn_gradients as gradients  # noqa: E402
from bench.learn_jobs import Job, num_cores, run_jobs  # noqa: E402
from bench.learn_page import comparison, origin, paragraph, table, write_section  # noqa: E402
from bench.learn_plot import draw  # noqa: E402
from bench.learn_recipe import (  # noqa: E402
    STAGES,
    TOKENS_PER_STEP,
    Command,
    build_command,
    score_command,
    tokenizer_command,
    train_command,
    write_base,
)
from prep.shard import open_shards  # noqa: E402
from train.checkpoint import BASES, find_checkpoint, load_model  # noqa: E402
from train.inference.scores import share_text  # noqa: E402

SHOWN = 160  # characters of an answer
PICTURE = "Right answers on words and numbers that no training split has"
TITLES = {
    "learn": "What `make learn` gives",
    "mask": "Mask: what sft trains on, and mid",
    "packing": "Packing",
    "curves": "Accuracy over tokens",
    "denominators": "Denominators",
}
HOW_TO_READ = (
    "Right answers in percent, bits per byte where lower is better; of each cell the mean (least to most of its runs). "
    "Deviation: of runs of one cell, pooled. Least difference: what these runs find between two cells in four of five "
    "experiments (t test at 5 %). Differences with their 95 % intervals, bold where 0 is outside; of 20 such, about one is "
    "bold by chance."
)
ABOUT = {
    "mask": "Mid from scratch, then sft from it, both on every token (all) or on what the assistant says alone (mask).",
    "packing": "Mid from scratch, attention causal, on rows that were packed in three ways; questions are asked one at a time.",
    "curves": "Right answers in percent; one seed. Each point is a run of its own from the same base, with its own warmdown.",
    "denominators": (
        "Distance between the gradient of a step of 8 rows and the mean of its micro-batch means, as a part of the former: "
        f"median (least to most) of {gradients.NUM_STEPS} steps in sft. `sft`: the recipe's rows. `uneven`: long questions "
        "with short answers beside short questions with long ones. Nothing is trained."
    ),
}


def learn(args: argparse.Namespace) -> None:
    """The recipe, and a table of what each of its stages can do"""
    out = args.out
    started = time.monotonic()
    write_base(out)
    if not (out / "tokenizer").is_dir():
        run(tokenizer_command(out))
    for stage in STAGES:
        run(build_command(out, out / stage.mixture if stage.mixture.endswith(".toml") else stage.mixture, stage.name))
    base: tuple[str, ...] = ()
    for stage in STAGES:
        run(train_command(out, stage.name, stage.name, args.seed, *stage.flags, *base))
        base = ("--base", str(out / "runs" / stage.name))
    files = {stage.name: out / "scores" / f"{stage.name}.json" for stage in STAGES}
    print("\nEach stage is asked what it has learned: a few minutes.", flush=True)
    commands = {name: score_command(out, name, path, args.questions) for name, path in files.items()}
    run_jobs([Job(f"score-{name}", command) for name, command in commands.items()], out, args.jobs)
    body = learned({name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()})
    minutes = (time.monotonic() - started) / 60
    about = paragraph(origin("make learn"), f"Seed {args.seed}, {minutes:.1f} minutes.")
    publish(args.page, TITLES["learn"], f"{about}\n\n{body}")
    print(f"\n{minutes:.1f} minutes. Talk to it: midprep chat {out / 'runs' / STAGES[-1].name}")


def run(command: Command) -> None:
    """Run a command that is printed first. CalledProcessError where it fails."""
    print("\n$", " ".join(command).replace(sys.executable, "python"), flush=True)
    subprocess.run(command, check=True)


def learned(scores: dict[str, dict[str, Any]]) -> str:
    """Two tables, a column for each stage: right answers with their intervals, and what each says to four questions"""
    rows = []
    for task, name in experiments.TASKS.items():
        each = [score["tasks"][task] for score in scores.values()]
        rows.append([f"{name}, {each[0]['questions']} questions", *map(share_text, each)])
        if "written" in each[0]:
            rows.append([f"of these, {experiments.COUNT} is right", *(f"{task['written']:.1%}" for task in each)])
    for about in ("answers", "text"):
        bits = [score["bits_per_byte"][about]["all"] for score in scores.values()]
        rows.append([f"bits per byte, {about}", *(f"{value:.4f}" for value in bits)])
    asked = [
        [f"{each[0]['kind']}: {each[0]['question']}", *map(said, each)]
        for each in zip(*(score["asked"] for score in scores.values()), strict=True)
    ]
    return f"{table(['', *scores], rows)}\n\n{table(['asked', *(f'{name} says' for name in scores)], asked)}"


def said(answer: dict[str, Any]) -> str:
    """What was said, in one cell of a table, and whether it is right"""
    text = " ".join(answer["said"].split()).replace("|", "\\|").replace("`", "'")
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return f"{'right' if answer['right'] else 'wrong'}: `{text}`"


# ---- experiments ----


def compare(name: str, args: argparse.Namespace) -> None:
    """Mask or packing: several runs of each cell, their means and what of them differs"""
    seeds = range(args.seed, args.seed + args.seeds)
    plan = experiments.Plan(args.out, args.questions)
    make = {"mask": experiments.plan_mask, "packing": experiments.plan_packing}[name]
    contrasts = make(plan, seeds, args.tokens)
    run_jobs(plan.jobs, args.out, args.jobs)
    command = f"python bench/learn.py --only {name} --seed {args.seed} --seeds {args.seeds} --tokens {args.tokens}"
    size = f"{args.seeds} seeds, {args.tokens:,} tokens a run."
    about = paragraph(origin(command), size, ABOUT[name], HOW_TO_READ)
    tables = comparison(experiments.cells_by_measure(plan.read()), contrasts)
    publish(args.page, TITLES[name], f"{about}\n\n{tables}")


def curves(args: argparse.Namespace) -> None:
    """Accuracy over tokens of mid: a table and a picture"""
    plan = experiments.Plan(args.out, args.questions)
    experiments.plan_curves(plan, args.seed)
    run_jobs(plan.jobs, args.out, args.jobs)
    base, *runs = (score for [score] in plan.read().values())
    points = {score["step"] * TOKENS_PER_STEP: experiments.measures(score) for score in runs}
    rows = [
        [f"{tokens:,}", *(f"{values[name]:.1f}" for name in experiments.DRAWN)]
        for tokens, values in ({0: experiments.measures(base)} | points).items()
    ]
    lines = {name: [(tokens, values[name] / 100) for tokens, values in points.items()] for name in experiments.DRAWN}
    args.picture.write_text(draw(PICTURE, lines, "tokens of mid, each point a run of its own"), encoding="utf-8")
    about = paragraph(origin(f"python bench/learn.py --only curves --seed {args.seed}"), ABOUT["curves"])
    publish(args.page, TITLES["curves"], f"{about}\n\n{table(['tokens of mid', *experiments.DRAWN], rows)}")


def denominators(args: argparse.Namespace) -> None:
    """Distances of gradients, with new weights and with those of the recipe's mid, where there are any"""
    plan = experiments.Plan(args.out, args.questions)
    plan.build("learn-sft", "sft")
    plan.build(gradients.write_uneven(args.out), "uneven")
    run_jobs(plan.jobs, args.out, args.jobs)
    torch.set_num_threads(1)  # single rows are too little for more
    builds = {name: open_shards(args.out / "shards" / name) for name in ("sft", "uneven")}
    models = {"new weights": gradients.new_model(builds["sft"].manifest["vocab_size"])}
    if (args.out / "runs/mid").is_dir():
        models["after mid"] = load_model(*find_checkpoint(str(args.out / "runs/mid"), None, BASES["sft"]))[0]
    about = paragraph(origin("python bench/learn.py --only denominators"), ABOUT["denominators"])
    publish(args.page, TITLES["denominators"], f"{about}\n\n{gradients.measure(models, builds)}")


def publish(page: Path | None, title: str, body: str) -> None:
    print(f"\n{title}\n\n{body}", flush=True)
    if page is not None:
        write_section(page, title, body)


EXPERIMENTS = {
    "denominators": denominators,
    "mask": partial(compare, "mask"),
    "packing": partial(compare, "packing"),
    "curves": curves,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"experiments instead of the recipe: {','.join(EXPERIMENTS)}")
    parser.add_argument("--out", type=Path, default=Path("runs/learn"), help="directory for all of it")
    parser.add_argument("--seed", type=int, default=42, help="of the weights, and the first one of an experiment's")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each cell of mask and packing, at least 2")
    parser.add_argument("--tokens", type=int, default=2_800_000, help="of a run of mask and packing")
    parser.add_argument("--jobs", type=int, default=num_cores(), help="processes at once, the cores shared out to them")
    parser.add_argument("--questions", type=int, default=200, help="most questions of a task")
    parser.add_argument("--page", type=Path, help="also write the results into their sections of this file")
    parser.add_argument("--picture", type=Path, help="where curves are drawn (default: OUT/learn.svg)")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else []
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        parser.error(f"--only {unknown[0]!r} found, wanted some of {','.join(EXPERIMENTS)}")
    if args.seeds < 2 or args.jobs < 1 or args.tokens < TOKENS_PER_STEP:
        parser.error(f"--seeds is at least 2, --jobs at least 1, --tokens at least {TOKENS_PER_STEP:,}")
    args.picture = args.picture or args.out / "learn.svg"
    args.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that jobs are stopped, and save
    try:
        for name in names:
            EXPERIMENTS[name](args)
        if not names:
            learn(args)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
