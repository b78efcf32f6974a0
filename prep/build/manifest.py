"""
What a build says of itself: counts of every source and split, and the one place where keys of the manifest are spelled.

    rows of a source = conversations - extra pieces + rejected          by copy: a row of an entry with repeat = 2 counts twice
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array, offsets
from prep.build.changes import OPTIONAL, fingerprint
from prep.build.rejected import culprit_by_reason, find_culprits, write_rejected
from prep.build.write import WrittenShard
from prep.chat.choose import TEMPLATE_FILE, AnyTemplate, bos_of, pad_of
from prep.jinja.format import JinjaTemplate
from prep.mixture.resolve import Input
from prep.plan.overlap import count_overlap, read_user_hashes
from prep.plan.sampling import takes_part
from prep.plan.split import PlannedCounts, SplitJob, SplitPlan, piece_loss_tokens
from prep.plan.table import RejectedExamples
from prep.shard import COUNTS, DOC, FORMAT, VERSION, Manifest, token_dtype, write_array, write_bytes, write_rows
from prep.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class SourceCounts:
    """What became of one entry of a split."""

    source: Input
    planned: PlannedCounts
    conversations: int  # in the split, as all that follows; a piece of a split one counts as one
    total_tokens: int
    trainable_tokens: int
    untrained: int  # conversations without a loss token
    notes: dict[str, Any]  # of all rows of the source: left_aside, empty_answers, untrained_answers
    culprits: dict[str, str]  # of each reason, in its first row

    def to_manifest(self, total: dict[str, int], by: str, overlap: tuple[int, int] | None) -> dict[str, Any]:
        """Its part of the manifest; `total` are the counts of the split, `by` what proportions are of"""
        planned = self.planned
        task, has_context = self.source.task, "untrained_answers" in self.notes
        entry = {
            **self.source.describe(),
            **({"train_flags": has_context} if has_context or task.layout or task.is_custom else {}),
            "rows": planned.rows,
            "rejected": planned.rejected,
            "truncated": planned.truncated,
            "extra_pieces": planned.extra_pieces,
            "conversations": self.conversations,
            "total_tokens": self.total_tokens,
            "trainable_tokens": self.trainable_tokens,
            "untrained": self.untrained,
            **self.notes,
            **({"culprits": self.culprits} if self.culprits else {}),
        }
        if takes_part(self.source.entry):
            number, num_usable = planned.sample.size, planned.num_usable
            entry["repeat"] = number / num_usable if num_usable else 0.0  # above the number of its last copy
            entry["not_chosen"] = num_usable - number if not planned.sample.copies else 0
            entry["share"] = self._describe_share(number, entry, total, by)
        if overlap is not None:
            entry["overlap"] = {"asked_in_train": overlap[0], "of": overlap[1]}
        return entry

    def _describe_share(self, number: int, entry: dict[str, Any], total: dict[str, int], by: str) -> dict[str, Any]:
        """What the mixture asked of the entry, and what it got"""
        keys = self.source.entry
        if keys.proportion is not None:
            counted = {"tokens": "total_tokens", "trained_tokens": "trainable_tokens"}.get(by, by)
            got = round(entry[counted] / total[counted], 6) if total[counted] else 0.0
            return {"of": by, "asked": keys.proportion, "got": got, "limited": self.planned.sample.limited}
        if keys.choose is not None:
            return {"of": "choose", "asked": keys.choose, "got": number}
        return {"of": "repeat", "asked": keys.repeat, "got": round(entry["repeat"], 6)}


def count_sources(
    split: SplitJob, plan: SplitPlan, shards: list[WrittenShard], culprits: list[dict[int, str]]
) -> list[SourceCounts]:
    """The counts of every entry of a split that is written"""
    counts = []
    for number, (source, planned) in enumerate(zip(split.inputs, plan.counts, strict=True)):
        lengths, loss_tokens = _document_tokens(split, plan, shards, number)
        counts.append(
            SourceCounts(
                source=source,
                planned=planned,
                conversations=len(lengths),
                total_tokens=int(lengths.sum(dtype=np.int64)),
                trainable_tokens=int(loss_tokens.sum(dtype=np.int64)),
                untrained=int((loss_tokens == 0).sum()),
                notes=split.blocks[number].notes(),
                culprits=culprit_by_reason(plan.rejected[number], culprits[number]),
            )
        )
    return counts


def _document_tokens(split: SplitJob, plan: SplitPlan, shards: list[WrittenShard], source: int) -> tuple[Array, Array]:
    """Tokens and loss tokens of every conversation, or piece of one, of a source"""
    if split.options.wrapped:  # rows share tokens, so conversations are counted, not what rows hold of them
        pieces = plan.pieces[plan.pieces["source"] == source]
        return pieces["length"], piece_loss_tokens(pieces, split.blocks[source])
    docs = [shard.docs[shard.docs["source"] == source] for shard in shards]
    return np.concatenate([each["length"] for each in docs]), np.concatenate([each["trainable"] for each in docs])


@dataclass(frozen=True)
class BuiltSplit:
    """A split that is written."""

    job: SplitJob
    counts: list[SourceCounts]
    rejected: list[tuple[RejectedExamples, dict[int, str]]]  # with what is wrong in some
    num_rows: int
    num_docs: int
    num_tokens: int  # filled positions of all rows
    rows_without_trainable: int
    shards: list[dict[str, Any]]
    files: dict[str, dict[str, Any]]
    overlaps: list[tuple[int, int] | None]  # by source, of val: see `find_overlaps`

    def to_manifest(self) -> Manifest:
        """The split's part of the manifest"""
        width, mix = self.job.options.max_seq_len + 1, self.job.mix
        total = {key: sum(getattr(source, key) for source in self.counts) for key in COUNTS}
        split: Manifest = {
            "rows": self.num_rows,
            "docs": self.num_docs,
            **total,
            "padding_tokens": self.num_rows * width - self.num_tokens,
            "packing_efficiency": round(self.num_tokens / (self.num_rows * width), 6),
            "min_rows": -(-total["total_tokens"] // width),
            "rows_without_trainable": self.rows_without_trainable,
            "sources": [
                source.to_manifest(total, mix.by, overlap)
                for source, overlap in zip(self.counts, self.overlaps, strict=True)
            ],
            "shards": self.shards,
            "files": self.files,
        }
        if mix.dedup is not None:
            split["duplicates"] = {
                "left_out": sum(source.planned.rejected.get("duplicate", 0) for source in self.counts)
            }
        return split


def finish_split(split: SplitJob, plan: SplitPlan, shards: list[WrittenShard], staging: Path) -> BuiltSplit:
    """Count what is in a split, and write its rows and documents"""
    culprits = [find_culprits(rejected, split.template, split.tokenizer) for rejected in plan.rejected]
    counts = count_sources(split, plan, shards, culprits)
    num_docs = [len(shard.docs) for shard in shards]
    rows = np.concatenate([shard.rows for shard in shards])
    rows["first_doc"] += np.repeat(offsets(num_docs)[:-1].astype("u8"), [len(shard.rows) for shard in shards])
    docs_file = staging / f"{split.name}.docs.npy"
    files = {
        f"{split.name}.rows.npy": write_array(staging / f"{split.name}.rows.npy", rows),
        f"{split.name}.docs.npy": write_rows(docs_file, DOC, (sum(num_docs),), (shard.docs for shard in shards)),
    }
    return BuiltSplit(
        job=split,
        counts=counts,
        rejected=list(zip(plan.rejected, culprits, strict=True)),
        num_rows=len(rows),
        num_docs=sum(num_docs),
        num_tokens=int(rows["num_tokens"].sum(dtype=np.int64)),
        rows_without_trainable=int((rows["num_trainable"] == 0).sum()),
        shards=[{"name": shard.name, "rows": len(shard.rows), "files": shard.files} for shard in shards],
        files=files,
        overlaps=[None] * len(split.inputs),
    )


def find_overlaps(splits: dict[str, BuiltSplit], staging: Path) -> list[tuple[int, int] | None]:
    """Of each val source, how many of its examples train asks also, and of how many; None for what is generated"""
    hashes = {}
    for name in ("train", "val"):
        docs = np.load(staging / f"{name}.docs.npy", mmap_mode="r")
        source, index = docs["source"], docs["index"].astype(np.int64)
        blocks = splits[name].job.blocks
        hashes[name] = [read_user_hashes(files, np.unique(index[source == i])) for i, files in enumerate(blocks)]
    return count_overlap(hashes["train"], hashes["val"])


def make_manifest(
    description: dict[str, Any],
    tokenizer: Tokenizer,
    template: AnyTemplate,
    splits: dict[str, BuiltSplit],
    staging: Path,
) -> Manifest:
    """
    The manifest of a build, for which the tokenizer and the rejected examples are written; `description` is what its bytes
    depend on (Job.description). Everything but times and places: two builds of the same thing have equal manifests.
    """
    rejected = [(name, *examples) for name, split in splits.items() for examples in split.rejected]
    decided = ("mixture", "seed", "max_seq_len", "packing_strategy", "excess_length_strategy", "max_tokens")
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint(description),
        **{key: description[key] for key in decided},
        "token_dtype": token_dtype(tokenizer.vocab_size).name,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": bos_of(template, tokenizer),
        "pad_id": pad_of(template, tokenizer),
        "tokenizer": {
            "name": tokenizer.name,
            "sha256": tokenizer.sha256,
            "special_tokens": dict(sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])),
        },
        **{key: description[key] for key in OPTIONAL if key in description},
        "renderer_version": description["renderer_version"],
        "planner_version": description["planner_version"],
        "splits": {name: split.to_manifest() for name, split in splits.items()},
        "files": {
            **_write_tokenizer(tokenizer, template, staging),
            "rejected.jsonl": write_rejected(staging / "rejected.jsonl", rejected),
        },
    }


def _write_tokenizer(tokenizer: Tokenizer, template: AnyTemplate, staging: Path) -> dict[str, dict[str, Any]]:
    """The tokenizer's files, and a Jinja template in the place of the one that lay beside it"""
    files = tokenizer.write(staging)
    if isinstance(template, JinjaTemplate):
        files.pop(TEMPLATE_FILE, None)
        files[TEMPLATE_FILE] = write_bytes(staging / TEMPLATE_FILE, template.format.source.encode())
    return files
