"""
A full scan for overlap: every training conversation of a build against val, and against files and tasks that are given.

    held out      conversations  copies  50% or more  share a 13-gram     the train conversations that hold most of it
    gsm8k                 1,319       3            2               41     100% in --conversation 51234: Ann has 3 bags ...

Copies are the same but for case, spacing and punctuation; near copies have at least half of their 13-grams (13 words
in a row) in one training conversation. One pass over the shards, a few million tokens at a time: about 15 us per
conversation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrange.arrange import normalize
from prep.arrays import Array
from prep.chat.choose import read_template
from prep.encode.decode import Decoder, conversations_of, user_texts_of
from prep.inspect.search import conversations
from prep.mixture.mixture import Entry, Mixture
from prep.mixture.resolve import Input, resolve
from prep.plan.overlap import HeldOut
from prep.render.blocks import WorkItem, read_batches
from prep.shard import Split, open_shards
from prep.sources.files import find_files
from prep.tasks import TASKS
from prep.text import visible
from prep.tokenizer.load import load_tokenizer

EXAMPLES = 3  # of a group
SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class Group:
    """Held-out texts of one source"""

    name: str
    texts: list[bytes]


def find_overlap(root: Path, against: list[str], data_root: Path | None, threshold: float) -> dict[str, Any]:
    """
    What of val, and of the files and tasks in `against`, the training split of a build asks, as plain values. ValueError
    where there is nothing to compare with.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"--threshold {threshold} found, wanted more than 0 and at most 1.")
    shards = open_shards(root)
    decoder = Decoder(load_tokenizer(root), read_template(shards.manifest, root))
    groups = val_groups(shards.split("val"), decoder) if "val" in shards.splits else []
    groups += [read_group(name, data_root) for name in against]
    if not groups:
        raise ValueError(f"{root} has no val split: give what to compare with, as --against gsm8k or --against FILE.")
    held_out = HeldOut([text for group in groups for text in group.texts])
    train = shards.split("train")
    best = scan(train, held_out, decoder)
    return {
        "root": str(root),
        "threshold": threshold,
        "train": describe_train(train, best >= threshold),
        "held_out": describe_groups(groups, held_out, threshold, conversations(train)[0]),
    }


def user_texts(split: Split, decoder: Decoder) -> Iterator[list[bytes]]:
    """What the user says in each conversation, in stored order, by block"""
    for tokens, starts in conversations_of(split):
        yield decoder.user_texts(tokens, starts)


def val_groups(split: Split, decoder: Decoder) -> list[Group]:
    texts = [text for block in user_texts(split, decoder) for text in block]
    source = split.docs["source"][conversations(split)[0]]
    return [
        Group(name, [texts[i] for i in np.flatnonzero(source == number).tolist()])
        for number, name in enumerate(split.source_names)
    ]


def read_group(name: str, data_root: Path | None) -> Group:
    """The texts of a file of chats, or of what a task has for val; needs no tokenizer"""
    if name not in TASKS and not find_files(Path(name)):
        raise FileNotFoundError(
            f"--against {name}: no file and no task, wanted a file of chats or one of {', '.join(TASKS)}."
        )
    entry = Entry(name) if name in TASKS else Entry("chat", path=name)
    inputs = resolve(Mixture("against", 42, {"val": (entry,)}, Path()), data_root, None)["val"]
    return Group(f"{name} (against)", [text for source in inputs for text in read_texts(source)])


def read_texts(source: Input) -> Iterator[bytes]:
    for bounds in source.source.units:
        item = WorkItem(source.task, source.source, source.entry.seed, source.split or "", bounds, ())
        for batch in read_batches(item, bounds[0], bounds[-1]):
            yield from user_texts_of(normalize(batch))


def scan(train: Split, held_out: HeldOut, decoder: Decoder) -> Array:
    """(C,) the largest share of a held-out text that each training conversation holds"""
    best, first = [], 0
    for texts in user_texts(train, decoder):
        best.append(held_out.match(texts, first))
        first += len(texts)
    return np.concatenate(best)


def describe_train(train: Split, is_hit: Array) -> dict[str, Any]:
    source = train.docs["source"][conversations(train)[0]]
    hits = np.bincount(source[is_hit], minlength=len(train.source_names)).tolist()
    sources = [{"name": name, "hits": number} for name, number in zip(train.source_names, hits, strict=True)]
    return {"conversations": len(is_hit), "hits": sum(hits), "sources": sources}


def describe_groups(groups: list[Group], held_out: HeldOut, threshold: float, docs: Array) -> list[dict[str, Any]]:
    """`docs` (C,) are the first documents of the training conversations, by which `midprep show` finds them"""
    described, first = [], 0
    for group in groups:
        part = slice(first, first + len(group.texts))
        share, exact, where = held_out.share[part], held_out.exact[part], held_out.where[part]
        most = [i for i in np.argsort(-share, kind="stable")[:EXAMPLES].tolist() if share[i] > 0]
        described.append(
            {
                "name": group.name,
                "conversations": len(group.texts),
                "copies": int(exact.sum()),
                "near": int(((share >= threshold) & ~exact).sum()),
                "any": int((share > 0).sum()),
                "examples": [
                    {"share": round(float(share[i]), 3), "train": int(docs[where[i]]), "text": excerpt(group.texts[i])}
                    for i in most
                ],
            }
        )
        first += len(group.texts)
    return described


def excerpt(text: bytes) -> str:
    words = " ".join(text.decode("utf-8", "replace").split())
    return words if len(words) <= SHOWN_CHARACTERS else words[:SHOWN_CHARACTERS] + "..."


def overlap_lines(overlap: dict[str, Any]) -> Iterator[str]:
    """The same as text"""
    train = overlap["train"]
    yield f"{overlap['root']}: {train['conversations']:,} training conversations, {train['hits']:,} ask what is held out"
    for source in train["sources"]:
        if source["hits"]:
            yield f"  {visible(source['name'])}: {source['hits']:,}"
    near = f"{overlap['threshold']:.0%} or more"
    yield f"{'held out':<24} {'conversations':>13} {'copies':>9} {near:>12} {'share a 13-gram':>16}"
    for group in overlap["held_out"]:
        counts = f"{group['conversations']:>13,} {group['copies']:>9,} {group['near']:>12,} {group['any']:>16,}"
        yield f"{visible(group['name']):<24} {counts}"
        for example in group["examples"]:
            yield f"    {example['share']:>5.0%} in --conversation {example['train']}: {visible(example['text'])}"
