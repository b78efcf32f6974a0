"""
The proof of a build: built again from its sources, in a scratch folder and with an empty cache, and compared byte by byte.

    b.jsonl: other contents than the build was made from (sha256 9f2c..., the manifest says 51ab...)
    train-00000.tokens.npy: other bytes than in the rebuild
"""

import filecmp
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prep.build.changes import changes
from prep.build.job import Job, build, make_job
from prep.build.options import BuildOptions
from prep.build.record import BuildInputs
from prep.chat.choose import template_keys
from prep.files import default_cache_dir, scratch_folder
from prep.shard import read_manifest
from prep.tokenizer.load import load_tokenizer


def differences(root: Path, inputs: BuildInputs, workers: int, say: Callable[[str], None]) -> Iterator[str]:
    """Build again from the sources, in a scratch folder and with an empty cache, and compare every byte."""
    manifest = read_manifest(root)
    wrapped = manifest["packing_strategy"] == "wrapped"
    with scratch_folder(default_cache_dir()) as folder:
        options = BuildOptions(
            max_seq_len=manifest["max_seq_len"],
            packing=manifest["packing_strategy"],
            # an older build may have one that has no effect: that is told as a difference
            excess_length_strategy="truncate" if wrapped else manifest["excess_length_strategy"],
            max_tokens=manifest["max_tokens"],
            cache_dir=folder / "cache",
            workers=workers,
            max_rejected=1.0,
        )
        mixture = replace(inputs.mixture, seed=manifest["seed"], chat=template_keys(manifest, root))
        without = tuple(manifest["mixture"]["without"])
        tokenizer = replace(load_tokenizer(root), name=manifest["tokenizer"]["name"])
        job = make_job(mixture, tokenizer, options, inputs.data_root, inputs.identity, without)
        if job.fingerprint != manifest["fingerprint"]:
            yield from changed_files(manifest, job)
            yield from changes(manifest, job.description)
            return
        build(job, folder / "build", say)
        yield from differing_files(root, folder / "build")


def changed_files(manifest: Mapping[str, Any], job: Job) -> Iterator[str]:
    """Files whose contents are not those that the build was made from: a line for each source"""
    for split, inputs in job.inputs.items():
        built = {source["name"]: source for source in manifest["mixture"].get(split, [])}
        for source, now in zip(inputs, job.description["mixture"][split], strict=True):
            then = built.get(now["name"], now)
            if source.source.files and then["sha256"] != now["sha256"] and then["revision"] == now["revision"]:
                names = ", ".join(map(str, source.source.files))
                yield (
                    f"{names}: other contents than the build was made from (sha256 {now['sha256'][:12]}, the manifest says "
                    f"{then['sha256'][:12]}): put the old file back, or build again"
                )


def differing_files(root: Path, other: Path) -> Iterator[str]:
    """Files of two builds that are not equal, build.json aside"""
    names = {path.name for folder in (root, other) for path in folder.iterdir()} - {"build.json"}
    for name in sorted(names):
        ours, theirs = root / name, other / name
        if not (ours.is_file() and theirs.is_file()):
            yield f"{name}: only in {root if ours.is_file() else 'the rebuild'}"
        elif not filecmp.cmp(ours, theirs, shallow=False):
            yield f"{name}: other bytes than in the rebuild"
