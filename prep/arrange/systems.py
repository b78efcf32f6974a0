r"""
What a chat format says in the system's turn, or beside it: a text of its own, and the tools that may be called.

    qwen2.5   no system message                    ->   system "You are Qwen, created by Alibaba Cloud. ..."
    qwen3     system "Be brief.", tools [...]      ->   system "Be brief.\n\n# Tools\n\nYou may call ..."
    llama3.1  tools [...], user "2+2?"             ->   system "Environment: ipython\nCutting ...", user "Given the ...2+2?"

By then both are text as any other: no control stands in them. Legend: C conversations, M messages, P parts.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from prep.arrange.parts import with_texts
from prep.arrays import Array
from prep.chat import rules
from prep.chat.template import ChatTemplate
from prep.columns import index_array, text_array
from prep.conversations import turns
from prep.conversations.conversation import DOCUMENT, SYSTEM, USER, Conversations, mark


def add_systems(batch: Conversations, is_empty: Array, template: ChatTemplate) -> dict[str, Any]:
    """The batch, and `is_empty` (P,) of it, with these texts"""
    form = template.format
    if form.tools is None and form.default_system is None and not form.system_prefix:
        return {}
    batch, tools = _tools_of(batch, template)
    has_turns = np.diff(batch.messages) > 0  # (C,)
    first = np.append(batch.roles, DOCUMENT)[np.where(has_turns, batch.messages[:-1], len(batch.roles))]
    leads = first == SYSTEM  # a conversation begins with a system message
    lacks = has_turns & ~leads & (first != DOCUMENT)
    systems = [form.default_system if each else None for each in lacks.tolist()]
    for c in (
        np.flatnonzero(leads | lacks).tolist() if form.system_prefix else [c for c, each in enumerate(tools) if each]
    ):
        part = int(batch.parts[batch.messages[c]])
        said = batch.texts[part].as_py() if leads[c] else form.default_system
        systems[c] = _compose(said, tools[c], template)
    replaced = np.flatnonzero(leads & np.array([text is not None for text in systems], dtype=bool))
    batch = with_texts(
        batch, batch.parts[batch.messages[replaced]], text_array([systems[c] or "" for c in replaced.tolist()])
    )
    for c in replaced.tolist():
        systems[c] = None
    new = np.array([bool(text) for text in systems], dtype=bool)
    is_empty = np.insert(is_empty, batch.parts[batch.messages[:-1][new]], False)
    batch = turns.prepend_system(batch, pa.array(systems, pa.large_string()))
    if form.tools and form.tools.into == "user":
        batch = _tell_user(batch, tools)
    return {"batch": batch, "is_empty": is_empty}


def _compose(said: str | None, tools: str, template: ChatTemplate) -> str | None:
    """What the system says: its text (None: it has none), and the tools"""
    form = template.format
    prefix = form.system_prefix.format(date=template.date or form.date) if form.system_prefix else ""
    if form.tools and tools:
        if form.tools.into == "system":
            said = tools if said is None else said + form.tools.between + tools
        prefix = form.tools.announce + prefix
    return None if said is None else prefix + said


def _tools_of(batch: Conversations, template: ChatTemplate) -> tuple[Conversations, list[str]]:
    """(C,) text that tells of each conversation's tools, "" where it has none; ones that cannot be read reject it"""
    table, out = template.format.tools, [""] * len(batch)
    if table is None or batch.tools is None:
        return batch, out
    wrong = np.zeros(len(batch), dtype=bool)
    untold = np.zeros(len(batch), dtype=bool)
    for c, text in enumerate(batch.tools.to_pylist()):
        if not text or batch.messages[c] == batch.messages[c + 1]:
            continue
        try:
            out[c] = rules.write_tools(text, table)
        except (ValueError, RecursionError):
            wrong[c] = True
        roles = batch.roles[batch.messages[c] : batch.messages[c + 1]].tolist()
        untold[c] = bool(out[c]) and table.into == "user" and USER not in roles[: 1 + (roles[0] == SYSTEM)]
    reasons = batch.reasons.copy()
    mark(reasons, wrong, "tool calls")
    mark(reasons, untold, "roles out of turn")
    return replace(batch, reasons=reasons), out


def _tell_user(batch: Conversations, tools: list[str]) -> Conversations:
    """The first text of the user with the tools in front of it; the system's turn is there by now"""
    told = [c for c, text in enumerate(tools) if text and batch.reasons[c] == 0]
    places = batch.parts[batch.messages[told] + 1]
    said = batch.texts.take(index_array(places)).to_pylist()
    return with_texts(batch, places, text_array([tools[c] + text for c, text in zip(told, said, strict=True)]))
