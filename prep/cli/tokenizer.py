"""
The commands `midprep tokenizer ...`: show a tokenizer, train one, write one for other programs.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from prep.cli.arguments import (
    TOKENIZERS,
    DataRoot,
    Identity,
    Json,
    Pattern,
    TokenizerName,
    VocabSize,
    print_json,
    refuse,
)

app = typer.Typer(help="Show, train and convert tokenizers.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def info(
    name: Annotated[str | None, typer.Argument(help=TOKENIZERS)] = None,
    pattern: Pattern = None,
    vocab_size: VocabSize = None,
    as_json: Json = False,
) -> None:
    """Show a tokenizer: its size, special and added tokens, normalizer, chat template, pattern and sha256."""
    from prep.chat.choose import formats_for
    from prep.tokenizer.load import info, load_tokenizer

    loaded = load_tokenizer(name, pattern, vocab_size)
    about = info(loaded) | {"chat_formats": ", ".join(formats_for(loaded)) or None}
    if as_json:
        print_json(about, indent=None)
        return
    for key, value in about.items():
        if isinstance(value, dict):
            value = "  ".join(f"{token} {id_}" for token, id_ in value.items()) or None
        if value is None or isinstance(value, bool):
            value = "yes" if value else "none" if value is None else "no"
        print(f"{key:<16} {value}")


@app.command()
def train(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(help="Text, .jsonl or .parquet files.")] = None,
    mixture: Annotated[
        str | None, typer.Option(help="Instead of files: what a mixture trains on, each row once.")
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Number of ids, including the nine special tokens.")] = 32768,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write to.")] = Path("tokenizer"),
    pattern: Pattern = None,
    data_root: DataRoot = None,
    identity: Identity = None,
) -> None:
    """Train a byte-level BPE tokenizer, on files or on a mixture; build with it by --tokenizer DIR."""
    from prep.tokenizer.tokenizer import PATTERN
    from prep.tokenizer.train import read_pieces, train_tokenizer

    if bool(files) == bool(mixture):
        raise ValueError("give files, or a --mixture: one of them.")
    if not mixture:
        refuse(context, "data_root identity", "without --mixture")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} exists and is not empty: give another directory with -o.")
    pieces = _pieces_of(mixture, data_root, identity) if mixture else read_pieces(files or [], _show_progress())
    trained = train_tokenizer(pieces, vocab_size, output.name, pattern or PATTERN)
    output.mkdir(parents=True, exist_ok=True)
    trained.write(output)
    print(f"{output}: {trained.vocab_size:,} ids, sha256 {trained.sha256}. Use it with --tokenizer {output}")


def _pieces_of(mixture: str, data_root: Path | None, identity: Path | None) -> Iterator[str]:
    """The text of the conversations that a mixture trains on"""
    from prep.build.api import read_conversations
    from prep.tokenizer.train import cut, texts_of

    for example in read_conversations(mixture, data_root=data_root, identity=identity):
        for text in texts_of(example.messages, example.source):
            yield from cut(text)


def _show_progress() -> Callable[[int, int], None]:
    """A function that prints the share of the bytes read: twice a second, or to a file every 10 s"""
    is_terminal = sys.stderr.isatty()
    last = time.monotonic()

    def show(num_bytes: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > (0.5 if is_terminal else 10):
            last = time.monotonic()
            line = f"read {num_bytes / max(total, 1):4.0%} of {total / 1e6:,.1f} MB"
            print(line, file=sys.stderr, end="\r" if is_terminal else "\n", flush=True)

    return show


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Directory to write to.")],
    tokenizer: TokenizerName = None,
    pattern: Pattern = None,
    to: Annotated[
        str, typer.Option("--format", help="nanochat: tokenizer.pkl and token_bytes.pt; hf: tokenizer.json.")
    ] = "nanochat",
    more: Annotated[
        bool,
        typer.Option(
            "--add-special-tokens", help="Add those of nanochat's nine special tokens that it lacks, behind its ids."
        ),
    ] = False,
) -> None:
    """Write a tokenizer in the files of nanochat or of Hugging Face."""
    from prep.tokenizer.huggingface import export_hf
    from prep.tokenizer.load import add_special_tokens, load_tokenizer
    from prep.tokenizer.nanochat import export_nanochat

    writers = {"nanochat": export_nanochat, "hf": export_hf}
    if to not in writers:
        raise ValueError(f"--format {to!r} is not known, wanted {' or '.join(writers)}.")
    loaded = load_tokenizer(tokenizer, pattern)
    directory.mkdir(parents=True, exist_ok=True)
    for path in writers[to](add_special_tokens(loaded) if more else loaded, directory):
        print(path)
