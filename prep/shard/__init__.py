"""
The format on disk and its reader: what a trainer needs, with numpy and the standard library alone.

    format    files, manifest, `open_shards`       batches   rows as inputs and targets       steps   rows of each step
"""

from prep.shard.format import COUNTS as COUNTS
from prep.shard.format import DOC as DOC
from prep.shard.format import FORMAT as FORMAT
from prep.shard.format import ROW as ROW
from prep.shard.format import VERSION as VERSION
from prep.shard.format import Manifest as Manifest
from prep.shard.format import Shards as Shards
from prep.shard.format import Split as Split
from prep.shard.format import check_files as check_files
from prep.shard.format import listed_files as listed_files
from prep.shard.format import manifest_sha256 as manifest_sha256
from prep.shard.format import manifest_text as manifest_text
from prep.shard.format import open_shards as open_shards
from prep.shard.format import read_manifest as read_manifest
from prep.shard.format import to_tokens as to_tokens
from prep.shard.format import token_dtype as token_dtype
from prep.shard.format import write_array as write_array
from prep.shard.format import write_bytes as write_bytes
from prep.shard.format import write_manifest as write_manifest
from prep.shard.format import write_rows as write_rows
