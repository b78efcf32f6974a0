r"""
A chat template, as a build uses it: a format, which of it is trained, and what else an option decides.

    ChatTemplate(QWEN3)                          what TRL trains
    ChatTemplate(QWEN3, mask="sampled")          what a model would have sampled: no scaffold, no newline after the end
    ChatTemplate(QWEN3, empty_think=False)       turns without reasoning have no empty block

Its identity is part of every name of a block and of the manifest: nanochat's own is what it was before there were others.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from prep.chat.format import ChatFormat
from prep.chat.tables import NANOCHAT

MASKS: Final = ("format", "sampled")
TRAINED_KINDS: Final = ("text", "reasoning", "calls", "end")  # of the assistant's turn, that `train_on` may list


@dataclass(frozen=True)
class ChatTemplate:
    """A format and its options. ValueError for what cannot be meant."""

    format: ChatFormat = NANOCHAT
    mask: str = "format"
    empty_think: bool = True
    date: str | None = None
    train_on: str | tuple[str, ...] | None = None  # for entries without one of their own

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(f"--mask {self.mask!r} is not known, wanted {' or '.join(MASKS)}.")

    @property
    def name(self) -> str:
        return self.format.name

    @property
    def is_default(self) -> bool:
        return self == ChatTemplate()

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it, and what its bytes depend on"""
        table = json.dumps(asdict(self.format), sort_keys=True, ensure_ascii=False)
        described: dict[str, Any] = {"name": self.name, "mask": self.mask, "sha256": _sha256(table)}
        if self.format.reasoning:
            described["empty_think"] = self.empty_think
        if self.format.date:
            described["date"] = self.date or self.format.date
        if self.train_on is not None:
            described["train_on"] = self.train_on if isinstance(self.train_on, str) else list(self.train_on)
        return described

    @property
    def key(self) -> tuple[str, ...]:
        """What names of blocks have of it: nothing for nanochat's own"""
        return () if self.is_default else (json.dumps(self.describe(), sort_keys=True),)

    def summary(self) -> str:
        """
        >>> ChatTemplate().summary()
        "chat format nanochat, mask format: nanochat's tokenizer.render_conversation"
        """
        more = "" if self.empty_think else ", no empty reasoning"
        more += f", date {self.date or self.format.date}" if self.format.date else ""
        return f"chat format {self.name}, mask {self.mask}{more}: {self.format.authority}"

    @property
    def reads_tools(self) -> bool:
        return self.format.tools is not None

    @property
    def reads_reasoning(self) -> bool:
        return self.format.reasoning is not None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
