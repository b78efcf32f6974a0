"""
What a build is asked for: one flat record. What decides its bytes is prep.plan.rows.RowOptions; the rest does not.
"""

from dataclasses import dataclass

from prep.plan.rows import RowOptions
from prep.workers.engine import Workers


@dataclass(frozen=True)
class BuildOptions(RowOptions, Workers):
    """Options of a build. ValueError for what cannot be meant, in the words of the command line."""

    encoder: str = "auto"
    max_rejected: float = 0.05  # largest share of a source's examples that may be rejected
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        RowOptions.__post_init__(self)
        Workers.__post_init__(self)
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"--max-rejected {self.max_rejected} found, wanted a share from 0 to 1.")
