"""
The command `midprep build`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from prep.cli.arguments import (
    TRAIN_ON,
    ChatDate,
    ChatTemplateName,
    DataRoot,
    EmptyThink,
    Identity,
    Json,
    Mask,
    Pattern,
    TokenizerName,
    cores,
    given,
    print_json,
    say,
    train_on_choice,
)

if TYPE_CHECKING:
    from prep.mixture.mixture import Mixture

EXCESS = "For conversations that are too long: truncate, split, drop or raise."
MAX_TOKENS = (
    "Truncate conversations to this length first; by default only with wrapped: 2048, or max-seq-len if that is more."
)
CACHE = "Cache of rendered blocks, by default $XDG_CACHE_HOME/midprep. It can be deleted at any time."
PACKING = "ordered: whole conversations in the mixture's order; bfd: best fit, least padding; wrapped: one stream."
ENGINE = "local, or ray: tasks on a Ray cluster that shares sources, cache and output as files."


def build(
    context: typer.Context,
    mixture: Annotated[str, Option(help="Name of a shipped mixture, or a TOML file.")] = "default",
    output: Annotated[Path | None, Option("-o", "--output", help="Directory; by default shards/NAME.")] = None,
    max_seq_len: Annotated[int, Option(help="Inputs per row; a row holds one token more.")] = 2048,
    packing: Annotated[str, Option(help=PACKING)] = "ordered",
    excess_length_strategy: Annotated[str, Option(help=EXCESS)] = "truncate",
    max_tokens: Annotated[int | None, Option(help=MAX_TOKENS)] = None,
    chat_template: ChatTemplateName = None,
    mask: Mask = None,
    empty_think: EmptyThink = None,
    chat_date: ChatDate = None,
    train_on: Annotated[str | None, Option(help=f"{TRAIN_ON} For entries that do not say it.")] = None,
    tokenizer: TokenizerName = None,
    pattern: Pattern = None,
    data_root: DataRoot = None,
    identity: Identity = None,
    without: Annotated[list[str] | None, Option(help="Leave out a task of the mixture; may be repeated.")] = None,
    cache_dir: Annotated[Path | None, Option(help=CACHE)] = None,
    workers: Annotated[int | None, Option(help="Processes; by default one per core.")] = None,
    engine: Annotated[str, Option(help=ENGINE)] = "local",
    address: Annotated[str | None, Option(help="With --engine ray: HOST:PORT or auto; else Ray starts here.")] = None,
    encoder: Annotated[str, Option(help="auto, tiktoken, fastokens or gigatoken; the bytes are the same.")] = "auto",
    max_rejected: Annotated[float, Option(help="Largest share of a source's rows that may be rejected.")] = 0.05,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an output that holds another build.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Print what would be built, and build nothing.")] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Print errors only.")] = False,
    verbose: Annotated[bool, Option("-v", "--verbose", help="Also print what is read, and times.")] = False,
    as_json: Json = False,
) -> None:
    """Build shards from a mixture: render, plan, write."""
    from prep.build import job as building
    from prep.build.options import BuildOptions
    from prep.files import default_cache_dir
    from prep.inspect import build_text as text
    from prep.mixture.mixture import load_mixture
    from prep.tokenizer.load import load_tokenizer, notice_of_nanochat
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
        chat_template=chat_template,
        mask=mask,
        empty_think=empty_think,
        chat_date=chat_date,
        train_on=train_on_choice(train_on),
        max_rejected=max_rejected,
        overwrite=overwrite,
        quiet=quiet,
    )
    warm_up_process()
    loaded = load_mixture(mixture)
    talks = not quiet and not as_json
    if talks and data_root is None and not given(context, "mixture"):
        say_downloads(loaded.without(without or ()), options.cache_dir)
    if tokenizer is None and talks and (notice := notice_of_nanochat()):
        say(notice)
    job = building.make_job(
        loaded, load_tokenizer(tokenizer, pattern), options, data_root, identity, tuple(without or ())
    )
    root = output or Path("shards") / loaded.name
    if dry_run:
        facts = text.dry_run_facts(job, root)
        print_json(facts) if as_json else print("\n".join(text.dry_run_lines(facts)))
        return
    if verbose:
        say("\n".join(text.dry_run_lines(text.dry_run_facts(job, root))))
    manifest, built = building.build(job, root, say)
    if as_json:
        times = {"times": text.read_timings(root)} if verbose and built else {}
        print_json(text.built_facts(root, manifest, built) | times)
        return
    if not quiet:
        print("\n".join(text.built_lines(root, manifest, built)))
    if verbose and built:
        text.print_timings(text.read_timings(root))


def say_downloads(mixture: "Mixture", cache_dir: Path) -> None:
    """To one who named no mixture: what the build is about to fetch, and how to start small"""
    from prep.mixture.downloads import download_lines, find_downloads

    if downloads := find_downloads(mixture, cache_dir):
        say("no --mixture given: default fetches from the Hugging Face Hub what is not in its cache yet, once:")
        for line in download_lines(downloads):
            say(line)
        say("To start small, without a download: midprep build --mixture sample. With a local copy: --data-root DIR.")
