"""
What a build is asked for: one flat record. What decides its bytes is prep.plan.rows.RowOptions; the rest does not.
"""

from dataclasses import dataclass
from typing import Any

from prep.chat.choose import KEYS
from prep.mixture.checks import check_train_on
from prep.plan.rows import RowOptions
from prep.workers.engine import Workers


@dataclass(frozen=True)
class BuildOptions(RowOptions, Workers):
    """Options of a build. ValueError for what cannot be meant, in the words of the command line."""

    encoder: str = "auto"
    chat_template: str | None = None  # this and what follows: the mixture's, else as prep.chat.choose has it
    mask: str | None = None
    empty_think: bool | None = None
    chat_date: str | None = None
    train_on: str | tuple[str, ...] | None = None
    max_rejected: float = 0.05  # largest share of a source's examples that may be rejected
    overwrite: bool = False
    quiet: bool = False

    @property
    def chat(self) -> dict[str, Any]:
        """What is given of the chat template"""
        return {key: value for key in KEYS if (value := getattr(self, key)) is not None}

    def __post_init__(self) -> None:
        RowOptions.__post_init__(self)
        check_train_on(self.train_on, "--", "train-on")
        Workers.__post_init__(self)
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"--max-rejected {self.max_rejected} found, wanted a share from 0 to 1.")
