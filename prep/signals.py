"""
Ctrl-C and SIGTERM, held back from what must not be interrupted half-way.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM in a command; not KeyboardInterrupt, on which typer exits silently"""


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
