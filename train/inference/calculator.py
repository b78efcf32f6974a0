r"""
What answers when a model speaks Python: arithmetic, and how often a text is in another, on literals. Nothing is run.

    12*60/48                     15             a whole result has no ".0": 27,145 of GSM8K's 27,998 answers to the character
    0.1+0.2                      0.30000000000000004
    "strawberry".count("r")      3
    9**9**9, 1/0, len("a")       no answer      and the model goes on by itself

A call passes three gates: it is written in the words of GRAMMAR (at most MAX_CHARS, brackets up to MAX_DEPTH); its tree, as
`ast` parses it, has the nodes of GRAMMAR (at most MAX_NODES); every number on the way is finite and small (MAX_BITS). So time
and memory are bounded before anything is computed.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Any

MAX_CHARS = 400
MAX_DEPTH = 10  # of brackets: the time of Python's parser can double with each that is not closed
MAX_NODES = 200
MAX_BITS = 256  # of a whole number
MAX_WHOLE = 2**53  # beyond it floats have gaps, and keep their exponent

Number = int | float


def power(base: Number, exponent: Number) -> Any:
    """base ** exponent. ValueError, before it is computed, where it may have more than MAX_BITS."""
    if base and abs(exponent) * max(1.0, abs(math.log2(abs(base)))) > MAX_BITS:
        raise ValueError("a power that is too large")
    return base**exponent


TEXT = r"""(?:"[^"\\\r\n\0]*+"|'[^'\\\r\n\0]*+')"""
# what is written, as a regular expression that never goes back; the node of its tree; what the node does with its operands
GRAMMAR: tuple[tuple[str, type[ast.AST], Callable[..., Any]], ...] = (
    (r"(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d++)?+(?![\w.])", ast.Constant, lambda number: number),
    (r"\*\*", ast.Pow, power),
    (r"\*", ast.Mult, operator.mul),
    (r"//", ast.FloorDiv, operator.floordiv),
    (r"/", ast.Div, operator.truediv),
    (r"%", ast.Mod, operator.mod),
    (r"\+", ast.Add, operator.add),
    (r"\+", ast.UAdd, operator.pos),
    (r"-", ast.Sub, operator.sub),
    (r"-", ast.USub, operator.neg),
    (r"[ ()]", ast.Expression, lambda value: value),  # brackets leave no node
    (rf"{TEXT}\.count\( *+{TEXT} *+\)", ast.Call, str.count),
)
WORDS = re.compile("(?:" + "|".join(f"(?:{written})" for written, _, _ in GRAMMAR) + ")++")
MEANING: dict[type[ast.AST], Callable[..., Any]] = {node: function for _, node, function in GRAMMAR}


def calculate(code: str) -> str | None:
    """
    The answer to a call, or None where it has none. Never raises, whatever the text.

    >>> calculate("12/60"), calculate("8*5.75"), calculate("'lolly'.count('l')"), calculate("9**9**9")
    ('0.2', '46', '3', None)
    """
    code = code.strip(" ")
    if len(code) > MAX_CHARS or not WORDS.fullmatch(code) or depth(code) > MAX_DEPTH:
        return None
    try:
        tree = ast.parse(code, mode="eval")
        if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
            return None
        return text_of(value_of(tree))
    except (SyntaxError, ValueError, ArithmeticError, MemoryError, RecursionError):
        return None


def depth(code: str) -> int:
    """How deep brackets are nested"""
    level = deepest = 0
    for bracket in re.findall(r"[()]", re.sub(TEXT, "", code)):
        level += 1 if bracket == "(" else -1
        deepest = max(deepest, level)
    return deepest


def value_of(node: ast.AST) -> Number:
    """ValueError for what is not in the grammar, or too large"""
    operation: type[ast.AST] = type(node)
    operands: tuple[Any, ...]
    match node:
        case ast.Expression(body=body):
            return value_of(body)
        case ast.Constant(value=int() | float() as value):
            operands = (value,)
        case ast.UnaryOp(op=op, operand=operand):
            operation, operands = type(op), (value_of(operand),)
        case ast.BinOp(left=left, op=op, right=right):
            operation, operands = type(op), (value_of(left), value_of(right))
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str() as text), attr="count"),
            args=[ast.Constant(value=str() as part)],
            keywords=[],
        ):
            operands = (text, part)
        case _:
            raise ValueError("not in the grammar")
    if operation not in MEANING:
        raise ValueError("not in the grammar")
    return checked(MEANING[operation](*operands))


def checked(value: Any) -> Number:
    """A finite number of bounded size. ValueError otherwise; roots of negative numbers are complex"""
    if isinstance(value, int) and value.bit_length() <= MAX_BITS:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("too large, or no number")


def text_of(value: Number) -> str:
    """
    >>> text_of(15.0), text_of(0.5), text_of(-0.0), text_of(1e300)
    ('15', '0.5', '0', '1e+300')
    """
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_WHOLE:
        value = int(value)
    return str(value)
