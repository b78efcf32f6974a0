"""
Write the tables of docs/own-data.md from prep.conversations.layouts, between its two marks.

    python docs/make_layouts.py             renews the page (`make docs`)

tests/docs/test_own_data_page.py compares the page with what this gives.
"""

from collections.abc import Iterable
from pathlib import Path

from prep.conversations.layouts import (
    ASIDE,
    CALL_FIELDS,
    FLAGS,
    LAYOUTS,
    NOT_TEXT,
    PART_KINDS,
    PART_TEXTS,
    PREFERENCES,
    REASONING_FIELDS,
    ROLE_NAMES,
    VERDICTS,
)

PAGE = Path(__file__).with_name("own-data.md")
START, END = "<!-- tables: written by `make docs` -->\n", "<!-- end of tables -->\n"


def names(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def make_tables() -> str:
    lines = ["| layout | fields of a row | also read |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {table.about} | {names(field for field in table.also if field not in table.asks)} |"
        for name, table in LAYOUTS.items()
    ]
    roles = {role: [name for name, known in ROLE_NAMES.items() if known == role] for role in ROLE_NAMES.values()}
    about = {"call": "the assistant's, its content is the call as JSON"}
    lines += ["", "| role | names, in any case |", "|---|---|"]
    lines += [f"| {about.get(role, role)} | {names(spelled)} |" for role, spelled in roles.items()]
    lines += ["", "| field of a message | what it means |", "|---|---|"]
    lines += [
        f"| {names(FLAGS)} | false or 0: the turn is context, and no loss token; true or 1: it trains, whatever `train_on` "
        "says (turns of a `prompt` never do). Two that disagree, or a number between, reject the row |",
        f"| {names(CALL_FIELDS)} | calls of tools, as objects or as a string of JSON; `tool_call_id` says which one a tool "
        "answers |",
        f"| {names(REASONING_FIELDS)} | what the assistant thinks: the entry says `reasoning` |",
    ]
    kinds = {kind: [name for name, known in PART_KINDS.items() if known == kind] for kind in PART_KINDS.values()}
    lines += ["", "| part of a content | `type` |", "|---|---|"]
    lines += [f"| {kind.replace('_', ' ')} | {names(types)} |" for kind, types in kinds.items()]
    lines += [
        "",
        f"A part has its text in {names(PART_TEXTS)}; one without a `type` is text.",
        "",
        "| field that means something else | what to do |",
        "|---|---|",
        f"| {names(VERDICTS)}, true or false | the build stops: `where = {{ label = true }}` keeps the good rows, "
        '`columns = { label = "unused" }` trains on all |',
        f'| {names(NOT_TEXT)} | the build stops: `columns = {{ images = "unused" }}` |',
        f"| {names(PREFERENCES)} | the build stops where the turns have no answer; else they are left aside |",
        f'| {names(REASONING_FIELDS)} | the build stops: `reasoning = "think"` writes it as text in `<think>`, `"drop"` '
        "leaves it out |",
        f"| {names(ASIDE)} | left aside and said |",
    ]
    return "\n".join(lines) + "\n"


def renewed(page: str) -> str:
    before, rest = page.split(START)
    return before + START + make_tables() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
