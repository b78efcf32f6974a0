"""
What decides the bytes of a build, its fingerprint, and what differs between two builds, in words.

    max_seq_len 2,048 -> 512; tokenizer nano32k -> mine; train gsm8k repeat 1 -> 2; val identity is new

Either side is a manifest, or the description of a build that is still to be made (Job.description), which holds the
sha256 of the tokenizer instead of its name.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SETTINGS = (
    *("seed", "max_seq_len", "packing_strategy", "excess_length_strategy", "max_tokens"),
    *("renderer_version", "planner_version"),
)

OPTIONAL = ("chat_template", "model_vocab_size")  # where they are not what builds had before there were others


def describe(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the bytes of a build depend on, as its manifest says it: equal to the Job.description that it was built from"""
    keys = ("mixture", *SETTINGS, *(key for key in OPTIONAL if key in manifest))
    return {key: manifest[key] for key in keys} | {"tokenizer": manifest["tokenizer"]["sha256"]}


def fingerprint(description: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each difference; [] for builds of the same bytes"""
    lines = _differences("", _settings(before), _settings(after))
    lines += _tokenizer_lines(before, after)
    old, new = before["mixture"], after["mixture"]
    lines += _differences("[mix] ", old.get("mix") or {}, new.get("mix") or {})
    for split in ("train", "val"):
        old_sources = {source["name"]: source for source in old.get(split, [])}
        new_sources = {source["name"]: source for source in new.get(split, [])}
        lines += [f"{split} {name} is gone" for name in old_sources if name not in new_sources]
        lines += [f"{split} {name} is new" for name in new_sources if name not in old_sources]
        kept = [name for name in old_sources if name in new_sources]
        for name in kept:
            lines += _differences(f"{split} {name} ", old_sources[name], new_sources[name])
        if kept != [name for name in new_sources if name in old_sources]:
            lines.append(f"{split} has its sources in another order")
    return lines


def _settings(build: Mapping[str, Any]) -> dict[str, Any]:
    mixture = build["mixture"]
    template = build.get("chat_template", {"name": "nanochat", "mask": "format"})
    settings = {key: build.get(key) for key in (*SETTINGS, "model_vocab_size")}
    settings |= {f"chat_template {key}": value for key, value in template.items()}
    return {"mixture": mixture["name"], **settings, "without": ", ".join(mixture.get("without", [])) or None}


def _tokenizer_lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = before["tokenizer"], after["tokenizer"]
    old_hash, new_hash = (entry if isinstance(entry, str) else entry["sha256"] for entry in (old, new))
    if old_hash == new_hash:
        return []
    if isinstance(old, str) or isinstance(new, str) or old["name"] == new["name"]:
        return [f"tokenizer {old_hash[:12]} -> {new_hash[:12]}"]
    return [f"tokenizer {old['name']} -> {new['name']}"]


def _differences(label: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if "revision" in keys:
        keys = [key for key in keys if key != "sha256"]  # another revision has other contents
    return [f"{label}{key} {_in_words(before.get(key))} -> {_in_words(after.get(key))}" for key in keys]


def _in_words(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = "none" if value is None else str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{40,64}", text) else text
