"""
What a model says of itself: few answers, each to many questions, from data/facts.toml.

    opener "Hi. "    question "What is your name?"    closer " Thanks."        ->     "I have no name. ..."

Train and test ask in other words: of the questions of a fact one in five, by a hash of its letters, is asked in test alone,
with whatever stands around it. So an answer in test that is right to the letter was understood, not remembered. No
phrasing comes again before every other of its split has come. Legend: C conversations, Q phrasings of a split.
"""

import functools
import itertools
import tomllib
from typing import Any

import numpy as np
import pyarrow as pa

from prep.arrays import Array
from prep.columns import index_array, text_array
from prep.conversations.conversation import TEXT, Conversations
from prep.tasks.task import BuiltinTask
from prep.tasks.words import DATA, random_bits

EXAMPLE = {
    "messages": [
        {"role": "user", "content": "Hello! What is your name?"},
        {"role": "assistant", "content": "I have no name. The midprep model will do."},
    ]
}
TEST_SHARE = 5  # one question in five of each fact is for test


def generate(start: int, stop: int, seed: int, split: str) -> Conversations:
    """Conversations start .. stop - 1 of the split, "train" or "test" """
    questions, answers = phrasings(split)
    order = np.argsort(random_bits(f"facts/{seed}/{split}", np.arange(len(questions))))
    place = index_array(order[np.arange(start, stop) % len(order)])
    return Conversations.of_turns([questions.take(place), answers.take(place)], [TEXT, TEXT], [1, 1])


@functools.cache
def load() -> dict[str, Any]:
    """The facts, and what may stand around a question; data/facts.toml explains them"""
    return tomllib.loads((DATA / "facts.toml").read_text(encoding="utf-8"))


@functools.cache
def phrasings(split: str) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """(Q,) every way to ask a question of the split, and (Q,) the answer to each"""
    data = load()
    pairs = [
        (opener + style + closer, fact["answer"])
        for fact in data["fact"]
        for question in questions_of(fact["questions"], split)
        for style in dict.fromkeys(styles(question))
        for opener, closer in itertools.product(data["openers"], data["closers"])
    ]
    questions, answers = zip(*pairs, strict=True)
    return text_array(list(questions)), text_array(list(answers))


def questions_of(questions: list[str], split: str) -> list[str]:
    """The questions of a fact that belong to a split"""
    bits: Array = np.concatenate([random_bits(f"facts/{question}", np.zeros(1)) for question in questions])
    shuffled = [questions[i] for i in np.argsort(bits)]
    num_test = -(-len(questions) // TEST_SHARE)
    return shuffled[:num_test] if split == "test" else shuffled[num_test:]


def styles(question: str) -> list[str]:
    """A question as it is, in lower case, and both without its final mark"""
    return [text for whole in (question, question.lower()) for text in (whole, whole.rstrip("?."))]


FACTS = BuiltinTask(
    "facts",
    "Questions about the model itself: eight facts, each asked for in many words, in other ones in test.",
    EXAMPLE,
    version=2,
    make=generate,
    size=5_000,
)
