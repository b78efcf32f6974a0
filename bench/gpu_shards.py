"""
A build like one of the default mixture, from numbers alone: what `gpu.py` and `gpu_bench.py` train on, without data or network.

    source             of all documents   tokens, median   trained        rows are filled; every eighth ends in padding
    smoltalk                54 %               600          70 %
    simple_spelling         24 %                25          50 %          a token follows from the one before it in four
    mmlu                    12 %               180           2 %          of five cases, so there is something to learn

Written with `prep.shard`'s own functions; the same bytes for the same seed. Shares are the default mixture's, lengths and
trained parts are rough. Lengths are log-normal, for rows of 2,048; shorter rows have shorter documents.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.shard import DOC, FORMAT, ROW, VERSION, write_array, write_bytes, write_manifest

# name, share of the documents, median length in tokens, trained part
SOURCES = (
    ("smoltalk", 0.54, 600, 0.7),
    ("simple_spelling", 0.24, 25, 0.5),
    ("mmlu", 0.12, 180, 0.02),
    ("spelling_bee", 0.08, 130, 0.8),
    ("gsm8k", 0.02, 190, 0.6),
)
SPREAD = 0.6  # of the logarithm of lengths
ROW_LEN = 2048  # that these lengths are for
LEAST = 4  # tokens of a document
FOLLOWS = 0.8  # of the tokens follow from the one before


def write_shards(root: Path, max_seq_len: int, vocab_size: int, num_rows: dict[str, int], seed: int = 0) -> Path:
    """A build in `root` with so many rows in each split"""
    root.mkdir(parents=True)
    tokenizer = {"name": "numbers", "sha256": hashlib.sha256(b"numbers").hexdigest(), "special_tokens": {"<|bos|>": 0}}
    manifest: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "mixture": {"name": "numbers"}, "seed": seed, "max_seq_len": max_seq_len,
        "packing_strategy": "ordered", "excess_length_strategy": "truncate", "vocab_size": vocab_size, "bos_id": 0,
        "token_dtype": "uint16", "pad_id": 0, "tokenizer": tokenizer, "renderer_version": 1, "splits": {}, "files": {},
    }  # fmt: skip
    manifest["fingerprint"] = hashlib.sha256(f"{max_seq_len} {vocab_size} {num_rows} {seed}".encode()).hexdigest()
    num_bytes = np.full(vocab_size, 4, np.uint16)
    num_bytes[0] = 0
    manifest["files"]["token_bytes.npy"] = write_array(root / "token_bytes.npy", num_bytes)
    ranks = b"".join(base64.b64encode(b"t%d" % token) + b" %d\n" % token for token in range(1, vocab_size))
    manifest["files"]["tokenizer.tiktoken"] = write_bytes(root / "tokenizer.tiktoken", ranks)
    for number, (name, rows) in enumerate(num_rows.items()):
        rng = np.random.default_rng([seed, number])
        manifest["splits"][name] = write_split(root, name, rows, max_seq_len + 1, vocab_size, rng)
    write_manifest(root, manifest)
    return root


def write_split(
    root: Path, name: str, num_rows: int, width: int, vocab_size: int, rng: np.random.Generator
) -> dict[str, Any]:
    """`width` is T + 1; returns the split's entry of the manifest"""
    padding = np.where(np.arange(num_rows) % 8 == 7, width // 16, 0)
    docs_of_rows = [draw_documents(width, width - each, rng) for each in padding.tolist()]
    docs = np.concatenate(docs_of_rows)
    num_docs = np.array(list(map(len, docs_of_rows)))
    first_docs = np.cumsum(num_docs) - num_docs
    tokens, mask = draw_tokens(docs_of_rows, width, vocab_size, rng)
    docs["trainable"] = [int(part.sum()) for part in parts_of(docs_of_rows, mask)]
    rows = np.zeros(num_rows, ROW)
    rows["first_doc"], rows["num_tokens"] = first_docs, [int(part["length"].sum()) for part in docs_of_rows]
    rows["num_targets"], rows["num_trainable"] = rows["num_tokens"] - 1, mask[:, 1:].sum(axis=1)
    total = int(rows["num_tokens"].sum())
    stem = f"{name}-00000-of-00001"
    bits = np.packbits(mask, axis=1, bitorder="little")
    files = {f"{stem}.{kind}.npy": write_array(root / f"{stem}.{kind}.npy", array) for kind, array in
             (("tokens", tokens), ("mask", bits))}  # fmt: skip
    tables = {f"{name}.{kind}.npy": write_array(root / f"{name}.{kind}.npy", array) for kind, array in
              (("rows", rows), ("docs", docs))}  # fmt: skip
    return {
        "rows": num_rows, "docs": len(docs), "conversations": len(docs), "total_tokens": total,
        "trainable_tokens": int(mask.sum()), "padding_tokens": num_rows * width - total,
        "packing_efficiency": total / (num_rows * width), "min_rows": -(-total // width),
        "sources": [{"name": source} for source, *_ in SOURCES], "files": tables,
        "shards": [{"name": stem, "rows": num_rows, "files": files}],
    }  # fmt: skip


def draw_documents(width: int, num_tokens: int, rng: np.random.Generator) -> Array:
    """DOC of a row of `width` that its documents fill up to `num_tokens`; the last one takes what is left"""
    shares = [share for _, share, *_ in SOURCES]
    lengths: list[tuple[int, int]] = []
    left = num_tokens
    while left:
        source = int(rng.choice(len(SOURCES), p=shares))
        length = round(width / ROW_LEN * SOURCES[source][2] * np.exp(SPREAD * rng.standard_normal()))
        length = max(LEAST, length) if left - max(LEAST, length) >= LEAST else left
        lengths.append((length, source))
        left -= length
    docs = np.zeros(len(lengths), DOC)
    docs["length"], docs["source"] = np.transpose(lengths)
    docs["index"] = rng.integers(1000, size=len(docs))
    return docs


def draw_tokens(
    docs_of_rows: list[Array], width: int, vocab_size: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """tokens uint16 and mask uint8, (N, T + 1) each; a document is bos, what the user says, and what trains"""
    num_rows = len(docs_of_rows)
    tokens, mask = np.zeros((num_rows, width), np.uint16), np.zeros((num_rows, width), np.uint8)
    drawn = rng.integers(1, vocab_size, (num_rows, width), dtype=np.int64)
    follows = rng.random((num_rows, width)) < FOLLOWS
    for position in range(width):
        before = tokens[:, position - 1].astype(np.int64)
        tokens[:, position] = np.where(
            follows[:, position], (before * 7 + 3) % (vocab_size - 1) + 1, drawn[:, position]
        )
    for row, docs in enumerate(docs_of_rows):
        ends = np.cumsum(docs["length"].astype(np.int64))
        tokens[row, ends - docs["length"]] = 0
        tokens[row, ends[-1] :] = 0
        for end, length, source in zip(ends, docs["length"].tolist(), docs["source"].tolist(), strict=True):
            mask[row, end - min(length - 1, max(2, round(length * SOURCES[source][3]))) : end] = 1
    return tokens, mask


def parts_of(docs_of_rows: list[Array], mask: Array) -> list[Array]:
    """The mask of each document, in row order"""
    return [
        part
        for row, docs in enumerate(docs_of_rows)
        for part in np.split(mask[row], np.cumsum(docs["length"].astype(np.int64)))[: len(docs)]
    ]
