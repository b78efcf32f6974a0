"""
The commands `midprep mixtures`, which lists the mixtures that ship, and `midprep mixtures show`, which prints one.
"""

from typing import Annotated

import typer

from prep.cli.arguments import Json, print_json

app = typer.Typer(help="List the mixtures that come with midprep, or print one.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def mixtures(context: typer.Context, as_json: Json = False) -> None:
    """List the mixtures that come with midprep; show NAME prints one."""
    from prep.mixture.mixture import load_mixture, mixture_names

    if context.invoked_subcommand:
        return
    loaded = {name: load_mixture(name) for name in mixture_names()}
    if as_json:
        print_json(
            {
                name: {
                    "name": mixture.name,
                    **{split: [e.label for e in entries] for split, entries in mixture.splits.items()},
                }
                for name, mixture in loaded.items()
            }
        )
        return
    for name, mixture in loaded.items():
        parts = [
            f"{split}: {', '.join(e.label + (f' x{e.repeat}' if e.repeat > 1 else '') for e in entries)}"
            for split, entries in mixture.splits.items()
        ]
        print(f"{name:<12} -> shards/{mixture.name:<12} {'; '.join(parts)}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of a shipped mixture, or a TOML file.")]) -> None:
    """Print the TOML of a mixture. Start your own from it: midprep mixtures show sample > mine.toml"""
    from prep.mixture.mixture import load_mixture, mixture_path

    load_mixture(name)  # what is printed is sound
    print(mixture_path(name).read_text(encoding="utf-8"), end="")
