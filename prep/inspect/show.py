"""
A look into a build: conversations, rows and steps as plain values, cut where something changes.

    tokens     <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|>
    mask          0          0          0       0              0            1        1
    segments   special   special     context special       special      trained  special, trained

Every token leads back to its source row. Arrays stay mapped: what is decoded is what is shown.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.inspect.search import first_doc, goes_on, row_of
from prep.shard import Split
from prep.shard.steps import FILLER, StepPlan, device_batch, ranks_of_step, row_targets
from prep.tokenizer.tokenizer import Tokenizer


def segments(tokenizer: Tokenizer, tokens: Array, mask: Array) -> list[dict[str, Any]]:
    """tokens, mask (n,) -> [{"text", "special", "trained"}]: each special token alone, other text until the mask changes"""
    special = np.isin(tokens, list(tokenizer.special_tokens.values()))
    cuts = np.flatnonzero((np.diff(mask.astype(np.int8)) != 0) | special[1:] | special[:-1]) + 1
    bounds = [0, *cuts.tolist(), len(tokens)]
    return [
        {"text": tokenizer.decode(tokens[a:b].tolist()), "special": bool(special[a]), "trained": bool(mask[a])}
        for a, b in pairwise(bounds)
        if b > a
    ]


def show_conversation(split: Split, tokenizer: Tokenizer, doc: int) -> dict[str, Any]:
    """One conversation, put together where it crosses rows"""
    if not 0 <= doc < split.entry["docs"]:
        raise ValueError(f"conversation {doc} asked for, {split.name} has 0 to {split.entry['docs'] - 1}.")
    doc = first_doc(split, doc)
    row = first = row_of(split, doc)
    start = int(split.docs["length"][split.doc_range(row)[0] : doc].sum())
    place, tokens, masks = start, list[Array](), list[Array]()
    for at in range(doc, split.entry["docs"]):
        if at > doc:
            if not goes_on(split, at):
                break
            row, place = row + 1, 1  # its first token is the last one of the row before
        stop = (0 if at > doc else start) + int(split.docs["length"][at])
        tokens.append(split.read_tokens(np.array([row]))[0, place:stop])
        masks.append(split.read_mask(np.array([row]))[0, place:stop])
    shown = _document(split, tokenizer, doc, np.concatenate(tokens), np.concatenate(masks))
    return {**shown, "row": first, "rows": row - first + 1, "position": start}


def show_row(split: Split, tokenizer: Tokenizer, row: int) -> dict[str, Any]:
    """A row and the documents in it"""
    if not 0 <= row < split.num_rows:
        raise ValueError(f"row {row} asked for, {split.name} has rows 0 to {split.num_rows - 1}.")
    tokens, mask = split.read_tokens(np.array([row]))[0], split.read_mask(np.array([row]))[0]
    first, stop = split.doc_range(row)
    ends = np.cumsum(split.docs["length"][first:stop]).tolist()
    documents, start = [], 0
    for doc, end in zip(range(first, stop), ends, strict=True):
        shown = _document(split, tokenizer, doc, tokens[start:end], mask[start:end])
        documents.append({**shown, "row": row, "rows": 1, "position": start})
        start = end
    return {**describe_row(split, row), "documents": documents}


def describe_row(split: Split, row: int) -> dict[str, Any]:
    """What is in a row, without its text"""
    entry, names = split.rows[row], split.source_names
    first, stop = split.doc_range(row)
    numbers, counts = np.unique(split.docs["source"][first:stop], return_counts=True)
    return {
        "row": row,
        **{name: int(entry[name]) for name in ("num_tokens", "num_targets", "num_trainable")},
        "num_padding": split.max_seq_len + 1 - int(entry["num_tokens"]),
        "num_documents": stop - first,
        "sources": {names[int(n)]: int(c) for n, c in zip(numbers, counts, strict=True)},
    }


def _document(split: Split, tokenizer: Tokenizer, doc: int, tokens: Array, mask: Array) -> dict[str, Any]:
    entry, trainable = split.docs[doc], int(mask.sum())
    source = split.entry["sources"][int(entry["source"])]
    return {
        "conversation": doc,
        "source": source["name"],
        "task": source["task"],
        "index": int(entry["index"]),
        "repeat": int(entry["repeat"]),
        "length": len(tokens),
        "trainable": trainable,
        "trained_share": round(trainable / max(len(tokens), 1), 4),
        "segments": segments(tokenizer, tokens, mask),
    }


def show_step(
    split: Split, steps: StepPlan, step: int, mode: str, world_size: int, batch: int | None, lr_multiplier: float
) -> dict[str, Any]:
    """What a step trains, and which rank gets which row of it; `lr_multiplier` is the trainer's for this step"""
    if not 0 <= step < steps.num_steps:
        raise ValueError(f"step {step} asked for, this run has steps 0 to {steps.num_steps - 1}.")
    rows, counts = steps.rows_of_step(step), row_targets(split, mode)
    batch = device_batch(len(rows), world_size, split.max_seq_len, batch)
    targets = np.where(rows == FILLER, 0, counts[np.maximum(rows, 0)])
    dealt = ranks_of_step(rows, world_size, batch)
    for place, one in enumerate(dealt):
        one |= describe_row(split, one["row"]) if one["row"] != FILLER else {"sources": {}}
        one["targets"] = int(targets[place])
    return {
        "step": step,
        "num_steps": steps.num_steps,
        "mode": mode,
        "epoch": step * len(rows) // len(steps.row_ids),
        "lr_multiplier": lr_multiplier,
        "rows_per_step": len(rows),
        "total_batch_size": len(rows) * split.max_seq_len,
        "targets": int(targets.sum()),
        "fillers": int((rows == FILLER).sum()),
        "world_size": world_size,
        "device_batch_size": batch,
        "accumulation": len(rows) // (world_size * batch),
        "rows": dealt,
    }
