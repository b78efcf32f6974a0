"""
Tiny builds for tests, written with `prep.shard` alone.

    write_build(tmp_path / "s", {"train": [[doc(0, 5), doc(1, 3)], [doc(0, 8)]]}, max_seq_len=8)

A split is a list of rows, a row a list of documents. Vocabulary: bos 0, bytes of a token = its id % 4 (0: special).
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prep.shard import DOC, FORMAT, ROW, VERSION, write_array, write_bytes, write_manifest

VOCAB_SIZE = 60
SOURCES = ("alpha", "beta", "gamma")


@dataclass
class Doc:
    tokens: list[int]
    mask: list[int]
    source: int = 0
    index: int = 0


def random_doc(rng: np.random.Generator, length: int, trained: float = 0.5, vocab_size: int = VOCAB_SIZE) -> Doc:
    """bos, then tokens of an easy language (most follow from the one before), of which some are trained."""
    tokens = [0, int(rng.integers(1, vocab_size))]
    while len(tokens) < length:
        easy = (tokens[-1] * 7 + 3) % (vocab_size - 1) + 1
        tokens.append(easy if rng.random() < 0.8 else int(rng.integers(1, vocab_size)))
    mask = (rng.random(length) < trained).astype(int)
    mask[0] = 0
    return Doc(tokens[:length], mask.tolist(), source=int(rng.integers(len(SOURCES))), index=int(rng.integers(1000)))


def random_rows(seed: int, num_rows: int, max_seq_len: int, vocab_size: int = VOCAB_SIZE) -> list[list[Doc]]:
    """Rows of one to four documents with masks of very unequal density, most of them filled."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(num_rows):
        left, row = max_seq_len + 1 - int(rng.integers(0, 4)), []
        while left >= 4 and len(row) < 4:
            length = left if len(row) == 3 else min(left, int(rng.integers(4, max_seq_len)))
            row.append(random_doc(rng, length, float(rng.random()) ** 2, vocab_size))
            left -= length
        rows.append(row)
    return rows


def write_build(
    root: Path,
    splits: dict[str, list[list[Doc]]],
    max_seq_len: int,
    vocab_size: int = VOCAB_SIZE,
    num_shards: int = 2,
    tokenizer: str = "toy",
) -> Path:
    root.mkdir(parents=True)
    sha = hashlib.sha256(tokenizer.encode()).hexdigest()
    manifest = {
        "format": FORMAT, "version": VERSION, "fingerprint": "", "mixture": {"name": "toy"}, "seed": 42,
        "max_seq_len": max_seq_len, "packing_strategy": "bfd", "excess_length_strategy": "truncate",
        "token_dtype": "uint16" if vocab_size <= 1 << 16 else "uint32", "vocab_size": vocab_size, "bos_id": 0, "pad_id": 0,
        "tokenizer": {"name": tokenizer, "sha256": sha, "special_tokens": {"<|bos|>": 0}},
        "renderer_version": 1, "splits": {}, "files": {},
    }  # fmt: skip
    num_bytes = (np.arange(vocab_size) % 4).astype(np.uint16)
    manifest["files"]["token_bytes.npy"] = write_array(root / "token_bytes.npy", num_bytes)
    for name in ("tokenizer.tiktoken", "tokenizer.json"):
        ranks = b"".join(base64.b64encode(f"t{number}".encode()) + b" %d\n" % number for number in range(1, vocab_size))
        manifest["files"][name] = write_bytes(root / name, ranks)
    for name, rows in splits.items():
        manifest["splits"][name] = write_split(root, name, rows, max_seq_len, manifest["token_dtype"], num_shards)
    manifest["fingerprint"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    write_manifest(root, manifest)
    return root


def write_split(root: Path, name: str, rows: list[list[Doc]], T: int, token_dtype: str, num_shards: int) -> dict:
    tokens, mask = np.zeros((len(rows), T + 1), token_dtype), np.zeros((len(rows), T + 1), np.uint8)
    row_table, docs = np.zeros(len(rows), ROW), []
    for i, row in enumerate(rows):
        flat = [token for doc in row for token in doc.tokens]
        tokens[i, : len(flat)] = flat
        mask[i, : len(flat)] = [bit for doc in row for bit in doc.mask]
        row_table[i] = (len(docs), len(flat), len(flat) - 1, mask[i, 1:].sum())
        docs += [(len(doc.tokens), sum(doc.mask), doc.source, 0, doc.index) for doc in row]
    num_tokens, num_trained = int(row_table["num_tokens"].sum()), int(mask.sum())
    entry: dict = {
        "rows": len(rows), "docs": len(docs), "conversations": len(docs), "total_tokens": num_tokens,
        "trainable_tokens": num_trained, "padding_tokens": len(rows) * (T + 1) - num_tokens,
        "packing_efficiency": num_tokens / (len(rows) * (T + 1)), "min_rows": -(-num_tokens // (T + 1)),
        "sources": [{"name": source} for source in SOURCES], "shards": [],
        "files": {
            f"{name}.rows.npy": write_array(root / f"{name}.rows.npy", row_table),
            f"{name}.docs.npy": write_array(root / f"{name}.docs.npy", np.array(docs, DOC)),
        },
    }  # fmt: skip
    for shard, ids in enumerate(np.array_split(np.arange(len(rows)), num_shards)):
        stem = f"{name}-{shard:05d}-of-{num_shards:05d}"
        files = {
            f"{stem}.tokens.npy": write_array(root / f"{stem}.tokens.npy", tokens[ids]),
            f"{stem}.mask.npy": write_array(
                root / f"{stem}.mask.npy", np.packbits(mask[ids], axis=1, bitorder="little")
            ),
        }
        entry["shards"].append({"name": stem, "rows": len(ids), "files": files})
    return entry
