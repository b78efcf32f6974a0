"""
Wrong renderers that people have written, each as a patch of ours: what tests have to find.

    head_apart      "user\\n" + "\\nHi"         encoded apart: other tokens than together
    tail_apart      "Look." + "\\n<tool_call>"  the same at the end of what is said
    border_context  a token that begins in scaffold and ends in what the assistant says is taken for context

The facts about each, with examples, are those of the formats' authorities: see prep.chat.encoding and prep.chat.rules.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

import prep.render.assemble
import prep.render.render
from prep.arrange.arrange import Arranged, arrange, with_texts
from prep.chat import rules
from prep.chat.encoding import encode_segments
from prep.chat.scaffold import Gap, Neighbour, compiled_gap
from prep.chat.template import ChatTemplate
from prep.columns import index_array, text_array
from prep.conversations import objects, values
from prep.conversations.conversation import CALL_ARGUMENTS, TEXT, Conversations
from prep.render.assemble import text_mask
from prep.tokenizer.added import to_nfc
from prep.tokenizer.tokenizer import Tokenizer

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch, ChatTemplate], ChatTemplate]
PYTHON_ONLY_SPACE = "\x1c\x1d\x1e\x1f"  # that str.strip takes away, and Rust's trim does not


Ids = tuple[tuple[int, ...], tuple[int, ...]]  # and their mask


def head_apart(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    """Of texts, not of reasoning: an empty block would show it in any chat"""

    def change(gap: Gap, after: Neighbour | None, head: Ids) -> Gap:
        is_text = after is not None and after.kind == TEXT
        return replace(gap, ids=gap.ids + head[0], mask=gap.mask + head[1], head=()) if is_text else gap

    _patch_gaps(patch, lambda gap, _, after, tail, head: change(gap, after, head))
    return template


def tail_apart(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    def change(gap: Gap, before: Neighbour | None, tail: Ids) -> Gap:
        is_text = before is not None and before.kind == TEXT
        return replace(gap, ids=tail[0] + gap.ids, mask=tail[1] + gap.mask, tail=()) if is_text else gap

    _patch_gaps(patch, lambda gap, before, _, tail, head: change(gap, before, tail))
    return template


def _patch_gaps(patch: Patch, change: Callable[[Gap, Neighbour | None, Neighbour | None, Ids, Ids], Gap]) -> None:
    def compiled(
        before: Neighbour | None, after: Neighbour | None, template: ChatTemplate, kinds: Any, tokenizer: Tokenizer
    ) -> Gap:
        gap = compiled_gap(before, after, template, kinds, tokenizer)
        tail, head = (encode_segments(side, template.mask, tokenizer) for side in (gap.tail, gap.head))
        return (
            change(gap, before, after, *((tuple(ids), tuple(mask)) for ids, mask in (tail, head))) if gap.ids else gap
        )

    patch.setattr(prep.render.assemble, "compiled_gap", compiled)


def border_context(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    def wrong(layout: Any, ids: Any, lengths: Any, template: ChatTemplate, *rest: Any) -> Any:
        return text_mask(layout, ids, lengths, "sampled", *rest)

    patch.setattr(prep.render.render, "text_mask", wrong)
    return template


# ---- tokens of text ----


def nfc_before_cutting(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    def wrong(batch: Conversations, template: ChatTemplate) -> Arranged:
        arranged = arrange(batch, template)
        texts = text_array([to_nfc(text) for text in arranged.batch.texts.to_pylist()])
        return replace(arranged, batch=replace(arranged.batch, texts=texts))

    patch.setattr(prep.render.render, "arrange", wrong)
    return template


def no_nfc(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    patch.setattr(Tokenizer, "normalize", lambda self, piece: piece)
    return template


def added_tokens_ordinary(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    patch.setattr(Tokenizer, "cut", lambda self, text: [text] if text else [])
    return template


# ---- what is said ----


def strings_written_again(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    def wrong(batch: Conversations, template: ChatTemplate) -> Arranged:
        places = np.flatnonzero(batch.kinds == CALL_ARGUMENTS)
        texts = [_written_again(text) for text in batch.texts.take(index_array(places)).to_pylist()]
        return arrange(with_texts(batch, places, text_array(texts)), template)

    patch.setattr(prep.render.render, "arrange", wrong)
    return template


def _written_again(text: str) -> str:
    value = json.loads(text)
    try:
        return values.to_json(json.loads(value)) if isinstance(value, str) else text
    except ValueError:
        return text


def trim_by_rust(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    space = "".join(c for c in rules.SPACE if c not in PYTHON_ONLY_SPACE)
    patch.setitem(rules.TRIMS, "strip", space)  # type: ignore[index]
    return template


def between_by_trimmed(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    def wrong(batch: Conversations, template: ChatTemplate) -> Arranged:
        arranged = arrange(batch, template)
        is_empty = np.asarray(pc.equal(pc.binary_length(arranged.batch.texts), 0))
        return replace(arranged, is_empty=np.where(arranged.batch.kinds == TEXT, is_empty, arranged.is_empty))

    patch.setattr(prep.render.render, "arrange", wrong)
    return template


def think_by_regex(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    def wrong(content: str) -> rules.Found | None:
        found = re.match(r"\s*<think>(.*?)</think>(.*)", content, re.DOTALL)
        return (
            rules.Found(found[1].strip("\n"), found[2].lstrip("\n"), False)
            if found
            else rules.Found("", content, False)
        )

    patch.setattr(rules, "find_reasoning", wrong)
    return template


def only_reasoning_content(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    patch.setattr(objects, "REASONING_FIELDS", ("reasoning_content",))
    return template


def empty_think_left_out(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    return replace(template, empty_think=False)


# ---- calls, tools, what they answer ----


def keys_sorted(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    return _patch_json(patch, template, sort_keys=True, ensure_ascii=False)


def ensure_ascii(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    return _patch_json(patch, template, ensure_ascii=True)


def _patch_json(patch: Patch, template: ChatTemplate, **options: bool) -> ChatTemplate:
    for module in (objects, values):
        patch.setattr(module, "to_json", lambda value: json.dumps(value, **options))
    return template


def results_not_merged(patch: Patch, template: ChatTemplate) -> ChatTemplate:
    form = template.format
    if form.results is None:
        return template
    before, after = form.results.run_before + form.results.before, form.results.after + form.results.run_after
    results = replace(form.results, run_before="", before=before, after=after, run_after="")
    return replace(template, format=replace(form, results=results))


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        *(head_apart, tail_apart, border_context, nfc_before_cutting, no_nfc, added_tokens_ordinary),
        *(strings_written_again, trim_by_rust, between_by_trimmed, think_by_regex, only_reasoning_content),
        *(empty_think_left_out, keys_sorted, ensure_ascii, results_not_merged),
    )
}
