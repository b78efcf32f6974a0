"""
What a template's work costs in steps, charged before it is done. prep.jinja.sandbox says why.

    charge(3)                     three steps less; Overrun when none is left
    weigh({"a": ["bcde"]})        what writing it out costs
"""

from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateRuntimeError, Undefined

from prep.jinja.charges import OPENS, Mark


class Overrun(TemplateRuntimeError):
    """A template used up its steps"""


class Steps:
    """Steps that are left to a template"""

    left = 0
    num_opened = 0  # generation blocks

    def charge(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Overrun("it did not end")

    def weigh(self, value: Any) -> None:
        """Charge for everything in a value. TemplateRuntimeError for what has no text that is always the same."""
        rest = [value]
        while rest:
            each = rest.pop()
            if isinstance(each, str):
                self.charge(1 + (len(each) >> 2))
            elif isinstance(each, dict):
                self.charge(1 + len(each))
                rest += [*each, *each.values()]
            elif isinstance(each, list | tuple):
                self.charge(1 + len(each))
                rest += each
            elif isinstance(each, int | float | Undefined) or each is None:
                self.charge(1)
            else:
                raise TemplateRuntimeError(f"a {type(each).__name__} is used as text")

    def written(self, value: Any) -> str:
        """What is written for a value"""
        if type(value) is str:
            self.charge(len(value) >> 2)
            return value
        if type(value) is Mark:
            self.num_opened += value is OPENS
            return value
        self.weigh(value)
        return str(value)

    def made(self, value: Any) -> Any:
        """A list, tuple or object that a template makes. Namespaces and the like may be in it, but are not weighed."""
        rest = [value]
        while rest:
            each = rest.pop()
            if isinstance(each, dict | list | tuple):
                self.charge(1 + len(each))
                rest += each.values() if isinstance(each, dict) else each
        return value

    def cut(self, value: Any) -> Any:
        self.charge(1 + size_of(value))
        return value

    def join_texts(self, parts: Iterable[Any]) -> str:
        """What ~ makes"""
        text = "".join([self.written(part) for part in parts])
        self.charge(len(text) >> 2)
        return text


def size_of(value: Any) -> int:
    if isinstance(value, str):
        return len(value) >> 2
    return len(value) if isinstance(value, list | tuple | dict | range) else 0
