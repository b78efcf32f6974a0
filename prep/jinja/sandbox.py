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

import re
from collections.abc import Callable
from datetime import date as Date
from typing import Any, Final

from jinja2 import Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prep.jinja.charges import CLOSES, OPENS, Counted, Generation, Mark, add_charges
from prep.jinja.filters import Filters
from prep.jinja.steps import Overrun, size_of

# of a text: what makes more of it is charged for
SAFE: Final = """
startswith endswith split rsplit splitlines strip lstrip rstrip upper lower title capitalize swapcase casefold find rfind index
rindex count partition rpartition removeprefix removesuffix isdigit isdecimal isnumeric isalpha isalnum isascii isspace isupper
islower istitle isidentifier isprintable join replace
"""
TEXT_METHODS: Final = frozenset(SAFE.split())
MOST_BITS: Final = 10_000  # of a number
WIDE: Final = re.compile(r"\{[^{}]*:[^{}]*(?:\d{4}|\{)")  # a width in "{:9999}".format, or one that is given
WIDE_PERCENT: Final = re.compile(r"%[^%a-zA-Z]*(?:\*|\d{4})")
OF_DICT: Final = frozenset(dir(dict))


class Sandbox(Filters, ImmutableSandboxedEnvironment):
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
        self.filters = self._known_filters(self.filters)
        self.globals = self._known_functions(self.globals)
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
        __self.charge(1 + size_of(owner))
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
