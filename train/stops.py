"""
When a run is told to stop: by a signal, or by the end of the torchrun that started it. The loop asks once a step.

    SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2    the step ends, a checkpoint is saved, exit code 0
    another one, more than 5 s later             the process ends at once
    torchrun is gone (kill -9, SIGUSR1)          the same as a signal: nothing else would ever end its ranks

A signal that is ignored stays so (`nohup python`), but not under torchrun: that hands SIGHUP on in spite of nohup, and kills
its ranks 30 s later.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from train.distributed import leave

# `kill` and Ctrl-C; a closed terminal; what Slurm's --signal, Lightning and submitit send before the time is over
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PARENT = os.getppid()


class StopRequest:
    """True from the first of these signals on, or once torchrun is gone: one system call to look"""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN or self.by_torchrun:
                signal.signal(number, self._note)

    def __bool__(self) -> bool:
        if not self.times and self.by_torchrun and os.getppid() != PARENT:
            self.times.append(time.monotonic())
            if os.environ.get("LOCAL_RANK") == "0":
                print("torchrun is gone: stopping after this step, with a checkpoint", file=sys.stderr, flush=True)
        return bool(self.times)

    def _note(self, number: int, frame: Any) -> None:
        with suppress(OSError):  # a closed terminal
            os.write(2, b"" if self.times else b"stopping after this step, with a checkpoint\n")
        self.times.append(time.monotonic())
        if self.times[-1] > self.times[0] + 5:  # not the second: Slurm and torchrun may both send
            leave(128 + number)
