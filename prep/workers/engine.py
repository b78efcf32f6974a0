"""
Which engine runs the jobs of a pass, and what it is told.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from prep.files import default_cache_dir

ENGINES = ("local", "ray")

Context = TypeVar("Context")  # what every job needs; each worker gets it once
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workers:
    """Where jobs run. ValueError, in the words of the command line, for what cannot be meant."""

    engine: str = "local"
    workers: int = 1  # 0 with ray: all cores of the cluster
    address: str | None = None  # of a Ray cluster
    cache_dir: Path = field(default_factory=default_cache_dir)  # that all nodes of a cluster see

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"--engine {self.engine!r} found, wanted {' or '.join(ENGINES)}.")
        if self.address is not None and self.engine != "ray":
            raise ValueError(
                f"--address {self.address} found, which is for --engine ray: give that also, or leave it out."
            )
        if self.workers < (0 if self.engine == "ray" else 1):
            raise ValueError(f"--workers {self.workers} found, wanted 1 or more.")
