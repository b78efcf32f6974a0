"""
Some conversations of a build rendered again from their source rows: what no rule about tokens can tell of a Jinja template.

    document 17: chat, row 5      tokens and mask in the shards      =      row 5, read and rendered now

Only conversations that are whole in one row are taken, a few of each source, spread over all of it. `verify --rebuild` compares
every byte.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prep.arrays import Array
from prep.build.record import BuildInputs, find_inputs
from prep.chat.choose import read_template
from prep.conversations.conversation import Conversations
from prep.encode.encode import Encoder
from prep.inspect.origin import Origins
from prep.inspect.search import row_of
from prep.mixture.resolve import Input
from prep.render.render import render
from prep.shard import Split, open_shards
from prep.sources.source import rows_at
from prep.tokenizer.load import load_tokenizer

SAMPLE = 32  # conversations of a source


def differing_documents(root: Path) -> Iterator[str]:
    """
    A line for each conversation of the sample that is not what its row gives now. FileNotFoundError or ValueError where the
    sources are gone, or are others.
    """
    inputs, tokenizer = find_inputs(root, None, None, None), load_tokenizer(root)
    encode = Encoder(tokenizer, "tiktoken")
    for split in open_shards(root).splits.values():
        template = read_template(split.manifest, root)
        mixture = inputs.mixture.with_train_on(template.train_on)
        origins = Origins(split, BuildInputs(mixture, inputs.data_root, inputs.identity))
        for number, name in enumerate(split.source_names):
            docs = sample(split, number)
            rows = split.docs["index"][docs].astype(np.int64)
            for doc, row, batch in zip(docs, rows, _conversations(origins.source(number), rows), strict=True):
                again = render(batch, encode, tokenizer, template=template)
                tokens, mask = tokens_of(split, int(doc))
                if not (np.array_equal(tokens, again.tokens) and np.array_equal(mask, again.mask)):
                    yield f"{root} {split.name}: document {doc} is not what row {row} of {name} gives"


def sample(split: Split, number: int) -> Array:
    """(n,) documents of a source, by their source rows: conversations that one row holds, first copies, evenly spread"""
    docs = np.flatnonzero((split.docs["repeat"] == 0) & (split.docs["source"] == number))
    _, places, pieces = np.unique(split.docs["index"][docs], return_index=True, return_counts=True)
    docs = docs[places[pieces == 1]]
    docs = docs[split.docs["length"][docs] <= split.max_seq_len]  # not truncated
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
