r"""
Text of a conversation to tokens and mask, the plain way: cut at controls, cut at added tokens, normalized, encoded.

    scaffold "<|im_start|>assistant\n", said "\nHi"      ->   <|im_start|>  assistant  \n\n  Hi
    trained         no                    yes                     0            0        1     1

A token trains if any of its bytes does; where the mask is what a model would have sampled, if all of them do: prompted with
`assistant\n` it cannot say a token that begins with that newline. The columnar renderer does the same on arrays.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from prep.tokenizer.tokenizer import Tokenizer


class Segment(NamedTuple):
    """Text, whether it trains, and the id where it is a control"""

    text: str
    trains: bool
    id: int | None = None


def cut_controls(segments: Iterable[Segment], controls: tuple[str, ...], tokenizer: Tokenizer) -> list[Segment]:
    """Scaffold cut at controls and at added tokens, each of which becomes a segment with an id"""
    names = sorted({*controls, *tokenizer.added_tokens}, key=len, reverse=True)
    pattern = re.compile(f"({'|'.join(map(re.escape, names))})") if names else None
    out: list[Segment] = []
    for text, trains, _ in segments:
        for piece in pattern.split(text) if pattern else [text]:
            if piece:
                id_ = tokenizer.special_id(piece) if piece in controls else tokenizer.added_tokens.get(piece)
                out.append(Segment(piece, trains, id_))
    return out


def encode_segments(segments: Iterable[Segment], mask_name: str, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Segments -> ids, and the mask, `format` or `sampled`, of equal length. Neighbours without an id are one text."""
    ids: list[int] = []
    mask: list[int] = []
    text: list[Segment] = []
    for segment in [*segments, Segment("", False, -1)]:
        if segment.id is None:
            text.append(segment)
            continue
        if text:
            encoded, trained = encode_text(text, mask_name, tokenizer)
            ids += encoded
            mask += trained
            text = []
        if segment.id >= 0:
            ids.append(segment.id)
            mask.append(int(segment.trains))
    return ids, mask


def encode_text(segments: list[Segment], mask_name: str, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """One text in segments -> ids and mask. No segment has an id."""
    whole = "".join(segment.text for segment in segments)
    ids = [id_ for piece in tokenizer.cut(whole) for id_ in _encode_piece(piece, tokenizer)]
    num_bytes = tokenizer.token_bytes()
    flags: list[bool] = []
    for segment, (start, end) in zip(segments, _bounds(whole, segments, tokenizer), strict=True):
        flags += [segment.trains] * (end - start)
    trained, place = [], 0
    for id_ in ids:
        size = int(num_bytes[id_])
        own = flags[place : place + size]
        trained.append(int(all(own) if mask_name == "sampled" else any(own)))
        place += size
    return ids, trained


def _encode_piece(piece: str | int, tokenizer: Tokenizer) -> list[int]:
    if isinstance(piece, int):
        return [piece]
    return tokenizer.encoding.encode(tokenizer.normalize(piece), disallowed_special=())


def _bounds(whole: str, segments: list[Segment], tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Where each segment is in the bytes of the encoded text"""
    ends, place = [0], 0
    for segment in segments:
        place += len(segment.text)
        ends.append(place)
    places = normalized_places(whole, ends, tokenizer)
    return list(pairwise(places))


def normalized_places(text: str, places: list[int], tokenizer: Tokenizer) -> list[int]:
    """Places in a text, in characters and ascending -> places in bytes of what is encoded: cut and normalized"""
    out, start, num_bytes = [], 0, 0
    cuts = tokenizer.cut(text)
    names = {id_: name for name, id_ in tokenizer.added_tokens.items()}
    rest = list(places)
    for piece in cuts:
        raw = names[piece] if isinstance(piece, int) else piece
        while rest and rest[0] < start + len(raw):
            inner = raw[: rest.pop(0) - start]
            done = inner if isinstance(piece, int) else tokenizer.normalize(inner)
            out.append(num_bytes + len(done.encode()))
        num_bytes += len((raw if isinstance(piece, int) else tokenizer.normalize(raw)).encode())
        start += len(raw)
    return [*out, *[num_bytes] * len(rest)]
