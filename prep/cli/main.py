"""
The command line. Each command imports what it needs when it runs: `midprep --help` answers in a blink.

Exit codes: 0; 1 for an error of the user's, in one line; 2 for wrong usage; 130 when interrupted. Anything else that ends
a command is a bug and keeps its traceback.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from prep import __version__
from prep.cli import (
    check as cli_about,
)
from prep.cli import (
    inspect as cli_see,
)
from prep.cli import (
    overlap as cli_overlap,
)
from prep.cli import (
    tokenizer as cli_tokenizer,
)
from prep.cli import (
    try_rows as cli_try,
)
from prep.cli.arguments import Build, Json, Pattern, TokenizerName, cores, refuse, say
from prep.signals import STOPS, Interrupted

# of the click that typer brings along
UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]

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


@app.command()
def build(
    mixture: Annotated[str, typer.Option(help="Name of a shipped mixture, or a TOML file.")] = "default",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Directory of the build; shards/<name of the mixture>.")
    ] = None,
    max_seq_len: Annotated[int, typer.Option(help="Inputs of a row; a row holds one token more.")] = 2048,
    packing: Annotated[str, typer.Option(help="bfd: whole conversations, best fit; wrapped: one stream.")] = "bfd",
    excess_length_strategy: Annotated[
        str, typer.Option(help="For conversations that are too long: truncate, split, drop or raise.")
    ] = "truncate",
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Cut conversations to so many tokens first; with wrapped 2048, as nanochat, or max-seq-len."),
    ] = None,
    tokenizer: TokenizerName = None,
    pattern: Pattern = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Local copy of data sets in the Hub's layout, instead of the Hub.")
    ] = None,
    identity: Annotated[Path | None, typer.Option(help="Identity conversations, JSON lines.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave a task of the mixture out; may be repeated.")] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Cache of rendered runs; $XDG_CACHE_HOME/midprep. Can be deleted at any time.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one a core.")] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray: tasks on a Ray cluster that shares sources, cache and output as files.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="With --engine ray: HOST:PORT or auto; without, Ray starts on this machine.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="auto, tiktoken, fastokens or gigatoken; the bytes are the same.")
    ] = "auto",
    max_rejected: Annotated[float, typer.Option(help="Largest share of a source's rows that may be rejected.")] = 0.05,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that holds another build.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built, and build nothing.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say which files are read first, and where the time went last.")
    ] = False,
) -> None:
    """Build shards from a mixture: render, plan, write."""
    from prep.build import build as building
    from prep.build.options import BuildOptions
    from prep.files import default_cache_dir
    from prep.inspect.build_text import built_lines, dry_run_lines
    from prep.mixture.mixture import load_mixture
    from prep.tokenizer.tokenizer import load_tokenizer, notice_of_nanochat
    from prep.workers.local import warm_up_process

    options = BuildOptions(
        max_seq_len=max_seq_len,
        packing=packing,
        excess_length_strategy=excess_length_strategy,
        max_tokens=max_tokens,
        cache_dir=cache_dir or default_cache_dir(),
        workers=(0 if engine == "ray" else cores()) if workers is None else workers,
        engine=engine,
        address=address,
        encoder=encoder,
        max_rejected=max_rejected,
        overwrite=overwrite,
        quiet=quiet,
    )
    warm_up_process()
    wanted = load_mixture(mixture)
    if tokenizer is None and not quiet and (notice := notice_of_nanochat()):
        say(notice)
    job = building.make_job(
        wanted, load_tokenizer(tokenizer, pattern), options, data_root, identity, tuple(without or ())
    )
    root = output or Path("shards") / wanted.name
    if dry_run:
        print("\n".join(dry_run_lines(job, root)))
        return
    if verbose:
        say("\n".join(dry_run_lines(job, root)))
    manifest, built = building.build(job, root, say)
    if not quiet:
        print("\n".join(built_lines(root, manifest, built)))
    if verbose and built:
        from prep.inspect.build_text import print_timings, read_timings

        print_timings(read_timings(root))


@app.command()
def stats(
    context: typer.Context,
    root: Build,
    other: Annotated[Path | None, typer.Argument(help="A second build, to be shown beside it.")] = None,
    lengths: Annotated[bool, typer.Option("--lengths", help="How long conversations are, by source.")] = False,
    times: Annotated[
        bool, typer.Option("--build", help="Where the time of the build went, from its build.json.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Counts, shares, lengths and fill of a build, by source; of two builds, side by side with what changed."""
    if other is not None or times:
        refuse(context, "lengths", "with two builds" if other else "with --build")
    if other is not None:
        refuse(context, "times", "with two builds")
        from prep.inspect.compare import compare, print_comparison

        _print(compare(root, other), print_comparison, as_json)
    elif times:
        from prep.inspect.build_text import print_timings, read_timings

        _print(read_timings(root), print_timings, as_json)
    else:
        from prep.inspect.stats import print_stats, read_stats

        _print(read_stats(root), partial(print_stats, by_length=lengths), as_json)


def _print(value: dict[str, Any], print_text: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, ensure_ascii=False, indent=1))
    else:
        print_text(value)


# in the order of --help: the day's work, then what there is
app.command("verify")(cli_about.verify)
app.command("show")(cli_see.show)
app.command("plan")(cli_see.plan)
app.command("report")(cli_see.report)
app.command("overlap")(cli_overlap.overlap)
app.command("watch")(cli_see.watch)
app.command("try")(cli_try.try_rows)
app.command("tasks")(cli_about.tasks)
app.command("mixtures")(cli_about.mixtures)
app.command("doctor")(cli_about.doctor)
app.command("selftest")(cli_about.selftest)
app.add_typer(cli_tokenizer.app, name="tokenizer")


def fail(message: str) -> NoReturn:
    print(f"midprep: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def _in_words(error: Exception) -> str:
    """An error as one line; the system's own say what it found, and not what to do"""
    if not isinstance(error, OSError) or error.strerror is None or error.filename is None:
        return str(error)
    advice = {
        errno.ENOSPC: "free some space, or give another -o or --cache-dir",
        errno.EDQUOT: "free some space, or give another -o or --cache-dir",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
        errno.EROFS: "give another -o or --cache-dir",
        errno.EACCES: "give another -o or --cache-dir, or mend its permissions",
        errno.ENOTDIR: "give another -o or --cache-dir",
        errno.EPERM: "give another -o or --cache-dir, or mend its permissions",
    }.get(error.errno or 0, "")
    return f"{error.filename}: {error.strerror}" + (f": {advice}." if advice else ".")


def _interrupt(number: int, frame: object) -> NoReturn:
    for stop in STOPS:  # timeout and the like send several; we are on our way
        signal.signal(stop, signal.SIG_IGN)
    raise Interrupted


def main() -> None:
    """Entry point of the `midprep` command."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy starts a thread a core for products that nobody makes
    for stop in STOPS:
        signal.signal(stop, _interrupt)
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="midprep", standalone_mode=False))
    except UsageError as error:
        message = error.format_message()
        if not message.startswith("Usage:"):  # which is what a group of commands says when none is named
            end = "" if message.endswith((".", "?")) else "."
            message = f"midprep: {message}{end} See {error.ctx.command_path if error.ctx else 'midprep'} --help"
        print(message, file=sys.stderr)
        sys.exit(2)
    except Interrupted:
        print("midprep: interrupted; nothing half-written is left, what was rendered is kept.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone
        sys.exit(1)
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("MIDPREP_TRACEBACK"):
            raise
        fail(_in_words(error))
