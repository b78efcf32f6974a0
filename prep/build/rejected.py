"""
Examples that are not valid conversations: kept with source, row number and reason, and a limit on them.

    {"split": "train", "source": "mine", "row": 16, "reason": "invalid JSON", "content": "{\\"messages\\": [..."}

in = out + rejected, always. The content of the first examples of a source is written out, so that they can be looked at
without looking for them; the first of each reason has a `culprit`, what is wrong in it and the way on.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.chat.choose import AnyTemplate
from prep.conversations.conversation import REASON, REASONS, WANTED
from prep.conversations.rows import show_row
from prep.mixture.resolve import Input
from prep.plan.table import RejectedExamples, Table
from prep.render.block_cache import BlockFiles
from prep.render.why import EXPLAINED, why, why_of
from prep.screen import as_json
from prep.shard import write_bytes
from prep.sources.source import rows_at
from prep.text import SHOWN_CHARACTERS, with_culprit
from prep.tokenizer.tokenizer import Tokenizer

SHOWN_ROWS = 100  # of a source whose content is written out


def check_trained(source: Input, blocks: BlockFiles, train_on: Any) -> None:
    """ValueError for a source of conversations of which nothing trains, unless it was asked for"""
    layout = source.task.layout
    if source.task.label != "chat" or "none" in (train_on, layout.train_on if layout else None):
        return
    if blocks.column("lengths").any() and not blocks.column("trainable").any():
        raise ValueError(
            f"{source.entry.label}: none of its conversations has a loss token, so sft would train on nothing of it: "
            'train_on = "none" in its entry asks for that.'
        )


def check_rejected(table: Table, split: str, limit: float, template: AnyTemplate, tokenizer: Tokenizer) -> Table:
    """The table, or ValueError with three examples if more than `limit` of those that an entry selects are invalid."""
    for entry, source in enumerate(table.inputs):
        rejected = without_wanted(table.rejected(entry))
        num_selected = len(rejected.examples) + len(table.usable(entry))
        if len(rejected.examples) <= limit * num_selected:
            continue
        culprits = find_culprits(rejected, template, tokenizer)
        numbers = rejected.examples[:3]
        texts = [f": {text[:120]}" for text in contents(source, numbers)] or [""] * len(numbers)
        shown = "; ".join(
            f"row {row} ({with_culprit(REASONS[code], culprits.get(row, ''))}){text}"
            for row, code, text in zip(numbers.tolist(), rejected.reasons.tolist(), texts, strict=False)
        )
        advice = f"Leave it out with --without {source.entry.label}" if source.task.generates else "Fix them"
        raise ValueError(
            f"{len(rejected.examples):,} of {num_selected:,} rows of {source.entry.label} ({split}) are not valid "
            f"conversations, allowed are {limit:.0%}: {shown}. {advice}, or allow more with --max-rejected."
        )
    return table


def without_wanted(rejected: RejectedExamples) -> RejectedExamples:
    """Those that were not left out on purpose"""
    wrong = ~np.isin(rejected.reasons, [REASON[reason] for reason in WANTED])
    return replace(rejected, examples=rejected.examples[wrong], reasons=rejected.reasons[wrong])


def find_culprits(rejected: RejectedExamples, template: AnyTemplate, tokenizer: Tokenizer) -> dict[int, str]:
    """{row: what is wrong in it, and the way on} of the first row of each reason; reads the blocks of these rows"""
    codes, first = np.unique(rejected.reasons, return_index=True)
    explained = [place for code, place in zip(codes.tolist(), first, strict=True) if REASONS[code] in EXPLAINED]
    places = np.sort(np.array(explained, dtype=np.int64))
    source, task = rejected.source, rejected.source.task
    if not len(places):
        return {}
    numbers, reasons = rejected.examples[places], rejected.reasons[places].tolist()
    if task.generates:
        made = [task.generate(n, n + 1, source.entry.seed, str(source.split)) for n in numbers.tolist()]
        said = [why_of(batch, code, template, tokenizer) for batch, code in zip(made, reasons, strict=True)]
    else:
        rows = zip(rows_at(source.source, numbers), reasons, strict=True)
        said = [why(task, row, code, template, tokenizer) for row, code in rows]
    culprits = dict(zip(numbers.tolist(), said, strict=True))
    return {number: culprit for number, culprit in culprits.items() if culprit}


def culprit_by_reason(rejected: RejectedExamples, culprits: dict[int, str]) -> dict[str, str]:
    """{reason: what is wrong in its first row}"""
    codes = dict(zip(rejected.examples.tolist(), rejected.reasons.tolist(), strict=True)) if culprits else {}
    return {REASONS[codes[row]]: f"{culprit} (row {row})" for row, culprit in culprits.items()}


def write_rejected(path: Path, rejected: list[tuple[str, RejectedExamples, dict[int, str]]]) -> dict[str, Any]:
    """Write rejected.jsonl from splits, their examples and what is wrong in some; returns its entry in the manifest."""
    return write_bytes(path, *(line.encode() for examples in rejected for line in _lines(*examples)))


def _lines(split: str, rejected: RejectedExamples, culprits: dict[int, str]) -> Iterator[str]:
    shown = contents(rejected.source, rejected.examples[:SHOWN_ROWS])
    for i, (row, code) in enumerate(zip(rejected.examples.tolist(), rejected.reasons.tolist(), strict=True)):
        line = {"split": split, "source": rejected.source.entry.label, "row": row, "reason": REASONS[code]}
        line |= {"culprit": culprits[row]} if row in culprits else {}
        if i < len(shown):
            line["content"] = shown[i]
        yield as_json(line) + "\n"


def contents(source: Input, rows: Array) -> list[str]:
    """The content of rows (n,), ascending, as text of at most SHOWN_CHARACTERS; reads only their blocks"""
    if source.task.generates or not len(rows):
        return []
    return [show_row(row, SHOWN_CHARACTERS) for row in rows_at(source.source, rows)]
