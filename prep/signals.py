"""
Ctrl-C and SIGTERM, held back from what must not be interrupted half-way.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

STOPS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = "midprep: interrupted; no half-written file is left, rendered blocks are kept."


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM in a command; not KeyboardInterrupt, on which typer exits silently"""


def leave_at_once() -> None:
    """From here on Ctrl-C and SIGTERM end the process in one line: for before a command begins, and after its end."""
    for number in STOPS:
        signal.signal(number, _leave)


def _leave(number: int, frame: object) -> NoReturn:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)


@contextmanager
def signals_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM that arrive in the block take effect at its end. In the main thread; others receive none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {number: signal.signal(number, lambda number, frame: arrived.append(number)) for number in STOPS}
    try:
        yield
    except SystemExit:  # what Ray makes of SIGTERM when it starts: this program decides how it ends
        arrived.append(signal.SIGTERM)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:  # whatever else has happened
            signal.raise_signal(arrived[0])
