"""
What a build is asked for, in one flat record.
"""

from dataclasses import dataclass, field
from pathlib import Path

from prep.plan import EXCESS, PACKINGS

NANOCHAT_MAX_TOKENS = 2048


@dataclass(frozen=True)
class Options:
    """The first four decide the bytes of a build, the others do not."""

    max_seq_len: int = 2048
    packing: str = "bfd"
    excess_length_strategy: str = "truncate"
    max_tokens: int | None = None  # of a conversation, before anything else; see `token_limit`

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
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"--max-tokens {self.max_tokens} found, wanted 1 or more.")
        if self.workers < 1:
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
