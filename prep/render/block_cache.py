"""
Runs: the rendered conversations of one block of rows, cached by what they are made of.

    <cache>/runs/3f/3f9c...e1.run     a line of JSON (sizes, xxh3), then lengths, trainable, asked, tokens, mask, reasons

The key is a hash of the source's contents, the rows of the block, the task, the tokenizer and the renderer, so a run is
never stale: anything that would change it has another name. A run is written to a temporary name and renamed; its
checksum (XXH3 of 128 bits: it finds damage, at ten times the speed of SHA-256) is verified when a build takes it from the
cache, and a damaged one is made again. One byte a token for the mask instead of a bit: conversations are gathered from
runs in another order, and bytes can be copied.
"""

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128

from prep.arrays import Array
from prep.files import new_file
from prep.render import text_hash as normal
from prep.render.render import Rendered

HEADER_BYTES = 512
DTYPES = ["<u2", "<u4"]  # of tokens
VERSION = 5  # of the format, and of what stands in it beside what the key names


def block_key(*parts: object) -> str:
    """Name of a run: hash of everything that its bytes depend on."""
    return hashlib.sha256(json.dumps([VERSION, normal.VERSION, *parts], sort_keys=True).encode()).hexdigest()


def block_path(cache_dir: Path, key: str) -> Path:
    return cache_dir / "runs" / key[:2] / f"{key}.run"


def write_block(path: Path, pieces: list[Rendered]) -> None:
    """Write the pieces of one block as a run, all or nothing."""
    names = ("lengths", "trainable", "asked", "tokens", "mask", "reasons")
    columns = [np.ascontiguousarray(getattr(piece, name)) for name in names for piece in pieces]
    contents = [column.view(np.uint8).data for column in columns if column.size]
    header = {
        "conversations": sum(len(piece.lengths) for piece in pieces),
        "tokens": sum(len(piece.tokens) for piece in pieces),
        "dtype": pieces[0].tokens.dtype.str,
    }
    header["xxh3"] = _checksum(header, contents)
    with new_file(path.parent, path.name) as (file, keep):
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES - 1) + b"\n")
        file.writelines(contents)
        keep(path)


def _checksum(header: dict[str, Any], contents: Iterable[Any]) -> str:
    """Of the sizes and of all that follows the header"""
    digest = xxh3_128(json.dumps([header[name] for name in ("conversations", "tokens", "dtype")]).encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


@dataclass(frozen=True)
class BlockFiles:
    """The runs of one source: block i holds its rows starts[i] .. starts[i + 1] - 1."""

    starts: Array  # (blocks + 1,)
    paths: tuple[Path, ...]

    def by_block(self, rows: Array) -> Iterator[tuple[int, Array]]:
        """(n,) row numbers, in any order -> every block that holds some, and their places in `rows`"""
        blocks = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(blocks, kind="stable")
        cuts = np.searchsorted(blocks[order], np.arange(len(self.paths) + 1))
        for block in np.flatnonzero(np.diff(cuts)).tolist():
            yield block, order[cuts[block] : cuts[block + 1]]


def read_block(path: Path, verify: bool = False) -> Rendered:
    """
    Map a run into memory. FileNotFoundError if it is not there, ValueError if it is damaged (`verify`: by its checksum,
    else by its size).
    """
    with open(path, "rb") as file:
        try:
            header = json.loads(file.read(HEADER_BYTES))
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            count, num_tokens = int(header["conversations"]), int(header["tokens"])
            dtype, checksum = np.dtype(DTYPES[DTYPES.index(header["dtype"])]), header["xxh3"]
        except (ValueError, KeyError, TypeError) as error:  # no OSError: that no more files can be opened is no damage
            raise ValueError(f"{path} is damaged: {error}") from None
    if len(data) != HEADER_BYTES + 17 * count + (dtype.itemsize + 1) * num_tokens:
        raise ValueError(f"{path} is damaged: {len(data)} bytes")
    if verify and _checksum(header, [memoryview(data)[HEADER_BYTES:]]) != checksum:
        raise ValueError(f"{path} is damaged: its checksum differs")
    place = HEADER_BYTES

    def column(kind: str | np.dtype[Any], num: int) -> Array:
        nonlocal place
        array = np.frombuffer(data, dtype=kind, count=num, offset=place)
        place += array.nbytes
        return array

    return Rendered(
        lengths=column("<u4", count),
        trainable=column("<u4", count),
        asked=column("<u8", count),
        tokens=column(dtype, num_tokens),
        mask=column("u1", num_tokens),
        reasons=column("u1", count),
    )


def trained_in(run: Rendered, rows: Array, first: Array, length: Array) -> Array:
    """(n,) uint32 what parts of conversations train: of row rows[i] of the run, length[i] tokens from its token first[i] on"""
    out = run.trainable[rows]
    for i in np.flatnonzero(length != run.lengths[rows]):  # only what is cut has to be counted
        out[i] = np.count_nonzero(run.mask[first[i] : first[i] + length[i]])
    return out


def list_blocks(cache_dir: Path) -> Iterator[Path]:
    """Every run in a cache directory"""
    yield from (cache_dir / "runs").glob("*/*.run")
