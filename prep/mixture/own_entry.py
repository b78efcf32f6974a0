"""
What an entry of one's own data, or of one's own task, may say; checked before anything is opened.

    task = "chat"                      task = "tasks/jokes.py:joke"
    path = "talks/*.jsonl.gz"          hub = "owner/jokes"
    roles = { teacher = "assistant" }
    train_on = "last"
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prep.mixture.mixture import Entry

PLACES = {"path", "hub", "subset", "split", "revision"}
CHAT = PLACES | {"layout", "columns", "roles", "train_on", "consecutive", "tools"}
OWN = PLACES | {"size", "seed"}


def check_own(entry: "Entry", data: dict[str, Any], where: str) -> None:
    """ValueError, in one line, for a chat entry or a task of one's own that cannot be meant"""
    if entry.task == "chat" and (entry.path is None) == (entry.hub is None):
        both = " or a hub, not both" if entry.path else ', as path = "mine.jsonl", or a hub, as hub = "owner/name"'
        raise ValueError(f'{where}: task "chat" needs a path{both}.')
    if entry.path and entry.hub:
        raise ValueError(f"{where}: path and hub are given, wanted one of them.")
    if not entry.hub:
        for key in {"subset", "split", "revision"} & set(data):
            if key != "split" or entry.task == "chat" or entry.path:
                raise ValueError(f"{where}: {key} is of a data set on the Hub: give hub, or drop {key}.")
    if entry.hub and (entry.hub.count("/") != 1 or ".." in entry.hub or entry.hub.startswith("/")):
        raise ValueError(f'{where}: hub = {entry.hub!r} found, wanted "owner/name".')
    if entry.task == "chat":
        check_reading(entry.layout, entry.train_on, entry.consecutive, entry.tools, f"{where}: ")
        check_names(entry.columns, entry.roles, f"{where}: ", entry.layout)


def check_reading(layout: str | None, train_on: str, consecutive: str, tools: str, where: str) -> None:
    """ValueError for a word that is none of those there are"""
    from prep.conversations.layouts import REQUIRED
    from prep.conversations.tool_calls import TOOLS
    from prep.conversations.turns import CONSECUTIVE, TRAIN_ON
    from prep.text import nearest

    for name, value, known in (
        ("layout", layout, tuple(REQUIRED)),
        ("train_on", train_on, TRAIN_ON),
        ("consecutive", consecutive, CONSECUTIVE),
        ("tools", tools, TOOLS),
    ):
        if value is not None and value not in known:
            raise ValueError(f"{where}{name} = {value!r} found, wanted {' or '.join(known)}.{nearest(value, known)}")


def check_names(
    columns: dict[str, str] | None, roles: dict[str, str] | None, where: str, layout: str | None = None
) -> None:
    """ValueError for a field or role of ours that there is not"""
    from prep.conversations.layouts import MESSAGE_FIELDS, OPTIONAL, REQUIRED, UNUSED
    from prep.text import nearest

    fields = {name for some in (*REQUIRED.values(), *OPTIONAL.values()) for name in some}
    fields |= {*MESSAGE_FIELDS, UNUSED}
    known_roles = {"system", "user", "assistant"} | ({"tool"} if layout in (None, "tools") else set())
    for key, pairs, known in (("columns", columns, fields), ("roles", roles, known_roles)):
        for theirs, ours in (pairs or {}).items():
            if not isinstance(ours, str) or ours not in known:
                raise ValueError(
                    f"{where}{key} makes {theirs!r} {ours!r}, wanted one of {', '.join(sorted(known))}."
                    f"{nearest(str(ours), known)}"
                )
    if len(set((columns or {}).values())) < len(columns or {}):
        raise ValueError(f"{where}columns gives two fields the same name, wanted one each.")
