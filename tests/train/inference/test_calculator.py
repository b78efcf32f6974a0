"""The calculator answers what tasks ask, as Python would, and nothing else; whatever it is given, it does little."""

import ast
import math
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.conversations.conversation import OUTPUT, PYTHON, Conversations
from prep.tasks import TASKS
from prep.tasks.gsm8k import conversations as read_gsm8k
from tests.conftest import SHARED
from train.inference import calculator
from train.inference.calculator import MAX_BITS, MAX_CHARS, MAX_DEPTH, MAX_NODES, calculate, depth

GSM8K = SHARED / "data" / "hub" / "openai" / "gsm8k" / "main"

HOSTILE = [
    *("9**9**9", "9**9**9**9", "2**-99999999", "(9**9)**99999", "2**257", "2**255*4", "1e308*10", "9e999", "1.5**1e9"),
    *("1/0", "1//0", "1%0", "0.0%0", "0**-1", "(-1)**0.5", "(-8)**(1/3)"),
    *("x", "True", "len('a')", "__import__('os')", "().__class__", "''.__class__", "'a'.__len__()", "(1).real", "1 .real"),
    *("'a'*9", "'a'+'b'", "'a'", "'a'.upper()", "'a'.join('b')", "'a'.count", "'a'.count('a','b')", "'a'.count(*'a')"),
    *("f'{9**9}'", "b'a'.count(b'a')", r"'\x41'.count('A')", "'''a'''.count('a')", "('a'*9**9).count('a')", "1.count('1')"),
    *("[1]", "{1}", "(1,2)", "1,2", "1;2", "1+1#", "1\n+1", "1\t+1", "1<2", "1<<9", "~1", "1|2", "not 1", "1 if 1 else 2"),
    *("lambda: 1", "[i for i in '1']", "x:=1", "1_000", "0x10", "0b1", "1j", "007", "1 2", "1()", "()", "", " ", "+", "1+"),
    *("9" * 79, "9" * 10**6, "(" * 399, "(" * 11 + "1" + ")" * 11, "-" * 399 + "1", "1+" * 199 + "1", "(1)" * 133),
    *("'" * 399, "'" + "a" * 10**6, "\0", "'\0'.count('\0')", "'\ud800'.count('a')", "１+１", "1−1", "1\u00a0+1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        *[("2+3", "5"), ("8*5.75", "46"), ("12/60", "0.2"), ("0.1+0.2", "0.30000000000000004"), ("100*.5", "50")],
        *[("-7//2", "-4"), ("7%3", "1"), ("2**10", "1024"), ("2**-1", "0.5"), ("2**100", str(2**100)), ("0**0", "1")],
        *[(" ( 1 + 2 ) * 3 ", "9"), ("--1", "1"), ("-0.0", "0"), ("1e3", "1000"), ("1e300", "1e+300"), ("1.", "1")],
        *[("2.0**60", str(2.0**60)), ("10**20/10**5", str(10**15))],
        *[("'strawberry'.count('r')", "3"), ('"a\'a".count("a")', "2"), ("'ñandú'.count('ú')", "1")],
        *[("'a((((((((((((('.count('(')", "13"), ("'a'.count( 'b' ) + 1", "1"), ("''.count('')", "1")],
    ],
)  # fmt: skip
def test_what_it_answers(code: str, answer: str) -> None:
    assert calculate(code) == answer


@pytest.mark.parametrize("code", HOSTILE, ids=lambda code: ascii(code[:30]))
def test_what_is_not_in_the_grammar_or_too_large_has_no_answer(code: str) -> None:
    assert calculate(code) is None


NUMBERS = st.one_of(st.integers(0, 10**6).map(str), st.floats(0, 1e6).map(lambda x: f"{x:.3f}"))
SUMS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(" ".join),
        inner.map(lambda code: f"({code})"),
        inner.map(lambda code: f"-{code}"),
    ),
    max_leaves=12,
)


@given(code=SUMS)
def test_it_answers_what_python_does(code: str) -> None:
    try:
        expected = eval(code)
    except ZeroDivisionError:
        expected = None
    answer = calculate(code)
    if expected is None or depth(code) > MAX_DEPTH:
        assert answer is None
    else:
        assert answer is not None
        assert float(answer) == expected


def test_a_thousand_hostile_calls_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the clock: by the length and depth of what is parsed, the number of steps, and the size of every number"""
    steps = [0]
    parse, value_of, checked = ast.parse, calculator.value_of, calculator.checked

    def counted_parse(code: str, **others: Any) -> Any:
        assert len(code) <= MAX_CHARS
        assert depth(code) <= MAX_DEPTH
        return parse(code, **others)

    def counted_value(node: ast.AST) -> Any:
        steps[0] += 1
        return value_of(node)

    def measured(value: Any) -> Any:
        assert not isinstance(value, int) or value.bit_length() <= 2 * MAX_BITS
        assert isinstance(value, int | float | complex)
        return checked(value)

    monkeypatch.setattr(calculator.ast, "parse", counted_parse)
    monkeypatch.setattr(calculator, "value_of", counted_value)
    monkeypatch.setattr(calculator, "checked", measured)
    for code in [*HOSTILE, *hostile_calls(1000)]:
        steps[0] = 0
        answer = calculate(code)
        assert steps[0] <= MAX_NODES
        assert answer is None or len(answer) < 80


def hostile_calls(num: int) -> list[str]:
    rng = random.Random(0)
    alphabets = [
        ["9", "1.5", "(", ")", "**", "*", "/", "//", "%", "+", "-", "'a'", '"', "'", ".count(", ".", "e5", "1e308", "[", "{",
         "__class__", "lambda:", "\\", "\n", " ", "\0", "\ud800", "é", "9" * 50, ":=", "not ", "for x in ", "'''", "f'{"],
        list("0123456789.+-*/()% "), ["(", "9", "**", "'(", "')", ".count('a')"], ["(", ")", "()", "(("], ["-", "+", "~", "9"],
        ["9**", "9*", "9-", "(9", ")"], [chr(code) for code in range(0, 0x11000, 7)],
    ]  # fmt: skip
    return ["".join(rng.choices(rng.choice(alphabets), k=rng.randint(1, 200))) for _ in range(num)]


# ---- what tasks ask ----


def calls_of(batch: Conversations) -> list[tuple[str, str]]:
    """(call, what the data says that it gives)"""
    texts = batch.texts.to_pylist()
    places = np.flatnonzero(batch.kinds == PYTHON)
    assert (batch.kinds[places + 1] == OUTPUT).all()
    return [(texts[place], texts[place + 1]) for place in places]


def is_equal(answer: str | None, expected: str) -> bool:
    """As numbers: people round, and write 0.60 and .6"""
    try:
        return answer is not None and math.isclose(float(answer), float(expected), rel_tol=1e-9)
    except ValueError:
        return False


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.generates])
@pytest.mark.parametrize("split", ["train", "test"])
def test_it_answers_every_call_of_the_generated_tasks(task: str, split: str) -> None:
    calls = calls_of(TASKS[task].generate(0, 2_000, 42, split))
    assert len(calls) > 1_000 or task in ("simple_spelling", "facts")
    assert [call for call in calls if not is_equal(calculate(call[0]), call[1])] == []


def test_it_answers_every_call_of_the_examples() -> None:
    conversations = [task.example["messages"] for task in TASKS.values() if "messages" in task.example]
    contents = [message["content"] for messages in conversations for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    calls = [(a["text"], b["text"]) for a, b in pairwise(parts) if a["type"] == "python"]
    assert len(calls) >= 4
    assert all(is_equal(calculate(code), expected) for code, expected in calls)


@pytest.mark.skipif(not GSM8K.is_dir(), reason="no GSM8K beside this checkout")
def test_it_answers_gsm8ks_calls_but_one() -> None:
    tables = [pq.read_table(path) for path in sorted(GSM8K.glob("*.parquet"))]
    calls = calls_of(read_gsm8k(pa.concat_tables(tables)))
    answers = [calculate(code) for code, _ in calls]
    assert len(calls) == 27_998
    wrong = [call for call, answer in zip(calls, answers, strict=True) if not is_equal(answer, call[1])]
    assert wrong == [("3/4", "3/4")]
    assert sum(answer == expected for answer, (_, expected) in zip(answers, calls, strict=True)) == 27_145
