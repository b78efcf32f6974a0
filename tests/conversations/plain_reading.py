"""
What a row says, read as a person would who has the tables of prep.conversations.layouts: a list of (role, text, trains).

Slow and plain; the property test holds every way of writing and reading rows against it. None: the row is no conversation of
nanochat's. Rows of one layout only; fields that the entry has to decide on do not occur.
"""

import json
from typing import Any

from prep.conversations.layouts import (
    CALL_FIELDS,
    FLAGS,
    LAYOUTS,
    PAIR_FIELDS,
    PART_TEXTS,
    ROLE_NAMES,
    SYSTEM_FIELDS,
)

Row = dict[str, Any]
Said = tuple[str, str, bool]


def read_plainly(row: Row, layout: str) -> list[Said]:
    """Every turn of a row in its order; a call is of the role "call", what a tool answers of the role "tool" """
    table = LAYOUTS[layout]
    systems = [row[name] for name in SYSTEM_FIELDS if name in table.also and row.get(name)]
    said = [("system", text_of(system), False) for system in systems]
    for pair in row.get("history") or [] if "history" in table.also else []:
        said += [("user", pair[0], False), ("assistant", pair[1], True)]
    if table.turns:
        return said + [turn for item in enumerate(row[table.turns]) for turn in turns_of(*item)]
    asked, answer = row[table.asks[0]], row[table.says]
    if isinstance(asked, list):
        said += [(role, text, False) for i, item in enumerate(asked) for role, text, _ in turns_of(i, item)]
    else:
        said.append(("user", "\n\n".join(row[name] for name in table.asks if row.get(name)), False))
    if isinstance(answer, list):
        return said + [turn for item in enumerate(answer) for turn in turns_of(*item)]
    return [*said, ("assistant", answer, True)]


def turns_of(place: int, item: Any) -> list[Said]:
    if isinstance(item, str):
        return [("assistant", item, True) if place % 2 else ("user", item, False)]
    name = item.get("role", item.get("from"))
    if name is None:
        said = {PAIR_FIELDS[field]: text for field, text in item.items() if field in PAIR_FIELDS}
        return [(role, said[role], role == "assistant") for role in ("system", "user", "assistant") if role in said]
    role = ROLE_NAMES[name.lower()]
    content = next((item[field] for field in ("content", "value", "parts") if item.get(field) is not None), "")
    if role == "call":
        return [("call", call_of(json.loads(content)), True)]
    trains = role == "assistant" and all(item[flag] for flag in FLAGS if item.get(flag) is not None)
    calls = next((item[field] for field in CALL_FIELDS if item.get(field)), [])
    calls = json.loads(calls) if isinstance(calls, str) else calls
    calls = calls if isinstance(calls, list) else [calls]
    text = text_of(content)
    said = [(role, text, trains)] if text or not calls else []
    return said + [("call", call_of(call), trains) for call in calls]


def text_of(content: Any) -> str:
    if isinstance(content, dict):
        content = content["parts"]
    if isinstance(content, str):
        return content
    return "".join(next(part[field] for field in PART_TEXTS if part.get(field) is not None) for part in content)


def call_of(call: Row) -> str:
    function = call.get("function") or call
    arguments = function.get("arguments") or {}
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return f"{function['name']}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def as_rendered(said: list[Said]) -> list[tuple[str, list[tuple[str, str, bool]]]] | None:
    """Turns as nanochat has them: [(user or assistant, [(kind, text, trains)])]; None where they are out of turn"""
    turns: list[tuple[str, list[tuple[str, str, bool]]]] = []
    system = said[0][1] if said and said[0][0] == "system" else None
    after_call = False
    for role, text, trains in said[system is not None :]:
        if role in ("call", "tool") or (role == "assistant" and after_call):
            if role == "tool" and not after_call:
                return None
            kind = {"call": "python", "tool": "python_output", "assistant": "text"}[role]
            if not turns or turns[-1][0] != "assistant":
                turns.append(("assistant", []))
            turns[-1][1].append((kind, text, trains and role != "tool"))
            after_call = role != "assistant"
            continue
        turns.append((role, [("text", text, trains)]))
        after_call = False
    if not turns or [role for role, _ in turns] != [("user", "assistant")[i % 2] for i in range(len(turns))]:
        return None
    if system is not None:
        turns[0] = ("user", [("text", f"{system}\n\n{turns[0][1][0][1]}", False)])
    return turns
