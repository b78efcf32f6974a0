"""
The full look at overlap: every training conversation of a build against val, and against files and tasks given.

    held out      conversations  copies  near  share a run of 13 words     train conversation that holds most of it
    gsm8k                 1,319       3     2                       41      1.00  train 51,234 "Ann has 3 bags ..."

Copies are the same once case, spacing and punctuation are set aside; near ones have at least half of their runs of 13 words
in one training conversation. One pass over the shards, a few million tokens at a time: about 15 us a conversation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.encode.decode import Decoder, conversations_of, user_texts_of
from prep.inspect.search import conversations
from prep.mixture.mixture import Entry, Mixture
from prep.mixture.resolve import Input, resolve
from prep.plan.overlap import HeldOut
from prep.render.blocks import WorkItem, read_batches
from prep.render.nanochat import normalize
from prep.shard import Split, open_shards
from prep.sources.detect import find_files
from prep.tasks import TASKS
from prep.tokenizer.load import load_tokenizer

EXAMPLES = 3  # of a source
SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class Group:
    """Held-out texts of one source"""

    name: str
    texts: list[bytes]


def find_overlap(root: Path, against: list[str], data_root: Path | None, threshold: float) -> dict[str, Any]:
    """
    What of val, and of files and tasks given, the training split of a build asks: plain values. ValueError where there is
    nothing to compare with.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"--threshold {threshold} found, wanted more than 0 and at most 1.")
    shards = open_shards(root)
    decoder = Decoder(load_tokenizer(root))
    groups = [group for split in shards.splits.values() if split.name == "val" for group in val_groups(split, decoder)]
    groups += [read_group(name, data_root) for name in against]
    if not groups:
        raise ValueError(f"{root} has no val split: give what to compare with, as --against gsm8k or --against FILE.")
    held = HeldOut([text for group in groups for text in group.texts])
    train = shards.split("train")
    best = scan(train, held, decoder)
    return {
        "root": str(root),
        "threshold": threshold,
        "train": describe_train(train, best, threshold),
        "held_out": describe_held(groups, held, threshold, conversations(train)[0]),
    }


def val_groups(split: Split, decoder: Decoder) -> list[Group]:
    """What the users of val say, by source"""
    texts = [text for some in decoded(split, decoder) for text in some]
    source = split.docs["source"][conversations(split)[0]]
    return [
        Group(entry["name"], [texts[i] for i in np.flatnonzero(source == number).tolist()])
        for number, entry in enumerate(split.entry["sources"])
    ]


def decoded(split: Split, decoder: Decoder) -> Iterator[list[bytes]]:
    """What the user says in each conversation, in stored order"""
    for tokens, starts in conversations_of(split, decoder.bos):
        yield decoder.user_texts(tokens, starts)


def read_group(name: str, data_root: Path | None) -> Group:
    """A file of chats, or a task (what it has for val), as texts; no tokenizer is asked"""
    entry = Entry(name) if name in TASKS else Entry("chat", path=name)
    if name not in TASKS and not find_files(Path(name)):
        raise FileNotFoundError(
            f"--against {name}: no file and no task, wanted a file of chats or one of {', '.join(TASKS)}."
        )
    inputs = resolve(Mixture("against", 42, {"val": (entry,)}, Path()), data_root, None)["val"]
    return Group(f"{name} (against)", [text for one in inputs for text in read_texts(one)])


def read_texts(one: Input) -> Iterator[bytes]:
    for bounds in one.source.units:
        unit = WorkItem(one.task, one.source, one.entry.seed, one.split or "", bounds, ())
        for batch in read_batches(unit, bounds[0], bounds[-1]):
            yield from user_texts_of(normalize(batch))


def scan(train: Split, held: HeldOut, decoder: Decoder) -> Array:
    """(C,) the largest part of a held-out text that each training conversation holds"""
    best, first = [], 0
    for texts in decoded(train, decoder):
        best.append(held.match(texts, first))
        first += len(texts)
    return np.concatenate(best)


def describe_train(train: Split, best: Array, threshold: float) -> dict[str, Any]:
    source = train.docs["source"][conversations(train)[0]]
    hits = np.bincount(source[best >= threshold], minlength=len(train.entry["sources"])).tolist()
    return {
        "conversations": len(best),
        "hits": sum(hits),
        "sources": [{"name": one["name"], "hits": n} for one, n in zip(train.entry["sources"], hits, strict=True)],
    }


def describe_held(groups: list[Group], held: HeldOut, threshold: float, docs: Array) -> list[dict[str, Any]]:
    """By group; `docs` are the first documents of the training conversations, by which `midprep show` finds them"""
    out, first = [], 0
    for group in groups:
        mine = slice(first, first + len(group.texts))
        share, exact, where = held.share[mine], held.exact[mine], held.where[mine]
        most = np.argsort(-share, kind="stable")[:EXAMPLES]
        out.append(
            {
                "name": group.name,
                "conversations": len(group.texts),
                "copies": int(exact.sum()),
                "near": int(((share >= threshold) & ~exact).sum()),
                "any": int((share > 0).sum()),
                "examples": [
                    {"share": round(float(share[i]), 3), "train": int(docs[where[i]]), "text": shown(group.texts[i])}
                    for i in most.tolist()
                    if share[i] > 0
                ],
            }
        )
        first += len(group.texts)
    return out


def shown(text: bytes) -> str:
    words = " ".join(text.decode("utf-8", "replace").split())
    return words if len(words) <= SHOWN_CHARACTERS else words[:SHOWN_CHARACTERS] + "..."


def overlap_lines(found: dict[str, Any]) -> Iterator[str]:
    """The same as text"""
    train = found["train"]
    yield f"{found['root']}: {train['conversations']:,} training conversations, {train['hits']:,} ask what is held out"
    for source in train["sources"]:
        if source["hits"]:
            yield f"  {source['name']}: {source['hits']:,}"
    near = f"{found['threshold']:.0%} or more"
    yield f"{'held out':<24} {'conversations':>13} {'copies':>9} {near:>12} {'share a run of 13 words':>24}"
    for one in found["held_out"]:
        numbers = f"{one['conversations']:>13,} {one['copies']:>9,} {one['near']:>12,} {one['any']:>24,}"
        yield f"{one['name']:<24} {numbers}"
        for example in one["examples"]:
            text = "".join(c if c.isprintable() else "?" for c in example["text"])
            yield f"    {example['share']:>5.0%} in --conversation {example['train']}: {text}"
