"""
The recipe of `make learn`: text, mixtures, sizes and rates, as commands of midprep and its trainer.

    stage    trains on                                               tokens    learns
    base     text: sentences of words in any order                   1.2 M     what words look like
    mid      learn.toml: spelling, counting, sums; every token       5.8 M     the tasks
    sft      learn-sft.toml: facts, and some of mid; the answers     2.2 M     what it is, and keeps what mid taught

Rates and sizes were found by trying. With a vocabulary of 512 a word is spelled from few tokens, and many small steps fit
into minutes. Experiments change one thing of it and keep the rest.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prep.cpu import has_amx
from prep.tasks.words import choose, split_words

ROOT = Path(__file__).parents[1]
MIDPREP = (sys.executable, "-m", "prep")
VOCAB_SIZE, MAX_SEQ_LEN, DEPTH = 512, 400, 3
ROWS_PER_STEP = 8
TOKENS_PER_STEP = ROWS_PER_STEP * MAX_SEQ_LEN
NUM_DOCUMENTS, SENTENCES = 10_000, 4  # of the text that base trains on, 124 tokens each: three fit into a row
FORMS = (
    "Some words are {0}, {1} and {2}.",
    "I read about {0} and {1} today.",
    "The book says that {0} comes before {1}.",
    "Nobody knew {0}, but {1} was known to all.",
    "After {0} there was {1}, and then {2}.",
    "She wrote {0} on the first page and {1} on the last.",
)
Command = tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    name: str
    mixture: str
    flags: Command


SFT_RATE = ("--init-lr-frac", "0.3")
FROM_SCRATCH = ("--depth", str(DEPTH))
ISOLATED = ("--attention", "isolated")
MID = (*ISOLATED, "--num-iterations", "1800")  # nine tenths of the rows: all of them took two minutes too many
RATES = (
    *("--total-batch-size", str(TOKENS_PER_STEP), "--matrix-lr", "0.03"),
    *("--warmdown-ratio", "0.4", "--save-every", "1000", "--eval-every", "0"),
)
STAGES = (
    Stage("base", "base.toml", (*FROM_SCRATCH, *ISOLATED)),
    Stage("mid", "learn", MID),
    Stage("sft", "learn-sft", (*ISOLATED, "--mode", "sft", *SFT_RATE)),
)


def base_documents() -> list[str]:
    """Documents of sentences, of the words that the spelling tasks train on; the same ones every time"""
    words = split_words("train").to_pylist()
    places = np.arange(NUM_DOCUMENTS * SENTENCES)
    forms = choose("learn/form", places, len(FORMS)).tolist()
    drawn = [choose(f"learn/{i}", places, len(words)).tolist() for i in range(3)]
    sentences = [FORMS[form].format(*(words[i] for i in numbers)) for form, *numbers in zip(forms, *drawn, strict=True)]
    return [" ".join(sentences[start : start + SENTENCES]) for start in range(0, len(sentences), SENTENCES)]


def write_base(out: Path) -> None:
    """The mixture that base trains on, and its text"""
    with open(out / "base.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": document}) + "\n" for document in base_documents())
    (out / "base.toml").write_text('name = "base"\n[[train]]\ntask = "text"\npath = "base.jsonl"\n', encoding="utf-8")


def write_reordered(out: Path, mixture: str, seed: int) -> Path:
    """A shipped mixture in another order"""
    path = out / f"{mixture}-{seed}.toml"
    path.write_text(f'name = "{mixture}-{seed}"\nextends = "{mixture}"\nseed = {seed}\n', encoding="utf-8")
    return path


def tokenizer_command(out: Path) -> Command:
    options = ("--mixture", "learn-sft", "--vocab-size", str(VOCAB_SIZE), "-o", str(out / "tokenizer"))
    return (*MIDPREP, "tokenizer", "train", *options)


def build_command(out: Path, mixture: str | Path, name: str, *options: str) -> Command:
    """A build of a mixture, by name or file, into shards/name"""
    where = ("--mixture", str(mixture), "-o", str(out / "shards" / name), "--tokenizer", str(out / "tokenizer"))
    return (*MIDPREP, "build", *where, "--max-seq-len", str(MAX_SEQ_LEN), "--quiet", *options)


def train_command(out: Path, shards: str, name: str, seed: int, *flags: str) -> Command:
    """A run on shards/SHARDS into runs/NAME"""
    where = ("--shards", str(out / "shards" / shards), "--out", str(out / "runs" / name), "--seed", str(seed))
    speed = ["--dtype", "bfloat16" if has_amx() else "auto"]
    speed += ["--compile"] if shutil.which("c++") or shutil.which("g++") else []
    return (sys.executable, str(ROOT / "train/mid.py"), *where, *RATES, *flags, *speed)


def score_command(out: Path, run: str, path: Path, num_questions: int) -> Command:
    """What the run of that name has learned, into a file"""
    options = ("--shards", str(out / "shards/mid"), "--questions", str(num_questions), "-o", str(path))
    return (sys.executable, str(ROOT / "bench/learn_score.py"), str(out / "runs" / run), *options)
