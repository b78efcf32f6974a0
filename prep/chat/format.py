r"""
What a chat format is: a table of texts, of which some tokens of the tokenizer are controls.

    turns["assistant"]    before               opens   what it says   closes
                          <|im_start|>assistant   \n      4           <|im_end|>\n
    trained by the format      no             yes      yes             yes
    trained as sampled         no              no      yes       <|im_end|> alone

What stands before, between and after the parts of a conversation is scaffold. A control is recognised in scaffold alone:
whoever types it gets its characters. A token that the tokenizer cuts out of any text (Qwen's <think>) is one everywhere, typed
or not. Scaffold and what is said between two such tokens are one text for the encoder, so a format is text and not ids.

A new format is a new table (prep.chat.tables) and conversations to hold it to; nothing else changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Turn:
    """A turn of a role: before, opens, what it says, closes."""

    before: str = ""  # never trained
    opens: str = ""  # trained with the turn
    closes: str = ""  # trained with the turn; a model samples it up to its last control
    trim: str = ""  # of what is said: a name of prep.chat.rules.TRIMS


@dataclass(frozen=True)
class Reasoning:
    """What the assistant thinks before it speaks"""

    before: str
    after: str
    keep: str = "always"  # or after_last_user: of earlier turns it is left out
    when_empty: str = "always"  # or last, never: which turns without reasoning have an empty block


@dataclass(frozen=True)
class Calls:
    """Calls of tools in the assistant's turn: head NAME middle ARGUMENTS tail"""

    head: str
    middle: str
    tail: str
    between: str = ""  # before a call that follows a text that is not empty, or another call
    strings: str = "text"  # arguments that are a string: as they are; or json: as a string in JSON
    most: int | None = None  # calls in a turn
    beside_text: bool = True  # whether a turn that calls may say something


@dataclass(frozen=True)
class Results:
    """What tools answer; neighbouring answers are one turn"""

    run_before: str
    before: str
    after: str
    run_after: str
    as_json: bool = False  # an answer is a string in JSON


@dataclass(frozen=True)
class Tools:
    """The tools that may be called, as text of the system's turn or of the first user's"""

    before: str
    each: tuple[str, str]  # around the JSON of each
    after: str = ""
    between: str = ""  # after what the system says
    into: str = "system"  # or user: in front of what the user says
    indent: int | None = None  # of the JSON
    announce: str = ""  # in front of everything that the system says, where there are tools


@dataclass(frozen=True)
class Inner:
    """A part of the assistant's turn that is neither text nor a call"""

    before: str
    after: str
    trains: bool = True


@dataclass(frozen=True)
class ChatFormat:
    """A chat format. `authority` is whose ids and mask it has, `example` the drawing."""

    name: str
    authority: str
    example: str
    controls: tuple[str, ...]  # special tokens that the scaffold uses; a tokenizer without one of them is refused
    turns: Mapping[str, Turn]  # by role
    bos: str = ""
    eos: str = ""  # at the end of a conversation; trained where the assistant speaks last
    default_system: str | None = None  # where there is no system message
    system_prefix: str = ""  # in front of what the system says, which then always speaks; {date} is the template's date
    # user and assistant speak in turn, what the system says is in front of the first user text; or the row is rejected
    alternates: bool = False
    reasoning: Reasoning | None = None
    calls: Calls | None = None
    results: Results | None = None
    tools: Tools | None = None
    inner: Mapping[str, Inner] = field(default_factory=dict)  # kind of part -> what is around it
    texts_apart: bool = False  # neighbouring texts of a turn are encoded one by one
    date: str = ""  # what {date} stands for, unless --chat-date says so

    def __hash__(self) -> int:
        return hash(self.name)
