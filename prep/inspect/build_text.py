"""
What `midprep build` says: before it (--dry-run), at its end, and where its time went (`midprep stats DIR --build`).

    pass     seconds  share  conversations        /s   tokens         /s     bytes
    render      0.55  87.4%          5,522     9,986  487,688    881,896   1.5 MiB
    other       0.04   6.8%                                                             sources opened, ...

The manifest holds no time: a build that was copied without its build.json has none to show.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.build.record import read_record
from prep.chat.choose import read_template
from prep.inspect.stats import TABLE_WIDTH, note_lines, num_rejected, overlap_lines, print_lines, share_lines
from prep.inspect.terminal import make_console, make_table
from prep.shard import COUNTS, Manifest
from prep.shard.chat_format import format_notice
from prep.text import short, size

if TYPE_CHECKING:
    from prep.build.job import Job

CLEAR = 0.001  # seconds from which on a rate means something


def built_lines(root: Path, manifest: Manifest, built: bool) -> list[str]:
    """What a build says at its end"""
    if not built:
        return [f"{root} is up to date: nothing to do."]
    lines = [f"{root} built:"]
    for name, split in manifest["splits"].items():
        sources = split["sources"]
        counts = {
            "rejected": sum(map(num_rejected, sources)),
            "truncated": sum(source["truncated"] for source in sources),
            "further pieces of long ones": sum(source["extra_pieces"] for source in sources),
        }
        lines.append(
            f"  {name:<6} {split['conversations']:,} conversations, {split['total_tokens']:,} tokens "
            f"({split['trainable_tokens']:,} loss tokens), {split['rows']:,} rows of {manifest['max_seq_len']:,}, "
            f"packing efficiency {split['packing_efficiency']:.2%}"
            + "".join(f", {number:,} {what}" for what, number in counts.items() if number)
        )
        if not split["trainable_tokens"]:
            lines.append(f"  {name} has no loss tokens: SFT needs longer rows, or other data.")
        noted = {"sources": [{**source, "rejected_by_reason": source["rejected"]} for source in sources]}
        lines += [f"    {line}" for line in (*share_lines(split), *overlap_lines(split), *note_lines(noted))]
    if "chat_template" in manifest:
        lines.append(f"  {read_template(manifest, root).summary()}")
    notice = format_notice(manifest)
    return [*lines, *([f"  {notice}"] if notice else [])]


def built_facts(root: Path, manifest: Manifest, built: bool) -> dict[str, Any]:
    """The same as plain values: what `midprep build --json` prints"""
    keys = ("rows", *COUNTS, "padding_tokens", "packing_efficiency")
    of_source = ("name", "task", "repeat", "rows", *COUNTS, "truncated", "extra_pieces", "rejected")
    return {
        "root": str(root),
        "built": built,
        "mixture": manifest["mixture"]["name"],
        "fingerprint": manifest["fingerprint"],
        "max_seq_len": manifest["max_seq_len"],
        "notice": format_notice(manifest),
        "splits": {
            name: {
                **{key: split[key] for key in keys},
                "sources": [{key: source[key] for key in of_source} for source in split["sources"]],
            }
            for name, split in manifest["splits"].items()
        },
    }


STATES = {"absent": "would be built", "current": "is up to date"}


def dry_run_facts(job: "Job", root: Path) -> dict[str, Any]:
    """What a build would do: sources, where they come from, how much of them is cached. So does `--dry-run --json` say it."""
    from prep.build.output import state

    kind, words = state(root, job.fingerprint, job.description)
    sources = []
    for split, inputs in job.inputs.items():
        for entry_input in inputs:
            source, paths = entry_input.source, job.block_files(entry_input).paths
            sources.append(
                {
                    "split": split,
                    "name": entry_input.entry.label,
                    "examples": source.num_rows,
                    "blocks": len(paths),
                    "blocks_cached": sum(path.is_file() for path in paths),
                    "files": [os.path.normpath(file) for file in source.files],
                    "revision": source.revision,
                }
            )
    return {
        "root": str(root),
        "state": kind,  # absent, current, different, foreign or broken
        "about": words or STATES[kind],
        "fingerprint": job.fingerprint,
        "sources": sources,
    }


def dry_run_lines(facts: dict[str, Any]) -> list[str]:
    """In words"""
    lines = [f"{facts['root']}: {facts['about']}" if facts["state"] in STATES else facts["about"]]
    for source in facts["sources"]:
        files, revision = source["files"], source["revision"]
        origin = files[0] if files else "generated"
        origin += f" and {len(files) - 1} more" if len(files) > 1 else ""
        origin += f" @ {revision[:12]}" if revision else ""
        lines.append(
            f"  {source['split']:<6} {source['name']:<16} {source['examples']:>9,} examples  "
            f"{source['blocks_cached']} of {source['blocks']} blocks cached  {origin}"
        )
    return lines


# ---- build.json ----


def read_timings(root: Path) -> dict[str, Any]:
    """build.json. FileNotFoundError or ValueError where there is none, or none that can be read."""
    record = read_record(root)
    if record is None:
        raise FileNotFoundError(
            f"{root / 'build.json'} not found: is {root} a finished build? No other file holds its times."
        )
    return record


def print_timings(record: dict[str, Any]) -> None:
    """The passes as a table, and what they ran on, on stdout"""
    console = make_console(TABLE_WIDTH)
    table = make_table("pass", "seconds", "share", "conversations", "/s", "tokens", "/s", "bytes")
    total = max(record["seconds"], 1e-9)
    in_passes = sum(timing["seconds"] for timing in record["passes"].values())
    for name, timing in {**record["passes"], "other": {"seconds": max(0.0, total - in_passes)}}.items():
        table.add_row(name, f"{timing['seconds']:,.2f}", f"{timing['seconds'] / total:.1%}", *_rates(timing))
    table.add_row("all", f"{total:,.2f}", "100.0%", "", "", "", "", size(record.get("bytes", 0)))
    console.print(table)
    print_lines(console, ["", *_machine_lines(record)])


def _rates(timing: dict[str, Any]) -> list[str]:
    """Counts of a pass, conversations and tokens with their rate per second"""
    cells = []
    for key in ("conversations", "tokens"):
        count, seconds = timing.get(key, 0), timing["seconds"]
        cells += [short(count), short(round(count / seconds)) if seconds >= CLEAR else ""] if count else ["", ""]
    return [*cells, size(timing["bytes"]) if timing.get("bytes") else ""]


def _machine_lines(record: dict[str, Any]) -> list[str]:
    blocks = record["passes"].get("render", {}).get("blocks", {})
    workers = f"workers: {record.get('workers') or 'all cores'}"
    if record.get("engine") == "ray":
        workers = f"ray, {record.get('cluster')}, {workers}"
    return [
        f"blocks rendered or found in the cache: {', '.join(f'{number:,} {state}' for state, number in blocks.items())}",
        f"encoder {record.get('encoder')}, {workers}; {record.get('cores')} cores, Python {record.get('python')}, "
        f"{record.get('platform')}",
        " ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        f"finished {record.get('finished')}: {' '.join(map(str, record.get('command', [])))}",
    ]
