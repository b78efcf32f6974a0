"""
Build: render, plan, write. Everything that a build does, in its order.

    render   examples -> blocks    in parallel over items of blocks; what the cache has is checked and kept
    plan     lengths -> rows       numpy, one process
    write    blocks -> shards      in parallel over shards; the manifest comes last, then one rename

The bytes depend on sources, tokenizer, mixture and options, and on nothing else: not on workers, cache, time or place.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prep.build.changes import fingerprint
from prep.build.manifest import BuiltSplit, find_overlaps, finish_split, make_manifest
from prep.build.options import BuildOptions
from prep.build.output import Output
from prep.build.record import BuildInputs, BuildTimer
from prep.build.rejected import check_rejected, check_trained
from prep.build.write import write_split
from prep.chat.choose import AnyTemplate, choose_template
from prep.conversations.layouts import REASONING_FIELDS
from prep.encode.encode import choose_engine
from prep.files import allow_open_files, remove_abandoned
from prep.mixture.mixture import Mixture
from prep.mixture.resolve import Input, resolve
from prep.plan.rows import VERSIONS
from prep.plan.split import SplitJob, plan_split
from prep.plan.table import read_table
from prep.render import render
from prep.render.block_cache import BlockFiles, block_key, block_path
from prep.render.blocks import RenderContext, WorkItem, render_item
from prep.shard import Manifest, read_manifest, token_dtype, write_manifest
from prep.tokenizer.tokenizer import Tokenizer
from prep.workers import run

Say = Callable[[str], None]

MANY_FILES = 1 << 16  # every block (8,192 rows) is mapped, and so open, while it is planned or written
CACHE_ATTEMPTS = 20  # of the passes, for a cache that somebody else deletes
SMALL_BUILD = 16_384  # rows; a worker takes half a second to start, in which one process has rendered them


@dataclass(frozen=True)
class Job:
    """A build that is resolved: all that decides its bytes is known."""

    mixture: Mixture
    inputs: dict[str, list[Input]]  # by split
    tokenizer: Tokenizer
    template: AnyTemplate
    options: BuildOptions
    made_from: BuildInputs  # what build.json says of it
    description: dict[str, Any]  # what the bytes depend on
    fingerprint: str  # its hash

    def block_files(self, source: Input) -> BlockFiles:
        """Where the blocks of an input are, or will be"""
        bounds = source.source.bounds
        tokenizer, version = self.tokenizer.sha256, render.VERSION
        key = (source.content_key, tokenizer, version, *self.template.key)
        if token_dtype(self.tokenizer.vocab_size) != token_dtype(self.tokenizer.num_ids):
            key += (token_dtype(self.tokenizer.vocab_size).str,)  # a model may have more ids than its tokenizer
        keys = [block_key(key[0], start, stop, *key[1:]) for start, stop in pairwise(bounds)]
        paths = tuple(block_path(self.options.cache_dir, key) for key in keys)
        return BlockFiles(np.array(bounds, dtype=np.int64), paths)

    def items(self) -> list[WorkItem]:
        """The blocks to render, each once, however many entries use it"""
        seen: set[Path] = set()
        items = []
        reads = REASONING_FIELDS if self.template.reads_reasoning else ()
        for source in (source for inputs in self.inputs.values() for source in inputs):
            files = self.block_files(source)
            path_of = dict(zip(files.starts.tolist(), files.paths, strict=False))
            for bounds in source.source.units:
                paths = tuple(path_of[bound] for bound in bounds[:-1])
                if paths[0] not in seen:
                    seen.update(paths)
                    items.append(
                        WorkItem(
                            source.task, source.source, source.entry.seed, source.split or "", bounds, paths, reads
                        )
                    )
        return items

    def split(self, name: str) -> SplitJob:
        return SplitJob(
            name=name,
            inputs=self.inputs[name],
            blocks=[self.block_files(source) for source in self.inputs[name]],
            tokenizer=self.tokenizer,
            template=self.template,
            seed=self.mixture.seed,
            options=self.options,
            mix=self.mixture.mix,
            held_out=self.split("val") if name == "train" and self.mixture.mix.drop_overlap else None,
        )


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
    template = choose_template(mixture.chat | options.chat, tokenizer)
    made_from = BuildInputs(mixture, data_root, identity)
    mixture = mixture.without(without) if without else mixture
    entries = [entry for entries in mixture.splits.values() for entry in entries]
    if identity is not None and not any(entry.task == "identity" for entry in entries):
        raise ValueError(f"--identity {identity}: the mixture {mixture.name!r} has no identity task: leave it out.")
    inputs = resolve(mixture.with_train_on(template.train_on), data_root, identity, options.cache_dir)
    sources = {split: [source.describe() for source in inputs] for split, inputs in inputs.items()}
    mix = mixture.mix.describe()
    description = {
        "mixture": {"name": mixture.name, "without": sorted(without), **({"mix": mix} if mix else {}), **sources},
        "seed": mixture.seed,
        "max_seq_len": options.max_seq_len,
        "packing_strategy": options.packing,
        "excess_length_strategy": options.excess_length_strategy,
        "max_tokens": options.token_limit,
        "tokenizer": tokenizer.sha256,
        **({} if template.is_default else {"chat_template": template.describe()}),
        **({"model_vocab_size": tokenizer.vocab_size} if tokenizer.vocab_size > tokenizer.num_ids else {}),
        "renderer_version": render.VERSION,
        "planner_version": VERSIONS[options.packing],
    }
    return Job(mixture, inputs, tokenizer, template, options, made_from, description, fingerprint(description))


def build(job: Job, root: str | Path, say: Say = lambda line: None) -> tuple[Manifest, bool]:
    """
    Build a job into `root`; returns the manifest, and whether anything had to be done. ValueError if `root` holds
    something else and options.overwrite is not set.
    """
    root = Path(root)
    allow_open_files(MANY_FILES)
    with Output(root) as output:
        if output.holds(job.fingerprint, job.description, job.options.overwrite):
            return read_manifest(root), False
        staging, timer = output.prepare(), BuildTimer(job.options.quiet)
        splits = run_passes(job, staging, timer, say)
        manifest = make_manifest(job.description, job.tokenizer, job.template, splits, staging)
        encoder = choose_engine(job.tokenizer, job.options.encoder)
        timer.write(staging, root, job.options, encoder, job.made_from)
        write_manifest(staging, manifest)
        output.publish()
    return manifest, True


def run_passes(job: Job, staging: Path, timer: BuildTimer, say: Say) -> dict[str, BuiltSplit]:
    """
    The three passes. A cache can be deleted at any time: what it lost since it was rendered is rendered again. ValueError where
    that happens all the time.
    """
    for _ in range(CACHE_ATTEMPTS):
        try:
            render_all(job, timer, say)
            splits = {name: build_split(job, name, staging, timer) for name in job.inputs}
            if "val" in splits:
                with timer.measure("overlap"):
                    splits["val"] = replace(splits["val"], overlaps=find_overlaps(splits, staging))
            return splits
        except FileNotFoundError as error:
            if not str(error.filename).startswith(str(job.options.cache_dir)):
                raise
            say(f"{error.filename} went from the cache while the build ran: rendering what is missing again.")
    raise ValueError(
        f"{job.options.cache_dir} lost files {CACHE_ATTEMPTS} times while the build ran: let nothing delete them, or give "
        "another --cache-dir."
    )


def render_all(job: Job, timer: BuildTimer, say: Say) -> None:
    """The render pass: afterwards every block is in the cache and whole."""
    items, options = job.items(), job.options
    num_rows = sum(item.bounds[-1] - item.bounds[0] for item in items)
    num_missing = sum(
        item.bounds[-1] - item.bounds[0] for item in items if not all(path.exists() for path in item.paths)
    )
    kind = "here" if num_missing <= SMALL_BUILD else "processes"
    context = RenderContext(job.tokenizer, options.encoder, job.template)
    with timer.measure("render", num_rows) as timing:
        for _, blocks in run(render_item, context, items, options, kind):
            for block in blocks:
                timing.add(block.conversations, block.tokens, block.state, block.num_bytes)
    remove_abandoned(options.cache_dir)
    if num_damaged := timing.states["damaged"]:
        say(f"{num_damaged} cached blocks in {options.cache_dir} were damaged and were rendered again.")


def build_split(job: Job, name: str, staging: Path, timer: BuildTimer) -> BuiltSplit:
    """Plan and write a split"""
    split, options = job.split(name), job.options
    with timer.measure("plan") as timing:
        for source, blocks in zip(split.inputs, split.blocks, strict=True):
            check_trained(source, blocks, job.template.train_on)
        table = read_table(split.inputs, split.blocks)
        plan = plan_split(split, check_rejected(table, name, options.max_rejected, job.template, job.tokenizer))
        timing.add(len(plan.pieces), int(plan.pieces["length"].sum(dtype=np.int64)))
    with timer.measure("write", sum(len(shard.pieces) for shard in plan.shards)) as timing:
        shards = write_split(split, plan, staging, options, timing)
    return finish_split(split, plan, shards, staging)
