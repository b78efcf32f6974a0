"""
The first rows of a file as a build would render them, before any build.

    talks.jsonl.gz: JSON lines, gzip, layout sharegpt, reads conversations, leaves aside id
    row 0  |  31 tokens, 12 loss tokens (39%)
    <|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>[[4<|assistant_end|>]]
    row 1: rejected, roles out of turn: {"conversations": [...

Only the first rows of each file are read, so it is instant for files of any size. A task that makes its rows needs no file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from prep.arrays import offsets
from prep.chat.choose import AnyTemplate
from prep.conversations.conversation import REASONS, Conversations, part_of
from prep.conversations.layouts import ASIDE, REASONING_FIELDS, UNUSED, Layout, refusal
from prep.conversations.recognise import FIRST_ROWS, recognise
from prep.conversations.rows import rows_of, show_row
from prep.encode.encode import Encoder
from prep.inspect.show import segments
from prep.render.render import NANOCHAT_TEMPLATE, render
from prep.render.why import why, why_of
from prep.sources.detect import check_kinds, heads, kind_of
from prep.sources.files import find_files
from prep.tasks import TASKS
from prep.tasks.custom import find, is_custom
from prep.tasks.task import BuiltinTask, Task
from prep.text import SHOWN_CHARACTERS, nearest, with_culprit
from prep.tokenizer.tokenizer import Tokenizer

KINDS = {
    **{"lines": "JSON lines", "gzip": "JSON lines, gzip", "zstd": "JSON lines, zstd"},
    **{"json": "JSON that is no lines: written as lines into the cache", "text": "plain text, a document a file"},
}
SEED = 42  # of an entry that gives none
DEFAULTS = {"train_on": "all", "consecutive": "reject", "tools": "parts", "reasoning": None, "typed_tokens": "keep"}


@dataclass(frozen=True)
class Preview:
    """Files, how the first one is read, and its first rows; no files where a task makes the rows"""

    files: list[Path]
    kind: str
    task: Task
    used: list[str]  # fields of a row that are read
    unused: list[str]
    rows: pa.Table
    num_made: int = 0

    def conversations(self) -> Conversations:
        """Its rows as the task gives them"""
        if self.num_made:
            return self.task.generate(0, self.num_made, SEED, "train")
        return self.task.conversations(self.rows)

    def describe(self) -> dict[str, Any]:
        """How the rows are read, as plain values"""
        if self.num_made:
            return {
                "file": None,
                "files": 0,
                "kind": self.kind,
                "task": self.task.label,
                "reads": [],
                "leaves_aside": [],
            }
        return {
            "file": str(self.files[0]),
            "files": len(self.files),
            "kind": self.kind,
            "task": self.task.label,
            **(self.task.layout.describe() if self.task.layout else {}),
            "reads": self.used,
            "leaves_aside": self.unused,
        }

    def summary(self) -> str:
        """One line over the rows"""
        described = self.describe()
        if self.num_made:
            return f"task {self.task.label}: generated, split train, seed {SEED}"
        more = f" (the first of {len(self.files)} files)" if len(self.files) > 1 else ""
        words = [KINDS.get(self.kind, self.kind) + more]
        words.append(f"layout {described['layout']}" if "layout" in described else f"task {described['task']}")
        words += [f"{key} {described[key]}" for key, usual in DEFAULTS.items() if described.get(key, usual) != usual]
        words += [f"reads {', '.join(self.used)}"] if self.used else []
        words += [f"leaves aside {', '.join(self.unused)}"] if self.unused else []
        return f"{self.files[0]}: {', '.join(words)}"


def preview(
    path: Path,
    num_rows: int,
    options: Layout,
    layout: str | None,
    task_name: str | None,
    template: AnyTemplate = NANOCHAT_TEMPLATE,
) -> Preview:
    """FileNotFoundError or ValueError where there are no rows, or none of a known layout"""
    is_text = task_name == "text"
    files = find_files(path, text=is_text)
    if not files:
        raise FileNotFoundError(f"{path} not found, or without data in it: give a file, a directory or a pattern.")
    check_kinds(files, is_text)
    num_first = max(num_rows, FIRST_ROWS)
    kind, shown = kind_of(files[0], is_text), next(heads(files, num_first, is_text))[1].slice(0, num_rows)
    if task_name is not None and not is_text:
        return Preview(files, kind, _custom_task(task_name, path), [], [], shown)
    options = replace(options, train_on="none") if is_text else options  # as in an entry that says nothing of it
    recognised = recognise(heads(files, num_first, is_text), options, "text" if is_text else layout)
    task = TASKS["text" if is_text else "chat"].with_layout(recognised)
    fields, aside = list[str](), set[str]()
    for file, head in heads(files, num_first, is_text):  # what a build stops at, or leaves aside, may be in any file
        head = head.drop_columns([name for name in head.column_names if recognised.renames.get(name) == UNUSED])
        notes = task.conversations(head).notes
        refused = tuple(name for name in notes.refused if not (template.reads_reasoning and name in REASONING_FIELDS))
        if refused:
            raise ValueError(f"{file}: {refusal(refused, recognised)}")
        fields += _fields(rows_of(head))
        aside.update(name for name in notes.left_aside if not (template.reads_tools and name in ASIDE))
    decided = {name for name, _ in recognised.where}
    read = [recognised.source_name(name) for name in recognised.table.fields]
    used = [name for name in (*read, *sorted(decided - {*read})) if name in fields]
    return Preview(files, kind, task, used, sorted(aside), shown)


def made_rows(num_rows: int, task_name: str) -> Preview:
    """The first rows of a task that makes them. ValueError for one that reads rows."""
    task: Task
    if task_name in TASKS:
        task = TASKS[task_name]
    elif is_custom(task_name):
        task = find(task_name, Path())
    else:
        made = [name for name, known in TASKS.items() if known.generates]
        raise ValueError(
            f"--task {task_name}: not known, wanted {', '.join(made)} or your own, as my_task.py:row."
            f"{nearest(task_name, made)}"
        )
    if not task.generates:
        source = f"{task.hub} on the Hub" if isinstance(task, BuiltinTask) and task.hub else "a file"
        advice = "build it and look with midprep show" if source != "a file" else "give the file, as midprep try FILE"
        raise ValueError(f"--task {task_name} reads rows of {source}, wanted a task that makes its own: {advice}.")
    return Preview([], "generated", task, [], [], pa.table({}), num_rows)


def _custom_task(name: str, path: Path) -> Task:
    if not is_custom(name):
        advice = f"drop {path}" if name in TASKS and TASKS[name].generates else "text, or none for chats"
        raise ValueError(f"--task {name}: wanted your own task, as my_task.py:row; {advice}.")
    task = find(name, Path())
    if task.generates:
        raise ValueError(f"task {name!r} makes its rows, wanted one that reads them: drop {path}.")
    return task


def _fields(objects: Iterable[Any]) -> list[str]:
    """Names of the fields of those that are objects, in the order of their first use"""
    return list(dict.fromkeys(name for value in objects if isinstance(value, dict) for name in value))


def render_rows(
    previewed: Preview, tokenizer: Tokenizer, template: AnyTemplate = NANOCHAT_TEMPLATE
) -> Iterator[dict[str, Any]]:
    """{"row", "length", "trainable", "trained_share", "segments"} or {"row", "rejected", "content"} for each row"""
    rows = previewed.rows
    rendered = render(previewed.conversations(), Encoder(tokenizer, "tiktoken"), tokenizer, template=template)
    bounds = offsets(rendered.lengths).tolist()
    for row, (length, trainable) in enumerate(zip(rendered.lengths.tolist(), rendered.trainable.tolist(), strict=True)):
        if rendered.reasons[row]:
            code = int(rendered.reasons[row])
            if previewed.files:
                culprit = why(previewed.task, rows.slice(row, 1), code, template, tokenizer)
            else:
                culprit = why_of(part_of(previewed.conversations(), row, row + 1), code, template, tokenizer)
            content = show_row(rows.slice(row, 1), SHOWN_CHARACTERS) if previewed.files else ""
            yield {"row": row, "rejected": with_culprit(REASONS[code], culprit), "content": content}
            continue
        place = slice(bounds[row], bounds[row + 1])
        yield {
            "row": row,
            "length": length,
            "trainable": trainable,
            "trained_share": round(trainable / length, 4),
            "segments": segments(tokenizer, rendered.tokens[place], rendered.mask[place]),
        }
