r"""
Scaffold: what a format puts before, between and after the parts of a conversation.

    part          TEXT "2+2?"                                       TEXT "4"
    gap      0                 1                                              2
             <|im_start|>user\n   <|im_end|>\n<|im_start|>assistant\n            <|im_end|>\n

A gap depends on what kind of part is on either side of it and on nothing else, so a few dozen are all that any number of
conversations have. `gap` says it in text; `compiled_gap` puts it into tokens once: what stands before its first control belongs
to the text before it, what stands behind the last one to the text after it, and the rest is constant.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from prep.chat.encoding import Segment, cut_controls, encode_segments
from prep.chat.format import ChatFormat, Turn
from prep.chat.template import ChatTemplate
from prep.conversations.conversation import (
    ASSISTANT,
    CALL_ARGUMENTS,
    CALL_NAME,
    DOCUMENT,
    KINDS,
    REASONING,
    ROLES,
    TEXT,
    TOOL,
)
from prep.tokenizer.tokenizer import Tokenizer

NO_TURN = Turn()


class Neighbour(NamedTuple):
    """What a gap knows of a part beside it"""

    role: int
    kind: int
    trains: bool  # whether its turn does
    is_first: bool  # of its turn
    is_empty: bool  # before anything was trimmed


def trained_kind(kind: int) -> str:
    """What `train_on` calls a part of this kind"""
    return {REASONING: "reasoning", CALL_NAME: "calls", CALL_ARGUMENTS: "calls"}.get(kind, "text")


def part_trains(part: Neighbour, template: ChatTemplate, kinds: Iterable[str]) -> bool:
    """Whether what a part says trains. `kinds`: what does of an assistant's turn"""
    if not part.trains or part.role not in (ASSISTANT, DOCUMENT):
        return False
    if part.role == DOCUMENT:
        return True
    inner = template.format.inner.get(KINDS[part.kind])
    is_given = part.kind == REASONING and part.is_empty and template.mask == "sampled"  # stands in the prompt
    return trained_kind(part.kind) in kinds and (inner is None or inner.trains) and not is_given


def gap(
    before: Neighbour | None, after: Neighbour | None, template: ChatTemplate, kinds: tuple[str, ...]
) -> list[Segment]:
    """The scaffold between two parts, or at an end of a conversation"""
    form = template.format
    out = [Segment(form.bos, False)] if before is None else []
    if before is not None:
        out.append(Segment(_suffix(before, form), part_trains(before, template, kinds)))
        if after is None or after.is_first:
            out += _end(before, after, template, kinds)
    if after is not None:
        if after.is_first:
            out += _begin(before, after, template, kinds)
        out.append(Segment(_prefix(before, after, form), part_trains(after, template, kinds)))
    elif before is not None and before.role != DOCUMENT:
        out.append(Segment(form.eos, _eos_trains(before, template, kinds)))
    return [segment for segment in out if segment.text]


def _eos_trains(before: Neighbour, template: ChatTemplate, kinds: tuple[str, ...]) -> bool:
    """Where the assistant speaks last; a model samples it only if nothing ends its turn before"""
    closes = template.format.turns.get(ROLES[before.role], NO_TURN).closes
    is_given = template.mask == "sampled" and any(control in closes for control in template.format.controls)
    return before.role == ASSISTANT and before.trains and "end" in kinds and not is_given


def _begin(
    before: Neighbour | None, after: Neighbour, template: ChatTemplate, kinds: tuple[str, ...]
) -> Iterator[Segment]:
    """What opens a turn"""
    form = template.format
    if after.role == DOCUMENT:
        return
    if after.role == TOOL and form.results:
        if before is None or before.role != TOOL:
            yield Segment(form.results.run_before, False)
        yield Segment(form.results.before, False)
        return
    turn = form.turns.get(ROLES[after.role], NO_TURN)
    yield Segment(turn.before, False)
    yield Segment(turn.opens, template.mask == "format" and part_trains(after, template, kinds))


def _end(
    before: Neighbour, after: Neighbour | None, template: ChatTemplate, kinds: tuple[str, ...]
) -> Iterator[Segment]:
    """What closes a turn"""
    form = template.format
    if before.role == DOCUMENT:
        return
    if before.role == TOOL and form.results:
        yield Segment(form.results.after, False)
        if after is None or after.role != TOOL:
            yield Segment(form.results.run_after, False)
        return
    closes = form.turns.get(ROLES[before.role], NO_TURN).closes
    trains = before.role == ASSISTANT and before.trains and "end" in kinds
    sampled = max((closes.rfind(control) + len(control) for control in form.controls if control in closes), default=0)
    last = sampled if template.mask == "sampled" else len(closes)
    yield Segment(closes[:last], trains)
    yield Segment(closes[last:], False)


def _prefix(before: Neighbour | None, after: Neighbour, form: ChatFormat) -> str:
    """What is in front of a part, inside its turn"""
    if after.kind == REASONING and form.reasoning:
        return form.reasoning.before
    if after.kind == CALL_NAME and form.calls:
        follows = before is not None and not after.is_first and not (before.kind == TEXT and before.is_empty)
        return (form.calls.between if follows else "") + form.calls.head
    if after.kind == CALL_ARGUMENTS and form.calls:
        return form.calls.middle
    inner = form.inner.get(KINDS[after.kind])
    return inner.before if inner else ""


def _suffix(before: Neighbour, form: ChatFormat) -> str:
    """What is behind a part, inside its turn"""
    if before.kind == REASONING and form.reasoning:
        return form.reasoning.after
    if before.kind == CALL_ARGUMENTS and form.calls:
        return form.calls.tail
    inner = form.inner.get(KINDS[before.kind])
    return inner.after if inner else ""


def conversation_gaps(parts: list[Neighbour], template: ChatTemplate, kinds: tuple[str, ...]) -> list[list[Segment]]:
    """The gaps of a conversation of n parts: n + 1 of them"""
    around = [None, *parts, None]
    return [gap(before, after, template, kinds) for before, after in pairwise(around)]


# ---- in tokens ----


@dataclass(frozen=True)
class Gap:
    """A gap in tokens: the end of the text before it, constant ids and their mask, the beginning of the text after it"""

    tail: tuple[Segment, ...]
    ids: tuple[int, ...]
    mask: tuple[int, ...]
    head: tuple[Segment, ...]
    parts_texts: bool  # whether the texts on both sides are encoded apart


@lru_cache(maxsize=4096)
def compiled_gap(
    before: Neighbour | None,
    after: Neighbour | None,
    template: ChatTemplate,
    kinds: tuple[str, ...],
    tokenizer: Tokenizer,
) -> Gap:
    """The same, in tokens. ValueError where a token could begin in scaffold and end in what is said, or the other way round."""
    segments = gap(before, after, template, kinds)
    pieces = cut_controls(segments, template.format.controls, tokenizer)
    tokens = [i for i, piece in enumerate(pieces) if piece.id is not None]
    if not tokens:
        if before is None:
            return Gap((), (), (), tuple(segments), True)
        return Gap(tuple(segments), (), (), (), template.format.texts_apart)
    first = tokens[0] if before else 0
    last = tokens[-1] + 1 if after else len(pieces)
    tail = tuple(Segment(piece.text, piece.trains) for piece in pieces[:first])
    head = tuple(Segment(piece.text, piece.trains) for piece in pieces[last:])
    _check_borders("".join(part.text for part in tail), "".join(part.text for part in head), template, tokenizer)
    ids, mask = encode_segments(pieces[first:last], template.mask, tokenizer)
    return Gap(tail, tuple(ids), tuple(mask), head, True)


def _check_borders(tail: str, head: str, template: ChatTemplate, tokenizer: Tokenizer) -> None:
    """A token that text is cut at must not lie across a border of what is said"""
    for token in tokenizer.added_tokens:
        for i in range(1, len(token)):
            if (tail and tail.startswith(token[i:])) or (head and head.endswith(token[:i])):
                raise ValueError(
                    f"chat format {template.name}: text could make {token!r} of its scaffold with this tokenizer, so it "
                    "cannot be written exactly."
                )
