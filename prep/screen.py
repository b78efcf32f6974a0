"""
What reaches a terminal: data is shown there and never obeyed.

    source name   \x1b]0;owned\x07          printed as   \\x1b]0;owned\\x07
    file name     a\u202etxt.exe            printed as   a\\u202etxt.exe

While `guarded_streams` runs, what is printed goes through `visible`, so no message has to think of it. Only a `console`, which
draws with colours, writes beside it, and makes its texts visible itself. What is JSON comes from `as_json`.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO, cast

from prep.text import is_hidden, visible

if TYPE_CHECKING:
    from rich.console import Console


class Guarded:
    """A text stream to which nothing is written that drives a terminal"""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Lasting(Guarded):
    """A stream whose program goes on when its reader leaves, or its disk is full: said once on stderr, the rest is dropped."""

    is_lost = False

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(visible(text)))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, use: Callable[[], object]) -> None:
        if self.is_lost:
            return
        try:
            use()
        except (OSError, ValueError) as error:  # ValueError: a stream that was closed
            self.is_lost = True
            with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())  # what is buffered, and written at the exit
            if sys.stdout is cast(TextIO, self):
                reason = getattr(error, "strerror", None) or error
                print(f"stdout cannot be written ({reason}): going on without it", file=sys.stderr, flush=True)


@contextmanager
def guarded_streams(kind: type[Guarded] = Guarded) -> Iterator[None]:
    """Print through `visible` while the block runs. What stdout has no character for is a question mark."""
    open_closed()
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    sys.stdout, sys.stderr = (cast(TextIO, kind(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def open_closed() -> None:
    """Point standard streams that the caller closed (`>&-`) nowhere: the next file opened would have their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 (stays open)


def console(stderr: bool = False) -> "Console":
    """A rich console for standard output, or error: texts are visible and no markup, styles and control codes are its own"""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class VisibleConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    stream = sys.stderr if stderr else sys.stdout
    stream = stream.stream if isinstance(stream, Guarded) else stream
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")
    return VisibleConsole(file=stream, highlight=False, soft_wrap=True, markup=False, emoji=False)


def as_json(value: Any, indent: int | None = None) -> str:
    r"""
    JSON as people read it: letters of all scripts as they are, what is invisible or drives a terminal as escapes.

    >>> as_json({"é\x9b": "\u202e"})
    '{"é\\u009b": "\\u202e"}'
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(json.dumps(char)[1:-1] if is_hidden(char) else char for char in text)
