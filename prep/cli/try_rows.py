"""
The command `midprep try`: the first rows of one's own data as they would be rendered, before any build.
"""

from pathlib import Path
from typing import Annotated

import typer

from prep.cli.arguments import Json, Pattern, TokenizerName, refuse


def try_rows(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(help="JSON lines (also .gz, .zst), parquet, Arrow, a directory or a pattern.")
    ],
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="So many rows.")] = 5,
    layout: Annotated[
        str | None, typer.Option(help="messages, tools, sharegpt, alpaca or completion; recognised by default.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="theirs=ours: a field's name in the data, and what it is. May be repeated.")
    ] = None,
    roles: Annotated[list[str] | None, typer.Option(help="theirs=ours, as teacher=assistant. May be repeated.")] = None,
    train_on: Annotated[str, typer.Option(help="all, last or none of the assistant's turns.")] = "all",
    consecutive: Annotated[
        str, typer.Option(help="Messages of one role after one another: reject or merge.")
    ] = "reject",
    tools: Annotated[str, typer.Option(help="What calls of tools become: parts or text.")] = "parts",
    task: Annotated[str | None, typer.Option(help="A task of one's own, as my_task.py:row, instead of chat.")] = None,
    tokenizer: TokenizerName = None,
    pattern: Pattern = None,
    plain: Annotated[bool, typer.Option("--plain", help="Brackets instead of colour.")] = False,
    as_json: Json = False,
) -> None:
    """Show the first rows of a file as they would be rendered; the options are those of a mixture's entry."""
    import json

    from prep.conversations.layouts import Layout
    from prep.inspect.preview import preview, render_rows
    from prep.inspect.terminal import Printer
    from prep.mixture.own_entry import check_names, check_reading
    from prep.tokenizer.tokenizer import load_tokenizer

    if task is not None:
        refuse(context, "layout columns roles train_on consecutive tools", "with --task")
    named, mapped = _pairs(columns, "--columns"), _pairs(roles, "--roles")
    check_reading(layout, train_on, consecutive, tools, "--")
    check_names(named, mapped, "--", layout)
    wanted = Layout(
        "messages", tuple(sorted(named.items())), tuple(sorted(mapped.items())), train_on, consecutive, tools
    )
    found = preview(path, rows, wanted, layout, task)
    shown = render_rows(found, load_tokenizer(tokenizer, pattern))
    if as_json:
        print(json.dumps({**found.describe(), "rows": list(shown)}, ensure_ascii=False))
        return
    printer = Printer(plain)
    printer.say(found.summary(), "bold")
    for one in shown:
        printer.example(one)


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """["a=b"] -> {"a": "b"}"""
    for pair in given or []:
        if "=" not in pair:
            raise ValueError(f"{option} {pair} found, wanted theirs=ours, as in {option} human=user.")
    return {theirs: ours for theirs, _, ours in (pair.partition("=") for pair in given or [])}
