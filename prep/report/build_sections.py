"""
Sections of a report about the build itself: rows, sample conversations, what was left out, the launch table, its origin.
"""

import shlex
from typing import TYPE_CHECKING, Any

from prep.build.timings import read_record
from prep.inspect.show import ShownConversation, show_conversation
from prep.report import numbers as report_data
from prep.report.charts import bars, colour, esc, percent, table
from prep.tokenizer.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from prep.report.page import Report

SHOWN_CHARACTERS = 2500  # of a sample conversation
MOST_SAMPLES = 90  # on the page, whatever the number of sources


def rows(report: "Report") -> str:
    entry, T = report.split.entry, report.split.max_seq_len
    over = entry["rows"] - entry["min_rows"]
    found = report_data.padding_by_row(report.split)
    most = max(number for _, number in found)
    shown = [(name, number / most, f"{number:,}") for name, number in found]
    more = f"{over:,} more ({over / max(entry['min_rows'], 1):.2%})" if over else "as many as there are"
    none = entry["rows_without_trainable"]
    return (
        f"<p>{entry['rows']:,} rows are filled to {entry['packing_efficiency']:.2%}. The tokens need at least "
        f"{entry['min_rows']:,} rows of {T + 1:,}: {more}. {entry['padding_tokens']:,} positions are padding, which is "
        "never a target.</p><h3>Rows by their padding, in tokens</h3>"
        + bars(shown)
        + (f'<p class="note">Rows without a target in SFT, which skips them: {none:,}.</p>' if none else "")
    )


# ---- conversations ----


def samples(report: "Report") -> str:
    tokenizer, names = load_tokenizer(report.root), report.names
    each = max(1, min(report_data.NUM_SAMPLES, MOST_SAMPLES // len(names)))
    talks = [
        talk(show_conversation(report.split, tokenizer, doc), k)
        for k, docs in enumerate(report.scan.samples)
        for doc in docs[:each]
    ]
    there = [k for k, docs in enumerate(report.scan.samples) if docs]
    chips = '<input type="radio" name="source" id="f-all" checked><label for="f-all">all</label>' + "".join(
        f'<input type="radio" name="source" id="f-{k}"><label for="f-{k}">{esc(names[k])}</label>' for k in there
    )
    rules = "".join(f"#samples:has(#f-{k}:checked) .talk:not(.s{k}){{display:none}}" for k in there)
    return (
        f"<style>{rules}</style><p>Drawn at random. <mark>Marked text</mark> is trained in SFT; the rest is context. "
        'Labels stand for special tokens.</p><fieldset class="filter"><legend>Source</legend>'
        f'{chips}</fieldset><div class="talks">{"".join(talks)}</div>'
    )


def talk(shown: ShownConversation, source: int) -> str:
    """One conversation, a block for each message"""
    turns, left = [""], SHOWN_CHARACTERS  # <|bos|> stands in the block of the first message
    for segment in shown["segments"]:
        text = segment["text"]
        if segment["special"]:
            if text in ("<|user_start|>", "<|assistant_start|>") and len(turns[-1]) > len("<i>bos</i>"):
                turns.append("")
            style = ' class="t"' if segment["trained"] else ""
            turns[-1] += f"<i{style}>{esc(text.strip('<|>'))}</i>"
            continue
        part = esc(text[:left])
        turns[-1] += f"<mark>{part}</mark>" if segment["trained"] else part
        left -= len(text)
        if left <= 0:
            turns.append("… the rest is left out here; midprep show has all of it")
            break
    blocks = "".join(f'<div class="turn" dir="auto">{turn}</div>' for turn in turns if turn)
    blocks = f'<div class="turns" role="group" tabindex="0" aria-label="Conversation">{blocks}</div>'
    copy = f", copy {shown['repeat'] + 1}" if shown["repeat"] else ""
    return (
        f'<article class="talk s{source}" style="--line:{colour(source)}"><header><b>{esc(shown["source"])}</b>'
        f"<span>source row {shown['index']:,}{copy} · row {shown['row']:,}, position {shown['position']:,} · "
        f"{shown['length']:,} tokens, {percent(shown['trained_share'])} trained</span></header>{blocks}</article>"
    )


# ---- what was left out, or is there twice ----


def overlap(report: "Report") -> str:
    """What the manifest says of duplicates and of overlap with the val split; nothing where it says nothing"""
    out = ""
    for title, key in (("Duplicates", "duplicates"), ("Overlap", "overlap")):
        lines = [(name, split.get(key)) for name, split in report.shards.manifest["splits"].items()]
        lines += [
            (f"{name}, {source['name']}", source.get(key))
            for name, split in report.shards.manifest["splits"].items()
            for source in split["sources"]
        ]
        flat = [[esc(name), esc(what), esc(value)] for name, found in lines for what, value in flatten(found)]
        out += f"<h3>{title}</h3>" + table(["Where", "What", "Found"], flat, title) if flat else ""
    return out


def flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A value of the manifest as (what, value) lines"""
    if value is None:
        return []
    if isinstance(value, dict):
        return [line for key, inner in value.items() for line in flatten(inner, f"{name} {key}".strip())]
    if isinstance(value, list):
        return [line for i, inner in enumerate(value[:20]) for line in flatten(inner, f"{name} {i + 1}".strip())]
    return [(name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))]


def rejected(report: "Report") -> str:
    shown, counts = report_data.rejected_rows(report.root)
    if not counts:
        return "<p>None: every source row is a valid conversation.</p>"
    by_reason = [
        [esc(source), esc(split), esc(reason), f"{number:,}"]
        for (split, source, reason), number in sorted(counts.items(), key=lambda item: -item[1])
    ]
    lines = [
        [f"{esc(row['source'])} {row['row']:,}", esc(row["reason"]), esc(str(row.get("content", ""))[:300])]
        for row in shown
    ]
    return (
        f"<p>{sum(counts.values()):,} source rows were left out: no valid conversations, or not wanted. All of them are in "
        "rejected.jsonl.</p>"
        + table(["Source", "Split", "Reason", "Rows"], by_reason, "Rejected rows by reason")
        + f'<h3>The first of them</h3><div class="words">{table(["Row", "Reason", "Content"], lines, "Rejected rows")}</div>'
    )


# ---- origin ----


def built(report: "Report") -> str:
    manifest = report.shards.manifest
    about = read_record(report.root) or {}
    facts = {
        "Fingerprint": manifest["fingerprint"],
        "Tokenizer": f"{manifest['tokenizer']['name']}, {manifest['vocab_size']:,} ids, {manifest['tokenizer']['sha256']}",
        "Packing": f"{manifest['packing_strategy']}, rows of {manifest['max_seq_len']:,} + 1",
        "Too long": manifest["excess_length_strategy"],
        "Seed": manifest["seed"],
        "Without": ", ".join(manifest["mixture"].get("without", [])),
        "Built": about.get("finished", ""),
        "Took": f"{about['seconds']:,.1f} s with {about.get('workers')} workers, {about['encoder']}" if about else "",
        "Versions": ", ".join(f"{name} {number}" for name, number in about.get("versions", {}).items()),
    }
    items = "".join(f"<dt>{name}</dt><dd>{esc(value)}</dd>" for name, value in facts.items() if value not in ("", None))
    lines = [
        [esc(one["name"]), split, *map(esc, origin(one))]
        for split in manifest["splits"]
        for one in manifest["mixture"][split]
    ]
    out = f"<dl>{items}</dl>"
    head = ["Source", "Split", "From", "Rows", "Revision", "sha256"]
    out += f'<div class="left">{table(head, lines, "Sources of every split")}</div>'
    if about.get("command"):
        command = [word.rpartition("/")[2] if i == 0 else str(word) for i, word in enumerate(about["command"])]
        out += f"<h3>Command</h3><pre>{esc(shlex.join(command))}</pre>"
    return out


def origin(one: dict[str, Any]) -> list[str]:
    """Where an entry of the mixture is from: place, rows, revision, contents"""
    place = " ".join(str(one[key]) for key in ("task", "subset", "split", "path") if one.get(key))
    start, stop = one.get("start") or 0, one.get("stop")
    picked = f"{one['size']:,}" if one.get("size") else "all" if not start and stop is None else ""
    picked = picked or f"{start:,} to {f'{stop:,}' if stop is not None else 'the last'}"
    return [place, picked, (one.get("revision") or "–")[:12], one["sha256"][:12]]
