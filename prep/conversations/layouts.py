"""
Layouts of your own conversations, as tables: which fields are read, which mean something that is not read, what roles, flags
and contents are called. Readers, checks, messages and the tables of docs/own-data.md are made from them.

    a field of a row or message is      what happens
    in a table below                    it is read
    in ASIDE                            left aside, counted and said: a chat format may not have a place for it
    in DECIDE                           the build stops until the entry says what to do with it
    in none of them                     left aside, counted and said

Another layout is another Table, with example rows in tests/conversations/test_every_layout.py.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from prep.conversations.conversation import Choices

BARE_KEY = re.compile("[A-Za-z0-9_-]+")  # of TOML
UNUSED = "unused"  # canonical name of a field that is not to be read


@dataclass(frozen=True)
class Table:
    """A layout: what a row has. `turns` is the field that holds a list of turns; else `asks` and `says` are texts."""

    needs: tuple[str, ...]
    about: str
    also: tuple[str, ...] = ()  # fields that are read where a row has them
    turns: str = ""  # the field with the list, of turns as `shape` says
    shape: tuple[str, ...] = ()  # fields that every turn has
    asks: tuple[str, ...] = ()  # joined by an empty line, those that are not empty
    says: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of a row that are read"""
        return (*self.needs, *self.also)


SYSTEM_FIELDS = ("system", "system_prompt", "systemInstruction", "system_instruction")
BESIDE_TURNS = SYSTEM_FIELDS[:2]
BESIDE_TEXTS = ("system", "system_prompt", "history")

LAYOUTS = {
    "messages": Table(
        ("messages",), "`messages`, a list of `role` and `content`; or that list alone", BESIDE_TURNS, "messages",
        ("role", "content"),
    ),
    "sharegpt": Table(
        ("conversations",), "`conversations`, a list of `from` and `value`", BESIDE_TURNS, "conversations", ("from", "value"),
    ),
    "gemini": Table(
        ("contents",), "`contents`, a list of `role` and `parts`", SYSTEM_FIELDS, "contents", ("role", "parts"),
    ),
    "pairs": Table(
        ("conversation",), "`conversation`, a list of objects with what both say: `human` and `assistant`, `user` and "
        "`assistant`, or `input` and `output`; `system` in the first", BESIDE_TURNS, "conversation",
    ),
    "strings": Table(
        ("conversations",), "`conversations`, a list of strings: user and assistant in turn", BESIDE_TURNS, "conversations",
    ),
    "alpaca": Table(
        ("instruction", "output"), "`instruction` and `output`; `input` follows the instruction after an empty line",
        ("input", *BESIDE_TEXTS), asks=("instruction", "input"), says="output",
    ),
    "completion": Table(
        ("prompt", "completion"), "`prompt` and `completion`, strings or lists of messages; what is in `prompt` is context",
        BESIDE_TEXTS, asks=("prompt",), says="completion",
    ),
    "query": Table(
        ("query", "response"), "`query` and `response`", BESIDE_TEXTS, asks=("query",), says="response",
    ),
}  # fmt: skip
TEXT = Table(("text",), "`text`: a document", says="text")  # of the task text
OLD_NAMES = {"tools": "messages"}  # calls are read wherever there are messages
LIST_FIELDS = ("messages", "conversations", "conversation", "contents", "data")  # that may hold turns

# what a turn has besides role and content
FLAGS = ("train", "weight", "loss", "training", "trainable", "loss_weight", "loss_mask")
CALL_FIELDS = ("tool_calls", "function_call")
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")  # the first that is there, as transformers reads them
TURN_FIELDS = ("role", "content", "from", "value", "parts", *FLAGS, *CALL_FIELDS, "tool_call_id", *REASONING_FIELDS)
PAIR_FIELDS = {
    "system": "system",
    **dict.fromkeys(("human", "user", "input"), "user"),
    **dict.fromkeys(("assistant", "gpt", "output"), "assistant"),
}

# other names of roles, in any case
ROLE_NAMES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatbot", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
    "function_call": "call",  # the assistant's, its content is the call
}
MAPPED_ROLES = ("system", "user", "assistant", "tool")  # that `roles` may name

# types of parts, and the fields in which they have their text
PART_KINDS = {
    "text": "text",
    "python": "python",
    "python_output": "python_output",
    "reasoning": "reasoning",
    "thinking": "reasoning",
    "tool_call": "call",
    "tool_calls": "call",
}
PART_TEXTS = ("text", "value", "thinking", "reasoning")

ASIDE = ("tools", "functions")  # filled into the record
VERDICTS = ("label", "kto_tag")  # true or false: is the answer good?
NOT_TEXT = ("images", "image", "audios", "audio", "videos", "video")
PREFERENCES = ("chosen", "rejected")  # only where the talk itself has no answer
DECIDE = {
    **dict.fromkeys(VERDICTS, "says whether an answer is good"),
    **dict.fromkeys(NOT_TEXT, "is not text"),
    **dict.fromkeys(PREFERENCES, "holds the answer that the turns lack"),
    **dict.fromkeys(REASONING_FIELDS, "is what the assistant thinks before it answers"),
}


@dataclass(frozen=True)
class Layout:
    """
    How the rows of an entry are read; all of it is part of the cache keys. `columns` and `roles` are pairs of a source name,
    which the data has, and a canonical name, which midprep has. `where`: pairs of a field and the JSON values that it may have.
    """

    name: str = "messages"
    columns: tuple[tuple[str, str], ...] = ()
    roles: tuple[tuple[str, str], ...] = ()
    train_on: str | tuple[str, ...] | None = None  # None: what the template says, or all
    consecutive: str = "reject"
    tools: str = "parts"
    reasoning: str | None = None
    typed_tokens: str = "keep"
    where: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    @property
    def table(self) -> Table:
        return TEXT if self.name == "text" else LAYOUTS[self.name]

    @property
    def choices(self) -> Choices:
        return Choices(self.train_on, self.consecutive, self.tools, self.reasoning, self.typed_tokens)

    @cached_property
    def renames(self) -> dict[str, str]:
        """Source name -> canonical name, of those that differ"""
        return dict(self.columns)

    def source_name(self, canonical: str) -> str:
        return next((source for source, name in self.columns if name == canonical), canonical)

    def canonical_name(self, source: str) -> str | None:
        """None for a field that is not read: `unused`, or another field is renamed to its name"""
        if source in self.renames:
            return None if self.renames[source] == UNUSED else self.renames[source]
        return None if source in self.renames.values() else source

    @property
    def flags(self) -> list[str]:
        """Source names of the fields of a message that say whether it trains"""
        sources = [(self.source_name(name), name) for name in FLAGS]
        return [source for source, name in sources if self.canonical_name(source) == name]

    @cached_property
    def role_map(self) -> dict[str, str]:
        """Name of a role, as it is or in lower case -> canonical name"""
        return ROLE_NAMES | dict(self.roles)

    def role_of(self, name: Any) -> str | None:
        """The canonical role of a name; None if it is not known"""
        if not isinstance(name, str):
            return None
        return self.role_map.get(name) or ROLE_NAMES.get(name.lower())

    def describe(self) -> dict[str, Any]:
        """Its keys in the manifest"""
        return {
            "layout": self.name,
            "columns": dict(self.columns),
            "roles": dict(self.roles),
            "train_on": list(self.train_on) if isinstance(self.train_on, tuple) else self.train_on or "all",
            "consecutive": self.consecutive,
            "tools": self.tools,
            **({"reasoning": self.reasoning} if self.reasoning else {}),
            **({"typed_tokens": self.typed_tokens} if self.typed_tokens != "keep" else {}),
            **({"where": {name: list(values) for name, values in self.where}} if self.where else {}),
        }


def toml_table(pairs: Mapping[str, str]) -> str:
    """
    >>> toml_table({"a": "b", "c d": "e"})
    '{ a = "b", "c d" = "e" }'
    """
    keys = (name if BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in pairs)
    return "{ " + ", ".join(f'{key} = "{value}"' for key, value in zip(keys, pairs.values(), strict=True)) + " }"


def refusal(names: tuple[str, ...], layout: Layout) -> str:
    """
    What stops a build, with the lines to paste.

    >>> refusal(("label",), Layout())
    '`label` says whether an answer is good, and is not read. Keep the good ones: where = { label = true }. Or leave \
it aside: columns = { label = "unused" }.'
    """
    sentences = []
    for name in names:
        sentences.append(f"`{name}` {DECIDE[name]}, and is not read.")
        if name in VERDICTS:
            sentences.append(f"Keep the good ones: where = {{ {name} = true }}.")
    if set(names) & set(REASONING_FIELDS):
        sentences.append('Keep it as text in <think>: reasoning = "think". Or leave it out: reasoning = "drop".')
    if others := [name for name in names if name not in REASONING_FIELDS]:
        columns = dict(layout.columns) | dict.fromkeys(others, UNUSED)
        start = "Or leave it aside" if set(others) & set(VERDICTS) else "Leave it aside"
        sentences.append(f"{start}: columns = {toml_table(columns)}.")
    return " ".join(sentences)
