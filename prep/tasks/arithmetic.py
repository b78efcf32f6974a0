"""
Small sums and word problems in GSM8K's answer form, made from the templates of data/problems.toml.

    "{h} * {v} = <<{h}*{v}={x}>>{x} km\\n#### {x}"      ->      text | python | python_output | text

A python_output is what Python prints for the call before it, to the character (8*5.75 gives 46.0), and the text after it
says the number as people do (46). Conversation i is a pure function of (seed, split, i): its choices are drawn for a whole
block at once, then a loop fills in the templates. Train and test differ in the values of each template's first number,
whatever the seed, so no problem is in both. Legend: C conversations of a block, n of them from one template.
"""

import functools
import re
import tomllib
from dataclasses import dataclass
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.conversations.conversation import Conversations
from prep.conversations.read import of_objects
from prep.tasks.gsm8k import CALL, parts_of
from prep.tasks.task import BuiltinTask
from prep.tasks.words import DATA, choose, random_bits

EXAMPLE = {
    "messages": [
        {
            "role": "user",
            "content": "Greta buys 8 notebooks at $5.75 each and pays with a $50 note. How much change is due?",
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "The notebooks cost 8 * 5.75 = "},
                {"type": "python", "text": "8*5.75"},
                {"type": "python_output", "text": "46.0"},
                {"type": "text", "text": "46 dollars.\nThe change is 50 - 46 = "},
                {"type": "python", "text": "50-46"},
                {"type": "python_output", "text": "4"},
                {"type": "text", "text": "4 dollars.\n#### 4"},
            ],
        },
    ]
}
TEST_SHARE = 20  # one value in 20 of a template's first number is for test


@dataclass(frozen=True)
class Problem:
    """A template; data/problems.toml explains the notation."""

    question: str
    answer: str
    draws: dict[str, Any]


@functools.cache
def problems() -> tuple[list[Problem], list[str], list[str]]:
    """The templates, and the names and things that they are about"""
    data = tomllib.loads((DATA / "problems.toml").read_text(encoding="utf-8"))
    return [Problem(**problem) for problem in data["problem"]], data["names"], data["things"]


def generate(start: int, stop: int, seed: int, split: str) -> Conversations:
    """Conversations start .. stop - 1 of the split, "train" or "test" """
    rows, stream = np.arange(start, stop), f"arithmetic/{seed}/{split}"
    templates, _, _ = problems()
    template = choose(f"{stream}/problem", rows, len(templates))  # (C,)
    made: list[Any] = [None] * len(rows)
    for i, problem in enumerate(templates):
        places = np.flatnonzero(template == i)  # (n,)
        for place, values in zip(places, draw(problem, rows[places], stream, split), strict=True):
            made[place] = conversation(problem, values)
    return of_objects(made)


def draw(problem: Problem, rows: Array, stream: str, split: str) -> list[dict[str, Any]]:
    """(n,) numbers of the rows of one template -> for each row what the template's names stand for: words and floats"""
    _, names, things = problems()
    name = choose(f"{stream}/name", rows, len(names))
    other = (name + 1 + choose(f"{stream}/other", rows, len(names) - 1)) % len(names)  # never the same
    thing = choose(f"{stream}/thing", rows, len(things))
    numbers: dict[str, Array] = {}
    for key, spec in problem.draws.items():
        if isinstance(spec, str):
            numbers[key] = eval(spec, {}, numbers)  # an expression of the numbers before it
        else:
            possible = values_of(spec) if numbers else first_values(problem.question, spec, split)
            numbers[key] = possible[choose(f"{stream}/{problem.question}/{key}", rows, len(possible))]
    columns = [values.tolist() for values in (name, other, thing, *numbers.values())]
    return [
        {"name": names[i], "other": names[j], "thing": things[k], **dict(zip(numbers, values, strict=True))}
        for i, j, k, *values in zip(*columns, strict=True)
    ]


def values_of(spec: Any) -> Array:
    """[low, high], [low, high, step] or {one_of: values} -> every value, float64"""
    if isinstance(spec, dict):
        return np.array(spec["one_of"], dtype=np.float64)
    low, high, step = (*spec, 1.0)[:3]
    return np.arange(low, high + step / 2, step, dtype=np.float64)


def first_values(question: str, spec: Any, split: str) -> Array:
    """The values of a template's first number that belong to a split"""
    values = values_of(spec)
    shuffled = values[np.argsort(random_bits(f"arithmetic/{question}", np.arange(len(values))))]
    num_test = -(-len(values) // TEST_SHARE)
    return shuffled[:num_test] if split == "test" else shuffled[num_test:]


def conversation(problem: Problem, values: dict[str, Any]) -> list[dict[str, Any]]:
    """A template filled in: first its calls, from left to right, as each gives a name its value; then the text"""
    texts: dict[str, str] = {}
    for name, value in values.items():
        texts |= written(name, value)

    def run(call: re.Match[str]) -> str:
        expression, _, result = call[1].rpartition("=")
        code = expression.format_map(texts)
        output = eval(code)  # text of a template that ships with midprep: numbers and operators
        texts.update(written(result.strip("{}"), output))
        return f"<<{code}={output}>>"

    answer = CALL.sub(run, problem.answer).format_map(texts)
    return [
        {"role": "user", "content": problem.question.format_map(texts)},
        {"role": "assistant", "content": parts_of(answer)},
    ]


def written(name: str, value: Any) -> dict[str, str]:
    """
    A name's text in a template, and as a price

    >>> written("p", 7.5), written("p", 7.0)
    ({'p': '7.5', 'p$': '7.50'}, {'p': '7', 'p$': '7'})
    """
    if isinstance(value, str):
        return {name: value}
    if value == int(value):
        return {name: str(int(value)), f"{name}$": str(int(value))}
    return {name: str(value), f"{name}$": f"{value:.2f}"}


ARITHMETIC = BuiltinTask(
    "arithmetic",
    "Small sums and word problems in GSM8K's answer form, made from the templates of data/problems.toml.",
    EXAMPLE,
    version=1,
    make=generate,
    size=4_000,
)
