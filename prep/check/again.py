"""
Some conversations of a build rendered again from their source rows: what no rule about tokens can tell of a Jinja template.

    document 17: chat, row 5      tokens and mask in the shards      =      row 5, read and rendered now

Only conversations that one row holds are taken, a few of each source, spread over all of it; of one that was truncated, what is
there is compared. `verify --rebuild` compares every byte.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prep.arrays import Array
from prep.build.record import BuildInputs, find_inputs
from prep.chat.choose import AnyTemplate, read_template
from prep.conversations.conversation import Conversations
from prep.encode.encode import Encoder
from prep.inspect.origin import Origins
from prep.inspect.search import row_of
from prep.mixture.resolve import Input
from prep.render.render import render
from prep.shard import Split, open_shards
from prep.sources.source import rows_at
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer

SAMPLE = 32  # conversations of a source


@dataclass
class Again:
    """What the sample gave: a line for each conversation that its row does not give, and for each source that is not there"""

    differing: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def render_again(
    root: Path, mixture: str | None = None, data_root: Path | None = None, identity: Path | None = None
) -> Again:
    """The sample of every source. What is not given is where build.json says it is."""
    again = Again()
    try:
        inputs = find_inputs(root, mixture, data_root, identity)
    except (ValueError, OSError) as error:
        again.missing.append(str(error))
        return again
    tokenizer = load_tokenizer(root)
    encode = Encoder(tokenizer, "tiktoken")
    for split in open_shards(root).splits.values():
        template = read_template(split.manifest, root)
        chosen = inputs.mixture.with_train_on(template.train_on)
        origins = Origins(split, BuildInputs(chosen, inputs.data_root, inputs.identity))
        for number, name in enumerate(split.source_names):
            try:
                docs = sample(split, number)
                again.differing += _differing(split, docs, origins.source(number), encode, tokenizer, template)
            except (ValueError, OSError) as error:
                again.missing.append(f"{split.name} {name}: {error}")
    return again


def _differing(
    split: Split, docs: Array, source: Input, encode: Encoder, tokenizer: Tokenizer, template: AnyTemplate
) -> Iterator[str]:
    """A line for each of (n,) documents of a source"""
    rows = split.docs["index"][docs].astype(np.int64)
    for doc, row, batch in zip(docs, rows, _conversations(source, rows), strict=True):
        rendered = render(batch, encode, tokenizer, template=template)
        tokens, mask = tokens_of(split, int(doc))
        about = split.entry["sources"][split.docs["source"][doc]]
        length = len(tokens) if about["truncated"] else len(rendered.tokens)
        if not (np.array_equal(tokens, rendered.tokens[:length]) and np.array_equal(mask, rendered.mask[:length])):
            yield f"{split.root} {split.name}: document {doc} is not what row {row} of {about['name']} gives"


def sample(split: Split, number: int) -> Array:
    """(n,) documents of a source, by their source rows: conversations that one row holds, first copies, evenly spread"""
    docs = np.flatnonzero((split.docs["repeat"] == 0) & (split.docs["source"] == number))
    _, places, pieces = np.unique(split.docs["index"][docs], return_index=True, return_counts=True)
    docs = docs[places[pieces == 1]]
    chosen: Array = docs[np.unique(np.linspace(0, max(len(docs) - 1, 0), min(len(docs), SAMPLE)).astype(np.int64))]
    return chosen


def tokens_of(split: Split, doc: int) -> tuple[Array, Array]:
    """Tokens and mask (n,) of a document"""
    row = row_of(split, doc)
    start = int(split.docs["length"][split.doc_range(row)[0] : doc].sum())
    place = slice(start, start + int(split.docs["length"][doc]))
    return split.read_tokens(np.array([row]))[0, place], split.read_mask(np.array([row]))[0, place]


def _conversations(source: Input, rows: Array) -> Iterator[Conversations]:
    """(n,) row numbers, ascending -> each row as a batch of one conversation"""
    if source.source.files:
        yield from map(source.task.conversations, rows_at(source.source, rows))
        return
    for row in rows.tolist():
        yield source.task.generate(row, row + 1, source.entry.seed, str(source.split))
