"""
Is a build what it says it is? Checked on the files as they lie there, with nothing of the code that wrote them.

    files      each as long and with the sha256 that the manifest says, and none that it does not know
    manifest   its own checksum and fingerprint; every count added up again from rows, docs and masks
    rows       tiled by documents; padding is padding
    mask       the rules of prep.check.mask_rules, token by token; of a Jinja template, prep.check.again has a sample

prep.check.rebuild goes further: it builds again from the sources and compares every byte.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.build.changes import describe, fingerprint
from prep.chat.choose import bos_of, pad_of, read_template
from prep.check.again import render_again
from prep.check.mask_rules import broken_rules, broken_turns, may_skip, may_skip_parts
from prep.jinja.format import JinjaTemplate
from prep.shard import COUNTS, Manifest, Split, check_files, listed_files, manifest_text, open_shards, read_manifest
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer

CHUNK_TOKENS = 1 << 22
UNLISTED = ("manifest.json", "build.json")


def verify_shards(root: str | Path) -> list[str]:
    """
    Check a finished build: a line for everything that is not as it should be, [] if it is sound. Reads all of it; if a Jinja
    template made it, also some of its source rows, where they are still there.
    """
    root = Path(root)
    found = list(problems(root))
    return render_again(root).differing if not found and of_a_template(root) else found


def of_a_template(root: Path) -> bool:
    """Whether no rule about tokens checks the mask of a sound build: a Jinja template made it"""
    return isinstance(read_template(read_manifest(root), root), JinjaTemplate)


def problems(root: Path) -> Iterator[str]:
    """One line for everything about a build that is not as it should be; nothing if all is well."""
    try:
        manifest = read_manifest(root)
    except (FileNotFoundError, ValueError) as error:
        yield str(error)
        return
    try:
        if (root / "manifest.json").read_bytes() != manifest_text(manifest).encode():
            yield f"{root / 'manifest.json'}: not written as midprep writes it"
        if manifest["fingerprint"] != fingerprint(describe(manifest)):
            yield f"{root / 'manifest.json'}: the fingerprint is not of the mixture, tokenizer and options named there"
        stray = {path.name for path in root.iterdir()} - set(listed_files(manifest)) - set(UNLISTED)
        damage = [*check_files(root, manifest), *(f"{root / name}: not a file of this build" for name in sorted(stray))]
        yield from damage
        if damage:
            return  # the arrays are not what the manifest is about
        yield from check_tokenizer(root, manifest)
        yield from check_rejected_file(root, manifest)
        for split in open_shards(root).splits.values():
            yield from check_split(split)
    except (KeyError, TypeError, ValueError, OSError, IndexError, AttributeError, OverflowError) as error:
        yield f"{root / 'manifest.json'}: not as this version of midprep writes it: {type(error).__name__} {error}"


def check_tokenizer(root: Path, manifest: Manifest) -> Iterator[str]:
    """The tokenizer of a build is the one that its manifest names"""
    tokenizer = load_tokenizer(root)
    if tokenizer.sha256 != manifest["tokenizer"]["sha256"]:
        yield f"{root}: the tokenizer has sha256 {tokenizer.sha256}, the manifest says {manifest['tokenizer']['sha256']}"
    if tokenizer.special_tokens != manifest["tokenizer"]["special_tokens"]:
        yield f"{root}: special tokens of the tokenizer differ from the manifest's"
    if tokenizer.vocab_size != manifest["vocab_size"]:
        yield f"{root}: the tokenizer has {tokenizer.vocab_size:,} ids, the manifest says {manifest['vocab_size']:,}"
    template = read_template(manifest, root)
    bos, pad = bos_of(template, tokenizer), pad_of(template, tokenizer)
    if (manifest["bos_id"], manifest["pad_id"]) != (bos, pad):
        yield f"{root}: bos of chat format {template.name} is {bos}, the manifest has another for bos or padding"
    if not np.array_equal(np.load(root / "token_bytes.npy"), tokenizer.token_bytes()):
        yield f"{root / 'token_bytes.npy'}: not the bytes of the tokenizer's tokens"


def check_rejected_file(root: Path, manifest: Manifest) -> Iterator[str]:
    """rejected.jsonl has every rejected row once, whatever the number of its copies"""
    expected, counted = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for name, split in manifest["splits"].items():
        for source in split["sources"]:
            for reason, number in source["rejected"].items():
                expected[name, source["name"], reason] += number // max(int(source["repeat"]), 1)
    with open(root / "rejected.jsonl", encoding="utf-8") as file:
        for row in map(json.loads, file):
            counted[row["split"], row["source"], row["reason"]] += 1
    for key in sorted({*expected, *counted}):
        if expected[key] != counted[key]:
            yield (
                f"{root / 'rejected.jsonl'}: {counted[key]:,} rows of {': '.join(key)}, the manifest says "
                f"{expected[key]:,}"
            )


@dataclass
class Counts:
    """What the tokens and masks of a split say, added up again"""

    trainable: Array  # (D,) of each document
    row_trainable: Array  # (N,) targets of SFT of each row


def check_split(split: Split) -> Iterator[str]:
    """Rows, documents, padding and mask of a split, and the counts of its manifest"""
    where, width = f"{split.root} {split.name}", split.max_seq_len + 1
    rows, docs = split.rows, split.docs
    first = rows["first_doc"].astype(np.int64)
    ends = np.append(first[1:], len(docs))
    if not len(rows) or first[0] != 0 or (ends <= first).any():
        yield f"{where}: documents do not tile the rows"
        return
    filled = np.add.reduceat(docs["length"].astype(np.int64), first)
    if (filled != rows["num_tokens"]).any() or (filled > width).any() or (docs["length"] == 0).any():
        row = int(np.flatnonzero((filled != rows["num_tokens"]) | (filled > width))[0])
        yield f"{where}: row {row} holds {rows['num_tokens'][row]} tokens, its documents have {filled[row]}"
        return
    if (rows["num_targets"] != rows["num_tokens"] - 1).any():
        yield f"{where}: num_targets of a row is not its tokens less one"
    counts = Counts(np.zeros(len(docs), dtype=np.int64), np.zeros(len(rows), dtype=np.int64))
    chunk = max(1, CHUNK_TOKENS // width)
    for start in range(0, len(rows), chunk):
        yield from check_rows(split, start, min(start + chunk, len(rows)), counts)
    if (counts.trainable != docs["trainable"]).any():
        document = np.flatnonzero(counts.trainable != docs["trainable"])[0]
        yield f"{where}: document {document} has another number of loss tokens than its mask"
    if (counts.row_trainable != rows["num_trainable"]).any():
        row = np.flatnonzero(counts.row_trainable != rows["num_trainable"])[0]
        yield f"{where}: num_trainable of row {row} differs from its mask"
    yield from check_counts(split)


def check_rows(split: Split, start: int, stop: int, counts: Counts) -> Iterator[str]:
    """Tokens and mask of the rows start .. stop - 1; adds up `counts`"""
    where, manifest = f"{split.root} {split.name}", split.manifest
    ids = np.arange(start, stop)
    tokens = split.read_tokens(ids)  # (B, T + 1)
    width = tokens.shape[1]
    bits = np.unpackbits(split.read_mask_bits(ids), axis=1, bitorder="little")
    mask = bits[:, :width]
    padding = np.arange(width) >= split.rows["num_tokens"][start:stop, None]
    if int(tokens.max()) >= manifest["vocab_size"]:
        yield f"{where}: a token id in rows {start} .. {stop - 1} is outside the vocabulary"
        return
    if (tokens[padding] != manifest["pad_id"]).any() or mask[padding].any():
        yield f"{where}: padding in rows {start} .. {stop - 1} is not pad_id with mask 0"
    if bits[:, width:].any():
        yield f"{where}: bits after the last token of rows {start} .. {stop - 1} are set"
    a, b = split.doc_range(start)[0], split.doc_range(stop - 1)[1]
    first = np.concatenate([[0], np.cumsum(split.docs["length"][a:b].astype(np.int64))[:-1]])
    flat_tokens, flat_mask = tokens[~padding], mask[~padding]
    whole = not split.wrapped
    special_tokens = manifest["tokenizer"]["special_tokens"]
    template, sources = read_template(manifest, split.root), manifest["splits"][split.name]["sources"]
    source = split.docs["source"][a:b]
    skips = may_skip(sources)[source] | (template.train_on not in (None, "all"))
    if isinstance(template, JinjaTemplate):  # what its tokens mean only its text says
        broken = []
    elif template.format.alternates:
        parts = may_skip_parts(sources)[source] | isinstance(template.train_on, tuple)
        broken = broken_rules(flat_tokens, flat_mask, first, special_tokens, whole, skips, parts)
    else:
        broken = broken_turns(
            flat_tokens, flat_mask, first, template, _tokenizer_of(split.root, manifest["tokenizer"]["sha256"]), skips
        )
    for place, what in broken:
        document = a + int(np.searchsorted(first, place, side="right")) - 1
        yield f"{where}: document {document}, token {place - first[document - a]}: {what}"
    if split.wrapped:
        before = split.read_tokens(np.array([max(start - 1, 0)]))[0]
        previous = np.vstack([before, tokens[:-1]]) if start else tokens[:-1]
        if (previous[:, -1] != tokens[0 if start else 1 :, 0]).any():
            yield f"{where}: neighbouring rows in {start} .. {stop - 1} do not share a token"
    counts.trainable[a:b] = np.add.reduceat(flat_mask.astype(np.int64), first)
    counts.row_trainable[start:stop] = mask[:, 1:].sum(axis=1)


@lru_cache(maxsize=1)
def _tokenizer_of(root: Path, sha256: str) -> Tokenizer:
    return load_tokenizer(root)


def check_counts(split: Split) -> Iterator[str]:
    """The numbers of the manifest against the arrays and against each other"""
    entry, rows, docs, width = split.entry, split.rows, split.docs, split.max_seq_len + 1
    where = f"{split.root} {split.name}"
    tokens, filled = docs["length"].astype(np.int64), int(rows["num_tokens"].sum(dtype=np.int64))
    shared = len(rows) - 1 if split.wrapped else 0
    expected: dict[str, Any] = {
        "rows": len(rows),
        "docs": len(docs),
        "total_tokens": int(tokens.sum()) - shared,
        "padding_tokens": len(rows) * width - filled,
        "packing_efficiency": round(filled / (len(rows) * width), 6),
        "rows_without_trainable": int((rows["num_trainable"] == 0).sum()),
        "min_rows": -(-entry["total_tokens"] // width),
    }
    sources = entry["sources"]
    if not shared:
        expected |= {"conversations": len(docs), "trainable_tokens": int(docs["trainable"].sum(dtype=np.int64))}
    for key, value in expected.items():
        if entry[key] != value:
            yield f"{where}: {key} is {entry[key]} in the manifest, {value} in the arrays"
    for key in COUNTS:
        if entry[key] != (total := sum(source[key] for source in sources)):
            yield f"{where}: {key} is {entry[key]}, its sources have {total}"
    for number, source in enumerate(sources):
        described = split.manifest["mixture"][split.name][number]
        yield from check_source(where, source, described, docs[docs["source"] == number], split.wrapped)
    if int(docs["source"].max()) >= len(sources):
        yield f"{where}: a document is of source {docs['source'].max()}, there are {len(sources)}"


def check_source(
    where: str, source: dict[str, Any], described: dict[str, Any], docs: Array, wrapped: bool
) -> Iterator[str]:
    """What the manifest says of a source against its part of the mixture and its documents (D,) DOC"""
    name = source["name"]
    for key in described:
        if source[key] != described[key] and not (key == "repeat" and "share" in source):
            yield f"{where}: {name} has another {key} than in the mixture of the manifest"
            break
    accounted = source["conversations"] - source["extra_pieces"] + sum(source["rejected"].values())
    if source["rows"] != accounted:
        yield f"{where}: {name} has {source['rows']} rows, {accounted} are in the split or rejected"
    expected = {
        "conversations": len(docs),
        "untrained": int((docs["trainable"] == 0).sum()),
        "total_tokens": int(docs["length"].sum(dtype=np.int64)),
        "trainable_tokens": int(docs["trainable"].sum(dtype=np.int64)),
    }
    for key, value in expected.items():
        if not wrapped and source[key] != value:
            yield f"{where}: {key} of {name} is {source[key]} in the manifest, {value} in the documents"
    if len(docs) and int(docs["repeat"].max()) >= source["repeat"]:
        yield f"{where}: a document of {name} is of copy {docs['repeat'].max()}, there are {source['repeat']}"
