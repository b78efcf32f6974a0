r"""
Texts that a template wrote, cut at the special tokens of the tokenizer, as prep.render.assemble takes them.

    text        <|im_start|>assistant\n4<|im_end|>\n      trained from 4 on
    gaps, texts  <|im_start|>  assistant\n4  <|im_end|>  \n
    elements                  assistant\n | 4             \n
    trains           no           no     yes     yes     yes

Legend: C conversations, G gaps, E elements (a text has several where a span begins or ends in it), T texts.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from prep.arrays import offsets
from prep.chat.scaffold import Gap
from prep.columns import text_array
from prep.jinja.format import Span, Written
from prep.jinja.spans import shared_start
from prep.render.assemble import Layout
from prep.tokenizer.tokenizer import Tokenizer


def any_of(words: list[str]) -> str:
    """
    A pattern for the longest of these words, which are sorted. Quick where many begin alike.

    >>> any_of(["<|a|>", "<|b|>", "<|b|>c"])
    '<\\\\|(?:a\\\\|>|b\\\\|>(?:c)?)'
    """
    if not words:
        return "a^"  # nothing
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
