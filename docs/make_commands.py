"""
Write docs/commands.md: every command and option of midprep, and the flags of the trainer, as the programs have them.

    python docs/make_commands.py            writes the page (`make docs`)
    python docs/make_commands.py --print    prints it

tests/docs/test_commands.py compares the page with what this gives.
"""

import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

PAGE = Path(__file__).with_name("commands.md")
WIDTH = 120
INTRODUCTION = """\
# Commands

Every command with its arguments and options, written by `make docs` from the help of the programs: `midprep COMMAND
--help` prints the same. Exit codes: 0; 1 for an error, in one line that says what to do; 2 for wrong usage; 130 when
interrupted. Words are explained in the [glossary](glossary.md).
"""


def make_page() -> str:
    return "\n".join([INTRODUCTION, *_midprep(), *_trainer()])


def _midprep() -> Iterator[str]:
    import typer.main

    from prep.cli.main import app

    for name, command in _walk(typer.main.get_command(app), "midprep"):
        yield f"## {name}\n\n{_wrap(' '.join(command.help.split()))}\n"
        arguments = [param for param in command.params if not _is_option(param)]
        usage = [name, "[OPTIONS]", *(_argument_usage(param) for param in arguments)]
        yield f"    {' '.join(usage)}\n"
        items = [_item(f"`{_argument_usage(param)}`", param.help or "") for param in arguments]
        items += [
            _item(_option_name(param), param.help or "", param.default) for param in command.params if _is_option(param)
        ]
        if items:
            yield "".join(items)


def _walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command; a group of commands stands for those in it, and for itself if it runs alone"""
    if not hasattr(command, "commands") or (command.invoke_without_command and name != "midprep"):
        yield name, command
    for child, inner in getattr(command, "commands", {}).items():
        yield from _walk(inner, f"{name} {child}")


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _argument_usage(param: Any) -> str:
    name = param.name.upper() + ("..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def _option_name(param: Any) -> str:
    """The option as it is typed, with its value: `-o, --output PATH`, and `...` where it may be repeated"""
    names = ", ".join(param.opts)
    if param.is_flag:
        return f"`{names}`"
    return f"`{names} {_type_name(param.type_descriptor.annotation)}{'...' if param.multiple else ''}`"


def _type_name(annotation: Any) -> str:
    words = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}
    (annotation,) = get_args(annotation)[:1] or (annotation,)  # list[Path] -> Path
    return words.get(annotation, "TEXT")


def _trainer() -> Iterator[str]:
    from train.config import DESCRIPTION, Config

    yield f"## train/mid.py\n\n{_wrap(DESCRIPTION)}\n"
    yield "    torchrun train/mid.py --shards DIR [FLAGS]\n"
    items = []
    for entry in fields(Config):
        name, kind, choices = "--" + entry.name.replace("_", "-"), entry.metadata["kind"], entry.metadata["choices"]
        value = "|".join(choices) if choices else _type_name(kind)
        shown = f"`{name}, --no-{name[2:]}`" if kind is bool else f"`{name} {value}`"
        items.append(_item(shown, entry.metadata["help"], entry.default))
    yield "".join(items)


def _item(name: str, text: str, default: Any = None) -> str:
    """An item of a list: the name, the default of an option that takes a value, what it does"""
    shown = "" if default is None or default == "" or isinstance(default, bool | tuple) else f" (default `{default}`)"
    text = " ".join(text.split()).replace("<", r"\<")  # else Markdown takes <name> for HTML
    return _wrap(f"- {name}{shown}: {text}", "  ") + "\n"


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(make_page(), end="")
    else:
        PAGE.write_text(make_page(), encoding="utf-8")
