r"""
Jinja templates of strangers: what they may read, how far they may run, how much they may make.

    {{ messages.__class__ }}              SecurityError: nothing private is read
    {% for i in range(99999) %} {% ...    Overrun: the steps are spent
    {{ 'a' * 10 ** 9 }}                   Overrun: so many characters cost more steps than there are

A step is a turn of a loop, a call, a filter, an item of a list that is made, or four characters that are made or written. They
are counted before the work is done, in the compiled template itself: no clock, no signal, no process of its own. So a template
gets equally far on every machine, in any thread or worker, and it costs some ten per cent of the rendering. What a template
writes depends on what it is given alone: there is no `random`, no date of today, no address of an object. Filters that chat
templates have no use for are not known, which is said when the template is compiled.

`{% generation %}` gives spans of the text: marks that are no characters go with it to where it is written.
"""

import json
import re
from collections.abc import Callable, Iterable
from datetime import date as Date
from functools import wraps
from typing import Any, Final

from jinja2 import TemplateError, TemplateRuntimeError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.filters import do_indent, do_round, make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace
from markupsafe import Markup

from prep.jinja_code import CLOSES, OPENS, Counted, Generation, Mark, add_charges

# of a text: what makes more of it is charged for
SAFE: Final = """
startswith endswith split rsplit splitlines strip lstrip rstrip upper lower title capitalize swapcase casefold find rfind index
rindex count partition rpartition removeprefix removesuffix isdigit isdecimal isnumeric isalpha isalnum isascii isspace isupper
islower istitle isidentifier isprintable join replace
"""
PLAIN: Final = """
abs capitalize count d default dictsort e escape first float int items last length list lower map max min reject rejectattr
reverse safe select selectattr sort striptags title trim truncate unique upper wordcount
"""
TEXT_METHODS: Final = frozenset(SAFE.split())
FILTERS: Final = tuple(PLAIN.split())
OWN_FILTERS: Final = ("indent", "join", "replace", "round", "string", "sum", "tojson")
MAKE_LISTS: Final = ("dictsort", "list", "sort")
MOST_BITS: Final = 10_000  # of a number
WIDE: Final = re.compile(r"\{[^{}]*:[^{}]*(?:\d{4}|\{)")  # a width in "{:9999}".format, or one that is given
WIDE_PERCENT: Final = re.compile(r"%[^%a-zA-Z]*(?:\*|\d{4})")
OF_DICT: Final = frozenset(dir(dict))


class Overrun(TemplateRuntimeError):
    """A template used up its steps"""


class Attributes(Namespace):
    """namespace(): nothing private is stored"""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"{name!r} may not be stored in a namespace")
        super().__setitem__(name, value)


class Sandbox(ImmutableSandboxedEnvironment):
    """A compiled template, for one thread. TemplateError, or whatever Python raises, if it does not compile."""

    code_generator_class = Counted
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    opens, closes = OPENS, CLOSES

    def __init__(self, source: str, today: Date | None = None) -> None:
        self.left, self.num_opened, self.has_generation, self.today = 1 << 20, 0, False, today
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, loopcontrols],
            finalize=self.written,
            cache_size=0,
        )
        self.filters = {
            **{name: self._guarded(name, self.filters[name]) for name in FILTERS},
            **{name: getattr(self, f"_{name}") for name in OWN_FILTERS},
            "_counted": self._counted,
        }
        self.globals = {
            **{name: self.globals[name] for name in ("cycler", "joiner")},
            **{"range": self._range, "dict": self._dict, "namespace": Attributes},
            **{"raise_exception": _raise_exception, "strftime_now": self._strftime_now},
        }
        self.template = self.from_string(source)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """The code, with a charge in everything that may run more than once"""
        add_charges(source, self)
        return super()._generate(source, *args, **kwargs)

    def run(self, steps: int, variables: dict[str, Any]) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the spans of generation blocks in it, in characters. What a template may raise is raised."""
        self.left, self.num_opened = steps, 0
        pieces, spans, starts, place = [], [], list[int](), 0
        context = self.template.new_context(variables)
        for piece in self.template.root_render_func(context):
            if type(piece) is Mark:
                if piece is OPENS:
                    starts.append(place)
                else:
                    spans.append((starts.pop(), place))
                continue
            pieces.append(piece)
            place += len(piece)
        if len(spans) != self.num_opened:
            raise Overrun("a generation block is in a macro, a call or a set block: its place is not known")
        return "".join(pieces), spans

    # ---- steps ----

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
        self.charge(1 + _size(value))
        return value

    def join_texts(self, parts: Iterable[Any]) -> str:
        """What ~ makes"""
        text = "".join([self.written(part) for part in parts])
        self.charge(len(text) >> 2)
        return text

    # ---- what Jinja asks a sandbox ----

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute not in OF_DICT:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, int | float) or (isinstance(obj, str) and attr not in TEXT_METHODS):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"{attribute!r} of a {type(obj).__name__} may not be read")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text = value.__self__

        def write(*args: Any, **kwargs: Any) -> str:
            if WIDE.search(text):
                raise Overrun(f"{text!r:.40} is too wide")
            self.weigh([text, args, kwargs] * (1 + text.count("{")))
            return wrapped(*args, **kwargs)

        return write

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(__obj, "__self__", None)
        __self.charge(1 + _size(owner))
        if not isinstance(owner, str):
            return super().call(__context, __obj, *args, **kwargs)
        kwargs.pop("_loop_vars", None), kwargs.pop("_block_vars", None)  # Jinja's own
        name = __obj.__name__
        if name == "join":
            args = (__self._weighed_items(args[0], owner), *args[1:])
        elif name == "replace" and len(args) > 1:
            __self._charge_replaced(owner, str(args[0]), str(args[1]))
        return __obj(*args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if isinstance(left, str) and isinstance(right, str):
                self.charge((len(left) + len(right)) >> 2)
                return left + right
            return self.made(left + right)
        if operator == "%" and isinstance(left, str):
            if WIDE_PERCENT.search(left):
                raise Overrun(f"{left!r:.40} is too wide")
            self.weigh([left, right if isinstance(right, str | tuple | dict) else [right]])
        elif operator == "*" and isinstance(left, str | list | tuple) and isinstance(right, int):
            return self.made(left * self._times(left, right))
        elif operator == "*" and isinstance(right, str | list | tuple) and isinstance(left, int):
            return self.made(right * self._times(right, left))
        elif isinstance(left, int) and isinstance(right, int) and operator != "%":
            bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MOST_BITS:
                raise Overrun(f"a number of {bits:,} bits")
        return super().call_binop(context, operator, left, right)

    def _times(self, value: Any, times: int) -> int:
        self.charge(1 + max(times, 0) * len(value))
        return times

    # ---- filters and functions ----

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter of Jinja's that is charged for what it is given, and for a list that it makes"""
        place = int(hasattr(function, "jinja_pass_arg"))

        @wraps(function)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            self.charge(1 + _size(args[place]))
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
            value = map(make_attrgetter(self, attribute), value)
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
        values = iterable if attribute is None else map(make_attrgetter(self, attribute), iterable)
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


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value) >> 2
    return len(value) if isinstance(value, list | tuple | dict | range) else 0
