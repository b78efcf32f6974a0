"""
Build: render, plan, write. Everything that a build does, in its order.

    render   rows -> runs       in parallel over units of rows; what the cache has is checked and kept
    plan     lengths -> rows    numpy, one process
    write    runs -> shards     in parallel over shards; the manifest comes last, then one rename

The bytes depend on sources, tokenizer, mixture and options, and on nothing else: not on workers, cache, time or place.
"""

import resource
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prep.build.options import BuildOptions
from prep.build.output import Output, fingerprint, state
from prep.build.rejected import RejectedRows, write_rejected
from prep.build.split import SplitJob, build_split
from prep.build.timings import BuildTimer
from prep.encode.encode import choose_engine
from prep.files import remove_abandoned
from prep.mixture.mixture import Mixture
from prep.mixture.resolve import Input, resolve
from prep.plan import rows as plan
from prep.plan.overlap import exact_overlap
from prep.render import render
from prep.render.block_cache import BlockFiles, block_key, block_path
from prep.render.blocks import RenderContext, WorkItem, render_unit
from prep.shard import FORMAT, VERSION, Manifest, read_manifest, token_dtype, write_manifest
from prep.tokenizer.tokenizer import Tokenizer
from prep.workers import run
from prep.workers.progress import Progress

MANY_FILES = 1 << 16
SMALL_BUILD = 16_384  # rows; a worker takes half a second to start, in which one process has rendered them


@dataclass(frozen=True)
class Job:
    """A build that is resolved: all that decides its bytes is known."""

    mixture: Mixture
    inputs: dict[str, list[Input]]
    tokenizer: Tokenizer
    options: BuildOptions
    without: tuple[str, ...] = ()

    def description(self) -> dict[str, Any]:
        """What the bytes depend on; the fingerprint is its hash"""
        return {
            "mixture": {
                "name": self.mixture.name,
                "without": sorted(self.without),
                **({"mix": mix} if (mix := self.mixture.mix.describe()) else {}),
                **{split: [one.describe() for one in inputs] for split, inputs in self.inputs.items()},
            },
            "seed": self.mixture.seed,
            "max_seq_len": self.options.max_seq_len,
            "packing_strategy": self.options.packing,
            "excess_length_strategy": self.options.excess_length_strategy,
            "max_tokens": self.options.token_limit,
            "tokenizer": self.tokenizer.sha256,
            "renderer_version": render.VERSION,
            "planner_version": plan.VERSION,
        }

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.description())

    def block_files(self, one: Input) -> BlockFiles:
        """Where the runs of an input are, or will be"""
        bounds = one.source.bounds
        keys = [block_key(one.content_key, a, b, self.tokenizer.sha256, render.VERSION) for a, b in pairwise(bounds)]
        paths = tuple(block_path(self.options.cache_dir, key) for key in keys)
        return BlockFiles(np.array(bounds, dtype=np.int64), paths)

    def split(self, name: str) -> SplitJob:
        inputs = self.inputs[name]
        runs = [self.block_files(one) for one in inputs]
        held_out = self.split("val") if name == "train" and self.mixture.mix.drop_overlap else None
        return SplitJob(name, inputs, runs, self.tokenizer, self.mixture.seed, self.options, self.mixture.mix, held_out)

    def units(self) -> list[WorkItem]:
        """The units of rows to render, each block once, however many entries use it"""
        seen: set[Path] = set()
        units = []
        for inputs in self.inputs.values():
            for one in inputs:
                files = self.block_files(one)
                path_of = dict(zip(files.starts.tolist(), files.paths, strict=False))
                for bounds in one.source.units:
                    paths = tuple(path_of[bound] for bound in bounds[:-1])
                    if paths[0] not in seen:
                        seen.update(paths)
                        units.append(WorkItem(one.task, one.source, one.entry.seed, one.split or "", bounds, paths))
        return units


def make_job(
    mixture: Mixture,
    tokenizer: Tokenizer,
    options: BuildOptions,
    data_root: Path | None = None,
    identity: Path | None = None,
    without: tuple[str, ...] = (),
) -> Job:
    """Resolve the sources of a build. ValueError or FileNotFoundError where one is missing."""
    choose_engine(tokenizer, options.encoder)
    mixture = mixture.without(without) if without else mixture
    if identity is not None and not any(one.task == "identity" for some in mixture.splits.values() for one in some):
        raise ValueError(f"--identity {identity}: the mixture {mixture.name!r} has no identity task: leave it out.")
    return Job(mixture, resolve(mixture, data_root, identity, options.cache_dir), tokenizer, options, without)


def build(job: Job, root: str | Path, say: Callable[[str], None] = lambda line: None) -> tuple[Manifest, bool]:
    """
    Build a job into `root`; returns the manifest, and whether anything had to be done. ValueError if `root` holds
    something else and options.overwrite is not set.
    """
    root = Path(root)
    allow_many_files()
    with Output(root) as output:
        found, words = state(root, job.fingerprint, job.description())
        if found == "current":
            return read_manifest(root), False
        if found == "foreign" or (found != "absent" and not job.options.overwrite):
            advice = (
                "give another -o DIR" if found == "foreign" else "replace it with --overwrite, or give another -o DIR"
            )
            raise ValueError(words if found == "broken" and words.endswith(".") else f"{words}: {advice}.")
        staging = output.prepare()
        record = BuildTimer()
        splits = render_and_write(job, staging, record, say)
        manifest = make_manifest(job, splits, staging)
        record.write(staging, root, job.options, choose_engine(job.tokenizer, job.options.encoder))
        write_manifest(staging, manifest)
        output.publish()
    return manifest, True


def allow_many_files() -> None:
    """
    Raise the limit on open files. Every run (8,192 rows) is mapped, and so open, while it is planned or written; most systems
    start with a limit of 1,024, and a process may raise its own up to the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(MANY_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def render_and_write(
    job: Job, staging: Path, record: BuildTimer, say: Callable[[str], None]
) -> dict[str, tuple[Manifest, list[RejectedRows]]]:
    """The three passes. A cache can be deleted at any time: what it lost since it was rendered is rendered again."""
    while True:
        render_all(job, record, say)
        try:
            jobs = {name: job.split(name) for name in job.inputs}
            splits = {name: build_split(one, staging, record) for name, one in jobs.items()}
            if "val" in splits:
                with record.measure("overlap"):
                    runs = {name: one.runs for name, one in jobs.items()}
                    exact_overlap(staging, runs, {name: split for name, (split, _) in splits.items()})
            return splits
        except FileNotFoundError as error:
            if not str(error.filename).startswith(str(job.options.cache_dir)):
                raise
            say(f"{error.filename} went from the cache while the build ran: rendering what is missing again.")


def render_all(job: Job, record: BuildTimer, say: Callable[[str], None]) -> None:
    """The render pass: afterwards every run is in the cache and whole."""
    units = job.units()
    total = sum(unit.bounds[-1] - unit.bounds[0] for unit in units)
    context = RenderContext(job.tokenizer, job.options.encoder)
    missing = sum(u.bounds[-1] - u.bounds[0] for u in units if not all(path.exists() for path in u.paths))
    kind = "here" if missing <= SMALL_BUILD else "processes"
    with Progress("render", total, job.options.quiet) as progress, record.measure("render") as measured:
        for _, blocks in run(render_unit, context, units, job.options.where, kind):
            for block in blocks:
                progress.add(block.conversations, block.tokens)
                measured.add(block.conversations, block.tokens, block.state, block.num_bytes)
    if measured.states["rendered"]:
        remove_abandoned(job.options.cache_dir)
    if measured.states["damaged"]:
        say(
            f"{measured.states['damaged']} cached runs in {job.options.cache_dir} were damaged and were rendered again."
        )


def make_manifest(job: Job, splits: dict[str, tuple[Manifest, list[RejectedRows]]], staging: Path) -> Manifest:
    """Everything but times and places: two builds of the same thing have equal manifests."""
    tokenizer, description = job.tokenizer, job.description()
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": job.fingerprint,
        **{key: description[key] for key in ("mixture", "seed", "max_seq_len", "packing_strategy")},
        **{key: description[key] for key in ("excess_length_strategy", "max_tokens")},
        "token_dtype": token_dtype(tokenizer.vocab_size).name,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "pad_id": tokenizer.bos_id,
        "tokenizer": {
            "name": tokenizer.name,
            "sha256": tokenizer.sha256,
            "special_tokens": dict(sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])),
        },
        "renderer_version": render.VERSION,
        "planner_version": plan.VERSION,
        "splits": {name: split for name, (split, _) in splits.items()},
        "files": {
            **tokenizer.write(staging),
            "rejected.jsonl": write_rejected(
                staging / "rejected.jsonl", [one for _, some in splits.values() for one in some]
            ),
        },
    }
