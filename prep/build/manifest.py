"""
What a build says of itself: counts of every source and split, and the one place where keys of the manifest are spelled.

    rows of a source = conversations - extra pieces + rejected          by copy: a row of an entry with repeat = 2 counts twice
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prep.arrays import Array, offsets
from prep.build.write import WrittenShard
from prep.mixture.resolve import Input
from prep.plan.overlap import count_overlap, read_user_hashes
from prep.plan.sampling import Sample
from prep.plan.split import SplitJob, SplitPlan, piece_loss_tokens
from prep.plan.table import RejectedExamples
from prep.shard import COUNTS, DOC, Manifest, write_array, write_rows


@dataclass(frozen=True)
class SourceCounts:
    """What became of one entry of a split. Counts of tokens and conversations are of what is in the split."""

    source: Input
    rows: int  # that the entry selects, copies counted
    rejected: dict[str, int]  # by reason
    truncated: int
    extra_pieces: int
    conversations: int
    total_tokens: int
    trainable_tokens: int
    untrained: int  # conversations without a loss token
    sample: Sample
    num_usable: int

    def to_manifest(self, total: dict[str, int], by: str, overlap: tuple[int, int] | None) -> dict[str, Any]:
        """Its part of the manifest; `total` are the counts of the split, `by` what proportions are of"""
        entry = {
            **self.source.describe(),
            "rows": self.rows,
            "rejected": self.rejected,
            "truncated": self.truncated,
            "extra_pieces": self.extra_pieces,
            "conversations": self.conversations,
            "total_tokens": self.total_tokens,
            "trainable_tokens": self.trainable_tokens,
            "untrained": self.untrained,
        }
        if self.source.entry.takes_part:
            number = self.sample.size(self.num_usable)
            # of the entry's usable rows; above the number of its last copy
            entry["repeat"] = number / self.num_usable if self.num_usable else 0.0
            entry["not_chosen"] = self.num_usable - number if not self.sample.copies else 0
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
            return {"of": by, "asked": keys.proportion, "got": got, "limited": self.sample.limited}
        if keys.choose is not None:
            return {"of": "choose", "asked": keys.choose, "got": number}
        return {"of": "repeat", "asked": keys.repeat, "got": round(entry["repeat"], 6)}


def count_sources(split: SplitJob, plan: SplitPlan, shards: list[WrittenShard]) -> list[SourceCounts]:
    """The counts of every entry of a split that is written"""
    counts = []
    for number, source in enumerate(split.inputs):
        lengths, loss_tokens = _document_tokens(split, plan, shards, number)
        sample, num_rejected = plan.samples[number], len(plan.rejected[number].examples)
        counts.append(
            SourceCounts(
                source=source,
                rows=sample.size(plan.num_usable[number]) + max(sample.copies, 1) * num_rejected,
                rejected=plan.rejected_by_reason(number),
                truncated=int(plan.fitted.truncated[number]),
                extra_pieces=int(plan.fitted.extra_pieces[number]),
                conversations=len(lengths),
                total_tokens=int(lengths.sum(dtype=np.int64)),
                trainable_tokens=int(loss_tokens.sum(dtype=np.int64)),
                untrained=int((loss_tokens == 0).sum()),
                sample=sample,
                num_usable=plan.num_usable[number],
            )
        )
    return counts


def _document_tokens(split: SplitJob, plan: SplitPlan, shards: list[WrittenShard], source: int) -> tuple[Array, Array]:
    """Tokens and loss tokens of every conversation, or piece of one, of a source"""
    if split.options.wrapped:  # rows share tokens, so conversations are counted, not what rows hold of them
        pieces = plan.fitted.pieces[plan.fitted.pieces["source"] == source]
        return pieces["length"], piece_loss_tokens(pieces, split.blocks[source])
    docs = [shard.docs[shard.docs["source"] == source] for shard in shards]
    return np.concatenate([each["length"] for each in docs]), np.concatenate([each["trainable"] for each in docs])


@dataclass(frozen=True)
class BuiltSplit:
    """A split that is written."""

    job: SplitJob
    counts: list[SourceCounts]
    rejected: list[RejectedExamples]
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
            split["duplicates"] = {"left_out": sum(source.rejected.get("duplicate", 0) for source in self.counts)}
        return split


def finish_split(split: SplitJob, plan: SplitPlan, shards: list[WrittenShard], staging: Path) -> BuiltSplit:
    """Write the rows and documents of a split, and count what is in it"""
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
        counts=count_sources(split, plan, shards),
        rejected=[*plan.rejected, *plan.fitted.dropped],
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
