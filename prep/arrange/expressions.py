r"""
A call of a tool as an expression of Python.

    add {"a": 2, "b": null}         add(a=2, b=None)
    route {"from": "Oslo"}          route(**{'from': 'Oslo'})        from is a keyword
    python {"code": "2 + 3"}        2 + 3

Code for an interpreter (`code` alone, or arguments that are not a JSON object) is itself the call; any other call parses as
Python and has the arguments of the data, or its row is rejected.
"""

import ast
import math
import unicodedata
from keyword import iskeyword
from typing import Any

INTERPRETERS = ("python", "code_interpreter", "ipython")
DEEP = 40  # brackets from which on a call is parsed to see whether Python takes it


def expression(name: str, arguments: Any) -> str:
    """
    A call in Python, which evaluates to the arguments of the data. ValueError(reason, culprit) where there is none.

    >>> expression("add", {"a": 2, "b": None})
    'add(a=2, b=None)'
    >>> expression("route", {"from": "Oslo", "class": 2})
    "route(**{'from': 'Oslo', 'class': 2})"
    >>> expression("python", {"code": "2 + 3"})
    '2 + 3'
    """
    if name in INTERPRETERS and isinstance(arguments, str):
        return arguments
    if name in INTERPRETERS and isinstance(arguments, dict) and list(arguments) == ["code"]:
        return str(arguments["code"])
    if not all(map(_is_name, name.split("."))):
        raise ValueError(
            "call is not Python", f'{name!r:.60} is no name in Python: tools = "text" writes calls as JSON'
        )
    try:
        text = _call(name, arguments)
        parses = sum(map(text.count, "([{")) <= DEEP or _parses(text)
    except RecursionError:
        parses = False
    if not parses:
        raise ValueError(
            "call is not Python", 'its arguments are nested too deeply: tools = "text" writes calls as JSON'
        )
    return text


def _call(name: str, arguments: Any) -> str:
    if not isinstance(arguments, dict):
        return f"{name}({_literal(arguments)})"
    if all(map(_is_name, arguments)):
        return f"{name}({', '.join(f'{key}={_literal(value)}' for key, value in arguments.items())})"
    return f"{name}(**{_literal(arguments)})"


def _is_name(name: str) -> bool:
    """Whether Python reads a name as it is spelled: it changes compatibility characters, and keywords are none"""
    is_plain = name.isidentifier() and not iskeyword(name) and name != "__debug__"
    return is_plain and unicodedata.normalize("NFKC", name) == name


def _literal(value: Any) -> str:
    """A JSON value in Python. repr, but for numbers that it writes as names"""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_literal(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "float('nan')" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    return repr(value)


def _parses(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, RecursionError, MemoryError):
        return False
    return True
