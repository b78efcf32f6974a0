"""
Examples that are not valid conversations: kept with source, row number and reason, and a limit on them.

    {"split": "train", "source": "mine", "row": 16, "reason": "invalid JSON", "content": "{\\"messages\\": [..."}

in = out + rejected, always. The content of the first examples of a source is written out, so that they can be looked at
without looking for them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prep.arrays import Array
from prep.conversations.conversation import REASONS
from prep.conversations.layouts import show_row
from prep.mixture.resolve import Input
from prep.plan.table import RejectedExamples, Table
from prep.screen import as_json
from prep.shard import write_bytes
from prep.sources.source import rows_at
from prep.text import SHOWN_CHARACTERS

SHOWN_ROWS = 100  # of a source whose content is written out


def check_rejected(table: Table, split: str, limit: float) -> Table:
    """The table, or ValueError with three examples if more than `limit` of those that an entry selects are invalid."""
    for entry, source in enumerate(table.inputs):
        rejected = table.rejected(entry)
        num_selected = len(rejected.examples) + len(table.usable(entry))
        if len(rejected.examples) <= limit * num_selected:
            continue
        first = zip(
            rejected.examples[:3].tolist(), rejected.reasons.tolist(), contents(source, rejected.examples[:3]),
            strict=False,
        )  # fmt: skip
        shown = "; ".join(f"row {row} ({REASONS[code]}): {content[:120]}" for row, code, content in first)
        raise ValueError(
            f"{len(rejected.examples):,} of {num_selected:,} rows of {source.entry.label} ({split}) are not valid "
            f"conversations, allowed are {limit:.0%}: {shown}. Fix them, or allow more with --max-rejected."
        )
    return table


def write_rejected(path: Path, rejected: list[tuple[str, RejectedExamples]]) -> dict[str, Any]:
    """Write rejected.jsonl from (split, examples) pairs; returns its entry in the manifest."""
    return write_bytes(path, *(line.encode() for split, examples in rejected for line in _lines(split, examples)))


def _lines(split: str, rejected: RejectedExamples) -> Iterator[str]:
    shown = contents(rejected.source, rejected.examples[:SHOWN_ROWS])
    for i, (row, code) in enumerate(zip(rejected.examples.tolist(), rejected.reasons.tolist(), strict=True)):
        line = {"split": split, "source": rejected.source.entry.label, "row": row, "reason": REASONS[code]}
        if i < len(shown):
            line["content"] = shown[i]
        yield as_json(line) + "\n"


def contents(source: Input, rows: Array) -> list[str]:
    """The content of rows (n,), ascending, as text of at most SHOWN_CHARACTERS; reads only their blocks"""
    if source.task.generates or not len(rows):
        return []
    return [show_row(row, SHOWN_CHARACTERS) for row in rows_at(source.source, rows)]
