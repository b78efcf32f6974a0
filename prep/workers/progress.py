"""
Progress of a pass: a bar in a terminal, a plain line now and then elsewhere, nothing for passes under two seconds.

    render   42%  126,000 conversations  9,812/s  2.41 Mtok/s  0:18 left
"""

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from prep.screen import console

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

QUIET_SECONDS = 2.0  # passes shorter than this print nothing
LINE_SECONDS = 10.0  # between lines where stderr is not a terminal


class Progress(ExitStack):
    """Counts conversations and tokens of one pass over `total` conversations and shows them on stderr."""

    def __init__(self, name: str, total: int, quiet: bool = False) -> None:
        super().__init__()
        self.name = name
        self.total = max(total, 1)
        self.quiet = quiet
        self.conversations = self.tokens = 0
        self.start = time.monotonic()
        self.next_line = self.start + QUIET_SECONDS
        self.bar: Bar | None = None

    def add(self, conversations: int, tokens: int) -> None:
        self.conversations += conversations
        self.tokens += tokens
        now = time.monotonic()
        if self.quiet or now - self.start < QUIET_SECONDS:
            return
        if sys.stderr.isatty():
            self.bar = self.bar or self.enter_context(self._new_bar())
            self.bar.update(self.bar.task_ids[0], completed=self.conversations, description=self.line())
        elif now >= self.next_line:
            self.next_line = now + LINE_SECONDS
            print(self.line(), file=sys.stderr, flush=True)

    def _new_bar(self) -> "Bar":
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        bar = Bar(BarColumn(), TextColumn("{task.description}"), console=console(stderr=True), transient=True)
        bar.add_task("", total=self.total)
        return bar

    def line(self) -> str:
        seconds = max(time.monotonic() - self.start, 1e-9)
        share = min(self.conversations / self.total, 1.0)
        left = int(seconds * (1 - share) / share) if share else 0
        return (
            f"{self.name:<7}{share:5.0%}  {self.conversations:,} conversations  {self.conversations / seconds:,.0f}/s  "
            f"{self.tokens / seconds / 1e6:.2f} Mtok/s  {left // 60}:{left % 60:02d} left"
        )
