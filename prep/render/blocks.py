"""
The render pass: examples to rendered blocks in the cache. Done by workers, an item of neighbouring blocks at a time.

    item [0, 8192, 16384]   block 0: in the cache, checksum right -> kept      block 1: missing -> read, rendered, written

An item may be done twice, or by two builds at once: a block has the same name and the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from prep.chat.choose import AnyTemplate
from prep.conversations.conversation import Conversations, part_of, slices
from prep.conversations.layouts import Layout, refusal
from prep.encode.encode import Encoder
from prep.render.block_cache import read_block, write_block
from prep.render.render import NANOCHAT_TEMPLATE, Rendered, render
from prep.sources.source import Source, read_rows
from prep.sources.tables import BATCH_BYTES
from prep.tasks.task import Task
from prep.text import one_line
from prep.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class RenderContext:
    """What every item needs; each worker gets it once."""

    tokenizer: Tokenizer
    engine: str  # of the encoder
    template: AnyTemplate = NANOCHAT_TEMPLATE

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
    reads: tuple[str, ...] = ()  # fields on which entries decide, unless the chat format has a place for them


@dataclass(frozen=True)
class RenderedBlock:
    """A block that is in the cache now: how many conversations and tokens, and whether it was there before."""

    conversations: int
    tokens: int
    state: str  # cached, rendered, or damaged: what the cache had was wrong and was rendered again
    num_bytes: int  # in the cache


def render_item(context: RenderContext, item: WorkItem) -> list[RenderedBlock]:
    """Make sure that every block of the item is in the cache and whole."""
    states = [check_block(path) for path in item.paths]
    missing = [i for i, state in enumerate(states) if state != "cached"]
    if missing:
        encode = context.encode
        batches = read_batches(item, item.bounds[missing[0]], item.bounds[missing[-1] + 1])
        for i in range(missing[0], missing[-1] + 1):
            rendered = render_block(item, batches, item.bounds[i + 1] - item.bounds[i], encode, context)
            if states[i] != "cached":
                item.source.check_unchanged(item.bounds[i], item.bounds[i + 1])
                write_block(item.paths[i], rendered)
    blocks = []
    for path, state in zip(item.paths, states, strict=True):
        block = read_block(path)
        state = "rendered" if state == "missing" else state
        blocks.append(RenderedBlock(len(block.lengths), len(block.tokens), state, path.stat().st_size))
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


def render_block(
    item: WorkItem, batches: Iterator[Conversations], num_rows: int, encode: Encoder, context: RenderContext
) -> list[Rendered]:
    """The next `num_rows` conversations, rendered batch by batch"""
    rendered = list[Rendered]()
    while num_rows:
        batch = next(batches, None)
        if batch is None:
            raise ValueError(f"{item.source.files[-1]} has fewer rows than before: did it change? Build again.")
        generated = item.task.generates and not item.task.is_custom
        rendered.append(render(batch, encode, context.tokenizer, generated, context.template))
        num_rows -= len(batch)
    return rendered


def read_batches(item: WorkItem, start: int, stop: int) -> Iterator[Conversations]:
    """Rows start .. stop - 1 as batches of conversations of bounded size, none across a block's end"""
    for batch in _read_parts(item, start, stop):
        for a, b in slices(batch, BATCH_BYTES):
            yield part_of(batch, a, b)


def _read_parts(item: WorkItem, start: int, stop: int) -> Iterator[Conversations]:
    """The same, of whatever size the reader or the task gives"""
    bounds = [bound for bound in item.bounds if start < bound <= stop]
    if item.task.generates:
        for bound in bounds:
            yield item.task.generate(start, bound, item.seed, item.split)
            start = bound
        return
    for table in read_rows(item.source, start, stop):
        inner = [bound - start for bound in bounds if start < bound < start + len(table)]
        for a, b in pairwise([0, *inner, len(table)]):
            yield _to_conversations(item, table.slice(a, b - a), start)
        start += len(table)


def _to_conversations(item: WorkItem, rows: pa.Table, first_row: int) -> Conversations:
    """ValueError that names the file where columns are not what the task reads; custom tasks speak for themselves"""
    if item.task.is_custom:
        return _decided(item, item.task.conversations(rows), first_row)
    try:
        batch = item.task.conversations(rows)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        path = item.source.file_of(first_row)
        raise ValueError(
            f"{path} is not what task {item.task.label!r} reads: {one_line(error)} It has the columns "
            f"{rows.column_names}: give another file, or a task of your own."
        ) from None
    return _decided(item, batch, first_row)


def _decided(item: WorkItem, batch: Conversations, first_row: int) -> Conversations:
    """ValueError where rows have fields on which the entry has to decide"""
    refused = tuple(name for name in batch.notes.refused if name not in item.reads)
    if not refused:
        return batch
    if item.task.is_custom:
        names = ", ".join(f"`{name}`" for name in refused)
        raise ValueError(f"{item.task.label} returns {names}, which is not read: leave it out of its conversations.")
    raise ValueError(f"{item.source.file_of(first_row)}: {refusal(refused, item.task.layout or Layout())}")
