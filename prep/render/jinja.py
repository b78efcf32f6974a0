r"""
Conversations to tokens and mask by a Jinja template, row by row, all texts of a batch in one call of the encoder.

    text     <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n       spans: from 4 on
    cut      <|im_start|> user\n2+2? <|im_end|> \n <|im_start|> assistant\n4 <|im_end|> \n
    tokens   <|im_start|> user \n 2 + 2 ? <|im_end|> \n <|im_start|> assistant \n 4 <|im_end|> \n
    mask          0         0  0  0 0 0 0     0      0       0           0     0  1     1      1

A text is cut at the special tokens of the tokenizer; from there on it is what prep.render.assemble has of a table. In such
a text what somebody typed cannot be told from scaffold, so a conversation that spells a special token is rejected.

Legend: C conversations, P parts, N tokens.
"""

import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from prep.arrange.in_turn import conversations_of_parts, invalid_text
from prep.arrange.misplaced import only_valid
from prep.arrange.parts import merge_turns
from prep.arrange.python_calls import has_calls, write_calls
from prep.arrays import Array
from prep.conversations import turns
from prep.conversations.conversation import (
    CALL_NAME,
    CONTEXT,
    DOCUMENT,
    OUTPUT,
    PYTHON,
    REASON,
    Conversations,
    mark,
    reject,
)
from prep.encode.encode import Encoder
from prep.jinja.chats import read_tools, to_chats
from prep.jinja.format import JinjaTemplate, Written, token_names
from prep.jinja.spans import write_chat
from prep.render.assemble import assemble, text_mask
from prep.render.cuts import Cuts, any_of
from prep.shard import to_tokens
from prep.tokenizer.tokenizer import Tokenizer


class Assembled(NamedTuple):
    """C conversations as flat tokens, in order; rejected ones have length 0 and a reason"""

    tokens: Array  # (N,)
    mask: Array  # (N,) uint8
    lengths: Array  # (C,) int64
    num_trained: Array  # (C,)
    batch: Conversations  # what was rendered, with its reasons


def render_jinja(batch: Conversations, template: JinjaTemplate, tokenizer: Tokenizer, encode: Encoder) -> Assembled:
    """C conversations, valid or not, -> their tokens and mask. ValueError for a template that is refused."""
    batch = _checked(_as_chosen(batch, template), template, tokenizer)
    batch, written, _ = _write(batch, template, tokenizer)
    cuts = Cuts(tokenizer, template.mask == "sampled")
    for each in written:
        cuts.add(each)
    layout = cuts.layout()
    ids, lengths = encode(layout.texts)
    if len(lengths) and lengths.min() < 0:
        failed = np.zeros(len(batch), dtype=bool)
        failed[np.searchsorted(layout.conversation_gaps, layout.text_gap[lengths < 0], side="right") - 1] = True
        return render_jinja(reject(batch, failed, "text that the tokenizer cannot encode"), template, tokenizer, encode)
    ids = to_tokens(ids, tokenizer.vocab_size)
    flags = text_mask(layout, ids, lengths, template.mask, encode, tokenizer)
    return Assembled(*assemble(layout, ids, lengths, flags), batch)


def explain(batch: Conversations, template: JinjaTemplate, tokenizer: Tokenizer) -> str:
    """What is wrong in a batch of one conversation; "" where its reason says it all"""
    batch = _as_chosen(batch, template)
    if batch.reasons[0]:
        return ""
    for text in [*batch.texts.to_pylist(), *_tool_texts(batch)]:
        if found := _special_pattern(tokenizer).search(text):
            return f"{found[0]!r} is text here, which {template.name} would make a control of"
    if np.isin(batch.kinds, (PYTHON, OUTPUT)).any():
        return f"{template.name} has no place for Python in an answer, wanted text or tool_calls"
    if not template.reads_calls and CALL_NAME in batch.kinds:
        return f"{template.name} does not read tool_calls"
    _, _, culprits = _write(batch, template, tokenizer)
    return culprits.get(0, "")


# ---- which conversations ----


def _as_chosen(batch: Conversations, template: JinjaTemplate) -> Conversations:
    """What the entry chose of turns, calls and reasoning"""
    train_on = batch.choices.train_on or template.train_on or "all"
    if not isinstance(train_on, str):
        raise ValueError(
            f"train_on = {', '.join(train_on)}: what a Jinja template writes of a turn is one piece, wanted all, last or none."
        )
    keep_calls = batch.choices.tools != "text"
    keep_reasoning = template.reads_reasoning and batch.choices.reasoning != "drop"
    if has_calls(batch) and not (keep_calls and keep_reasoning):
        batch = write_calls(batch, keep_calls=keep_calls, keep_reasoning=keep_reasoning)
    batch = turns.train_on(batch, train_on)
    return merge_turns(batch) if batch.choices.consecutive == "merge" else batch


def _checked(batch: Conversations, template: JinjaTemplate, tokenizer: Tokenizer) -> Conversations:
    """The batch with a reason for conversations that the template cannot have, or whose text could not be told from it"""
    batch = _without(batch, {"not valid Unicode": invalid_text(batch.texts)})
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))  # (P,)
    spells = np.asarray(pc.match_substring_regex(batch.texts, _special_pattern(tokenizer).pattern))
    return _without(
        batch,
        {
            "unknown part type": np.flatnonzero(np.isin(batch.kinds, (PYTHON, OUTPUT))),
            "tool calls": np.flatnonzero((batch.kinds == CALL_NAME) & (not template.reads_calls)),
            "spells a control token": np.flatnonzero(spells & (batch.roles[message] != DOCUMENT)),
        },
    )


def _without(batch: Conversations, parts: dict[str, Array]) -> Conversations:
    """The batch; conversations with these parts have no messages but a reason"""
    reasons = batch.reasons.copy()
    mark(reasons, np.diff(batch.messages) == 0, "no messages")
    for reason, places in parts.items():
        mark(reasons, conversations_of_parts(batch, places), reason)
    return only_valid(replace(batch, reasons=reasons))


def _tool_texts(batch: Conversations) -> list[str]:
    """(C,) tools as a template writes them, "" where there are none or they cannot be read"""
    if batch.tools is None:
        return [""] * len(batch)
    return [_tool_text(text) for text in batch.tools.to_pylist()]


@lru_cache(maxsize=1024)
def _tool_text(text: str | None) -> str:
    try:
        return json.dumps(read_tools(text), ensure_ascii=False) if text else ""
    except (ValueError, RecursionError):
        return ""


@lru_cache(maxsize=8)
def _special_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    return re.compile(any_of(sorted(tokenizer.special_tokens)))


def _write(
    batch: Conversations, template: JinjaTemplate, tokenizer: Tokenizer
) -> tuple[Conversations, list[Written | None], dict[int, str]]:
    """The batch with reasons, (C,) what the template writes, None where it is rejected, and what it raised"""
    names, reasons, culprits = token_names(tokenizer), batch.reasons.copy(), dict[int, str]()
    pattern, told = _special_pattern(tokenizer), _tool_texts(batch)
    tools = batch.tools.to_pylist() if batch.tools is not None else [None] * len(batch)
    out: list[Written | None] = []
    for c, messages in enumerate(to_chats(batch)):
        if reasons[c]:
            out.append(None)
            continue
        try:
            if messages[0]["role"] == "document":
                out.append(_document(messages[0]["content"], batch, c))
                continue
            # once more, on what is written: parts are joined by now
            said = [message.get(name, "") for message in messages for name in ("content", "reasoning_content")]
            if found := next(filter(None, map(pattern.search, [told[c], *said])), None):
                culprit = f"{found[0]!r} is text here, which {template.name} would make a control of"
                raise ValueError("spells a control token", culprit)
            start, stop = batch.messages[c], batch.messages[c + 1]
            trained = None if batch.trained is None else (batch.trained[start:stop] != CONTEXT).tolist()
            written = write_chat(template.format, messages, _tools(tools[c]), names, trained)
            written.text.encode()
            out.append(written)
        except UnicodeEncodeError:
            reasons[c] = REASON["not valid Unicode"]
        except ValueError as error:
            if len(error.args) != 2:
                raise
            reasons[c], culprits[c] = REASON[error.args[0]], error.args[1]
        if reasons[c]:
            out.append(None)
    return replace(batch, reasons=reasons), out, culprits


def _tools(text: str | None) -> object:
    try:
        return read_tools(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("tool calls", str(error)) from None


def _document(text: str, batch: Conversations, c: int) -> Written:
    """Plain text, which no template writes"""
    trains = batch.trained is None or bool(batch.trained[batch.messages[c]] != CONTEXT)
    return Written(text, [(0, len(text))] if trains else [], is_document=True)
