"""
Examine a model: questions of a mixture's val split, its answers, and how many are right.

    simple_spelling   "banana:b,a,n,a,n,a"        exact    the whole answer, to the character; facts too
    spelling_bee      "... b:0\\na:1\\n ... #### 3"   ####     the number after ####, and beside it the count that was written
                                                           out before the call, which no calculator gives
    mmlu              "B"                         letter   the likeliest of A, B, C, D, and beside it what is said

An answer that does not end, or has tokens or parts that no training data has, is a format error, right or not. What all
answers come to is in `train.inference.scores`.

Legend: B questions of a batch.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch

from prep.build.api import Example, read_conversations
from prep.mixture.mixture import Mixture, load_mixture
from prep.render.reference import Prompt, make_prompt
from train.distributed import Ranks
from train.inference.generate import Reader, Sampling, prefill
from train.inference.speaker import Say, Speaker

HOW = {
    **{"simple_spelling": "exact", "facts": "exact"},
    **{"spelling_bee": "####", "arithmetic": "####", "gsm8k": "####", "mmlu": "letter"},
}
LETTERS = ("A", "B", "C", "D")
NUMBER = re.compile(r"####\s*(-?[\d,]*\.?\d+)\s*\Z")
COUNT = re.compile(r"^\w:(\d+)$", re.MULTILINE)

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


def read_questions(
    mixture: str | Mixture, limit: int, data_root: Path | None, identity: Path | None = None
) -> tuple[list[Question], list[str]]:
    """
    At most `limit` questions of each entry in val that says how it is graded (`answer`) or whose task does, and the names of
    the others. ValueError for data whose own answer is not of that form.
    """
    name = mixture.name if isinstance(mixture, Mixture) else mixture
    mixture = mixture if isinstance(mixture, Mixture) else load_mixture(mixture)
    entries = {entry.label: entry for entry in mixture.splits.get("val", ())}
    if not entries:
        raise ValueError(f"mixture {name} has no [[val]]: evaluate asks what is held out, give one that has")
    how = {name: entry.answer or HOW.get(entry.task) for name, entry in entries.items()}
    questions: list[Question] = []
    examples = read_conversations(mixture, "val", data_root=data_root, identity=identity)
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


def ask_all(
    speaker: Speaker, questions: Sequence[Question], max_tokens: int, batch_size: int, ranks: Ranks, say: Say
) -> list[Answer]:
    """The answers to all questions, on every rank; `say` how many there are so far."""
    name = f"{speaker.root}, step {speaker.step}"
    own: list[Answer] = []
    for answer in ask(speaker, questions, max_tokens, batch_size, ranks.rank, ranks.world_size):
        own.append(answer)
        so_far = len(own) * ranks.world_size  # the other ranks are about as far
        if len(own) % 100 == 0 and so_far < len(questions):
            say(f"{name}: {so_far:,} of {len(questions):,} questions")
    answers = [answer for of_rank in ranks.gather(own) for answer in of_rank]
    say(f"{name}: {len(answers):,} of {len(questions):,} questions")
    return answers


def ask(
    speaker: Speaker,
    questions: Sequence[Question],
    max_tokens: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Answer]:
    """
    The answers to a rank's questions, as likely as the model has them (greedy), in batches of similar length. The batches are
    those of all ranks, shared out: each question is answered beside the same others on any number of ranks.
    """
    prompts = [make_prompt(question.messages, speaker.tokenizer, speaker.template) for question in questions]
    order = sorted(range(len(questions)), key=lambda place: len(prompts[place].ids))
    for question in [questions[place] for place in order if len(prompts[place].ids) >= speaker.context][
        rank::world_size
    ]:
        written, said = (False if asked else None for asked in (question.has_count, question.how == "letter"))
        yield Answer(question, [], False, ("too long",), written, said)
    fitting = [place for place in order if len(prompts[place].ids) < speaker.context]
    batches = [fitting[start : start + batch_size] for start in range(0, len(fitting), batch_size)]
    for places in batches[rank::world_size]:
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
