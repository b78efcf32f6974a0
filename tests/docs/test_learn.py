"""The questions that `make learn` asks at its end are held out: no stage trains on their words, numbers or phrasings."""

import re

import pyarrow as pa

from bench.learn import QUESTIONS
from prep.tasks import arithmetic, facts
from prep.tasks.words import is_test_word


def test_the_questions_of_make_learn_are_held_out() -> None:
    who, what, sum_, word = QUESTIONS
    assert {who, what} <= set(facts.phrasings("test")[0].to_pylist())
    assert is_test_word(pa.array([word.split()[-1]], pa.large_string())).all()
    problem = next(problem for problem in arithmetic.problems()[0] if problem.question == "What is {a} + {b}?")
    numbers = re.search(r"(\d+) \+ \d+", sum_)
    assert numbers
    assert float(numbers[1]) in arithmetic.first_values(problem.question, problem.draws["a"], "test")
