r"""
Parts and the gaps between them to texts for the encoder, and what it gives back to tokens and mask.

    gaps     <|im_start|> user\n    <|im_end|> \n <|im_start|> assistant\n    <|im_end|> \n
    texts              user\n 2+2?                          assistant\n 4                           one encode call
    tokens   <|im_start|> user \n 2 + 2 ? <|im_end|> \n <|im_start|> assistant \n 4 <|im_end|> \n
    mask          0         0  0  0 0 0 0     0      0       0           0     0  1     1      1

A text runs from one control to the next. Which of its tokens train follows from their bytes: what they overlap. The rule, one
conversation at a time, is prep.render.reference; tests hold this code against it.

Legend: C conversations, P parts, G gaps, E elements (parts, and scaffold that is encoded with them), T texts, N tokens.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrange.arrange import Arranged
from prep.arrays import Array, offsets
from prep.chat.encoding import normalized_places
from prep.chat.scaffold import Gap, Neighbour, compiled_gap, part_trains
from prep.chat.template import ChatTemplate
from prep.columns import index_array, text_array
from prep.conversations.conversation import ASSISTANT, CONTEXT, DOCUMENT
from prep.encode.encode import Encoder
from prep.tokenizer.tokenizer import Tokenizer

NONE = 5 * 8 * 8  # code of no part
NUM_CODES = NONE + 1


@dataclass(frozen=True)
class Layout:
    """What a batch is made of, before its texts are encoded"""

    gaps: list[Gap]  # the different ones
    gap_of: Array  # (G,) place in gaps
    text_gap: Array  # (T,) the gap in front of each text
    texts: pa.LargeStringArray  # (T,)
    bounds: Array  # (T + 1,) elements of each text
    num_bytes: Array  # (E,)
    trains: Array  # (E,) bool
    conversation_gaps: Array  # (C + 1,) gaps before each conversation
    first_part: Array  # (T,)


def lay_out(arranged: Arranged, template: ChatTemplate, kinds: tuple[str, ...], tokenizer: Tokenizer) -> Layout:
    """The gaps and texts of a batch. `kinds`: what trains of a turn of the assistant's"""
    batch = arranged.batch
    num_parts = len(batch.kinds)
    has_turns = np.diff(batch.messages) > 0  # (C,)
    before_conversation = offsets(has_turns)  # (C + 1,) conversations with turns
    conversation = np.repeat(before_conversation[:-1], np.diff(batch.parts[batch.messages]))  # (P,)
    codes = _codes(arranged)
    gap_before = np.arange(num_parts) + conversation  # (P,)
    num_gaps = num_parts + int(before_conversation[-1])
    before, after = np.full(num_gaps, NONE), np.full(num_gaps, NONE)
    after[gap_before] = codes
    before[gap_before + 1] = codes
    gaps, gap_of = _find_gaps(before * NUM_CODES + after, template, kinds, tokenizer)
    begins = before[gap_before] == NONE  # a conversation
    starts = np.array([gap.parts_texts for gap in gaps], dtype=bool)[gap_of[gap_before]] | begins  # (P,) a text
    first_part = np.flatnonzero(starts)
    own = _part_flags(codes, template, kinds)
    elements, trains, bounds = _elements(gaps, gap_of, gap_before, own)
    text_bounds = np.append(bounds[first_part], bounds[-1])
    if len(elements) == num_parts and starts.all():
        texts = together = batch.texts
    else:
        scaffold = text_array([segment.text for gap in gaps for segment in (*gap.tail, *gap.head)])
        together = pa.concat_arrays([batch.texts, scaffold]).take(index_array(elements))
        texts = pc.binary_join(
            pa.LargeListArray.from_arrays(index_array(text_bounds), together), pa.scalar("", pa.large_string())
        )
    return Layout(
        gaps=gaps,
        gap_of=gap_of,
        text_gap=gap_before[first_part],
        texts=texts,
        bounds=text_bounds,
        num_bytes=_num_bytes(together),
        trains=trains,
        conversation_gaps=batch.parts[batch.messages] + before_conversation,
        first_part=first_part,
    )


def _codes(arranged: Arranged) -> Array:
    """(P,) int64: what a gap knows of each part, as a number"""
    batch = arranged.batch
    message = np.repeat(np.arange(len(batch.roles)), np.diff(batch.parts))  # (P,)
    trains = (batch.roles == ASSISTANT) | (batch.roles == DOCUMENT)
    trains = trains if batch.trained is None else trains & (batch.trained != CONTEXT)
    is_first = np.zeros(len(batch.kinds), dtype=np.int64)
    is_first[batch.parts[:-1]] = 1
    of_message = batch.roles.astype(np.int64) * 64 + 4 * trains
    codes: Array = of_message[message] + batch.kinds.astype(np.int64) * 8 + 2 * is_first + arranged.is_empty
    return codes


def _neighbour(code: int) -> Neighbour | None:
    if code == NONE:
        return None
    return Neighbour(code // 64, code // 8 % 8, bool(code & 4), bool(code & 2), bool(code & 1))


def _find_gaps(
    keys: Array, template: ChatTemplate, kinds: tuple[str, ...], tokenizer: Tokenizer
) -> tuple[list[Gap], Array]:
    """The different gaps among (G,) keys, and (G,) which each is"""
    number = np.zeros(NUM_CODES * NUM_CODES, dtype=np.uint16)  # sorted by radix; a format has a few hundred
    number[keys] = 1
    different = np.flatnonzero(number)
    number[different] = np.arange(len(different))
    pairs = [(_neighbour(key // NUM_CODES), _neighbour(key % NUM_CODES)) for key in different.tolist()]
    return [compiled_gap(*pair, template, kinds, tokenizer) for pair in pairs], number[keys]


def _part_flags(codes: Array, template: ChatTemplate, kinds: tuple[str, ...]) -> Array:
    """(P,) bool: whether what a part says trains"""
    table = np.zeros(NUM_CODES, dtype=bool)
    for code in np.flatnonzero(np.bincount(codes, minlength=NUM_CODES)).tolist():
        part = _neighbour(code)
        table[code] = part is not None and part_trains(part, template, kinds)
    flags: Array = table[codes]
    return flags


def _elements(gaps: list[Gap], gap_of: Array, gap_before: Array, own: Array) -> tuple[Array, Array, Array]:
    """
    (E,) elements, as places in parts and then in the scaffold of all gaps; (E,) bool, whether they train; (P + 1,) elements
    before those of each part: the head of its gap, the part, the tail of the gap behind it
    """
    num_parts = len(gap_before)
    heads, tails = (np.array([len(getattr(gap, name)) for gap in gaps], dtype=np.int64) for name in ("head", "tail"))
    ahead, behind = gap_of[gap_before], gap_of[gap_before + 1]  # (P,)
    if not heads.any() and not tails.any():
        return np.arange(num_parts), own, np.arange(num_parts + 1)
    bounds = offsets(heads[ahead] + 1 + tails[behind])
    place = bounds[:-1] + heads[ahead]  # (P,) of the part itself
    elements, trains = np.empty(bounds[-1], dtype=np.int64), np.empty(bounds[-1], dtype=bool)
    elements[place], trains[place] = np.arange(num_parts), own
    number = num_parts
    for i, gap in enumerate(gaps):
        for j, segment in enumerate(gap.tail):
            where = place[behind == i] + 1 + j
            elements[where], trains[where] = number, segment.trains
            number += 1
        for j, segment in enumerate(gap.head):
            where = bounds[:-1][ahead == i] + j
            elements[where], trains[where] = number, segment.trains
            number += 1
    return elements, trains, bounds


def _num_bytes(texts: pa.LargeStringArray) -> Array:
    ends = np.frombuffer(texts.buffers()[1], dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.diff(ends)


# ---- with tokens ----


@dataclass(frozen=True)
class TextMask:
    """Which tokens of T texts train: all or none of a text, or what `mask` says"""

    trains: Array  # (T,) uint8
    is_mixed: Array  # (T,) bool: texts of which a part trains
    mask: Array  # (m,) uint8: of the tokens of these


def text_mask(
    layout: Layout, ids: Array, lengths: Array, border: str, encode: Encoder, tokenizer: Tokenizer
) -> TextMask:
    """Of the tokens (n,) of all texts; `border`: a template's mask. ValueError where they are not the bytes of their texts."""
    counts = np.diff(layout.bounds)
    flags = np.add.reduceat(layout.trains, layout.bounds[:-1], dtype=np.int64) if len(counts) else counts
    is_mixed = (flags != 0) & (flags != counts)
    mask = np.zeros(0, dtype=np.uint8)
    if is_mixed.any():
        mixed, inside = np.flatnonzero(is_mixed), np.repeat(is_mixed, counts)  # inside (E,)
        num_bytes = _bytes_of_elements(layout, mixed, layout.num_bytes[inside], encode, tokenizer)
        sizes = tokenizer.token_bytes()[ids[np.repeat(is_mixed, lengths)]]
        mask = _overlapping(sizes, num_bytes, layout.trains[inside], border)
    return TextMask((flags > 0).astype(np.uint8), is_mixed, mask)


def _overlapping(sizes: Array, num_bytes: Array, trains: Array, border: str) -> Array:
    """(n,) uint8: tokens of so many bytes that train, by (e,) elements of so many"""
    ends, element_ends = np.cumsum(sizes, dtype=np.int64), np.cumsum(num_bytes)
    if len(ends) and ends[-1] != element_ends[-1]:
        raise ValueError("the encoder gave other text back than it was given: build with --encoder tiktoken")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], trains.astype(np.int8), [0]])))
    bounds = np.append(0, element_ends)[changes].reshape(-1, 2)  # in bytes
    bounds = bounds[bounds[:, 0] < bounds[:, 1]]
    if border == "sampled":
        first, stop = np.searchsorted(ends - sizes, bounds[:, 0]), np.searchsorted(ends, bounds[:, 1], side="right")
    else:
        first, stop = np.searchsorted(ends, bounds[:, 0], side="right"), np.searchsorted(ends - sizes, bounds[:, 1])
    opened = np.bincount(first, minlength=len(ends) + 1) - np.bincount(np.maximum(stop, first), minlength=len(ends) + 1)
    return (np.cumsum(opened[:-1]) > 0).astype(np.uint8)


def _bytes_of_elements(layout: Layout, mixed: Array, num_bytes: Array, encode: Encoder, tokenizer: Tokenizer) -> Array:
    """(e,) bytes of the elements of the mixed texts, once those are cut and normalized; `num_bytes`: before"""
    texts = layout.texts if len(mixed) == len(layout.texts) else layout.texts.take(index_array(mixed))
    starts = offsets(np.diff(layout.bounds)[mixed])
    for t in np.flatnonzero(encode.is_changed(texts)).tolist():
        inside = slice(starts[t], starts[t + 1])
        raw = texts[t].as_py()
        data = raw.encode()
        places = [len(data[:place].decode()) for place in np.cumsum(num_bytes[inside]).tolist()]
        num_bytes[inside] = np.diff(normalized_places(raw, [0, *places], tokenizer))
    return num_bytes


def assemble(layout: Layout, ids: Array, lengths: Array, texts: TextMask) -> tuple[Array, Array, Array, Array]:
    """Tokens (n,) of texts, their lengths (T,) and mask -> tokens (N,), mask (N,), lengths (C,), trained tokens (C,)"""
    constant = np.array([len(gap.ids) for gap in layout.gaps], dtype=np.int64)
    sizes = constant[layout.gap_of]  # (G,) with the text behind the gap
    sizes[layout.text_gap] += lengths
    starts = offsets(sizes)
    trains, is_mixed = np.zeros(len(sizes), dtype=np.uint8), np.zeros(len(sizes), dtype=bool)
    trains[layout.text_gap], is_mixed[layout.text_gap] = texts.trains, texts.is_mixed
    total = int(starts[-1])
    tokens, mask = np.empty(total, dtype=ids.dtype), np.repeat(trains, sizes)
    is_text = np.ones(total, dtype=bool)
    order = np.argsort(layout.gap_of, kind="stable")
    bounds = offsets(np.bincount(layout.gap_of, minlength=len(layout.gaps)))
    for i, gap in enumerate(layout.gaps):
        where = starts[order[bounds[i] : bounds[i + 1]]]
        for j, (id_, flag) in enumerate(zip(gap.ids, gap.mask, strict=True)):
            tokens[where + j], mask[where + j], is_text[where + j] = id_, flag, False
    tokens[is_text] = ids
    if len(texts.mask):
        mask[is_text & np.repeat(is_mixed, sizes)] = texts.mask
    return tokens, mask, np.diff(starts[layout.conversation_gaps]), _num_trained(layout, lengths, texts)


def _num_trained(layout: Layout, lengths: Array, texts: TextMask) -> Array:
    """(C,) trained tokens"""
    of_text = np.where(texts.is_mixed, 0, lengths * texts.trains)
    if len(texts.mask):
        ends = np.cumsum(lengths[texts.is_mixed])
        before = np.append(0, np.cumsum(texts.mask, dtype=np.int64))
        of_text[texts.is_mixed] = np.diff(before[ends], prepend=0)
    num = np.array([sum(gap.mask) for gap in layout.gaps], dtype=np.int64)[layout.gap_of]  # (G,)
    num[layout.text_gap] += of_text
    trained: Array = np.diff(offsets(num)[layout.conversation_gaps])
    return trained
