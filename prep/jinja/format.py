r"""
Chat formats that are a Jinja template: one conversation to its text, and the spans of its generation blocks.

    <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n
                                                            |4<|im_end|>\n|     {% generation %} ... {% endgeneration %}

A template gets what transformers gives it, and is bounded by prep.jinja.sandbox. A stock template that is known by its sha256
is a table of prep.chat.tables instead.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prep.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from prep.jinja.sandbox import Sandbox

# sha256 of a template without white space around it: the table that gives the same ids. Of TRL 1.16:
KNOWN: Final = {
    "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8": "qwen3-stock",  # qwen3
    "1d944ff8f268b611abb296cdd24d0f51981eef1c8647ac321c3a0258f61eb6c9": "qwen3",  # qwen3_training
    "55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a": "qwen2.5",  # qwen2_5
    "f3714f7117c9d447db80ceb3fcb67a64ba08d149dd4434fe53add9c7f1dd344b": "qwen2.5",  # qwen2_5_training
    "64f85b198065d0fba2a81f37e10ed68161ce2c19a754c7100e67e0ca2ee9c326": "qwen3-instruct-2507",  # qwen3_instruct_2507
    "48e17aa3caf5bf20075b6e7366864ee943e00b6f0752aadfe8b670c2ab0291a5": "qwen3-instruct-2507",  # qwen3_instruct_2507_training
    "ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122": "llama3",  # llama3
    "bc213ef03ac49e40c58b11933b109235e63d25f13e7cd4df966c577966d2345e": "llama3",  # llama3_training
    "93c0e9aa3629bbd77e68dbc0f5621f6e6b23aa8d74b932595cdb8d64684526d7": "llama3.1",  # llama3_1
}  # fmt: skip
MOST_BYTES: Final = 1 << 20  # of a template
STEPS: Final = 1_000_000  # that a template may take, see prep.jinja.sandbox
STEPS_A_CHARACTER: Final = (
    16  # of the conversation, more, and one for each of its messages: what was said may be copied
)
STEPS_A_PAIR: Final = 64  # of its messages, more

Messages = list[dict[str, Any]]
Span = tuple[int, int]  # in characters of a text

_of_thread = threading.local()


class Written(NamedTuple):
    """A conversation as text, and the spans of it that train"""

    text: str
    spans: list[Span]
    is_document: bool = False  # plain text, not written by a template


@dataclass(frozen=True)
class JinjaFormat:
    """A template. ValueError, in one line, if it does not compile or its date is none."""

    name: str
    source: str = field(repr=False)
    date: str = ""  # what `strftime_now` and `date_string` say: 2024-07-26 or 26 Jul 2024
    sha256: str = field(init=False)
    has_generation: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", sha256(self.source))
        object.__setattr__(self, "has_generation", self._sandbox().has_generation)

    @classmethod
    def read(cls, path: Path, date: str = "") -> "JinjaFormat":
        """The template in a file"""
        try:
            source = path.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: byte {error.start} is not UTF-8: save the chat template as UTF-8.") from None
        return cls(str(path), source, date)

    def write(
        self, messages: Messages, tools: Any, tokens: Mapping[str, str], add_generation_prompt: bool = False
    ) -> Written:
        """
        The text of a conversation, and the spans of generation blocks; `tokens` are bos_token and the like.
        ValueError("template raised", culprit) for what the template refuses; ValueError for a template that is refused.
        """
        from jinja2.exceptions import SecurityError

        from prep.jinja.steps import Overrun

        sandbox = self._sandbox()
        size = sum(len(text) for message in messages for text in message.values() if isinstance(text, str))
        size += len(str(tools)) if tools else 0
        size += sum(len(str(message["tool_calls"])) for message in messages if "tool_calls" in message)
        steps = STEPS + (STEPS_A_CHARACTER + len(messages)) * size + STEPS_A_PAIR * len(messages) ** 2
        given = {"messages": messages, "tools": tools, "documents": None, **tokens}
        if self.date:
            given["date_string"] = _day(self.date).strftime("%d %b %Y")
        try:
            return Written(*sandbox.run(steps, given | {"add_generation_prompt": add_generation_prompt}))
        except (Overrun, SecurityError) as error:
            within = f" within {steps:,} steps" if sandbox.left < 0 else ""
            raise ValueError(f"chat template {self.name}{_where(error, sandbox)}: {error}{within}.") from None
        except Exception as error:  # whatever a template does to a row is no error of the build
            said = " ".join(f"{error}".split())
            name = "" if type(error).__name__ in ("TemplateError", "UndefinedError") else f"{type(error).__name__}: "
            raise ValueError("template raised", f"{self.name}{_where(error, sandbox)}: {name}{said}") from None

    def _sandbox(self) -> "Sandbox":
        """The compiled template of this thread"""
        programs = _of_thread.__dict__.setdefault("programs", {})
        key = (self.source, self.date)
        if key not in programs:
            programs[key] = _compile(self.name, self.source, _day(self.date) if self.date else None)
        return programs[key]  # type: ignore[no-any-return]


def _compile(name: str, source: str, today: Date | None) -> "Sandbox":
    from jinja2 import TemplateSyntaxError

    from prep.jinja.sandbox import Sandbox

    if len(source) > MOST_BYTES:
        raise ValueError(f"chat template {name} has {len(source):,} characters, wanted at most {MOST_BYTES:,}.")
    try:
        return Sandbox(source, today)
    except TemplateSyntaxError as error:
        raise ValueError(f"chat template {name}, line {error.lineno}: {error.message}") from None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"chat template {name} does not compile ({type(error).__name__}: {error!s:.80})") from None


def _day(text: str) -> Date:
    for form in ("%Y-%m-%d", "%d %b %Y"):
        try:
            return datetime.strptime(text, form).date()
        except ValueError:
            continue
    raise ValueError(f"--chat-date {text!r:.40} is no day, wanted one such as 2024-07-26.")


def _where(error: BaseException, sandbox: "Sandbox") -> str:
    """, line 3: what an error is of, as far as that is known"""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__jinja_template__") is sandbox.template:
            line = sandbox.template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return f", line {line}" if line else ""


def sha256(source: str) -> str:
    """What names a template: white space around it is none of it"""
    return hashlib.sha256(source.strip().encode("utf-8", "replace")).hexdigest()


def known_format(source: str) -> str | None:
    """The name of the table of a stock template, None for any other"""
    return KNOWN.get(sha256(source))


def token_names(tokenizer: Tokenizer) -> dict[str, str]:
    """bos_token, eos_token, pad_token, those that the tokenizer has"""
    names = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token")}
    return {name: text for name, text in names.items() if text is not None}


# ---- as a build uses it ----


@dataclass(frozen=True)
class JinjaTemplate:
    """A template and its options, as prep.chat.template.ChatTemplate has them for tables"""

    format: JinjaFormat
    mask: str = "format"  # or sampled: to the last control of a span, without the newline behind it
    train_on: str | tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return self.format.name

    @property
    def is_default(self) -> bool:
        return False

    @property
    def reads_tools(self) -> bool:
        return "tools" in self.format.source

    @property
    def reads_reasoning(self) -> bool:
        return any(name in self.format.source for name in ("reasoning_content", "thinking"))

    @property
    def reads_calls(self) -> bool:
        return "tool_calls" in self.format.source

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it, and what its bytes depend on: not the name of its file"""
        spans = "generation" if self.format.has_generation else "compared"
        described: dict[str, Any] = {"jinja": spans, "mask": self.mask, "sha256": self.format.sha256}
        if self.format.date:
            described["date"] = self.format.date
        if self.train_on is not None:
            described["train_on"] = self.train_on if isinstance(self.train_on, str) else list(self.train_on)
        return described

    @property
    def key(self) -> tuple[str, ...]:
        return (json.dumps(self.describe(), sort_keys=True),)

    def summary(self) -> str:
        found = "its {% generation %} blocks" if self.format.has_generation else "found by comparing texts"
        more = f", date {self.format.date}" if self.format.date else ""
        return f"chat template {self.name} (sha256 {self.format.sha256[:12]}), mask {self.mask}{more}: {found}"
