r"""
Conversations to tokens and mask by a Jinja template, row by row, all texts of a batch in one call of the encoder.

    text     <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n       spans: from 4 on
    cut      <|im_start|> user\n2+2? <|im_end|> \n <|im_start|> assistant\n4 <|im_end|> \n
    tokens   <|im_start|> user \n 2 + 2 ? <|im_end|> \n <|im_start|> assistant \n 4 <|im_end|> \n
    mask          0         0  0  0 0 0 0     0      0       0           0     0  1     1      1

A text is cut at the special tokens of the tokenizer; from there on it is what prep.render.assemble has of a table. In such
a text what somebody typed cannot be told from scaffold, so a conversation that spells a special token is rejected.

Legend: C conversations, P parts, G gaps, E elements (a text has several where a span begins or ends in it), T texts, N tokens.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from prep.arrange.arrange import only_valid
from prep.arrange.in_turn import conversations_of_parts, invalid_text
from prep.arrange.python_calls import has_calls, write_calls
from prep.arrays import Array, offsets
from prep.chat.jinja import JinjaTemplate, Span, Written, read_tools, shared_start, to_chats, token_names, write_chat
from prep.chat.scaffold import Gap
from prep.columns import text_array
from prep.conversations import turns
from prep.conversations.conversation import (
    CALL_NAME,
    DOCUMENT,
    OUTPUT,
    PYTHON,
    REASON,
    Conversations,
    mark,
    reject,
)
from prep.encode.encode import Encoder
from prep.render.assemble import Layout, assemble, text_mask
from prep.shard import to_tokens
from prep.tokenizer.tokenizer import Tokenizer


class Assembled(NamedTuple):
    """C conversations as flat tokens, in order; rejected ones have length 0 and a reason"""

    tokens: Array  # (N,)
    mask: Array  # (N,) uint8
    lengths: Array  # (C,) int64
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
    _, _, culprits = _write(batch, template, tokenizer)
    return culprits.get(0, "")


# ---- which conversations ----


def _as_chosen(batch: Conversations, template: JinjaTemplate) -> Conversations:
    """What the entry chose of turns, calls and reasoning"""
    train_on = batch.choices.train_on or template.train_on or "all"
    if not isinstance(train_on, str):
        raise ValueError(
            f"--train-on {','.join(train_on)}: what a Jinja template writes of a turn is one piece, wanted all, last or none."
        )
    keep_calls = batch.choices.tools != "text"
    keep_reasoning = template.reads_reasoning and batch.choices.reasoning != "drop"
    if has_calls(batch) and not (keep_calls and keep_reasoning):
        batch = write_calls(batch, keep_calls=keep_calls, keep_reasoning=keep_reasoning)
    if batch.choices.consecutive == "merge":
        batch = turns.merge(batch)
    return turns.train_on(batch, train_on)


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
            if told[c] and pattern.search(told[c]):
                raise ValueError("spells a control token", "")
            start, stop = batch.messages[c], batch.messages[c + 1]
            trained = None if batch.trained is None else batch.trained[start:stop].tolist()
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
    trains = batch.trained is None or bool(batch.trained[batch.messages[c]])
    return Written(text, [(0, len(text))] if trains else [], is_document=True)


# ---- texts and the controls between them ----


@lru_cache(maxsize=8)
def _special_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    return re.compile(any_of(sorted(tokenizer.special_tokens)))


def any_of(words: list[str]) -> str:
    """
    A pattern for the longest of these words, which are sorted and at least one. Quick where many begin alike.

    >>> any_of(["<|a|>", "<|b|>", "<|b|>c"])
    '<\\\\|(?:a\\\\|>|b\\\\|>(?:c)?)'
    """
    head = shared_start(words)
    rests = [word[len(head) :] for word in words if word != head]
    if not rests:
        return re.escape(head)
    inner = "|".join(any_of(list(group)) for _, group in groupby(rests, key=lambda rest: rest[0]))
    return f"{re.escape(head)}(?:{inner}){'?' if head in words else ''}"


@dataclass
class Cuts:
    """Texts of conversations, cut at special tokens"""

    tokenizer: Tokenizer
    sampled: bool
    gaps: dict[tuple[int, bool], int] = field(default_factory=dict)  # (id or -1, whether it trains) -> its number
    gap_of: list[int] = field(default_factory=list)  # (G,)
    text_gap: list[int] = field(default_factory=list)  # (T,)
    texts: list[str] = field(default_factory=list)  # (T,)
    num_elements: list[int] = field(default_factory=list)  # (T,)
    num_bytes: list[int] = field(default_factory=list)  # (E,)
    trains: list[bool] = field(default_factory=list)  # (E,)
    num_gaps: list[int] = field(default_factory=list)  # (C,)

    def __post_init__(self) -> None:
        # added tokens too: where one begins before a special token it is what the tokenizer finds
        self.pattern = re.compile(any_of(sorted({*self.tokenizer.special_tokens, *self.tokenizer.added_tokens})))

    def add(self, written: Written | None) -> None:
        """The next conversation, None for one without tokens"""
        before = len(self.gap_of)
        if written is not None and written.is_document:
            self._gap(self.tokenizer.bos_id if self.tokenizer.adds_bos else None, False)
            self._text(written.text, 0, len(written.text), written.spans)
        elif written is not None:
            self._cut(written.text, written.spans)
        self.num_gaps.append(len(self.gap_of) - before)

    def _cut(self, text: str, spans: list[Span]) -> None:
        ids = self.tokenizer.special_tokens
        found = [(match.start(), match.end()) for match in self.pattern.finditer(text) if match[0] in ids]
        if self.sampled:
            spans = _without_newlines(text, spans, [end for _, end in found])
        ends = [end for _, end in spans]
        place = 0
        if not found or found[0][0] > 0:
            self._gap(None, False)
        for start, end in [*found, (len(text), len(text))]:
            if place < start:
                self._text(text, place, start, spans)
            if start < end:
                i = bisect_right(ends, start)
                self._gap(ids[text[start:end]], i < len(spans) and spans[i][0] < end)
            place = end

    def _gap(self, id_: int | None, trains: bool) -> None:
        self.gap_of.append(self.gaps.setdefault((-1 if id_ is None else id_, trains), len(self.gaps)))

    def _text(self, text: str, start: int, stop: int, spans: list[Span]) -> None:
        """What is between two special tokens, in elements that train or do not"""
        self.text_gap.append(len(self.gap_of) - 1)
        self.texts.append(text[start:stop])
        before, place = len(self.trains), start
        for first, end in spans:
            if end <= place or first >= stop:
                continue
            for bound, trains in ((first, False), (min(end, stop), True)):
                if place < bound:
                    self.num_bytes.append(len(text[place:bound].encode()))
                    self.trains.append(trains)
                    place = bound
        if place < stop:
            self.num_bytes.append(len(text[place:stop].encode()))
            self.trains.append(False)
        self.num_elements.append(len(self.trains) - before)

    def layout(self) -> Layout:
        """As prep.render.assemble takes it"""
        gaps = [
            Gap((), (id_,) if id_ >= 0 else (), (int(trains),) if id_ >= 0 else (), (), True)
            for id_, trains in self.gaps
        ]
        return Layout(
            gaps=gaps,
            gap_of=np.array(self.gap_of, dtype=np.int64),
            text_gap=np.array(self.text_gap, dtype=np.int64),
            texts=text_array(self.texts),
            bounds=offsets(self.num_elements),
            num_bytes=np.array(self.num_bytes, dtype=np.int64),
            trains=np.array(self.trains, dtype=bool),
            conversation_gaps=offsets(self.num_gaps),
            first_part=np.zeros(0, dtype=np.int64),
        )


def _without_newlines(text: str, spans: list[Span], controls: list[int]) -> list[Span]:
    """Spans without the white space behind their last control, of which `controls` are the ends: no model samples it"""
    out = []
    for start, end in spans:
        i = bisect_right(controls, end) - 1
        last = controls[i] if i >= 0 else 0
        out.append((start, last if last > start and not text[last:end].strip() else end))
    return out
