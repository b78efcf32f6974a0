"""
Train a tokenizer of your own with rustbpe: text, JSON lines or Parquet in, ranks out.

    train_tokenizer(read_pieces([Path("a.txt"), Path("chats.jsonl")]), 32_768)     256 bytes + 32,503 merges + 9 special tokens

Files are streamed in pieces of at most 16,384 characters that end with a line where they can; memory holds the counts of
distinct words of the split pattern. The same files in the same order give the same ranks. What is not text is an error that
names the line; nothing is skipped.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from prep.sources.source import open_files
from prep.tokenizer.load import make_tokenizer
from prep.tokenizer.spec import BYTE_RANKS, TokenizerSpec, check_spec
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer

MAX_PIECE: Final = 16_384  # characters; the regex engine of rustbpe panics on runs of about a million spaces
BUFFER: Final = 1024  # pieces that rustbpe takes at a time
SURROGATE: Final = re.compile("[\ud800-\udfff]")

Progress = Callable[[int, int], None]  # bytes read, bytes of all files


def train_tokenizer(pieces: Iterable[str], vocab_size: int, name: str = "trained", pattern: str = PATTERN) -> Tokenizer:
    """
    A tokenizer of `vocab_size` ids, the nine special tokens included, of pieces of text as `cut` makes them. ValueError if
    the text gives fewer.
    """
    import rustbpe

    num_ranks = vocab_size - len(SPECIAL_TOKENS)
    if num_ranks < len(BYTE_RANKS):
        raise ValueError(
            f"vocabulary of {vocab_size}: wanted at least {256 + len(SPECIAL_TOKENS)}, 256 bytes and 9 special"
        )
    check_spec(TokenizerSpec(name, BYTE_RANKS, pattern, {}))
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(pieces), num_ranks, buffer_size=BUFFER, pattern=pattern)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) < num_ranks:
        possible = len(ranks) + len(SPECIAL_TOKENS)
        raise ValueError(
            f"the text gives {possible:,} tokens, {vocab_size:,} wanted: more text or a smaller --vocab-size."
        )
    return make_tokenizer(TokenizerSpec(name, ranks, pattern, {}), "trained")


def read_pieces(files: list[Path], on_progress: Progress | None = None) -> Iterator[str]:
    """The text of all files in pieces of at most MAX_PIECE characters. FileNotFoundError where one is missing."""
    if missing := [str(path) for path in files if not path.is_file()]:
        raise FileNotFoundError(f"{', '.join(missing)} not found: wanted text, .jsonl or .parquet files.")
    total, before = sum(path.stat().st_size for path in files), 0
    for path in files:
        reader = {".jsonl": read_json_lines, ".parquet": read_parquet}.get(path.suffix, read_text)
        for text, num_bytes in reader(path):
            yield from cut(text)
            if on_progress is not None:
                on_progress(before + num_bytes, total)
        before += path.stat().st_size
    if on_progress is not None:
        on_progress(total, total)


def cut(text: str) -> Iterator[str]:
    """Pieces of at most MAX_PIECE characters: cut after a newline, or else before a space, or else anywhere"""
    text, start = SURROGATE.sub("\ufffd", text), 0
    while len(text) - start > MAX_PIECE:
        limit = start + MAX_PIECE
        end = text.rfind("\n", start, limit) + 1
        if end <= start:
            end = max(text.rfind(" ", start + 1, limit), 0) or limit
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


# ---- readers: each gives (text, bytes of the file read so far) ----


def read_text(path: Path) -> Iterator[tuple[str, int]]:
    """A file of text in blocks that end with a line, where lines are shorter than a block"""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest, num_bytes, at_end = "", 0, False
    with open(path, "rb") as file:
        while not at_end:
            block = file.read(MAX_PIECE)
            num_bytes += len(block)
            at_end = not block
            try:
                text = rest + decoder.decode(block, final=at_end)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8 text near byte {num_bytes:,} ({error.reason}): convert it to UTF-8"
                ) from None
            end = text.rfind("\n") + 1
            if at_end or (not end and len(text) >= MAX_PIECE):
                end = len(text)
            rest = text[end:]
            yield text[:end], num_bytes


def read_json_lines(path: Path) -> Iterator[tuple[str, int]]:
    """The texts of each line: an object with `text` or `messages`, or an array of messages"""
    num_bytes = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            num_bytes += len(line)
            if not line.strip():
                continue
            try:
                example = json.loads(line)
            except (ValueError, RecursionError):
                raise ValueError(f"{path}, line {number}: not valid JSON, wanted one object per line") from None
            for text in texts_of(example, f"{path}, line {number}"):
                yield text, num_bytes


def read_parquet(path: Path) -> Iterator[tuple[str, int]]:
    """The texts of the column `text`, or else of `messages`"""
    (file,) = open_files([path], []).readers
    column = next((name for name in ("text", "messages") if name in file.columns), None)
    if column is None:
        raise ValueError(f"{path} has the columns {', '.join(file.columns)}: wanted `text` or `messages`")
    size, num_rows = path.stat().st_size, 0
    for table in replace(file, columns=(column,)).read(0, file.num_rows):
        for value in table.column(column).to_pylist():
            num_rows += 1
            for text in texts_of({column: value}, f"{path}, row {num_rows}"):
                yield text, size * num_rows // file.num_rows


def texts_of(example: Any, context: str) -> Iterator[str]:
    """Its `text`, or the contents of its messages, which are strings or lists of parts. ValueError that names `context`"""
    messages = example.get("messages") if isinstance(example, dict) else example
    if isinstance(example, dict) and isinstance(example.get("text"), str):
        yield example["text"]
    elif isinstance(messages, list):
        for message in messages:
            content = message.get("content") if isinstance(message, dict) else None
            parts = [{"text": content}] if isinstance(content, str) else content
            for part in parts if isinstance(parts, list) else [None]:
                if not isinstance(part, dict) or not isinstance(part.get("text"), str):
                    raise ValueError(f"{context}: a message without text, wanted a string or parts with `text`")
                yield part["text"]
    else:
        raise ValueError(f"{context}: no text, wanted `text` or `messages`")
