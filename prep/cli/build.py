"""
The command `midprep build`.
"""

from pathlib import Path
from typing import Annotated

from typer import Option

from prep.cli.arguments import DataRoot, Identity, Pattern, TokenizerName, cores, say

EXCESS = "For conversations that are too long: truncate, split, drop or raise."
MAX_TOKENS = (
    "Truncate conversations to this length first; by default only with wrapped: 2048, or max-seq-len if that is more."
)
CACHE = "Cache of rendered blocks, by default $XDG_CACHE_HOME/midprep. It can be deleted at any time."
PACKING = "ordered: whole conversations in the mixture's order; bfd: best fit, least padding; wrapped: one stream."
ENGINE = "local, or ray: tasks on a Ray cluster that shares sources, cache and output as files."


def build(
    mixture: Annotated[str, Option(help="Name of a shipped mixture, or a TOML file.")] = "default",
    output: Annotated[Path | None, Option("-o", "--output", help="Directory; by default shards/NAME.")] = None,
    max_seq_len: Annotated[int, Option(help="Inputs per row; a row holds one token more.")] = 2048,
    packing: Annotated[str, Option(help=PACKING)] = "ordered",
    excess_length_strategy: Annotated[str, Option(help=EXCESS)] = "truncate",
    max_tokens: Annotated[int | None, Option(help=MAX_TOKENS)] = None,
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
) -> None:
    """Build shards from a mixture: render, plan, write."""
    from prep.build import job as building
    from prep.build.options import BuildOptions
    from prep.files import default_cache_dir
    from prep.inspect.build_text import built_lines, dry_run_lines, print_timings, read_timings
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
        max_rejected=max_rejected,
        overwrite=overwrite,
        quiet=quiet,
    )
    warm_up_process()
    loaded = load_mixture(mixture)
    if tokenizer is None and not quiet and (notice := notice_of_nanochat()):
        say(notice)
    job = building.make_job(
        loaded, load_tokenizer(tokenizer, pattern), options, data_root, identity, tuple(without or ())
    )
    root = output or Path("shards") / loaded.name
    if dry_run:
        print("\n".join(dry_run_lines(job, root)))
        return
    if verbose:
        say("\n".join(dry_run_lines(job, root)))
    manifest, built = building.build(job, root, say)
    if not quiet:
        print("\n".join(built_lines(root, manifest, built)))
    if verbose and built:
        print_timings(read_timings(root))
