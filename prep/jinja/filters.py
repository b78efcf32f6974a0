"""
The filters and functions that a chat template may use, each charged for what it is given and for what it makes.

    {{ tools | tojson(indent=4) }}      as transformers has it: keys in their order, no escapes
    {{ x | random }}                    not known: what a template writes depends on what it is given alone
"""

import json
from collections.abc import Callable, Iterable
from datetime import date as Date
from functools import wraps
from typing import Any, Final, cast

from jinja2 import Environment, TemplateError, TemplateRuntimeError
from jinja2.exceptions import SecurityError
from jinja2.filters import do_indent, do_round, make_attrgetter
from jinja2.sandbox import safe_range
from jinja2.utils import Namespace
from markupsafe import Markup

from prep.jinja.steps import Overrun, Steps, size_of

PLAIN: Final = """
abs capitalize count d default dictsort e escape first float int items last length list lower map max min reject rejectattr
reverse safe select selectattr sort striptags title trim truncate unique upper wordcount
"""
FILTERS: Final = tuple(PLAIN.split())
OWN_FILTERS: Final = ("indent", "join", "replace", "round", "string", "sum", "tojson")
MAKE_LISTS: Final = ("dictsort", "list", "sort")


class Attributes(Namespace):
    """namespace(): nothing private is stored"""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"{name!r} may not be stored in a namespace")
        super().__setitem__(name, value)


class Filters(Steps):
    """Filters and functions; a mixin of a Jinja environment"""

    today: Date | None = None

    def _known_filters(self, known: dict[str, Any]) -> dict[str, Any]:
        """Of Jinja's filters those that may be used, and our own"""
        return {
            **{name: self._guarded(name, known[name]) for name in FILTERS},
            **{name: getattr(self, f"_{name}") for name in OWN_FILTERS},
            "_counted": self._counted,
        }

    def _known_functions(self, known: dict[str, Any]) -> dict[str, Any]:
        return {
            **{name: known[name] for name in ("cycler", "joiner")},
            **{"range": self._range, "dict": self._dict, "namespace": Attributes},
            **{"raise_exception": _raise_exception, "strftime_now": self._strftime_now},
        }

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter of Jinja's that is charged for what it is given, and for a list that it makes"""
        place = int(hasattr(function, "jinja_pass_arg"))

        @wraps(function)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            self.charge(1 + size_of(args[place]))
            result = function(*args, **kwargs)
            return self.made(result) if name in MAKE_LISTS else result

        return filtered

    def _counted(self, value: Any) -> Any:
        """The condition of a loop"""
        self.charge(1)
        return value

    def _weighed_items(self, items: Iterable[Any], between: str) -> list[Any]:
        listed = list(items)
        self.charge(len(listed) * (1 + len(between)))
        self.weigh(listed)
        return listed

    def _charge_replaced(self, text: str, old: str, new: str) -> None:
        self.charge(max(0, text.count(old) * (len(new) - len(old))) >> 2)

    def _join(self, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = map(make_attrgetter(cast(Environment, self), attribute), value)
        return str(d).join(map(str, self._weighed_items(value, str(d))))

    def _replace(self, s: Any, old: str, new: str, count: int | None = None) -> str:
        text, old, new = self.written(s), str(old), str(new)
        self._charge_replaced(text, old, new)
        return text.replace(old, new, -1 if count is None else count)

    def _indent(self, s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = self.written(s)
        self.charge(len(text.splitlines()) * (width if isinstance(width, int) else len(width)) >> 2)
        return do_indent(text, width, first, blank)

    def _round(self, value: float, precision: int = 0, method: Any = "common") -> float:
        if abs(precision) > 100:
            raise Overrun(f"round to {precision} places")
        return do_round(value, precision, method)

    def _string(self, value: Any) -> str:
        return value if isinstance(value, Markup) else self.written(value)

    def _sum(self, iterable: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> float:
        values = iterable if attribute is None else map(make_attrgetter(cast(Environment, self), attribute), iterable)
        total: float = 0
        for value in (start, *values):
            self.charge(1)
            if not isinstance(value, int | float):
                raise TemplateRuntimeError("sum is of numbers")
            total += value
        return total

    def _tojson(
        self, x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        self.weigh(x)
        if indent is not None and (indent if isinstance(indent, int) else len(indent)) > 16:
            raise Overrun("tojson indents by more than 16")
        text = json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        self.charge(len(text) >> 2)
        return text

    def _range(self, *args: int) -> range:
        numbers = safe_range(*args)
        self.charge(len(numbers))
        return numbers

    def _dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.made(dict(*args, **kwargs))

    def _strftime_now(self, form: str) -> str:
        if self.today is None:
            raise Overrun("it asks for the date of today: give one with --chat-date 2024-07-26")
        return self.today.strftime(form)


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message))
