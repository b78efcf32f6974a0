"""
The command line. Each command imports what it needs when it runs: `midprep --help` answers in a blink.

Exit codes: 0; 1 for an error of the user's, in one line; 2 for wrong usage; 130 when interrupted. Anything else that ends
a command is a bug and keeps its traceback.
"""

import errno
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from prep import __version__
from prep.cli import build, check, inspect, mixtures, model, show, tokenizer
from prep.screen import guarded_streams
from prep.signals import INTERRUPTED, STOPS, Interrupted, leave_at_once

# of the click that typer brings along
UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]

OTHER_PLACE = "give another -o or --cache-dir"
ADVICE = {
    errno.ENOSPC: f"free some space, or {OTHER_PLACE}",
    errno.EDQUOT: f"free some space, or {OTHER_PLACE}",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: OTHER_PLACE,
    errno.ENOTDIR: OTHER_PLACE,
    errno.EACCES: f"{OTHER_PLACE}, or fix its permissions",
    errno.EPERM: f"{OTHER_PLACE}, or fix its permissions",
}

app = typer.Typer(
    name="midprep",
    help="Chat data to training data once, offline: rendered, masked, packed into memory-mapped shards.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with: midprep build --mixture sample, then midprep show shards/sample",
)


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        print(f"midprep {__version__}")
        raise typer.Exit


# in the order of --help: the day's work, then what there is
for command in (
    *(
        build.build,
        inspect.stats,
        check.verify,
        show.show,
        inspect.plan,
        inspect.report,
        inspect.overlap,
        inspect.watch,
        model.chat,
        model.evaluate,
    ),
    *(inspect.try_rows, check.tasks, check.doctor, check.selftest),
):
    app.command("try" if command is inspect.try_rows else command.__name__)(command)
app.add_typer(mixtures.app, name="mixtures")
app.add_typer(tokenizer.app, name="tokenizer")


def in_words(error: Exception) -> str:
    """An error as one line; those of the system say what failed, and not what to do"""
    if not isinstance(error, OSError) or error.strerror is None or error.filename is None:
        return " ".join(str(error).split())
    advice = ADVICE.get(error.errno or 0, "")
    return " ".join(f"{error.filename}: {error.strerror}{f': {advice}' if advice else ''}.".split())


_stopped: list[int] = []  # signals that came


def interrupt(number: int, frame: object) -> NoReturn:
    for stop in STOPS:  # timeout and the like send several; the first is enough
        signal.signal(stop, signal.SIG_IGN)
    _stopped.append(number)
    raise Interrupted


def _is_interrupted(error: BaseException) -> bool:
    """Whether a stop signal ended the command; an import that it arrives in may make a RuntimeError of it"""
    return isinstance(error, Interrupted) or (bool(_stopped) and not isinstance(error, SystemExit))


def main() -> None:
    """Entry point of the `midprep` command."""
    _stopped.clear()
    try:
        with guarded_streams():
            _run()
    except BaseException as error:
        if not _is_interrupted(error):
            raise
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    finally:
        leave_at_once()


def _run() -> None:
    """A command, and its errors in words"""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy starts a thread per core for products that nobody makes
    for stop in STOPS:
        signal.signal(stop, interrupt)
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="midprep", standalone_mode=False))
    except UsageError as error:
        message = error.format_message()
        if not message.startswith("Usage:"):  # the message of a group of commands when none is named
            end = "" if message.endswith((".", "?")) else "."
            message = f"midprep: {message}{end} See {error.ctx.command_path if error.ctx else 'midprep'} --help"
        if os.environ.get("LOCAL_RANK", "0") == "0":  # once, however many torchrun started
            print(message, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of the output is gone
        sys.exit(1)
    except (ValueError, OSError, RuntimeError) as error:
        if _stopped or os.environ.get("MIDPREP_TRACEBACK"):
            raise
        print(f"midprep: {in_words(error)}", file=sys.stderr)
        sys.exit(1)
