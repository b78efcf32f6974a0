"""
What a build is asked for, in one flat record.
"""

from dataclasses import dataclass, field
from pathlib import Path

from prep.plan import EXCESS, PACKINGS


@dataclass(frozen=True)
class Options:
    """The first three decide the bytes of a build, the others do not."""

    max_seq_len: int = 2048
    packing: str = "bfd"
    excess_length_strategy: str = "truncate"

    cache_dir: Path = field(default_factory=Path)
    workers: int = 1
    encoder: str = "auto"
    max_rejected: float = 0.05
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.max_seq_len < 1 << 31:
            raise ValueError(f"--max-seq-len {self.max_seq_len} found, wanted 2 or more.")
        if self.packing not in PACKINGS:
            raise ValueError(f"--packing {self.packing!r} found, wanted {' or '.join(PACKINGS)}.")
        if self.excess_length_strategy not in EXCESS:
            raise ValueError(
                f"--excess-length-strategy {self.excess_length_strategy!r} found, wanted {', '.join(EXCESS)}."
            )
        if self.workers < 1:
            raise ValueError(f"--workers {self.workers} found, wanted 1 or more.")
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"--max-rejected {self.max_rejected} found, wanted a share from 0 to 1.")
