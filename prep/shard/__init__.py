"""
The format on disk and its reader: what a trainer needs, with numpy and the standard library alone.

    format    files, manifest, `open_shards`       batches   rows as inputs and targets       steps   rows of each step
"""

from prep.shard.format import (
    COUNTS,
    DOC,
    FORMAT,
    ROW,
    VERSION,
    Manifest,
    Shards,
    Split,
    check_files,
    listed_files,
    manifest_sha256,
    manifest_text,
    open_shards,
    read_manifest,
    to_tokens,
    token_dtype,
    write_array,
    write_bytes,
    write_manifest,
    write_rows,
)

__all__ = [
    "COUNTS",
    "DOC",
    "FORMAT",
    "ROW",
    "VERSION",
    "Manifest",
    "Shards",
    "Split",
    "check_files",
    "listed_files",
    "manifest_sha256",
    "manifest_text",
    "open_shards",
    "read_manifest",
    "to_tokens",
    "token_dtype",
    "write_array",
    "write_bytes",
    "write_manifest",
    "write_rows",
]
