"""
Small sums and word problems in GSM8K's answer form, made from the templates in data/problems.toml.

    "{h} * {v} = <<{h}*{v}={x}>>{x} km\\n#### {x}"      ->      text | python | python_output | text

A python_output is what Python prints for the call before it, to the character (8*5.75 gives 46.0), and the text after
it says the number as people do (46). Row i is a pure function of (seed, split, i). Train and test differ in the values
of each template's first number, whatever the seed, so no problem of one is in the other.
Templates differ in their number of parts: each makes the columns of its own rows, which are then put in row order.
Legend: C conversations, n of them from one template, P parts.
"""

import functools
import operator
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from prep.arrays import Array, offsets
from prep.columns import index_array, text_array
from prep.conversations.conversation import ASSISTANT, OUTPUT, PYTHON, TEXT, USER, Conversations
from prep.tasks.task import BuiltinTask
from prep.tasks.words import DATA, choose, join, random_bits

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
Draw = list[float] | dict[str, list[float]] | str


@dataclass(frozen=True, eq=False)  # eq=False: hashed by identity, so that its parts can be cached
class Problem:
    """A template; data/problems.toml explains the notation."""

    question: str
    answer: str
    draws: dict[str, Draw]


FILE: dict[str, Any] = tomllib.loads((DATA / "problems.toml").read_text(encoding="utf-8"))
PROBLEMS = [Problem(**problem) for problem in FILE["problem"]]
NAMES, THINGS = FILE["names"], FILE["things"]
TEST_SHARE = 20  # one value in so many of a template's first number is for test
OPERATORS: dict[str, Callable[[Array, Array], Array]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
}
# how a number is written: as short as can be (7.5, 7), as a price (7.50, 7), as Python prints a float (7.5, 7.0)
SHORT, PRICE, FLOAT = 0, 1, 2
SUFFIXES = [["", ".25", ".5", ".75"], ["", ".25", ".50", ".75"], [".0", ".25", ".5", ".75"]]  # by style and quarters
LIMIT = 10_000  # all numbers are below
NAME = re.compile(r"\{([^}]+)\}")  # in a template


def generate(start: int, stop: int, seed: int, split: str) -> Conversations:
    """conversations start .. stop - 1 of the split, "train" or "test" """
    rows, stream = np.arange(start, stop), f"arithmetic/{seed}/{split}"
    problem = choose(f"{stream}/problem", rows, len(PROBLEMS))  # (C,)
    num_parts = np.array([len(parts_of(p)) for p in PROBLEMS])[problem]
    first_part = offsets(num_parts)
    texts, places = [text_array([])], [np.zeros(0, dtype=np.int64)]
    kinds = np.zeros(first_part[-1], dtype=np.uint8)
    for p, template in enumerate(PROBLEMS):
        mine = np.flatnonzero(problem == p)  # (n,)
        columns = write(template, rows[mine], stream, split)
        for k, (kind, _) in enumerate(parts_of(template)):
            texts.append(columns[k])
            places.append(first_part[mine] + k)
            kinds[places[-1]] = kind
    in_order = np.empty(first_part[-1], dtype=np.int64)
    in_order[np.concatenate(places)] = np.arange(first_part[-1])
    return Conversations(
        texts=pa.concat_arrays(texts).take(index_array(in_order)),
        kinds=kinds,
        parts=offsets(np.stack([np.ones_like(num_parts), num_parts - 1], axis=1).reshape(-1)),
        roles=np.tile(np.array([USER, ASSISTANT], dtype=np.uint8), len(rows)),
        messages=np.arange(len(rows) + 1, dtype=np.int64) * 2,
        reasons=np.zeros(len(rows), dtype=np.uint8),
    )


@functools.cache
def parts_of(problem: Problem) -> list[tuple[int, str]]:
    """kind and template of each part: the question, then the answer cut at its calls, <<{a}+{b}={x}>>"""
    parts = [(TEXT, problem.question)]
    for piece in re.split(r"(<<[^>]+>>)", problem.answer):
        if piece.startswith("<<"):
            expression, result = piece[2:-2].split("=")
            parts += [(PYTHON, expression), (OUTPUT, result)]
        else:
            parts.append((TEXT, piece))
    return parts


def write(problem: Problem, rows: Array, stream: str, split: str) -> list[pa.LargeStringArray]:
    """(n,) row numbers of one template -> a column of n strings for each of its parts"""
    numbers = draw_numbers(problem, rows, stream, split)
    texts = words_for(problem, rows, stream)  # what a {name} in the template stands for
    columns, expression = [], ""
    for kind, template in parts_of(problem):
        if kind == OUTPUT:
            values, is_float = evaluate(expression, numbers)
            numbers[template.strip("{}")] = values
            columns.append(written(values, np.where(is_float, FLOAT, SHORT)))
        else:
            expression = re.sub(r"[{}]", "", template)
            for name in NAME.findall(template):
                if name not in texts:
                    texts[name] = written(numbers[name.rstrip("$")], PRICE if name.endswith("$") else SHORT)
            columns.append(fill(template, texts, len(rows)))
    return columns


def words_for(problem: Problem, rows: Array, stream: str) -> dict[str, pa.LargeStringArray]:
    """n strings for each of {name}, {other} and {thing} in the problem; {other} is never {name}"""
    used, out = set(NAME.findall(problem.question + problem.answer)), {}
    if used & {"name", "other"}:
        name = choose(f"{stream}/name", rows, len(NAMES))
        out["name"] = _list(*NAMES).take(index_array(name))
    if "other" in used:
        other = (name + 1 + choose(f"{stream}/other", rows, len(NAMES) - 1)) % len(NAMES)
        out["other"] = _list(*NAMES).take(index_array(other))
    if "thing" in used:
        out["thing"] = _list(*THINGS).take(index_array(choose(f"{stream}/thing", rows, len(THINGS))))
    return out


@functools.cache
def _list(*words: str) -> pa.LargeStringArray:
    return text_array([*words])


def draw_numbers(problem: Problem, rows: Array, stream: str, split: str) -> dict[str, Array]:
    """the drawn numbers of n rows, each (n,) float64"""
    numbers: dict[str, Array] = {}
    for place, (name, draw) in enumerate(problem.draws.items()):
        if isinstance(draw, str):
            numbers[name], _ = evaluate(draw, numbers)
            continue
        values = values_of(draw)
        if place == 0:
            shuffled = values[np.argsort(random_bits(f"arithmetic/{problem.question}", np.arange(len(values))))]
            num_test = -(-len(values) // TEST_SHARE)
            values = shuffled[:num_test] if split == "test" else shuffled[num_test:]
        numbers[name] = values[choose(f"{stream}/{problem.question}/{name}", rows, len(values))]
    return numbers


def values_of(draw: list[float] | dict[str, list[float]]) -> Array:
    """[low, high], [low, high, step] or {one_of: values} -> every value, float64"""
    if isinstance(draw, dict):
        return np.array(draw["one_of"], dtype=np.float64)
    low, high, step = (*draw, 1.0)[:3]
    return np.arange(low, high + step / 2, step, dtype=np.float64)


def evaluate(expression: str, numbers: dict[str, Array]) -> tuple[Array, Array]:
    """
    "a*p//100", from left to right -> (n,) values, (n,) bool: whether Python's result is a float

    >>> evaluate("a*b", {"a": np.array([3.0, 2.0]), "b": np.array([2.0, 2.5])})
    (array([6., 5.]), array([False,  True]))
    """
    first, *rest = re.split(r"(//|[-+*/])", expression)
    n = len(next(iter(numbers.values())))
    value = numbers[first] if first in numbers else np.full(n, float(first))
    is_float = value % 1 != 0
    for symbol, operand in zip(rest[::2], rest[1::2], strict=True):
        number = numbers[operand] if operand in numbers else np.full(n, float(operand))
        value = OPERATORS[symbol](value, number)
        is_float = is_float | (number % 1 != 0) | (symbol == "/")
    return value, is_float


def fill(template: str, texts: dict[str, pa.LargeStringArray], num_rows: int) -> pa.LargeStringArray:
    """a template with its {names} filled in, n strings"""
    pieces = NAME.split(template)  # names at odd places
    if len(pieces) == 1:
        return pa.repeat(pa.scalar(template, pa.large_string()), num_rows)
    return join(*(texts[piece] if place % 2 else piece for place, piece in enumerate(pieces)))


def written(values: Array, style: int | Array) -> pa.LargeStringArray:
    """(n,) multiples of 0.25 in [0, LIMIT), a style for all or for each -> n strings"""
    assert values.min(initial=0) >= 0
    assert values.max(initial=0) < LIMIT
    return number_table().take(index_array(((style * LIMIT + values) * 4).astype(np.int64)))


@functools.cache
def number_table() -> pa.LargeStringArray:
    """every number in every style: a look-up is several times faster than a conversion"""
    whole = index_array(np.repeat(np.arange(LIMIT), 4)).cast(pa.large_string())
    return pa.concat_arrays([join(whole, text_array(list(suffixes) * LIMIT)) for suffixes in SUFFIXES])


ARITHMETIC = BuiltinTask(
    "arithmetic",
    "Small sums and word problems in GSM8K's answer form, made from the templates of data/problems.toml.",
    EXAMPLE,
    version=1,
    make=generate,
    size=4_000,
)
