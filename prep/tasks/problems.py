"""
How a problem of the arithmetic task is written, in GSM8K's own notation, and the plain sums.

    Problem(
        "One ticket costs ${p$}. What do {n} tickets cost?",
        "{n} tickets cost {n} * {p} = <<{n}*{p}={x}>>{x} dollars.\\n#### {x}",
        {"p": (1.25, 19.75, 0.25), "n": (2, 12)},
    )

<<{n}*{p}={x}>> is a calculator call: it gives {x} its value. An expression is worked from left to right, so it holds
operators of one rank only: + and -, or * and /, // (which is for whole results). Draws are, in order: (low, high) with
both ends, (low, high, step), a list to choose from, or an expression of the names before it. The first one is drawn
from other values for train than for test, so it has ten or more of them, and the question's numbers give it away.
All numbers are multiples of 0.25, so floating point is exact. {p$} is {p} as a price; {name}, {other} and {thing} are
words from the lists of word_problems.py.
"""

from dataclasses import dataclass

Draw = tuple[float, ...] | list[float] | str


@dataclass(frozen=True, eq=False)  # eq=False: hashed by identity, so that what is made of one can be cached
class Problem:
    question: str
    answer: str
    draws: dict[str, Draw]


PLAIN = [
    Problem(
        "What is {a} + {b}?",
        "Adding the two: {a} + {b} = <<{a}+{b}={x}>>{x}.\n#### {x}",
        {"a": (10, 999), "b": (10, 999)},
    ),
    Problem(
        "{a} - {b} = ?",
        "Taking {b} from {a} leaves <<{a}-{b}={x}>>{x}.\n#### {x}",
        {"b": (10, 500), "c": (2, 400), "a": "b+c"},
    ),
    Problem(
        "Multiply {a} by {b}.",
        "{a} * {b} = <<{a}*{b}={x}>>{x}\n#### {x}",
        {"a": (11, 99), "b": (3, 30)},
    ),
    Problem(
        "Work out {a} * {b} + {c}.",
        "The product goes first: {a} * {b} = <<{a}*{b}={x}>>{x}.\nThen {x} + {c} = <<{x}+{c}={y}>>{y}.\n#### {y}",
        {"a": (3, 40), "b": (3, 12), "c": (5, 90)},
    ),
    Problem(
        "Calculate ({a} + {b}) * {c}",
        "Brackets first: {a} + {b} = <<{a}+{b}={x}>>{x}.\n{x} times {c} is <<{x}*{c}={y}>>{y}.\n#### {y}",
        {"a": (3, 50), "b": (3, 50), "c": (2, 12)},
    ),
    Problem(
        "{a} divided by {b} is what?",
        "{b} goes into {a} <<{a}//{b}={x}>>{x} times.\n#### {x}",
        {"q": (4, 80), "b": (3, 15), "a": "q*b"},
    ),
    Problem(
        "Start at {a}, add {b}, take away {c}. Where do you end up?",
        "{a} + {b} - {c} = <<{a}+{b}-{c}={x}>>{x}\n#### {x}",
        {"a": (40, 200), "b": (20, 90), "c": (5, 50)},
    ),
    Problem(
        "How much is {p}% of {a}?",
        "{p}% means {p} out of every 100, so {a} * {p} / 100 = <<{a}*{p}//100={x}>>{x}.\n#### {x}",
        {"p": (5, 95, 5), "a": (20, 800, 20)},
    ),
    Problem(
        "What is half of {a}?",
        "Half of {a} is {a} / 2 = <<{a}/2={x}>>{x}.\n#### {x}",
        {"a": (11, 399)},
    ),
    Problem(
        "Add the decimals {a} and {b}.",
        "{a} + {b} = <<{a}+{b}={x}>>{x}\n#### {x}",
        {"a": (0.25, 30, 0.25), "b": (0.25, 30, 0.25)},
    ),
    Problem(
        "Find the mean of {a}, {b} and {c}.",
        "Their sum is <<{a}+{b}+{c}={x}>>{x}.\nThree numbers, so the mean is {x} / 3 = <<{x}//3={y}>>{y}.\n#### {y}",
        {"m": (30, 70), "a": (8, 29), "b": (8, 29), "c": "m*3-a-b"},
    ),
    Problem(
        "Which number do I have to add to {a} to reach {b}?",
        "The gap between {b} and {a} is {b} - {a} = <<{b}-{a}={x}>>{x}.\n#### {x}",
        {"a": (15, 300), "c": (6, 250), "b": "a+c"},
    ),
    Problem(
        "I think of a number. Twice my number is {a}. What is three times my number?",
        "The number is {a} / 2 = <<{a}//2={x}>>{x}.\nThree times {x} is <<{x}*3={y}>>{y}.\n#### {y}",
        {"n": (6, 250), "a": "n*2"},
    ),
    Problem(
        "What do you get when you square {a} and then subtract {b}?",
        "{a} squared is {a} * {a} = <<{a}*{a}={x}>>{x}.\nMinus {b}: <<{x}-{b}={y}>>{y}.\n#### {y}",
        {"a": (10, 40), "b": (3, 60)},
    ),
]
