"""
The command `midprep overlap`. A plain function that prep.cli.main registers; what it needs is imported when it runs.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from prep.cli.arguments import Build, Json, print_any_character


def overlap(
    root: Build,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Compare with this, too: a file of chats, or a task (its test split). May be repeated."),
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="For tasks: local copy of the data sets.")] = None,
    threshold: Annotated[
        float, typer.Option(help="Of the runs of 13 words of a text: what holds so many has it.")
    ] = 0.5,
    as_json: Json = False,
) -> None:
    """Does training ask what val, or a benchmark, asks? Copies and runs of 13 words, whatever case and punctuation."""
    from prep.inspect.overlap import find_overlap, overlap_lines

    print_any_character()
    found = find_overlap(root, against or [], data_root, threshold)
    print(json.dumps(found, ensure_ascii=False, indent=1) if as_json else "\n".join(overlap_lines(found)))
