"""
Which engine runs the jobs of a pass, and what it is told.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ENGINES = ("local", "ray")

Context = TypeVar("Context")  # what every job needs; each worker gets it once
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workers:
    """Where jobs run: the engine, how many workers (0 with ray: all cores of the cluster), and what Ray needs to know."""

    engine: str = "local"
    count: int = 1
    address: str | None = None  # of a Ray cluster
    shared: Path = Path()  # a directory that all nodes see: the cache
