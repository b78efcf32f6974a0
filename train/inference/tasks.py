"""
Examine a model: questions of a mixture's val split, its answers, and how many are right.

    simple_spelling   "banana:b,a,n,a,n,a"        exact    the whole answer, to the character; facts too
    spelling_bee      "... b:0\\na:1\\n ... #### 3"   ####     the number after ####, and beside it the count that was written
                                                           out before the call, which no calculator gives
    mmlu              "B"                         letter   the likeliest of A, B, C, D, and beside it what is said

An answer that does not end, or has tokens or parts that no training data has, is a format error, right or not. Shares come
with Wilson's 95 % interval. The mean over tasks is of (accuracy - chance) / (1 - chance), as nanochat's ChatCORE.

Legend: B questions of a batch.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prep.build.api import Example, read_conversations
from prep.mixture.mixture import load_mixture
from prep.render.reference import Prompt, make_prompt
from prep.shard import open_shards
from train.evaluate import bits_per_byte, sums_of_rows
from train.inference.generate import Reader, Sampling, prefill
from train.inference.speaker import Speaker
from train.loss import BatchLoss

HOW = {
    **{"simple_spelling": "exact", "facts": "exact"},
    **{"spelling_bee": "####", "arithmetic": "####", "gsm8k": "####", "mmlu": "letter"},
}
LETTERS = ("A", "B", "C", "D")
CHANCE = {"exact": 0.0, "####": 0.0, "letter": 1 / len(LETTERS)}
NUMBER = re.compile(r"####\s*(-?[\d,]*\.?\d+)\s*\Z")
COUNT = re.compile(r"^\w:(\d+)$", re.MULTILINE)
FORMAT_ERRORS = ("not ended", "wrong tokens", "unbalanced parts", "too long")

Message = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """Messages that end with the user's, and the text of the right answer"""

    task: str  # name of the mixture's entry
    how: str  # of HOW
    messages: list[Message]
    expected: str
    has_count: bool  # whether a count is written out


@dataclass(frozen=True)
class Answer:
    """What was said, and what was right of it; `written` and `said` are None where there is no such thing"""

    question: Question
    parts: list[dict[str, str]]
    right: bool
    errors: tuple[str, ...]
    written: bool | None = None  # the count before the call
    said: bool | None = None  # a letter that was generated, where `right` is by the logits


def read_questions(mixture: str, limit: int, data_root: Path | None) -> tuple[list[Question], list[str]]:
    """
    At most `limit` questions of each entry in val that says how it is graded (`answer`) or whose task does, and the names of
    the others. ValueError for data whose own answer is not of that form.
    """
    entries = {entry.label: entry for entry in load_mixture(mixture).splits.get("val", ())}
    if not entries:
        raise ValueError(f"mixture {mixture} has no [[val]]: evaluate asks what is held out, give one that has")
    how = {name: entry.answer or HOW.get(entry.task) for name, entry in entries.items()}
    questions: list[Question] = []
    examples = read_conversations(mixture, "val", data_root=data_root)
    for name, group in groupby(examples, key=lambda example: example.source):
        if (graded := how[name]) is not None:
            answered = (example for example in group if example.messages[-1]["role"] == "assistant")
            has_count = entries[name].task == "spelling_bee"
            questions += [question_of(example, graded, has_count) for example in islice(answered, limit)]
    return questions, [name for name, graded in how.items() if graded is None]


def question_of(example: Example, how: str, has_count: bool = False) -> Question:
    """The last answer of a conversation as what is expected. ValueError where it is not of the form of `how`."""
    content = example.messages[-1]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    expected = "".join(part["text"] for part in parts if part["type"] == "text")
    if (how == "letter" and expected not in LETTERS) or (how == "####" and number_of(expected) is None):
        wanted = f"one of {', '.join(LETTERS)}" if how == "letter" else "a number after #### at its end"
        problem = f'{example.source}, row {example.index}: answer = "{how}", but its answer is {expected[-40:]!r}'
        raise ValueError(f"{problem}, wanted {wanted}: change the entry's answer, or the data")
    return Question(example.source, how, example.messages[:-1], expected, has_count)


# ---- asking ----


def ask(speaker: Speaker, questions: Sequence[Question], max_tokens: int, batch_size: int) -> Iterator[Answer]:
    """The answers, in batches of questions of similar length, each as likely as the model has it (greedy)."""
    prompts = [make_prompt(question.messages, speaker.tokenizer) for question in questions]
    order = sorted(range(len(questions)), key=lambda place: len(prompts[place].ids))
    for question in [questions[place] for place in order if len(prompts[place].ids) >= speaker.context]:
        written, said = (False if asked else None for asked in (question.has_count, question.how == "letter"))
        yield Answer(question, [], False, ("too long",), written, said)
    fitting = [place for place in order if len(prompts[place].ids) < speaker.context]
    for start in range(0, len(fitting), batch_size):
        places = fitting[start : start + batch_size]
        yield from ask_batch(speaker, [questions[p] for p in places], [prompts[p] for p in places], max_tokens)


def ask_batch(speaker: Speaker, questions: list[Question], prompts: list[Prompt], max_tokens: int) -> Iterator[Answer]:
    readers = [Reader(prompt, speaker.tokenizer) for prompt in prompts]
    for token in speaker.answer(prompts, max_tokens, Sampling()):
        readers[token.row].read(token.id)
    letters = likeliest_letters(speaker, prompts) if any(question.how == "letter" for question in questions) else None
    for place, (question, reader) in enumerate(zip(questions, readers, strict=True)):
        reader.finish()
        yield grade(question, reader, None if letters is None else letters[place])


@torch.inference_mode()
def likeliest_letters(speaker: Speaker, prompts: list[Prompt]) -> list[str]:
    """B letters, by the logits of their tokens where the answer begins"""
    ids = [speaker.tokenizer.encoding.encode_single_token(letter) for letter in LETTERS]
    cache = speaker.model.new_cache(len(prompts), max(len(prompt.ids) for prompt in prompts))
    logits = speaker.model.lm_head(prefill(speaker.model, prompts, cache))[:, ids]  # (B, 4)
    return [LETTERS[place] for place in logits.argmax(dim=-1).tolist()]


def measure_bits(speaker: Speaker, root: Path, num_tokens: int, batch_size: int) -> dict[str, Any]:
    """
    Bits per byte of the val split of shards, of all and by source, over the first rows up to `num_tokens`: every token is a
    target, as in mid. ValueError for shards of another tokenizer.
    """
    shards = open_shards(root)
    split, tokenizer = shards.split("val"), shards.manifest["tokenizer"]
    if tokenizer["sha256"] != speaker.tokenizer.sha256:
        problem = f"the shards of {root} have tokenizer {tokenizer['name']}, {speaker.root} another"
        raise ValueError(f"{problem}: give shards that were built with the checkpoint's")
    num_rows = min(split.num_rows, max(1, num_tokens // split.max_seq_len))
    device = speaker.model.transformer.wte.weight.device
    token_bytes = torch.from_numpy(shards.token_bytes.astype(np.int64)).to(device)
    rows = np.array_split(np.arange(num_rows), -(-num_rows // batch_size))
    sums = sums_of_rows(BatchLoss(speaker.model, False), split, rows, token_bytes, "mid", False).cpu()
    bits, by_source = bits_per_byte(sums[0], sums[1], split.source_names)
    return {"all": bits, "by_source": by_source, "rows": num_rows}


# ---- grading ----


def grade(question: Question, reader: Reader, letter: str | None) -> Answer:
    """An answer that was read to its end, and for multiple choice the letter by the logits"""
    errors = (*(["not ended"] if not reader.ended else []), *reader.problems)
    text = "".join(part["text"] for part in reader.parts if part["type"] == "text")
    if question.how == "letter":
        said = text.strip() == question.expected
        return Answer(question, reader.parts, letter == question.expected, errors, said=said)
    if question.how == "exact":
        return Answer(question, reader.parts, reader.ended and text == question.expected, errors)
    expected, number = number_of(question.expected), number_of(text)
    written = None
    if question.has_count:
        before = reader.parts[0]["text"] if reader.parts and reader.parts[0]["type"] == "text" else ""
        counts = COUNT.findall(before)
        written = bool(counts) and float(counts[-1]) == expected
    return Answer(question, reader.parts, number is not None and number == expected, errors, written)


def number_of(text: str) -> float | None:
    """
    >>> number_of("So it is 1,250.\\n#### 1,250"), number_of("1250")
    (1250.0, None)
    """
    match = NUMBER.search(text)
    return float(match[1].replace(",", "")) if match else None


# ---- counting ----


def interval(num_right: int, num: int) -> tuple[float, float]:
    """
    Wilson's 95 % interval of a share

    >>> [round(bound, 3) for bound in interval(90, 100)]
    [0.826, 0.945]
    """
    z, share = 1.96, num_right / num
    middle, spread = share + z * z / (2 * num), z * math.sqrt(share * (1 - share) / num + (z / (2 * num)) ** 2)
    low, high = ((middle + sign * spread) / (1 + z * z / num) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def summarise(answers: Iterable[Answer]) -> dict[str, Any]:
    """{"tasks": {name: counts and shares}, "chat_core": the mean over tasks, 0 for chance and 1 for all right}"""
    by_task: dict[str, list[Answer]] = {}
    for answer in answers:
        by_task.setdefault(answer.question.task, []).append(answer)
    tasks = {name: summarise_task(by_task[name]) for name in sorted(by_task)}
    scores = [(task["accuracy"] - task["chance"]) / (1 - task["chance"]) for task in tasks.values()]
    return {"tasks": tasks, "chat_core": sum(scores) / len(scores) if scores else None}


def summarise_task(answers: list[Answer]) -> dict[str, Any]:
    num, num_right = len(answers), sum(answer.right for answer in answers)
    low, high = interval(num_right, num)
    beside = {
        name: sum(values) / num
        for name in ("written", "said")
        if None not in (values := [getattr(answer, name) for answer in answers])
    }
    return {
        "questions": num,
        "right": num_right,
        "accuracy": num_right / num,
        "low": low,
        "high": high,
        "chance": CHANCE[answers[0].question.how],
        **beside,
        "malformed": sum(bool(answer.errors) for answer in answers),
        "format_errors": {name: sum(name in answer.errors for answer in answers) for name in FORMAT_ERRORS},
    }


def table(summaries: dict[str, dict[str, Any]]) -> list[list[str]]:
    """{checkpoint: summary} -> rows of a table: a task, and of each checkpoint the accuracy with its interval"""
    rows = []
    for name in next(iter(summaries.values()))["tasks"]:
        tasks = [summary["tasks"][name] for summary in summaries.values()]
        rows.append([f"{name} ({tasks[0]['questions']:,})", *map(share_text, tasks)])
        for key, about in (("written", "count written out"), ("said", "letter said")):
            if key in tasks[0]:
                rows.append([f"  {about}", *(f"{task[key]:.1%}" for task in tasks)])
        if any(task["malformed"] for task in tasks):
            rows.append(["  format errors", *(f"{task['malformed']:,}" for task in tasks)])
    rows.append(["mean over chance", *(f"{summary['chat_core']:.3f}" for summary in summaries.values())])
    bits = [summary["bits_per_byte"] for summary in summaries.values() if "bits_per_byte" in summary]
    if bits:
        rows.append(["bits per byte", *(f"{measured['all']:.4f}" for measured in bits)])
        for name in bits[0]["by_source"]:
            rows.append([f"  {name}", *(f"{measured['by_source'][name]:.4f}" for measured in bits)])
    return rows


def share_text(task: dict[str, Any]) -> str:
    """
    >>> share_text({"accuracy": 0.9, "low": 0.826, "high": 0.945})
    '90.0% (82.6 to 94.5)'
    """
    return f"{task['accuracy']:.1%} ({100 * task['low']:.1f} to {100 * task['high']:.1f})"
