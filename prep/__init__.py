"""
Chat data to training data, once and offline. The folders stand in the order of the data:

    shard          the format on disk and its reader; all that a trainer needs
    sources        rows of a data set, in blocks            conversations   the record, and readers of other layouts
    tasks          a row to a conversation                  tokenizer, encode   text to ids and back
    chat, jinja    chat formats, tables and templates       arrange         a conversation in the order of its format
    mixture        what a mixture asks for                  render          conversations to tokens and mask, cached
    plan           which conversation in which row          workers, build  the passes of a build, and where they run
    inspect, check, report, cli                             looking, proving, the commands

`import prep` gives the names below, each when it is first used; docs/architecture.md follows one conversation through it all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prep.build.api import build_shards, read_conversations
    from prep.build.options import BuildOptions
    from prep.check.verify import verify_shards
    from prep.mixture.mixture import Mixture, load_mixture
    from prep.render.reference import render_conversation
    from prep.shard.batches import PackedDataset
    from prep.shard.format import open_shards
    from prep.tokenizer.load import load_tokenizer
    from prep.tokenizer.tokenizer import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "BuildOptions",
    "Mixture",
    "PackedDataset",
    "Tokenizer",
    "__version__",
    "build_shards",
    "load_mixture",
    "load_tokenizer",
    "open_shards",
    "read_conversations",
    "render_conversation",
    "verify_shards",
]

_HOMES = {
    "BuildOptions": "prep.build.options",
    "Mixture": "prep.mixture.mixture",
    "PackedDataset": "prep.shard.batches",
    "Tokenizer": "prep.tokenizer.tokenizer",
    "build_shards": "prep.build.api",
    "load_mixture": "prep.mixture.mixture",
    "load_tokenizer": "prep.tokenizer.load",
    "open_shards": "prep.shard.format",
    "read_conversations": "prep.build.api",
    "render_conversation": "prep.render.reference",
    "verify_shards": "prep.check.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prep' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
