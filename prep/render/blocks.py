"""
The render pass: blocks of rows to runs in the cache. Done by workers, a unit of neighbouring blocks at a time.

    unit [0, 8192, 16384]   block 0: in the cache, checksum right -> kept      block 1: missing -> read, rendered, written

A unit may be done twice or by two builds at once: the run has the same name and the same bytes.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from prep.conversations.conversation import Conversations, part_of, slices
from prep.encode.encode import Encoder
from prep.render.block_cache import read_block, write_block
from prep.render.render import Rendered, render
from prep.sources.jsonl import BATCH_BYTES
from prep.sources.source import Source, read_rows
from prep.tasks.task import Task
from prep.text import one_line
from prep.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class RenderContext:
    """What every unit needs; each worker gets it once."""

    tokenizer: Tokenizer
    engine: str

    @cached_property
    def encode(self) -> Encoder:
        return Encoder(self.tokenizer, self.engine)


@dataclass(frozen=True)
class WorkItem:
    """Neighbouring blocks of one source: block i holds rows bounds[i] .. bounds[i + 1] - 1 and goes to paths[i]."""

    task: Task
    source: Source
    seed: int
    split: str
    bounds: tuple[int, ...]
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class RenderedBlock:
    """A block that is in the cache now: how many conversations and tokens, and whether it was there before."""

    conversations: int
    tokens: int
    state: str  # cached, rendered, or damaged: what the cache had was wrong and was rendered again
    num_bytes: int  # in the cache


def render_unit(context: RenderContext, unit: WorkItem) -> list[RenderedBlock]:
    """See to it that every block of the unit is in the cache and whole."""
    states = [check_block(path) for path in unit.paths]
    missing = [i for i, state in enumerate(states) if state != "cached"]
    if missing:
        batches = read_conversations(unit, unit.bounds[missing[0]], unit.bounds[missing[-1] + 1])
        for i, pieces in cut_blocks(context, unit, batches, missing[0], missing[-1]):
            if states[i] != "cached":
                unit.source.check_unchanged(unit.bounds[i], unit.bounds[i + 1])
                write_block(unit.paths[i], pieces)
    blocks = []
    for path, state in zip(unit.paths, states, strict=True):
        done = read_block(path)
        state = "rendered" if state == "missing" else state
        blocks.append(RenderedBlock(len(done.lengths), len(done.tokens), state, path.stat().st_size))
    return blocks


def check_block(path: Path) -> str:
    """What the cache has under this name: cached (checksum right), damaged, or missing"""
    try:
        read_block(path, verify=True)
    except FileNotFoundError:
        return "missing"
    except ValueError:
        return "damaged"
    return "cached"


def read_conversations(unit: WorkItem, start: int, stop: int) -> Iterator[Conversations]:
    """Rows start .. stop - 1 as batches of conversations of bounded size, none across a block's end"""
    for batch in _tables(unit, start, stop):
        for a, b in slices(batch, BATCH_BYTES):
            yield part_of(batch, a, b)


def _tables(unit: WorkItem, start: int, stop: int) -> Iterator[Conversations]:
    """The same, of whatever size the reader or the task gives"""
    bounds = [bound for bound in unit.bounds if start < bound <= stop]
    if unit.task.generates:
        for bound in bounds:
            yield unit.task.generate(start, bound, unit.seed, unit.split)
            start = bound
        return
    place = start
    for table in read_rows(unit.source, start, stop):
        for part in _cut(table, place, bounds):
            yield _conversations(unit, part, place)
        place += len(table)


def _conversations(unit: WorkItem, rows: pa.Table, place: int) -> Conversations:
    """ValueError that names the file where columns are not what the task reads; custom tasks say it themselves"""
    if unit.task.is_custom:
        return unit.task.conversations(rows)
    try:
        return unit.task.conversations(rows)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        path = unit.source.files[bisect_right(unit.source.file_starts, place) - 1]
        raise ValueError(
            f"{path} is not what task {unit.task.label!r} reads: {one_line(error)} It has the columns "
            f"{rows.column_names}: give another file, or a task of your own."
        ) from None


def _cut(table: pa.Table, place: int, bounds: list[int]) -> Iterator[pa.Table]:
    """A table of rows from `place` on, cut where blocks end"""
    inner = [bound - place for bound in bounds if place < bound < place + len(table)]
    for a, b in zip([0, *inner], [*inner, len(table)], strict=True):
        yield table.slice(a, b - a)


def cut_blocks(
    context: RenderContext, unit: WorkItem, batches: Iterator[Conversations], first: int, last: int
) -> Iterator[tuple[int, list[Rendered]]]:
    """Render batches and yield (block, its pieces) for the blocks first .. last"""
    for i in range(first, last + 1):
        left, pieces = unit.bounds[i + 1] - unit.bounds[i], list[Rendered]()
        while left:
            batch = next(batches, None)
            if batch is None:
                raise ValueError(f"{unit.source.files[-1]} has fewer rows than before: did it change? Build again.")
            pieces.append(
                render(batch, context.encode, context.tokenizer, unit.task.generates and not unit.task.is_custom)
            )
            left -= len(batch)
        yield i, pieces
