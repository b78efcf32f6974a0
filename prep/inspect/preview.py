"""
The first rows of a file as they would be rendered, before any build.

    talks.jsonl.gz: JSON lines, gzip, layout sharegpt, reads conversations, leaves id aside
    row 0  |  31 tokens, 12 trained (39%)
    <|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>[[4<|assistant_end|>]]
    row 1: rejected, roles out of turn: {"conversations": [...

Nothing but these rows is read, so it is instant for files of any size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from prep.arrays import offsets
from prep.conversations.conversation import REASONS
from prep.conversations.layouts import MESSAGE_FIELDS, Layout, columns_of, rows_of, show_row
from prep.conversations.recognise import FIRST_ROWS, recognise
from prep.encode.encode import Encoder
from prep.inspect.show import segments
from prep.render.render import render
from prep.sources.detect import find_files, first_rows, kind_of
from prep.tasks import TASKS
from prep.tasks.custom import find, is_custom
from prep.tasks.task import Task
from prep.text import SHOWN_CHARACTERS
from prep.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Look:
    """Files, how the first one is read, and its first rows"""

    files: list[Path]
    kind: str
    task: Task
    used: list[str]  # fields of a row that are read
    unused: list[str]
    rows: pa.Table


def look(path: Path, num_rows: int, wanted: Layout, layout: str | None, own: str | None) -> Look:
    """FileNotFoundError or ValueError where there is nothing, or nothing that is recognised"""
    files = find_files(path)
    if not files:
        raise FileNotFoundError(f"{path} not found, or without data in it: give a file, a directory or a pattern.")
    first, rows = first_rows(files, max(num_rows, FIRST_ROWS))
    if own is not None:
        if not is_custom(own):
            raise ValueError(
                f"--task {own}: wanted a task of one's own, as my_task.py:row; without it rows are read as chats."
            )
        task = find(own, Path())
        if task.generates:
            raise ValueError(f"task {own!r} makes its rows, wanted one that reads them: drop {path}.")
        return Look(files, kind_of(files[0]), task, [], [], rows.slice(0, num_rows))
    found, names = recognise(rows, first, wanted, layout), fields_of(rows)
    used = columns_of(found, names)
    unused = [name for name in names if name not in used]
    inside = fields_of_messages(rows, used)
    unused += [f"{name} of messages" for name in inside if found.canonical_name(name) not in MESSAGE_FIELDS]
    return Look(files, kind_of(files[0]), TASKS["chat"].with_layout(found), used, unused, rows.slice(0, num_rows))


def fields_of(rows: pa.Table) -> list[str]:
    """Names of the columns, or of the fields of lines"""
    found: dict[str, None] = {}
    for row in rows_of(rows):
        found |= dict.fromkeys(row) if isinstance(row, dict) else {}
    return list(found)


def fields_of_messages(rows: pa.Table, names: list[str]) -> list[str]:
    """Names of the fields of messages, which are in lists under some names of a row, or are the row"""
    found: dict[str, None] = {}
    for row in rows_of(rows):
        for talk in [row.get(name) for name in names] if isinstance(row, dict) else [row]:
            for message in talk if isinstance(talk, list) else ():
                found |= dict.fromkeys(message) if isinstance(message, dict) else {}
    return list(found)


def rendered(found: Look, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """One {"row", "length", "trainable", "trained_share", "segments"} or {"row", "rejected", "content"} a row"""
    rows = found.rows
    if found.kind not in ("lines", "gzip", "zstd") and found.used:
        rows = rows.select(found.used)
    done = render(found.task.conversations(rows), Encoder(tokenizer, "tiktoken"), tokenizer)
    bounds = offsets(done.lengths)
    for row in range(len(rows)):
        if done.reasons[row]:
            content = show_row(found.rows.slice(row, 1), SHOWN_CHARACTERS)
            yield {"row": row, "rejected": REASONS[done.reasons[row]], "content": content}
            continue
        place = slice(int(bounds[row]), int(bounds[row + 1]))
        num = int(done.lengths[row])
        yield {
            "row": row,
            "length": num,
            "trainable": int(done.trainable[row]),
            "trained_share": round(int(done.trainable[row]) / num, 4),
            "segments": segments(tokenizer, done.tokens[place], done.mask[place]),
        }


def describe(found: Look) -> dict[str, Any]:
    """What the rows were taken for, as plain values"""
    task = found.task
    return {
        "file": str(found.files[0]),
        "files": len(found.files),
        "kind": found.kind,
        "task": task.label,
        **(task.layout.describe() if task.layout else {}),
        "reads": found.used,
        "leaves_aside": found.unused,
    }


def about(found: Look) -> str:
    """One line over the rows"""
    says = describe(found)
    more = f" (the first of {says['files']} files)" if says["files"] > 1 else ""
    kind = {"lines": "JSON lines", "gzip": "JSON lines, gzip", "zstd": "JSON lines, zstd"}.get(found.kind, found.kind)
    words = [kind + more, f"layout {says['layout']}" if "layout" in says else f"task {says['task']}"]
    options = {"train_on": "all", "consecutive": "reject", "tools": "parts"}
    words += [f"{name} {says[name]}" for name, usual in options.items() if says.get(name, usual) != usual]
    words += [f"reads {', '.join(found.used)}"] if found.used else []
    words += [f"leaves aside {', '.join(found.unused)}"] if found.unused else []
    return f"{says['file']}: {', '.join(words)}"
