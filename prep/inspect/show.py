"""
Conversations, rows and steps of a build as plain values, in segments that end where something changes.

    tokens     <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|>
    mask          0          0          0       0              0            1        1
    segments   special   special     context special       special      trained  special, trained

Every token leads back to its source row. Arrays stay mapped: what is decoded is what is shown.
"""

from itertools import pairwise
from typing import Any, NotRequired, TypedDict

import numpy as np

from prep.arrays import Array
from prep.inspect.search import continues_previous_row, conversation_start, row_of
from prep.shard import Split
from prep.shard.steps import FILLER, StepPlan, device_batch, ranks_of_step, row_targets
from prep.tokenizer.tokenizer import Tokenizer


class Segment(TypedDict):
    text: str
    special: bool  # a special token, or an added one, which is one wherever its text stands
    trained: bool  # its tokens are loss tokens


class ShownConversation(TypedDict):
    """A conversation, or the document of it in a row; keys as in --json"""

    conversation: int  # number of its first document
    source: str
    task: str
    index: int  # of the source row
    repeat: int  # number of the copy
    row: int  # the first that holds it
    rows: int  # how many hold it
    position: int  # of its first token in that row
    length: int  # tokens
    trainable: int  # loss tokens
    trained_share: float
    segments: list[Segment]
    origin: NotRequired[str]  # the source row, where it was asked for


class RowCounts(TypedDict):
    """What is in a row, without its text"""

    row: int
    num_tokens: int
    num_targets: int  # of mid
    num_trainable: int  # targets of sft
    num_padding: int
    num_documents: int
    sources: dict[str, int]  # documents


class ShownRow(RowCounts):
    documents: list[ShownConversation]


def segments(tokenizer: Tokenizer, tokens: Array, mask: Array) -> list[Segment]:
    """tokens, mask (n,) -> each special or added token alone, other text until the mask changes"""
    special = np.isin(tokens, [*tokenizer.special_tokens.values(), *tokenizer.added_tokens.values()])
    changes = np.flatnonzero((np.diff(mask.astype(np.int8)) != 0) | special[1:] | special[:-1]) + 1
    return [
        {"text": tokenizer.decode(tokens[a:b].tolist()), "special": bool(special[a]), "trained": bool(mask[a])}
        for a, b in pairwise([0, *changes.tolist(), len(tokens)])
        if b > a
    ]


def show_conversation(split: Split, tokenizer: Tokenizer, doc: int) -> ShownConversation:
    """The conversation of a document, put together where it crosses rows"""
    num_docs = split.entry["docs"]
    if not 0 <= doc < num_docs:
        raise ValueError(f"conversation {doc} not found: {split.name} has 0 to {num_docs - 1}.")
    doc = conversation_start(split, doc)
    row, stop = row_of(split, doc), doc + 1
    while stop < num_docs and continues_previous_row(split, stop):
        stop += 1
    position = int(split.docs["length"][split.doc_range(row)[0] : doc].sum())
    tokens, masks = [], []
    for number, length in enumerate(split.docs["length"][doc:stop].tolist()):
        # a later row begins with the last token of the row before
        place = slice(1, length) if number else slice(position, position + length)
        tokens.append(split.read_tokens(np.array([row + number]))[0, place])
        masks.append(split.read_mask(np.array([row + number]))[0, place])
    return _shown(split, tokenizer, doc, np.concatenate(tokens), np.concatenate(masks), (row, stop - doc, position))


def show_row(split: Split, tokenizer: Tokenizer, row: int) -> ShownRow:
    """A row and the documents in it"""
    if not 0 <= row < split.num_rows:
        raise ValueError(f"row {row} not found: {split.name} has rows 0 to {split.num_rows - 1}.")
    tokens, mask = split.read_tokens(np.array([row]))[0], split.read_mask(np.array([row]))[0]
    docs = range(*split.doc_range(row))
    bounds = [0, *np.cumsum(split.docs["length"][docs.start : docs.stop]).tolist()]
    documents = [
        _shown(split, tokenizer, doc, tokens[start:stop], mask[start:stop], (row, 1, start))
        for doc, (start, stop) in zip(docs, pairwise(bounds), strict=True)
    ]
    return {**count_row(split, row), "documents": documents}


def count_row(split: Split, row: int) -> RowCounts:
    entry, names = split.rows[row], split.source_names
    first, stop = split.doc_range(row)
    numbers, counts = np.unique(split.docs["source"][first:stop], return_counts=True)
    return {
        "row": row,
        "num_tokens": int(entry["num_tokens"]),
        "num_targets": int(entry["num_targets"]),
        "num_trainable": int(entry["num_trainable"]),
        "num_padding": split.max_seq_len + 1 - int(entry["num_tokens"]),
        "num_documents": stop - first,
        "sources": {names[int(number)]: int(count) for number, count in zip(numbers, counts, strict=True)},
    }


def _shown(
    split: Split, tokenizer: Tokenizer, doc: int, tokens: Array, mask: Array, place: tuple[int, int, int]
) -> ShownConversation:
    """tokens, mask (n,); place is the first row, the number of rows and the position in the first"""
    entry, trainable = split.docs[doc], int(mask.sum())
    source = split.entry["sources"][int(entry["source"])]
    return {
        "conversation": doc,
        "source": source["name"],
        "task": source["task"],
        "index": int(entry["index"]),
        "repeat": int(entry["repeat"]),
        "row": place[0],
        "rows": place[1],
        "position": place[2],
        "length": len(tokens),
        "trainable": trainable,
        "trained_share": round(trainable / max(len(tokens), 1), 4),
        "segments": segments(tokenizer, tokens, mask),
    }


def show_step(
    split: Split, steps: StepPlan, step: int, mode: str, world_size: int, batch: int | None, lr_multiplier: float
) -> dict[str, Any]:
    """
    What a step trains, and which rank gets which row of it, as --json has it; `lr_multiplier` is the trainer's for this
    step. Fillers, rows without targets that fill up the last step, have no counts.
    """
    if not 0 <= step < steps.num_steps:
        raise ValueError(f"step {step} not found: this run has steps 0 to {steps.num_steps - 1}.")
    rows = steps.rows_of_step(step)
    is_filler = rows == FILLER
    batch = device_batch(len(rows), world_size, split.max_seq_len, batch)
    targets = np.where(is_filler, 0, row_targets(split, mode)[np.maximum(rows, 0)])
    step_rows = []
    for place, num_targets in zip(ranks_of_step(rows, world_size, batch), targets.tolist(), strict=True):
        counts = {**count_row(split, place["row"])} if place["row"] != FILLER else {"sources": {}}
        step_rows.append({**place, **counts, "targets": num_targets})
    return {
        "step": step,
        "num_steps": steps.num_steps,
        "mode": mode,
        "epoch": step * len(rows) // len(steps.row_ids),
        "lr_multiplier": lr_multiplier,
        "rows_per_step": len(rows),
        "total_batch_size": len(rows) * split.max_seq_len,
        "targets": int(targets.sum()),
        "fillers": int(is_filler.sum()),
        "world_size": world_size,
        "device_batch_size": batch,
        "accumulation": len(rows) // (world_size * batch),
        "rows": step_rows,
    }
