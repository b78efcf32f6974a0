"""
What the commands share: arguments, ways to print, refusals.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from prep.screen import as_json

TOKENIZERS = (
    "nano32k (default), nanochat, a .tiktoken file, nanochat's directory or .pkl, a finished build, Hugging Face's "
    "tokenizer.json or directory, OWNER/NAME or OWNER/NAME@REVISION on the Hub, or one of tiktoken's names."
)
Build = Annotated[Path, Argument(help="Directory of a finished build.")]
SplitName = Annotated[str, Option("--split", help="Split of the build.")]
TokenizerName = Annotated[str | None, Option("--tokenizer", help=TOKENIZERS)]
Pattern = Annotated[str | None, Option(help="Split pattern of a .tiktoken file; nanochat's by default.")]
TRAIN_ON = "Which turns of the assistant train: all, last or none; or what of them: text,reasoning,calls,end."
ChatTemplateName = Annotated[
    str | None,
    Option(
        "--chat-template",
        help="nanochat (default), qwen3, llama3, ...; a Jinja file; tokenizer: its own.",
    ),
]
Mask = Annotated[
    str | None, Option(help="What trains: format (as its authority has it), or sampled (what a model would have said).")
]
EmptyThink = Annotated[
    bool | None, Option("--empty-think/--no-empty-think", help="Whether turns without reasoning have an empty block.")
]
ChatDate = Annotated[str | None, Option(help="The date that a chat format writes, as it is to stand there.")]
VocabSize = Annotated[int | None, Option(help="The model's vocab_size, if no config.json beside the tokenizer has it.")]
Json = Annotated[bool, Option("--json", help="Print JSON instead of text.")]
Plain = Annotated[bool, Option("--plain", help="Mark loss tokens with brackets instead of colour.")]
Mixture = Annotated[str | None, Option(help="Mixture of the build, if its build.json does not say it.")]
DataRoot = Annotated[Path | None, Option(help="Local copy of data sets in the Hub's layout, instead of the Hub.")]
Identity = Annotated[Path | None, Option(help="Identity conversations, JSON lines.")]
TotalBatch = Annotated[int | None, Option(help="Tokens per step; by default what the trainer chooses.")]
DeviceBatch = Annotated[int | None, Option(help="Rows per micro-batch and rank; by default as on a GPU.")]
Epochs = Annotated[float, Option("--epochs", "--num-epochs", help="Passes over the rows.")]


def say(line: str) -> None:
    """A message beside the output proper"""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any, indent: int | None = 1) -> None:
    in_utf8 = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
    print(as_json(value, indent) if in_utf8 else json.dumps(value, indent=indent), flush=True)


def cores() -> int:
    """Cores that this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def given(context: typer.Context, name: str) -> bool:
    """Whether an option was typed"""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def train_on_choice(text: str | None) -> str | tuple[str, ...] | None:
    """
    >>> train_on_choice("last"), train_on_choice("text,end")
    ('last', ('text', 'end'))
    """
    if text is None or text in ("all", "last", "none"):
        return text
    return tuple(text.split(","))


def refuse(context: typer.Context, names: str, condition: str) -> None:
    """ValueError if one of these options was given, which has no effect under a condition, as "without --origin" """
    for option in context.command.params:
        if option.name in names.split() and given(context, option.name or ""):
            raise ValueError(f"{option.opts[0]} has no effect {condition}: change that, or leave it out.")
