r"""
The rules that no table holds: how reasoning is found in a text, which question counts, what a trim takes away, how arguments
and tools are written. Each is a function of one text or one conversation, and the same for all formats.

    "<think>\nLet me see.\n</think>\n\n4"   ->   reasoning "Let me see.", text "4"
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from prep.chat.format import Tools

# what Python's str.strip() takes away: more than Unicode's White_Space, by U+001C to U+001F
SPACE: Final = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
TRIMS: Final = {"": "", "strip": SPACE}  # name of a trim: the characters that go from both ends
THINK_START, THINK_END = "<think>", "</think>"
TOOL_RESPONSE: Final = ("<tool_response>", "</tool_response>")


class Found(NamedTuple):
    """What `find_reasoning` made of a text"""

    reasoning: str
    text: str
    lost: bool  # whether something stood beside the two that no template writes


def find_reasoning(content: str) -> Found | None:
    r"""
    Reasoning that stands in a text, as Qwen3's template finds it: from the last <think> before the first </think>; the text is
    what follows the last </think>. None where there is no </think>.

    >>> find_reasoning("<think>\nA\n</think>\n\nB")
    Found(reasoning='A', text='B', lost=False)
    """
    if THINK_END not in content:
        return None
    head, *between, tail = content.split(THINK_END)
    *before, reasoning = head.rstrip("\n").split(THINK_START)
    lost = any(before) or any(between)
    return Found(reasoning.lstrip("\n"), tail.lstrip("\n"), lost)


def is_query(text: str) -> bool:
    """Whether a user's turn asks something: what a tool answered, written as the user's, does not"""
    return not (text.startswith(TOOL_RESPONSE[0]) and text.endswith(TOOL_RESPONSE[1]))


def last_query(roles: Sequence[str], texts: Sequence[str]) -> int:
    """The place of the last message of the user that asks something; the last message where none does"""
    asks = [i for i, role in enumerate(roles) if role == "user" and is_query(texts[i])]
    return asks[-1] if asks else len(roles) - 1


def write_arguments(text: str, strings: str) -> str:
    """
    Arguments, which travel as JSON, as a format writes them; `strings` says what becomes of a string.

    >>> write_arguments('"{}"', "text"), write_arguments('"{}"', "json")
    ('{}', '"{}"')
    """
    return str(json.loads(text)) if strings == "text" and text.startswith('"') else text


@lru_cache(maxsize=1024)
def write_tools(text: str, tools: Tools) -> str:
    """The text that tells of the tools, given as a list in JSON; "" where there are none. ValueError if it is no list."""
    listed: Any = json.loads(text)
    if isinstance(listed, str):
        listed = json.loads(listed)
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list):
        raise ValueError(f"the tools are {text!r:.60}, wanted a list")
    written = (json.dumps(tool, ensure_ascii=False, indent=tools.indent) for tool in listed)
    each = "".join(tools.each[0] + tool + tools.each[1] for tool in written)
    return tools.before + each + tools.after if listed else ""


def to_json(text: str) -> str:
    """A string in JSON"""
    return json.dumps(text, ensure_ascii=False)
