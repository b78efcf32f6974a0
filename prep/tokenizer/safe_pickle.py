"""
Read the one pickle that nanochat keeps, a `tiktoken.Encoding`, without running anything.

    PROTO 4 .. 'tiktoken.core' 'Encoding' STACK_GLOBAL .. BUILD STOP   ->   {"name": "rustbpe", "mergeable_ranks": ..}

A pickle is a program for a small stack machine, and `pickle.load` runs all of it. Such a file needs 27 of its 68
instructions: those that push strings, bytes and whole numbers, fill dicts, and make one object of one class. This
module runs those itself, so there is no class to call, nothing to import, no tuple to nest: whatever else a file asks
for is refused by name. Each instruction adds at most what it holds in the file, so time and memory are linear in the
size of the file: 0.05 s for 32,768 tokens.
"""

import contextlib
import pickletools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

MAX_BYTES: Final = 256 << 20  # the pickle of a vocabulary of a million tokens has 20 MB
ENCODING: Final = ("tiktoken.core", "Encoding")

MARK: Final = object()


class _Class:
    """Stands for the class `tiktoken.core.Encoding`: nothing of it is imported or called"""


class _Object:
    """Stands for the encoding itself. `state` is what BUILD gives it, kept and not applied."""

    state: Any = None


def read_encoding(path: Path) -> dict[str, Any]:
    """The state of a pickled `tiktoken.Encoding`, as its __getstate__ gave it. ValueError for anything else."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, a tokenizer has at most {MAX_BYTES:,}: is it a tokenizer.pkl?")
    try:
        return run(path.read_bytes())
    except ValueError as error:  # genops too has nothing but ValueErrors for what it cannot read
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} refused, nothing in it was run: {reason}; give nanochat's tokenizer.pkl") from None


def run(data: bytes) -> dict[str, Any]:
    """Run the admitted instructions of a pickle; returns the state of the one object that it must be."""
    machine = Machine()
    with warnings.catch_warnings(action="ignore"):  # genops would warn of odd escapes in what is refused anyway
        for opcode, argument, position in pickletools.genops(data):
            step = STEPS.get(opcode.name)
            if step is None:
                raise ValueError(f"{asks_for(data)}instruction {opcode.name} at byte {position} is not admitted")
            step(machine, argument)
    return machine.result()


def asks_for(data: bytes) -> str:
    named = next((name for name in find_names(data) if name != ".".join(ENCODING)), None)
    return f"it names {named}, and " if named else ""


def find_names(data: bytes) -> Iterator[str]:
    """The classes and functions that a pickle names, as far as it can be read: to say what it was after"""
    texts, memo = ["", ""], dict[int, str]()  # the last texts that were pushed, and those it remembers
    with contextlib.suppress(ValueError):
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            elif "PUT" in opcode.name or opcode.name == "MEMOIZE":
                memo[len(memo) if argument is None else int(argument)] = texts[-1]
            elif "GET" in opcode.name and argument in memo:
                texts = [texts[-1], memo[int(argument)]]
            elif isinstance(argument, str):
                texts = [texts[-1], argument]


class Machine:
    """The stack and the memo of the pickle's program. Values: str, bytes, int, dict, the class, its object, ()."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self, kind: type | tuple[type, ...]) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            found = kind_of(self.stack[-1]) if self.stack else "nothing"
            raise ValueError(f"{found} found where the pickle of a tiktoken.Encoding has another kind of value")
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def memoize(self, index: int | None) -> None:
        if not self.stack:
            raise ValueError("it remembers a value where there is none")
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"it recalls value {index} that it never made")
        self.push(self.memo[index])

    def find_class(self, module: str, name: str) -> None:
        if (module, name) != ENCODING:
            raise ValueError(f"it names {module}.{name}, only {'.'.join(ENCODING)} is admitted")
        self.push(_Class())

    def stack_global(self) -> None:
        name, module = self.pop(str), self.pop(str)
        self.find_class(module, name)

    def new_object(self) -> None:
        self.pop(tuple)
        self.pop(_Class)
        self.push(_Object())

    def set_items(self) -> None:
        items: list[Any] = []
        while (value := self.pop(object)) is not MARK:
            items.append(value)
        self.fill(items[::-1])

    def set_item(self) -> None:
        value, key = self.pop(object), self.pop(object)
        self.fill([key, value])

    def fill(self, items: list[Any]) -> None:
        target = self.pop(dict)
        if len(items) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes):
                raise ValueError(f"{kind_of(key)} as a key, wanted str or bytes")
            if key in target:
                raise ValueError(f"key {key!r} twice in one dict")
            target[key] = value
        self.push(target)

    def build(self) -> None:
        state = self.pop((dict, str))
        target = self.pop(_Object)
        if target.state is not None:
            raise ValueError("it gives the encoding its state twice")
        target.state = state
        self.push(target)

    def result(self) -> dict[str, Any]:
        encoding = self.pop(_Object)
        if self.stack:
            raise ValueError(f"it holds {len(self.stack)} more values than a tiktoken.Encoding")
        if isinstance(encoding.state, str):  # tiktoken pickles its own encodings by name, and loading would download
            name = encoding.state[:50]
            raise ValueError(f"it holds no tokens, only the name of tiktoken's {name!r}: use --tokenizer {name}")
        if encoding.state is None:
            raise ValueError("its tiktoken.Encoding is empty")
        state: dict[str, Any] = encoding.state
        return state


def kind_of(value: Any) -> str:
    return "a mark" if value is MARK else f"{type(value).__name__.strip('_').lower()}"


def _push(machine: Machine, argument: Any) -> None:
    machine.push(argument)


def _nothing(machine: Machine, argument: Any) -> None:
    pass


Step = Callable[[Machine, Any], None]

# what protocols 3, 4 and 5 use for an Encoding, optimised by pickletools or not
STEPS: Final[dict[str, Step]] = {
    **dict.fromkeys(["PROTO", "FRAME", "STOP"], _nothing),
    **dict.fromkeys(["SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"], _push),
    **dict.fromkeys(["SHORT_BINBYTES", "BINBYTES", "BINBYTES8"], _push),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1"], _push),
    **dict.fromkeys(["BINPUT", "LONG_BINPUT", "MEMOIZE"], Machine.memoize),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], Machine.recall),
    "MARK": lambda machine, _: machine.push(MARK),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "GLOBAL": lambda machine, names: machine.find_class(*(names.split(" ", 1) + [""])[:2]),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    "NEWOBJ": lambda machine, _: machine.new_object(),
    "SETITEM": lambda machine, _: machine.set_item(),
    "SETITEMS": lambda machine, _: machine.set_items(),
    "BUILD": lambda machine, _: machine.build(),
}
