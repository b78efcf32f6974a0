"""
The commands `midprep tokenizer ...`: look at a tokenizer, train one, take one elsewhere.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from prep.cli.arguments import TOKENIZERS, Json, Pattern, TokenizerName

app = typer.Typer(help="Train, look at and convert tokenizers.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def info(
    name: Annotated[str | None, typer.Argument(help=TOKENIZERS)] = None, pattern: Pattern = None, as_json: Json = False
) -> None:
    """Show a tokenizer: size, special tokens, pattern, identity."""
    import json

    from prep.tokenizer.load import info, load_tokenizer

    about = info(load_tokenizer(name, pattern))
    if as_json:
        print(json.dumps(about, ensure_ascii=False))
        return
    for key, value in about.items():
        if isinstance(value, dict):
            value = "  ".join(f"{token} {number}" for token, number in value.items())
        print(f"{key:<16} {value}")


@app.command()
def train(
    files: Annotated[list[Path], typer.Argument(help="Text, .jsonl or .parquet files.")],
    vocab_size: Annotated[int, typer.Option(help="Ids, the nine special tokens included.")] = 32768,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write it to.")] = Path("tokenizer"),
    pattern: Pattern = None,
) -> None:
    """Train a byte-level BPE tokenizer with rustbpe; `--tokenizer DIR` uses it."""
    from prep.tokenizer.tokenizer import PATTERN
    from prep.tokenizer.train import train_tokenizer

    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is there and not empty: give another directory with -o.")
    trained = train_tokenizer(files, vocab_size, _show_bytes(), output.name, pattern or PATTERN)
    output.mkdir(parents=True, exist_ok=True)
    trained.write(output)
    print(f"{output}: {trained.vocab_size:,} ids, sha256 {trained.sha256}. Use it with --tokenizer {output}")


def _show_bytes() -> Callable[[int, int], None]:
    """A callback that shows the share of the bytes read, now and then"""
    import time

    said = [time.monotonic()]

    def show(done: int, total: int) -> None:
        if time.monotonic() - said[0] > (0.5 if sys.stderr.isatty() else 10):
            said[0] = time.monotonic()
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"read {done / max(total, 1):4.0%} of {total / 1e6:,.1f} MB", file=sys.stderr, end=end, flush=True)

    return show


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Directory to write to.")],
    tokenizer: TokenizerName = None,
    pattern: Pattern = None,
    to: Annotated[
        str, typer.Option("--format", help="nanochat: tokenizer.pkl and token_bytes.pt; hf: tokenizer.json.")
    ] = "nanochat",
) -> None:
    """Write a tokenizer as other programs read it: nanochat's files, or Hugging Face's."""
    from prep.tokenizer.huggingface import export_hf
    from prep.tokenizer.load import load_tokenizer
    from prep.tokenizer.nanochat import export_nanochat

    writers = {"nanochat": export_nanochat, "hf": export_hf}
    if to not in writers:
        raise ValueError(f"--format {to!r} found, wanted {' or '.join(writers)}.")
    directory.mkdir(parents=True, exist_ok=True)
    for path in writers[to](load_tokenizer(tokenizer, pattern), directory):
        print(path)
