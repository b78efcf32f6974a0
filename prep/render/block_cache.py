"""
Blocks: the rendered conversations of neighbouring examples, cached by what they are made of.

    <cache>/runs/3f/3f9c...e1.run     a line of JSON (sizes, xxh3), then one column after the other, see COLUMNS, and notes

The key is a hash of the source's contents, the rows of the block, the task, the tokenizer and the renderer, so a block is
never stale: anything that would change it has another name. A block is written under a temporary name and renamed; its
checksum (XXH3 of 128 bits: it finds damage, at ten times the speed of SHA-256) is verified when a build takes it from the
cache, and a damaged one is rendered again. The mask takes one byte a token instead of a bit: conversations are gathered
from blocks in another order, and bytes can be copied.
"""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from xxhash import xxh3_128

from prep.arrays import Array
from prep.files import new_file
from prep.render import text_hash
from prep.render.render import Rendered, add_notes

HEADER_BYTES = 512
TOKEN_DTYPES = ("<u2", "<u4")
VERSION = 7  # of the format, and of what stands in it beside what the key names

# in the order of the file: dtype, and whether there is one value per conversation or one per token
COLUMNS = {
    "lengths": ("<u4", "conversations"),
    "trainable": ("<u4", "conversations"),
    "user_hashes": ("<u8", "conversations"),
    "tokens": ("", "tokens"),  # as the header says
    "mask": ("u1", "tokens"),
    "reasons": ("u1", "conversations"),
}

_mapped: WeakValueDictionary[Path, Rendered] = WeakValueDictionary()


def block_key(*parts: object) -> str:
    """Name of a block: hash of everything that its bytes depend on."""
    return hashlib.sha256(json.dumps([VERSION, text_hash.VERSION, *parts], sort_keys=True).encode()).hexdigest()


def block_path(cache_dir: Path, key: str) -> Path:
    return cache_dir / "runs" / key[:2] / f"{key}.run"


def list_blocks(cache_dir: Path) -> Iterator[Path]:
    """Every block in a cache directory"""
    yield from (cache_dir / "runs").glob("*/*.run")


def write_block(path: Path, batches: list[Rendered]) -> None:
    """Write rendered batches, one after the other, as a block, all or nothing."""
    columns = [np.ascontiguousarray(getattr(batch, name)) for name in COLUMNS for batch in batches]
    notes = json.dumps(add_notes(batch.notes for batch in batches)).encode()
    contents: list[Any] = [*(column.view(np.uint8).data for column in columns if column.size), notes]
    header = {
        "conversations": sum(len(batch.lengths) for batch in batches),
        "tokens": sum(len(batch.tokens) for batch in batches),
        "dtype": batches[0].tokens.dtype.str,
        "notes": len(notes),
    }
    header["xxh3"] = _checksum(header, contents)
    with new_file(path.parent, path.name) as (file, keep):
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES - 1) + b"\n")
        file.writelines(contents)
        keep(path)


def read_block(path: Path, verify: bool = False) -> Rendered:
    """
    Map a block into memory. FileNotFoundError if it is not there, ValueError if it is damaged (`verify`: by its checksum,
    else by its size).
    """
    with open(path, "rb") as file:
        try:
            header = json.loads(file.read(HEADER_BYTES))
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            sizes = {name: int(header[name]) for name in ("conversations", "tokens", "notes")}
            token_dtype, checksum = TOKEN_DTYPES[TOKEN_DTYPES.index(header["dtype"])], header["xxh3"]
        except (ValueError, KeyError, TypeError) as error:  # no OSError: that no more files can be opened is no damage
            raise ValueError(f"{path} is damaged: {error}") from None
    columns, place = {}, HEADER_BYTES
    for name, (dtype, counted) in COLUMNS.items():
        try:
            columns[name] = np.frombuffer(data, dtype=dtype or token_dtype, count=sizes[counted], offset=place)
        except ValueError:
            raise ValueError(f"{path} is damaged: {len(data)} bytes") from None
        place += columns[name].nbytes
    if len(data) != place + sizes["notes"]:
        raise ValueError(f"{path} is damaged: {len(data)} bytes")
    if verify and _checksum(header, [memoryview(data)[HEADER_BYTES:]]) != checksum:
        raise ValueError(f"{path} is damaged: its checksum differs")
    try:
        return Rendered(**columns, notes=json.loads(data[place:]))
    except ValueError:
        raise ValueError(f"{path} is damaged: its notes") from None


def map_block(path: Path) -> Rendered:
    """The same, mapped once for all who use it at a time"""
    block = _mapped.get(path)
    if block is None:
        block = _mapped[path] = read_block(path)
    return block


def _checksum(header: dict[str, Any], contents: Iterable[Any]) -> str:
    """Of the sizes and of all that follows the header"""
    digest = xxh3_128(json.dumps([header[name] for name in ("conversations", "tokens", "dtype", "notes")]).encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


@dataclass(frozen=True)
class BlockFiles:
    """The blocks of one source: block i holds its rows starts[i] .. starts[i + 1] - 1."""

    starts: Array  # (blocks + 1,)
    paths: tuple[Path, ...]

    def column(self, name: str) -> Array:
        """A column with one value per conversation, over all blocks; row r of the source is at r - starts[0]"""
        return np.concatenate([getattr(read_block(path), name) for path in self.paths])

    def notes(self) -> dict[str, Any]:
        """What was said of all rows when they were rendered"""
        return add_notes(read_block(path).notes for path in self.paths)

    def by_block(self, rows: Array) -> Iterator[tuple[int, Array]]:
        """(n,) row numbers, in any order -> every block that holds some of them, and their places in `rows`"""
        blocks = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(blocks, kind="stable")
        bounds = np.searchsorted(blocks[order], np.arange(len(self.paths) + 1))
        for block in np.flatnonzero(np.diff(bounds)).tolist():
            yield block, order[bounds[block] : bounds[block + 1]]


def count_loss_tokens(block: Rendered, rows: Array, first: Array, lengths: Array) -> Array:
    """(n,) uint32 loss tokens of pieces: of row rows[i] of a block, lengths[i] tokens from token first[i] on"""
    counts = block.trainable[rows]
    for i in np.flatnonzero(lengths != block.lengths[rows]):  # only pieces have to be counted
        counts[i] = np.count_nonzero(block.mask[first[i] : first[i] + lengths[i]])
    return counts
