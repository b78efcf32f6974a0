"""
Ctrl-C and SIGTERM, kept off what must not be interrupted half-way.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM in a command; not KeyboardInterrupt, which typer would end without a word"""


@contextmanager
def signals_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come in the block take effect when it is left. In the main thread; elsewhere none come."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in STOPS}
    try:
        yield
    except SystemExit:  # what Ray makes of SIGTERM when it starts: how the program ends is the program's
        came.append(signal.SIGTERM)
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
        for late in came[:1]:  # whatever else has happened
            signal.raise_signal(late)
