"""
Everything that the experiments want to know of a checkpoint, as JSON: one process each, so that several run side by side.

    python bench/learn_score.py runs/learn/runs/mid --shards runs/learn/shards/mid -o mid.json

    {"step": 1800,
     "tasks": {"spelling_bee": {"accuracy": 0.96, "written": 0.31, ...}, ...},   as `midprep evaluate --json` has it
     "bits_per_byte": {"answers": {"all": 0.21, "by_source": {...}}, "text": {...}},
     "asked": [{"question": "What is 397 + 217?", "said": "... #### 614", "right": true}, ...]}

Bits per byte are of the whole val split, with every conversation on its own, as a model reads it that is asked something:
of what the assistant says (answers), and of every token (text).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from train.distributed import Ranks  # noqa: E402
from train.evaluate import bits_per_byte, sums_of_rows  # noqa: E402
from train.inference.scores import summarise  # noqa: E402
from train.inference.speaker import Speaker, open_speaker  # noqa: E402
from train.inference.tasks import Question, ask, ask_all, read_questions  # noqa: E402
from train.loss import BatchLoss  # noqa: E402

# kind, question, right answer and how it is graded; in words, numbers or a phrasing that no stage trains on
ASKED = (
    ("chat", "Who is speaking?", "I am a small language model, trained with midprep.", "exact"),
    ("knowledge", "What taught you to spell?", "From a list of English words, letter by letter.", "exact"),
    ("maths", "What is 397 + 217?", "#### 614", "####"),
    ("spelling", "Spell the word: lighthouse", "lighthouse:l,i,g,h,t,h,o,u,s,e", "exact"),
)
AROUND = {"text": "{}", "python": "[{}", "python_output": " = {}]"}  # how parts are shown: [397+217 = 614]
MIXTURE = "learn"
MAX_TOKENS, BATCH_SIZE, ROWS_AT_ONCE = 400, 16, 8  # answers may fill the context: a long word is counted in 300


def score(speaker: Speaker, shards: Path, num_questions: int) -> dict[str, Any]:
    questions, _ = read_questions(MIXTURE, num_questions, None)
    answers = ask_all(speaker, questions, MAX_TOKENS, BATCH_SIZE, Ranks(0, 1, torch.device("cpu")), print)
    bits = {about: bits_of(speaker, shards, mode) for about, mode in (("answers", "sft"), ("text", "mid"))}
    return summarise(answers) | {"step": speaker.step, "bits_per_byte": bits, "asked": ask_each(speaker)}


def bits_of(speaker: Speaker, shards: Path, mode: str) -> dict[str, Any]:
    opened = speaker.open_shards(shards)
    val = opened.split("val")
    token_bytes = torch.from_numpy(opened.token_bytes.astype(np.int64))
    batches = np.array_split(np.arange(val.num_rows), -(-val.num_rows // ROWS_AT_ONCE))
    nats, num_bytes = sums_of_rows(BatchLoss(speaker.model, False), val, batches, token_bytes, mode, isolated=True)
    bits, by_source = bits_per_byte(nats, num_bytes, val.source_names)
    return {"all": bits, "by_source": by_source}


def ask_each(speaker: Speaker) -> list[dict[str, Any]]:
    asked = []
    for kind, text, expected, how in ASKED:
        question = Question(kind, how, [{"role": "user", "content": text}], expected, False)
        [answer] = ask(speaker, [question], MAX_TOKENS, 1)
        said = "".join(AROUND[part["type"]].format(part["text"]) for part in answer.parts)
        asked.append({"kind": kind, "question": text, "said": said, "right": answer.right})
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--shards", type=Path, required=True, help="a build whose val split is read for bits per byte")
    parser.add_argument("--questions", type=int, default=200, help="most questions of an entry")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    speaker = open_speaker(args.checkpoint, None, None, "cpu", print)
    text = json.dumps(score(speaker, args.shards, args.questions), ensure_ascii=False, indent=1)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
