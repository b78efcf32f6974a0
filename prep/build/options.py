"""
What a build is asked for: one flat record. What decides its bytes is prep.plan.rows.RowOptions; the rest does not.
"""

from dataclasses import dataclass, field
from pathlib import Path

from prep.files import default_cache_dir
from prep.plan.rows import RowOptions
from prep.workers.engine import ENGINES, Workers


@dataclass(frozen=True)
class BuildOptions(RowOptions):
    """Options of a build. ValueError for what cannot be meant, in the words of the command line."""

    cache_dir: Path = field(default_factory=default_cache_dir)
    workers: int = 1  # 0 with ray: all cores of the cluster
    engine: str = "local"
    address: str | None = None  # of a Ray cluster
    encoder: str = "auto"
    max_rejected: float = 0.05  # largest share of a source's examples that may be rejected
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in ENGINES:
            raise ValueError(f"--engine {self.engine!r} found, wanted {' or '.join(ENGINES)}.")
        if self.address is not None and self.engine != "ray":
            raise ValueError(
                f"--address {self.address} found, which is for --engine ray: give that also, or leave it out."
            )
        if self.workers < (0 if self.engine == "ray" else 1):
            raise ValueError(f"--workers {self.workers} found, wanted 1 or more.")
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"--max-rejected {self.max_rejected} found, wanted a share from 0 to 1.")

    @property
    def where(self) -> Workers:
        """Where the passes run"""
        return Workers(self.engine, self.workers, self.address, self.cache_dir)
