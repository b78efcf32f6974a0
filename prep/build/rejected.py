"""
Rows that are no valid conversations: counted by reason, kept with source, row number and reason, and a limit on them.

    {"split": "train", "source": "mine", "row": 16, "reason": "invalid JSON", "content": "{\\"messages\\": [..."}

in = out + rejected, always. The content of the first rows of a source is shown, so that they can be looked at without
looking for them.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.arrays import Array
from prep.conversations.conversation import REASONS
from prep.conversations.layouts import show_row
from prep.mixture.resolve import Input
from prep.shard import write_bytes
from prep.sources.source import rows_at
from prep.text import SHOWN_CHARACTERS

SHOWN_ROWS = 100  # of a source whose content is written out


def count(reasons: Array) -> dict[str, int]:
    """(n,) reason codes -> number of rows by reason, those that are fine left out"""
    codes = Counter(reasons[reasons > 0].tolist())
    return {REASONS[code]: codes[code] for code in sorted(codes)}


@dataclass(frozen=True)
class RejectedRows:
    """Rows of one source that are not in a split"""

    split: str
    source: Input
    rows: Array  # (n,) row numbers, ascending
    reasons: Array  # (n,) uint8: place in REASONS


def check_share(found: RejectedRows, num_rows: int, limit: float) -> None:
    """ValueError if more than `limit` of the num_rows selected rows of a source are rejected, with three of them."""
    if len(found.rows) <= limit * num_rows:
        return
    first = found.rows[:3]
    shown = "; ".join(
        f"row {row} ({REASONS[code]}): {content[:120]}"
        for row, code, content in zip(
            first.tolist(), found.reasons.tolist(), contents(found.source, first), strict=False
        )
    )
    raise ValueError(
        f"{len(found.rows):,} of {num_rows:,} rows of {found.source.entry.label} ({found.split}) are no valid conversations, "
        f"allowed are {limit:.0%}: {shown}. Mend them, or allow more with --max-rejected."
    )


def write_rejected(path: Path, found: list[RejectedRows]) -> dict[str, Any]:
    """Write rejected.jsonl; returns its entry in the manifest."""
    return write_bytes(path, *(line.encode() for one in found for line in _lines(one)))


def _lines(found: RejectedRows) -> Iterator[str]:
    shown = contents(found.source, found.rows[:SHOWN_ROWS])
    for i, (row, code) in enumerate(zip(found.rows.tolist(), found.reasons.tolist(), strict=True)):
        entry = {"split": found.split, "source": found.source.entry.label, "row": row, "reason": REASONS[code]}
        if i < len(shown):
            entry["content"] = shown[i]
        yield json.dumps(entry, ensure_ascii=False) + "\n"


def contents(one: Input, rows: Array) -> list[str]:
    """What stands in some rows (n,), ascending, as text of at most SHOWN_CHARACTERS; reads only their blocks"""
    if one.task.generates:
        return []
    return [show_row(row, SHOWN_CHARACTERS) for row in rows_at(one.source, rows)]
