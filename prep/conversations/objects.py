r"""
From a row as a Python value, in any layout, to its turns. What every field of a row means is in
prep.conversations.layouts; what becomes of it, here.

    {"system": "Be brief.", "messages": [{"role": "user", "content": "2+2?"},
     {"role": "assistant", "content": "4", "loss": false}], "id": 7}

    SYSTEM "Be brief."    USER "2+2?"    ASSISTANT "4", does not train        left aside: id

A row that is no conversation gets a reason of REASONS. The ValueError inside has it, and the culprit with the way on, which
prep.conversations.read.explain asks for: columns have no place for it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from prep.conversations.conversation import (
    ASSISTANT,
    CALL_ID,
    CONTEXT,
    DOCUMENT,
    REASON,
    REASONING,
    ROLES,
    SYSTEM,
    TEXT,
    TRAINS,
    USER,
)
from prep.conversations.layouts import (
    ASIDE,
    DECIDE,
    PAIR_FIELDS,
    PREFERENCES,
    REASONING_FIELDS,
    SYSTEM_FIELDS,
    TURN_FIELDS,
    VERDICTS,
    Layout,
    toml_table,
)
from prep.conversations.recognise import layout_of
from prep.conversations.values import Part, call_list, content_parts, read_calls, to_json, train_flag, valid

Turn = tuple[int, int, list[Part]]  # role, CONTEXT, TRAINS or FLAGGED, parts
MOST_NAMES = 100  # of fields that are left aside: an object of a million keys is no row
NO_NAME = "(other fields)"
OF_MESSAGES = " of messages"  # after the name of a field that they have
KNOWN = frozenset(TURN_FIELDS)


def _document(text: Any) -> Turn:
    if not isinstance(text, str):
        raise ValueError("content is not text", f"{text!r:.60}")
    if not text:
        raise ValueError("no messages", "the text is empty")
    return DOCUMENT, TRAINS, [(TEXT, valid(text))]


def _present(message: dict[str, Any], names: tuple[str, ...]) -> str:
    """The first of these fields that has a value, else the first that is there at all; "" if none is"""
    there = [name for name in names if name in message]
    return next((name for name in there if message[name] is not None), there[0] if there else "")


class RowReader:
    """Reads rows of one layout, and keeps what it left aside."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.table = layout, layout.table
        self.known = set(self.table.fields)
        self.codes = {name: ROLES.index(role) for name, role in layout.role_map.items() if role in ROLES}
        self.decided = {name for name, _ in layout.where}
        self.aside: Counter[str] = Counter()  # field -> rows
        self.refused: dict[str, None] = {}  # in the order of their first row
        self.in_row: set[str] = set()  # fields of this row, and of its messages, that are left aside
        self.tools: str | None = None  # of this row

    def read(self, value: Any) -> list[Turn]:
        """The turns of a row. ValueError(reason) or ValueError(reason, culprit) where it is no conversation."""
        self.tools = None
        self.in_row = set()
        turns = self._read(value)
        for name in self.in_row:
            self.aside[name if name in self.aside or len(self.aside) < MOST_NAMES else NO_NAME] += 1
        return turns

    def _read(self, value: Any) -> list[Turn]:
        if isinstance(value, dict):
            return self._row(value)
        if isinstance(value, list):
            return self._turns(value)
        if isinstance(value, str) and REASON.get(value):
            raise ValueError(value)
        raise ValueError("not an object", f"{value!r:.60}")

    def _row(self, source_row: dict[str, Any]) -> list[Turn]:
        row = self._renamed(source_row)
        unread = [name for name in row if name not in self.known] if row.keys() - self.known else []
        for name in unread:
            if row[name] is not None and name not in self.decided:
                self._unread(name, row[name])
        missing = [name for name in self.table.needs if row.get(name) is None]
        if missing:
            raise ValueError(*self._missing(row, missing))
        if self.layout.name == "text":
            return [_document(row["text"])]
        if self.table.turns:
            turns = self._turns(row[self.table.turns], self.table.turns)
        else:
            turns = [*self._history(row.get("history")), *self._texts(row)]
        turns = self._with_system(row, turns)
        for name in PREFERENCES:
            if name in unread and row[name] and (not turns or turns[-1][0] != ASSISTANT):
                self.refused[name] = None
        return turns

    def _renamed(self, row: dict[str, Any], of: str = "") -> dict[str, Any]:
        """A row or turn with canonical names of its fields; those that are not to be read are gone"""
        layout = self.layout
        if not layout.columns:
            return row
        renamed = {}
        for name, value in row.items():
            canonical = layout.canonical_name(name)
            if canonical is not None:
                renamed[canonical] = value
            elif name not in layout.renames and value is not None:
                self.in_row.add(name + of)
        return renamed

    def _unread(self, name: str, value: Any, of: str = "") -> None:
        """A field that is not read is left aside, or the entry has to decide"""
        if name in ASIDE:
            text = value if isinstance(value, str) else to_json(value)
            self.tools = text.encode("utf-8", "replace").decode()
        stops = name in DECIDE and name not in PREFERENCES and value not in ("", [], {})
        if name in VERDICTS:
            stops = value in (True, False)
        if stops:
            self.refused[name] = None
        else:
            self.in_row.add(name + of)

    def _missing(self, row: dict[str, Any], missing: list[str]) -> tuple[str, str]:
        other = layout_of(row)[0]
        if other and other != self.layout.name:
            return (
                "another layout",
                f'{other}, not {self.layout.name}: give such rows an entry of their own, with layout = "{other}"',
            )
        has = ", ".join(map(repr, row)) or "nothing"
        return "missing field", f"no {' and no '.join(map(repr, missing))}, it has {has}"

    # ---- what a row says ----

    def _with_system(self, row: dict[str, Any], turns: list[Turn]) -> list[Turn]:
        texts = [row[name] for name in SYSTEM_FIELDS if name in self.table.also and row.get(name)]
        if not texts:
            return turns
        if len(texts) > 1 or (turns and turns[0][0] == SYSTEM):
            raise ValueError("roles out of turn", "two system messages, one of them in a field of the row")
        content = texts[0].get("parts") if isinstance(texts[0], dict) else texts[0]
        return [(SYSTEM, TRAINS, self._content(content)), *turns]

    def _history(self, history: Any) -> list[Turn]:
        """Earlier turns, oldest first: pairs of texts, or messages"""
        if not history:
            return []
        if not isinstance(history, list):
            raise ValueError("messages are no list", f"history is {history!r:.60}, wanted pairs of texts")
        turns: list[Turn] = []
        for item in history:
            if isinstance(item, dict):
                turns += self._turns([item])
            elif isinstance(item, list) and len(item) == 2:
                turns += [(USER, TRAINS, self._content(item[0])), (ASSISTANT, TRAINS, self._content(item[1]))]
            else:
                raise ValueError("content is not text", f"history has {item!r:.60}, wanted a pair of texts")
        return turns

    def _texts(self, row: dict[str, Any]) -> list[Turn]:
        """The turns of a prompt and a reply, each a text or a list of messages; all of the prompt is context"""
        asked, said = [row.get(name) for name in self.table.asks], row[self.table.says]
        turns: list[Turn] = []
        if isinstance(asked[0], list):
            turns = [(role, CONTEXT, parts) for role, _, parts in self._turns(asked[0])]
        else:
            for text in asked:
                if text is not None and not isinstance(text, str):
                    raise ValueError("content is not text", f"{text!r:.60}")
            turns = [(USER, TRAINS, [(TEXT, valid("\n\n".join(text for text in asked if text)))])]
        return [*turns, *(self._turns(said) if isinstance(said, list) else [(ASSISTANT, TRAINS, self._content(said))])]

    def _turns(self, listed: Any, where: str = "") -> list[Turn]:
        if not isinstance(listed, list):
            raise ValueError("messages are no list", f"{where} is {listed!r:.60}")
        if self.layout.name == "strings" and all(isinstance(text, str) for text in listed):
            return [((USER, ASSISTANT)[i % 2], TRAINS, [(TEXT, valid(text))]) for i, text in enumerate(listed)]
        turns: list[Turn] = []
        plain = {} if self.layout.columns else self.codes
        for message in listed:
            if plain and type(message) is dict and len(message) == 2 and type(text := message.get("content")) is str:
                role = plain.get(name) if type(name := message.get("role")) is str else None
                if role is not None:
                    turns.append((role, TRAINS, [(TEXT, valid(text))]))
                    continue
            if not isinstance(message, dict):
                raise ValueError("not an object", f"a message is {message!r:.60}")
            message = self._renamed(message, OF_MESSAGES) if self.layout.columns else message
            if self.layout.name == "pairs" and "role" not in message:
                turns += self._pair(message)
            else:
                turns.append(self._turn(message))
        return turns

    def _pair(self, pair: dict[str, Any]) -> list[Turn]:
        said = {PAIR_FIELDS[name]: text for name, text in pair.items() if name in PAIR_FIELDS and text is not None}
        for name in pair.keys() - PAIR_FIELDS.keys():
            self._unread(name, pair[name], OF_MESSAGES)
        if not {"user", "assistant"} <= said.keys():
            raise ValueError("missing field", f"a pair has {', '.join(map(repr, pair))}, wanted human and assistant")
        if not said.get("system", True):
            del said["system"]
        order = [role for role in ("system", "user", "assistant") if role in said]
        return [(ROLES.index(role), TRAINS, self._content(said[role])) for role in order]

    def _turn(self, message: dict[str, Any]) -> Turn:
        for name in message.keys() - KNOWN:
            if message[name] is not None:
                self._unread(name, message[name], OF_MESSAGES)
        role_field, content_field = (
            _present(message, ("role", "from")),
            _present(message, ("content", "value", "parts")),
        )
        calls = read_calls(message)
        if not role_field or not (content_field or calls):
            raise ValueError("missing field", f"a message has the fields {', '.join(map(repr, message))}")
        name = message[role_field]
        role = self.layout.role_of(name)
        if role is None:
            raise ValueError("unknown role", f"{name!r:.60}: roles = {toml_table({str(name): 'assistant'})}")
        flag, content = train_flag(message), message.get(content_field)
        if role == "call":
            calls, role, content = [*calls, *call_list(content)], "assistant", None
        parts = [(REASONING, valid(text)) for text in self._reasoning(message)]
        if content or not (calls or parts) or (content == "" and not calls):
            parts += self._content(content)
        if calls and role != "assistant":
            raise ValueError("tool calls", f"a call in a message of the role {name!r:.60}")
        if role == "tool" and message.get("tool_call_id") is not None:
            parts = [(CALL_ID, valid(str(message["tool_call_id"]))), *parts]
        return ROLES.index(role), flag, [*parts, *(part for call in calls for part in call)]

    def _reasoning(self, message: dict[str, Any]) -> Iterable[str]:
        name = next((name for name in REASONING_FIELDS if message.get(name) is not None), None)
        if name is None:
            return ()
        if not isinstance(message[name], str):
            raise ValueError("content is not text", f"{name} is {message[name]!r:.60}")
        if self.layout.reasoning is None and message[name]:
            self.refused[name] = None
        return (message[name],)

    def _content(self, content: Any) -> list[Part]:
        parts = content_parts(content)
        if self.layout.reasoning is None and any(kind == REASONING for kind, _ in parts):
            self.refused["reasoning"] = None
        return parts
