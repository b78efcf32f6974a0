"""
The format on disk: plain .npy files, a manifest that is written last, and a reader that maps them into memory.

    shards/mid/
      manifest.json                       a directory with a manifest is a finished build
      train-00000-of-00002.tokens.npy     (R, T + 1) uint16 or uint32
      train-00000-of-00002.mask.npy       (R, ceil((T + 1) / 8)) uint8: one bit per token, little-endian
      train.rows.npy                      (N,) ROW: what is in each row
      train.docs.npy                      (D,) DOC: each document, in row order

A row of T + 1 tokens is T inputs and T targets: `row[:-1]` and `row[1:]`. Sizes and headers are checked on every opening,
checksums only on demand (`check_files`): a terabyte opens as fast as a megabyte.

Legend: N rows of a split, R rows of one shard, T = max_seq_len, D documents, B rows of a batch.
"""

import base64
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prep.arrays import Array

FORMAT, VERSION = "midprep-shards", 1

# num_tokens: filled positions; num_targets: targets of mid; num_trainable: targets of sft (mask bit 1)
ROW = np.dtype([("first_doc", "<u8"), ("num_tokens", "<u4"), ("num_targets", "<u4"), ("num_trainable", "<u4")])
# source: number in the split's `sources`; repeat: which copy of it, from 0; index: number of the example in the source
DOC = np.dtype([("length", "<u4"), ("trainable", "<u4"), ("source", "<u2"), ("repeat", "<u2"), ("index", "<u8")])

COUNTS = ("conversations", "total_tokens", "trainable_tokens")  # of a split, and of each of its sources
Manifest = dict[str, Any]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Smallest dtype for ids 0 .. vocab_size - 1: 65,536 ids still fit uint16."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def to_tokens(ids: Array, vocab_size: int) -> Array:
    """Ids as the token dtype. ValueError outside the vocabulary, where numpy alone would wrap 65536 to 0."""
    if ids.size and not (int(ids.min()) >= 0 and int(ids.max()) < vocab_size):
        raise ValueError(f"token id {int(ids.max())} (or below 0) found, the vocabulary has {vocab_size} ids")
    return ids.astype(token_dtype(vocab_size), copy=False)


# ---- writing ----


def write_array(path: Path, array: Array) -> dict[str, Any]:
    """Write a .npy file, synced to disk; returns its manifest entry {"bytes", "sha256"}."""
    array = np.ascontiguousarray(array)
    return write_rows(path, array.dtype, array.shape, [array])


def write_rows(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...], chunks: Iterable[Array]) -> dict[str, Any]:
    """`write_array` of an array of this dtype and shape that comes in chunks of rows, each contiguous."""
    header = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return _write(path, chain([header.getvalue()], (chunk.reshape(-1).view(np.uint8).data for chunk in chunks)))


def write_bytes(path: Path, *chunks: bytes | memoryview) -> dict[str, Any]:
    """Write chunks to `path`, synced to disk; returns {"bytes", "sha256"}."""
    return _write(path, chunks)


def _write(path: Path, chunks: Iterable[bytes | memoryview]) -> dict[str, Any]:
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                num_bytes += len(chunk)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, error.strerror, str(path)) from None
    return {"bytes": num_bytes, "sha256": digest.hexdigest()}


def manifest_sha256(manifest: Manifest) -> str:
    """Checksum of a manifest, without the checksum in it."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Add its checksum to a manifest and write it, as the last file of a build. Equal builds have equal manifests."""
    manifest["sha256"] = manifest_sha256(manifest)
    write_bytes(root / "manifest.json", manifest_text(manifest).encode())


def manifest_text(manifest: Manifest) -> str:
    """The contents of manifest.json"""
    return json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"


# ---- reading ----


def read_manifest(root: str | Path) -> Manifest:
    """The manifest of a finished build. FileNotFoundError or ValueError if there is none that can be used."""
    path = Path(root) / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: is {root} a finished build? `midprep build` makes one.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}): build {root} again with --overwrite.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{path} is not a midprep manifest (no format {FORMAT!r}): give the directory of a build.")
    if manifest.get("version") != VERSION:
        raise ValueError(f"{path} has version {manifest.get('version')}, this midprep reads {VERSION}: build it again.")
    if manifest.get("sha256") != manifest_sha256(manifest):
        raise ValueError(
            f"{path} differs from its own checksum, a value was changed: build {root} again with --overwrite."
        )
    return manifest


def listed_files(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """{file name: {"bytes", "sha256"}} of every file of a build except the manifest and build.json."""
    files = dict(manifest["files"])
    for split in manifest["splits"].values():
        files |= split["files"]
        for shard in split["shards"]:
            files |= shard["files"]
    return files


def check_files(root: Path, manifest: Manifest) -> Iterator[str]:
    """A line for each listed file whose content is not what the manifest says. Reads everything."""
    for name, entry in listed_files(manifest).items():
        path = root / name
        if not path.is_file():
            yield f"{path}: missing"
        elif path.stat().st_size != entry["bytes"]:
            yield f"{path}: {path.stat().st_size:,} bytes, the manifest says {entry['bytes']:,}"
        else:
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    yield f"{path}: content differs from the manifest (sha256)"


def map_file(root: Path, name: str, files: dict[str, Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """A file mapped into memory. FileNotFoundError or ValueError unless it has this dtype, shape and the listed size."""
    path = root / name
    if name not in files or not path.is_file():
        raise FileNotFoundError(f"{path} not found: the build is not complete. Run `midprep verify {root}`.")
    num_bytes = path.stat().st_size
    expected = files[name]["bytes"]
    if num_bytes != expected:
        raise ValueError(
            f"{path} has {num_bytes:,} bytes, the manifest says {expected:,}: build {root} again with --overwrite."
        )
    try:
        with warnings.catch_warnings(action="error"):  # about a header that numpy mends
            array: Array = np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # numpy has several kinds of them for a damaged header
        raise ValueError(f"{path} is not a readable .npy file ({error}): build {root} again.") from None
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path} is {array.dtype} {array.shape}, the manifest says {dtype} {shape}: build it again.")
    if isinstance(array, np.memmap) and array.offset + array.nbytes != num_bytes:  # every value would be its neighbour
        raise ValueError(f"{path} is damaged, its header has another length than it says: build {root} again.")
    return array.view(np.ndarray)  # slicing a memmap takes ten times as long


class Split:
    """
    One split of a finished build, mapped into memory on first use.

    rows (N,) ROW, docs (D,) DOC, tokens and masks: one mapped array per shard. `read_tokens` and `read_mask` copy rows by
    number across shards. All raise FileNotFoundError or ValueError for a file that is not complete.
    """

    def __init__(self, root: Path, name: str, manifest: Manifest) -> None:
        self.root, self.name, self.manifest = root, name, manifest
        self.entry: Manifest = manifest["splits"][name]
        self.max_seq_len: int = manifest["max_seq_len"]
        self.num_rows: int = self.entry["rows"]
        num_shard_rows = np.array([shard["rows"] for shard in self.entry["shards"]], dtype=np.int64)
        self.first_rows = np.concatenate([[0], np.cumsum(num_shard_rows)])  # (S + 1,)
        if self.first_rows[-1] != self.num_rows:
            raise ValueError(f"{root}: shards of {name} have {self.first_rows[-1]} rows, the manifest {self.num_rows}")

    @property
    def wrapped(self) -> bool:
        """Whether rows are one stream: neighbours share a token, and documents continue across rows"""
        return bool(self.manifest["packing_strategy"] == "wrapped")

    @property
    def source_names(self) -> list[str]:
        return [str(source["name"]) for source in self.entry["sources"]]

    @cached_property
    def rows(self) -> Array:
        """(N,) ROW"""
        return map_file(self.root, f"{self.name}.rows.npy", self.entry["files"], ROW, (self.num_rows,))

    @cached_property
    def docs(self) -> Array:
        """(D,) DOC, in row order; row i holds docs[rows[i].first_doc : rows[i + 1].first_doc]"""
        return map_file(self.root, f"{self.name}.docs.npy", self.entry["files"], DOC, (self.entry["docs"],))

    @cached_property
    def tokens(self) -> list[Array]:
        """One (R, T + 1) array per shard"""
        return self._map_shards("tokens", np.dtype(self.manifest["token_dtype"]), self.max_seq_len + 1)

    @cached_property
    def masks(self) -> list[Array]:
        """One (R, ceil((T + 1) / 8)) uint8 array of bits per shard"""
        return self._map_shards("mask", np.dtype("u1"), -(-(self.max_seq_len + 1) // 8))

    def _map_shards(self, kind: str, dtype: np.dtype[Any], width: int) -> list[Array]:
        return [
            map_file(self.root, f"{shard['name']}.{kind}.npy", shard["files"], dtype, (shard["rows"], width))
            for shard in self.entry["shards"]
        ]

    def read_tokens(self, row_ids: Array) -> Array:
        """(B,) row numbers -> (B, T + 1) tokens, copied"""
        out = np.empty((len(row_ids), self.max_seq_len + 1), dtype=self.manifest["token_dtype"])
        return self._gather(self.tokens, row_ids, out)

    def read_mask(self, row_ids: Array) -> Array:
        """(B,) row numbers -> (B, T + 1) uint8, 1 where the token is a target in sft"""
        bits = self.read_mask_bits(row_ids)
        mask: Array = np.unpackbits(bits, axis=1, count=self.max_seq_len + 1, bitorder="little")
        return mask

    def read_mask_bits(self, row_ids: Array) -> Array:
        """(B,) row numbers -> (B, ceil((T + 1) / 8)) uint8, the mask as it is stored"""
        out = np.empty((len(row_ids), -(-(self.max_seq_len + 1) // 8)), dtype=np.uint8)
        return self._gather(self.masks, row_ids, out)

    def doc_range(self, row: int) -> tuple[int, int]:
        """First and one past the last document of a row"""
        first = int(self.rows["first_doc"][row])
        return first, int(self.rows["first_doc"][row + 1]) if row + 1 < self.num_rows else self.entry["docs"]

    def _gather(self, shards: list[Array], row_ids: Array, out: Array) -> Array:
        row_ids = np.asarray(row_ids, dtype=np.int64)
        if row_ids.size and not (row_ids.min() >= 0 and row_ids.max() < self.num_rows):
            raise IndexError(f"row {row_ids.max()} of {self.name} requested, it has {self.num_rows} rows")
        shard_of = np.searchsorted(self.first_rows, row_ids, side="right") - 1
        places = (row_ids - self.first_rows[shard_of]).tolist()
        for i, (shard, place) in enumerate(zip(shard_of.tolist(), places, strict=True)):
            out[i] = shards[shard][place]
        return out


class Shards:
    """A finished build: `manifest`, and `splits` by name."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.manifest = read_manifest(root)
        self.splits = {name: Split(self.root, name, self.manifest) for name in self.manifest["splits"]}

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise ValueError(f"{self.root} has no split {name!r}, it has: {', '.join(self.splits)}")
        return self.splits[name]

    @cached_property
    def token_bytes(self) -> Array:
        """(V,) uint16 number of bytes of each token, 0 of special ones. Errors as in Split."""
        shape = (self.manifest["vocab_size"],)
        return map_file(self.root, "token_bytes.npy", self.manifest["files"], np.dtype("<u2"), shape)

    def vocabulary(self) -> dict[int, bytes]:
        """{token id: its bytes}; those of a special token are its name"""
        lines = (self.root / "tokenizer.tiktoken").read_bytes().splitlines()
        special = self.manifest["tokenizer"]["special_tokens"]
        ordinary = {int(rank): base64.b64decode(token) for token, rank in map(bytes.split, lines)}
        return ordinary | {token: name.encode() for name, token in special.items()}


def open_shards(root: str | Path) -> Shards:
    """
    Open a finished build.

        shards = open_shards("shards/mid")
        train = shards.split("train")
        tokens, mask = train.read_tokens(np.arange(8)), train.read_mask(np.arange(8))   # (8, T + 1) each
    """
    return Shards(root)
