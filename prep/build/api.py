"""
Builds and conversations from Python, in one call each; `prep` has them by name.

    manifest = prep.build_shards("sample", "shards/sample", max_seq_len=512)
    for example in prep.read_conversations("sample", "val"):
        print(example.source, example.index, example.messages)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.arrange.arrange import normalize
from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.conversations.conversation import to_messages
from prep.mixture.mixture import Mixture, load_mixture
from prep.mixture.resolve import resolve
from prep.plan.table import select_examples
from prep.render.blocks import WorkItem, read_batches
from prep.shard import Manifest
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Example:
    """A conversation as a task makes it from a row of a source."""

    source: str  # name of the mixture's entry
    index: int  # row number in the source
    messages: list[dict[str, Any]]  # "role" and "content", a string or a list of parts


def build_shards(
    mixture: str | Path | Mixture,
    root: str | Path,
    *,
    tokenizer: str | Path | Tokenizer | None = None,
    data_root: str | Path | None = None,
    identity: str | Path | None = None,
    without: tuple[str, ...] = (),
    **options: Any,
) -> Manifest:
    """
    Build a mixture, given as the name of a shipped one, a TOML file or a Mixture, into the directory `root`; returns the
    manifest. An output that is up to date is left alone.

    `options` are fields of BuildOptions, as max_seq_len=512, packing="wrapped", workers=2, overwrite=True; nothing is
    printed. With two workers or more, call it below `if __name__ == "__main__":`, as for any program that starts
    processes. ValueError or FileNotFoundError, in one line, for whatever is not as it should be.
    """
    job = make_job(
        mixture if isinstance(mixture, Mixture) else load_mixture(str(mixture)),
        tokenizer if isinstance(tokenizer, Tokenizer) else load_tokenizer(tokenizer),
        BuildOptions(**{"quiet": True, **options}),
        Path(data_root) if data_root else None,
        Path(identity) if identity else None,
        without,
    )
    manifest, _ = build(job, root)
    return manifest


def read_conversations(
    mixture: str | Path | Mixture,
    split: str = "train",
    *,
    data_root: str | Path | None = None,
    identity: str | Path | None = None,
) -> Iterator[Example]:
    """
    The valid conversations of a split of a mixture, entry by entry, each once, in the order of the source; a leading
    system message is part of the first user message, as nanochat's format has it. Nothing is tokenized.
    """
    mixture = mixture if isinstance(mixture, Mixture) else load_mixture(str(mixture))
    if split not in mixture.splits:
        raise ValueError(f"mixture {mixture.name!r} has no split {split!r}, it has {', '.join(mixture.splits)}.")
    places = Path(data_root) if data_root else None, Path(identity) if identity else None
    for source in resolve(mixture, *places)[split]:
        selected = set(
            select_examples(source.source.num_rows, source.permuted, source.entry.start, source.entry.stop).tolist()
        )
        for bounds in source.source.units:
            item = WorkItem(source.task, source.source, source.entry.seed, source.split or "", bounds, ())
            index = bounds[0]
            for batch in read_batches(item, bounds[0], bounds[-1]):
                batch = normalize(batch)
                for number in range(len(batch)):
                    if not batch.reasons[number] and index + number in selected:
                        yield Example(source.entry.label, index + number, to_messages(batch, number))
                index += len(batch)
