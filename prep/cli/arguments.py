"""
What the commands share: arguments, what is said beside the output, what is refused.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

TOKENIZERS = (
    "nano32k (default), nanochat, a .tiktoken file, nanochat's directory or .pkl, a finished build, Hugging Face's "
    "tokenizer.json, or one of tiktoken's names."
)
Build = Annotated[Path, typer.Argument(help="Directory of a finished build.")]
TokenizerName = Annotated[str | None, typer.Option("--tokenizer", help=TOKENIZERS)]
Pattern = Annotated[str | None, typer.Option(help="Split pattern of a .tiktoken file; nanochat's by default.")]
Json = Annotated[bool, typer.Option("--json", help="The same as JSON.")]


def say(line: str) -> None:
    """Something worth knowing, beside the output proper"""
    print(line, file=sys.stderr, flush=True)


def print_any_character() -> None:
    """A terminal that cannot show a character shows its code, instead of an error"""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def cores() -> int:
    """Cores that this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse(context: typer.Context, names: str, without: str) -> None:
    """ValueError if an option of these names was given, which says nothing without another"""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in names.split() and source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"{option.opts[0]} says nothing {without}: change that, or leave it out.")
