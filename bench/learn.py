"""
Teach a very small model to spell, to count letters, to do sums and to say what it is, and show that it can.

    make learn                                       one seed, on 2 cores
    python bench/learn.py --seed 7 --out DIR         another one; a run that was stopped goes on

    stage    trains on                                               tokens    learns
    base     text: sentences of words in any order                   1.2 M     what words look like
    mid      learn.toml: spelling, counting, sums; every token       6.0 M     the tasks
    sft      learn-sft.toml: facts, and some of mid; the answers     2.8 M     what it is, and keeps what mid taught

Then every stage answers questions of which no training split has the word, the numbers or the phrasing. Rates and sizes were
found by trying; with a vocabulary of 512 a word is spelled from few tokens, and many small steps fit into minutes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from prep.cpu import has_amx  # noqa: E402
from prep.tasks.words import choose, split_words  # noqa: E402

MIDPREP = [sys.executable, "-m", "prep"]
VOCAB_SIZE, MAX_SEQ_LEN, DEPTH = 512, 400, 3
# in words, numbers or a phrasing that no stage trains on: who it is, what it knows of itself, a sum, a word
QUESTIONS = (
    "Who is speaking?",
    "What taught you to spell?",
    "What is 397 + 217?",
    "Spell the word: lighthouse",
)
NUM_DOCUMENTS, SENTENCES = 5_000, 8  # of the text that base trains on, 248 tokens each
FORMS = (
    "Some words are {0}, {1} and {2}.",
    "I read about {0} and {1} today.",
    "The book says that {0} comes before {1}.",
    "Nobody knew {0}, but {1} was known to all.",
    "After {0} there was {1}, and then {2}.",
    "She wrote {0} on the first page and {1} on the last.",
)


@dataclass(frozen=True)
class Stage:
    name: str
    mixture: str
    flags: tuple[str, ...]


STAGES = (
    Stage("base", "base.toml", ("--depth", str(DEPTH))),
    Stage("mid", "learn", ()),
    Stage("sft", "learn-sft", ("--mode", "sft", "--init-lr-frac", "0.3")),
)
TRAIN = (
    *("--attention", "isolated", "--total-batch-size", str(8 * MAX_SEQ_LEN), "--matrix-lr", "0.03"),
    *("--warmdown-ratio", "0.4", "--save-every", "1000", "--eval-at-end"),
)


def write_base_text(path: Path) -> None:
    """Documents of sentences, of the words that the spelling tasks train on; the same ones every time"""
    words = split_words("train").to_pylist()
    places = np.arange(NUM_DOCUMENTS * SENTENCES)
    forms = choose("learn/form", places, len(FORMS)).tolist()
    drawn = [choose(f"learn/{i}", places, len(words)).tolist() for i in range(3)]
    sentences = [FORMS[form].format(*(words[i] for i in numbers)) for form, *numbers in zip(forms, *drawn, strict=True)]
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, len(sentences), SENTENCES):
            file.write(json.dumps({"text": " ".join(sentences[start : start + SENTENCES])}) + "\n")


def build(out: Path) -> None:
    """The tokenizer, and shards of every stage"""
    write_base_text(out / "base.jsonl")
    (out / "base.toml").write_text('name = "base"\n[[train]]\ntask = "text"\npath = "base.jsonl"\n')
    if not (out / "tokenizer").is_dir():
        options = ("--mixture", "learn-sft", "--vocab-size", VOCAB_SIZE, "-o", out / "tokenizer")
        run(*MIDPREP, "tokenizer", "train", *options)
    for stage in STAGES:
        mixture = out / stage.mixture if stage.mixture.endswith(".toml") else stage.mixture
        options = ("--tokenizer", out / "tokenizer", "--max-seq-len", MAX_SEQ_LEN, "--quiet")
        run(*MIDPREP, "build", "--mixture", mixture, "-o", out / "shards" / stage.name, *options)


def train(out: Path, seed: int) -> list[Path]:
    """A checkpoint of every stage, each from the one before it"""
    speed = ["--dtype", "bfloat16" if has_amx() else "auto"]
    speed += ["--compile"] if shutil.which("c++") or shutil.which("g++") else []
    done: list[Path] = []
    for stage in STAGES:
        root = out / "runs" / stage.name
        base = ["--base", done[-1]] if done else []
        shards = ("--shards", out / "shards" / stage.name, "--out", root, "--seed", seed)
        run(sys.executable, ROOT / "train/mid.py", *shards, *base, *stage.flags, *TRAIN, *speed)
        done.append(root)
    return done


def run(*command: object) -> None:
    """Run a command that is printed first. CalledProcessError where it fails."""
    words = [str(word) for word in command]
    print("\n$", " ".join(words).replace(sys.executable, "python"), flush=True)
    subprocess.run(words, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/learn"), help="directory for all of it")
    parser.add_argument("--seed", type=int, default=42, help="seed of the weights, and of the order")
    args = parser.parse_args()
    started = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    build(args.out)
    checkpoints = train(args.out, args.seed)
    run(*MIDPREP, "evaluate", *checkpoints, "--mixture", "learn")
    for question in QUESTIONS:
        for checkpoint in checkpoints:
            run(*MIDPREP, "chat", checkpoint, "--temperature", "0", "--max-tokens", "160", "--prompt", question)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes. Talk to it: midprep chat {checkpoints[-1]}")


if __name__ == "__main__":
    main()
