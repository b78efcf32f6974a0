"""
How many answers of a checkpoint change with the batch that a question is in: bfloat16 rounds so far that they may.

    python bench/answers.py runs/mine --mixture learn        # every question alone, and again in batches of 16

An answer has changed if any character of it has. Both dtypes on the device that is given: float32 shows what is left of
the differences without rounding to bfloat16.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from train.inference.speaker import Speaker, open_speaker  # noqa: E402
from train.inference.tasks import Answer, Question, ask, read_questions  # noqa: E402


def answers_by_question(
    speaker: Speaker, questions: list[Question], max_tokens: int, batch_size: int
) -> dict[str, Answer]:
    return {str(answer.question): answer for answer in ask(speaker, questions, max_tokens, batch_size)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--mixture", default="sample")
    parser.add_argument("--tokenizer")
    parser.add_argument("--questions", type=int, default=200, help="most questions of an entry")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    speaker = open_speaker(args.checkpoint, None, args.tokenizer, args.device, print)
    questions, _ = read_questions(args.mixture, args.questions, None)
    for dtype in (torch.float32, torch.bfloat16):
        speaker.model.set_dtype(dtype)
        alone, batched = (answers_by_question(speaker, questions, args.max_tokens, size) for size in (1, 16))
        changed = sum(alone[question].parts != batched[question].parts for question in alone)
        right = [sum(answer.right for answer in answers.values()) for answers in (alone, batched)]
        record = {"dtype": str(dtype), "questions": len(alone), "changed": changed, "right": right}
        print(json.dumps(record | {"share": round(changed / len(alone), 4)}), flush=True)


if __name__ == "__main__":
    main()
