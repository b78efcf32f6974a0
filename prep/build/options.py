"""
What a build is asked for, in one flat record.
"""

from dataclasses import dataclass, field
from pathlib import Path

from prep.plan.rows import EXCESS, PACKINGS
from prep.workers.engine import ENGINES, Workers

LONGEST = 1 << 24  # tokens of a row: some are in memory at once

NANOCHAT_MAX_TOKENS = 2048


@dataclass(frozen=True)
class BuildOptions:
    """The first four decide the bytes of a build, the others do not."""

    max_seq_len: int = 2048
    packing: str = "bfd"
    excess_length_strategy: str = "truncate"
    max_tokens: int | None = None  # of a conversation, before anything else; see `token_limit`

    cache_dir: Path = field(default_factory=Path)
    workers: int = 1  # 0 with ray: all cores of the cluster
    engine: str = "local"
    address: str | None = None  # of a Ray cluster
    encoder: str = "auto"
    max_rejected: float = 0.05
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.max_seq_len <= LONGEST:
            raise ValueError(f"--max-seq-len {self.max_seq_len} found, wanted 2 to {LONGEST}.")
        if self.packing not in PACKINGS:
            raise ValueError(f"--packing {self.packing!r} found, wanted {' or '.join(PACKINGS)}.")
        if self.excess_length_strategy not in EXCESS:
            raise ValueError(
                f"--excess-length-strategy {self.excess_length_strategy!r} found, wanted {', '.join(EXCESS)}."
            )
        if self.packing == "wrapped" and self.excess_length_strategy != "truncate":
            raise ValueError(
                f"--excess-length-strategy {self.excess_length_strategy} says nothing with --packing wrapped, whose rows take "
                "conversations of any length (--max-tokens cuts them): leave it out."
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"--max-tokens {self.max_tokens} found, wanted 1 or more.")
        if self.engine not in ENGINES:
            raise ValueError(f"--engine {self.engine!r} found, wanted {' or '.join(ENGINES)}.")
        if self.address is not None and self.engine != "ray":
            raise ValueError(
                f"--address {self.address} found, which is for --engine ray: give that too, or leave it out."
            )
        if self.workers < (0 if self.engine == "ray" else 1):
            raise ValueError(f"--workers {self.workers} found, wanted 1 or more.")
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"--max-rejected {self.max_rejected} found, wanted a share from 0 to 1.")

    @property
    def token_limit(self) -> int | None:
        """
        Where a conversation is cut whatever the packing. nanochat's renderer cuts at 2,048 tokens, so `wrapped`, which has
        no use for a limit of its own, does too, unless rows are longer; `bfd` cuts to a row by the excess-length strategy.
        """
        if self.max_tokens is not None or self.packing == "bfd":
            return self.max_tokens
        return max(NANOCHAT_MAX_TOKENS, self.max_seq_len)

    @property
    def where(self) -> Workers:
        """Where the passes run"""
        return Workers(self.engine, self.workers, self.address, self.cache_dir)
