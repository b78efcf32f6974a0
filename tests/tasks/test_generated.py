"""Generated rows are pure functions of (seed, split, number), right in every count and sum, and disjoint by split."""

import ast
import doctest
import hashlib
import itertools
import os
import re
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, text

from prep.conversations.conversation import KINDS, OUTPUT, PYTHON, ROLES, TEXT, Conversations
from prep.tasks import arithmetic, facts, gsm8k, words
from prep.tasks.arithmetic import ARITHMETIC
from prep.tasks.facts import FACTS
from prep.tasks.spelling import SIMPLE_SPELLING, SPELLING_BEE, languages
from prep.tasks.task import BuiltinTask

TASKS = [SIMPLE_SPELLING, SPELLING_BEE, ARITHMETIC, FACTS]


def messages(conversations: Conversations, c: int) -> dict[str, Any]:
    """conversation c in the form of the examples"""
    out = []
    for m in range(conversations.messages[c], conversations.messages[c + 1]):
        first, last = conversations.parts[m], conversations.parts[m + 1]
        parts = [
            {"type": KINDS[kind], "text": part}
            for kind, part in zip(
                conversations.kinds[first:last], conversations.texts[first:last].to_pylist(), strict=True
            )
        ]
        content = parts[0]["text"] if [part["type"] for part in parts] == ["text"] else parts
        out.append({"role": ROLES[conversations.roles[m]], "content": content})
    return {"messages": out}


def rows_of(task: BuiltinTask, start: int, stop: int, seed: int = 42, split: str = "train") -> list[list[str]]:
    """the texts of each conversation"""
    made = task.generate(start, stop, seed, split)
    texts, bounds = made.texts.to_pylist(), made.parts[made.messages]
    return [texts[a:b] for a, b in itertools.pairwise(bounds)]


def split_of(word: str) -> str:
    return "test" if words.is_test_word(pa.array([word], pa.large_string()))[0] else "train"


@pytest.mark.parametrize("task", TASKS)
def test_a_block_cut_anywhere_gives_the_same_rows(task):
    whole = rows_of(task, 1000, 1300)
    assert rows_of(task, 1000, 1001) + rows_of(task, 1001, 1130) + rows_of(task, 1130, 1300) == whole


@pytest.mark.parametrize("task", TASKS)
def test_other_seeds_and_splits_give_other_rows(task):
    first = rows_of(task, 0, 200)
    assert rows_of(task, 0, 200, seed=43) != first
    assert rows_of(task, 0, 200, split="test") != first


@pytest.mark.parametrize("task", TASKS)
def test_an_empty_block_has_no_rows(task):
    assert len(task.generate(7, 7, 42, "train")) == 0


@pytest.mark.parametrize("task", TASKS)
def test_an_unknown_split_is_an_error_that_names_the_right_ones(task):
    with pytest.raises(ValueError, match="train and test"):
        task.generate(0, 1, 42, "val")


@pytest.mark.parametrize("task", TASKS)
def test_offsets_fit_the_texts(task):
    made = task.generate(0, 500, 42, "train")
    assert made.parts[-1] == len(made.texts) == len(made.kinds)
    assert made.messages[-1] == len(made.roles) == len(made.parts) - 1
    assert len(made) == 500
    assert not made.reasons.any()


# the row on top of each file, and where it comes from: apple is the 345,189th word in the order of seed 42
@pytest.mark.parametrize(
    ("task", "row"), [(SIMPLE_SPELLING, 345_188), (SPELLING_BEE, 42_170), (ARITHMETIC, 206), (FACTS, 506)]
)
def test_the_example_on_top_of_the_file_is_a_row_of_the_task(task, row):
    assert messages(task.generate(row, row + 1, 42, "train"), 0) == task.example


def test_rows_do_not_depend_on_the_hash_seed_or_on_this_process():
    program = """
import hashlib
from prep.tasks import TASKS
for task in map(TASKS.get, ("simple_spelling", "spelling_bee", "arithmetic", "facts")):
    print(hashlib.sha256("\\0".join(task.generate(5, 105, 42, "test").texts.to_pylist()).encode()).hexdigest())
"""
    command = [sys.executable, "-c", program]
    printed = subprocess.check_output(command, env={**os.environ, "PYTHONHASHSEED": "7"}, text=True).split()
    here = ["\0".join(part for row in rows_of(task, 5, 105, split="test") for part in row) for task in TASKS]
    assert printed == [hashlib.sha256(text.encode()).hexdigest() for text in here]


def test_the_hash_is_splitmix64():
    # the first outputs of the generator with seed 0, as its authors publish them
    state = (np.arange(3, dtype=np.uint64) + np.uint64(1)) * words.ODD
    assert [hex(x) for x in words.mix(state)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_the_examples_in_docstrings_are_right():
    assert doctest.testmod(words) == (0, 2)
    assert doctest.testmod(arithmetic) == (0, 1)
    assert doctest.testmod(gsm8k) == (0, 1)


@given(lists(integers(0, 10**9), min_size=1), integers(1, 2**31 - 1))
def test_choices_are_in_range_and_each_depends_on_its_row_alone(rows, num):
    chosen = words.choose("a name", np.array(rows), num)
    assert chosen.min() >= 0
    assert chosen.max() < num
    assert [words.choose("a name", np.array([row]), num)[0] for row in rows] == chosen.tolist()


def test_the_word_list_is_whole():
    listed = words.word_list().to_pylist()
    assert len(listed) == len(set(listed)) == 370_105
    assert listed[0] == "a"
    assert listed[-1] == "zwitterionic"
    assert all(word.isascii() and word.isalpha() and word.islower() for word in listed)


def test_every_word_is_in_one_split_and_about_one_in_twenty_in_test():
    train, test = (set(words.split_words(split).to_pylist()) for split in ("train", "test"))
    assert not train & test
    assert train | test == set(words.word_list().to_pylist())
    assert 0.045 < len(test) / (len(train) + len(test)) < 0.055


@settings(max_examples=30, deadline=None)
@given(lists(text("abcdefghijklmnopqrstuvwxyz", min_size=1), min_size=1))
def test_the_split_of_a_word_depends_on_its_letters_alone(some):
    together = words.is_test_word(pa.array(some, pa.large_string()))
    assert ["test" if is_test else "train" for is_test in together] == [split_of(word) for word in some]


@pytest.mark.parametrize("split", ["train", "test"])
def test_spelling_and_counting_use_words_of_their_split(split):
    allowed = set(words.split_words(split).to_pylist())
    assert {answer.split(":")[0] for _, answer in rows_of(SIMPLE_SPELLING, 0, 3000, split=split)} <= allowed
    assert {call.split("'")[1] for _, _, call, _, _ in rows_of(SPELLING_BEE, 0, 3000, split=split)} <= allowed


def test_no_word_is_spelled_twice_before_all_had_their_turn():
    num_words = len(words.split_words("test"))
    rows = rows_of(SIMPLE_SPELLING, 0, num_words + 5, split="test")
    assert len({question for question, _ in rows[:num_words]}) == num_words
    assert rows[num_words:] == rows[:5]


def test_words_are_spelled_letter_by_letter():
    for question, answer in rows_of(SIMPLE_SPELLING, 0, 5000):
        word = question.removeprefix("Spell the word: ")
        assert answer == f"{word}:{','.join(word)}"


def test_letters_are_counted_as_python_counts_them():
    seen = set()
    for question, answer, call, output, end in rows_of(SPELLING_BEE, 0, 20_000):
        word, letter = re.fullmatch(r"'([a-z]+)'\.count\('([a-z])'\)", call).groups()
        count = str(word.count(letter))
        spelled, lines = answer.split("\n\n")[1:3]
        assert output == count
        assert end.endswith(f"\n\n#### {count}")
        assert word in question
        assert spelled == f"{word}:{','.join(word)}"
        assert lines == "\n".join(f"{x}:{word[: i + 1].count(letter)}" for i, x in enumerate(word))
        assert count in answer.split("\n\n")[3]
        seen.add(count)
    assert seen >= {"0", "1", "2", "3", "4"}


def test_letters_are_asked_for_in_many_phrasings_and_languages():
    rows = rows_of(SPELLING_BEE, 0, 20_000)
    shapes = set()
    for question, _, call, _, _ in rows:
        _, word, _, letter, _ = call.split("'")
        shape = question.replace(word, "{word}", 1).casefold()
        shape = re.sub(rf"(?<![a-z]){letter}(?![a-z])", "{letter}", shape)
        shapes.add(re.sub(r"[^\w{}]|\s", "", shape))  # quotes and marks do not make another phrasing
    assert len(shapes) >= 40
    assert len({end.split("\n\n")[1] for *_, end in rows}) == len(languages()) >= 5


def test_questions_come_with_and_without_quotes_mark_and_capitals():
    questions = [row[0] for row in rows_of(SPELLING_BEE, 0, 4000)]
    for share in (
        np.mean([question == question.lower() for question in questions]),
        np.mean([question.endswith(("?", "？")) for question in questions]),
        np.mean(["'" in question for question in questions]),
        np.mean(['"' in question for question in questions]),
    ):
        assert 0.2 < share < 0.8


def test_a_phrasing_has_each_placeholder_once():
    for language in languages():
        for phrasing in [*language.questions, language.intro]:
            assert phrasing.count("{letter}") == phrasing.count("{word}") == 1
            assert not {"{", "}"} & set(re.sub(r"\{letter\}|\{word\}", "", phrasing))
        assert language.intro.index("{letter}") < language.intro.index("{word}")
        assert language.total.count("{num}") == 1


def evaluate(expression: str) -> Fraction:
    """numbers with + - * / // and nothing else, exactly"""
    return value_of(ast.parse(expression, mode="eval").body)


def value_of(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    assert isinstance(node, ast.BinOp)
    left, right = value_of(node.left), value_of(node.right)
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
        case ast.FloorDiv():
            return Fraction(left // right)
    raise AssertionError(ast.dump(node.op))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_sum_is_right_to_the_last_digit(split):
    made = arithmetic.generate(0, 20_000, 42, split)
    texts = made.texts.to_pylist()
    for p in np.flatnonzero(made.kinds == PYTHON):
        call, output, then = texts[p : p + 3]
        assert made.kinds[p + 1 : p + 3].tolist() == [OUTPUT, TEXT]
        assert Fraction(output) == evaluate(call) > 0
        assert output == str(eval(call, {"__builtins__": {}}))  # what Python prints, to the character
        assert re.match(r"\d+(\.(25|5|75))?(?![\d])", then)[0] == output.removesuffix(".0")
        if "####" in then:
            assert then.endswith(f"\n#### {output.removesuffix('.0')}")


def test_all_problems_come_up_and_nothing_is_left_to_fill_in():
    rows = rows_of(ARITHMETIC, 0, 4000)
    shapes = {re.sub(r"\d+(\.\d+)?", "0", row[0]) for row in rows}
    assert not any(set("{}<>") & set(part) for row in rows for part in row)
    assert len(shapes) >= len(arithmetic.problems()[0]) > 40
    assert {sum(part.count("####") for part in row) for row in rows} == {1}
    assert {len(row) for row in rows} == {5, 8, 11}  # one, two and three steps


def test_no_problem_of_test_is_in_train():
    train = {row[0] for row in rows_of(ARITHMETIC, 0, 20_000, 42, "train")}
    test = {row[0] for row in rows_of(ARITHMETIC, 0, 20_000, 43, "test")}
    assert len(train) > 10_000
    assert not train & test


# ---- facts ----


def test_no_question_of_test_is_in_train_whatever_stands_around_it():
    data = facts.load()
    asked = {
        split: {q for fact in data["fact"] for q in facts.questions_of(fact["questions"], split)}
        for split in ("train", "test")
    }
    assert asked["train"] & asked["test"] == set()
    assert asked["train"] | asked["test"] == {question for fact in data["fact"] for question in fact["questions"]}
    assert len(asked["test"]) * facts.TEST_SHARE == len(asked["train"] | asked["test"])
    written = {split: set(facts.phrasings(split)[0].to_pylist()) for split in asked}
    assert written["train"] & written["test"] == set()
    assert len(written["test"]) > 1000


def test_each_fact_has_one_answer_and_no_question_asks_for_two():
    data = facts.load()
    assert len({fact["answer"] for fact in data["fact"]}) == len(data["fact"])
    questions = [question.lower().rstrip("?.") for fact in data["fact"] for question in fact["questions"]]
    assert len(questions) == len(set(questions))


def test_every_phrasing_comes_once_before_any_comes_again():
    num = len(facts.phrasings("test")[0])
    first = [row[0] for row in rows_of(FACTS, 0, num, split="test")]
    assert sorted(first) == sorted(facts.phrasings("test")[0].to_pylist())
    assert [row[0] for row in rows_of(FACTS, num, num + 9, split="test")] == first[:9]
