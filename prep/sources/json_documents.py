"""
JSON that is not a value a line, as lines: an array of rows, objects that are printed over several lines, one after the other.

    [{"messages": ...},      {                        ->    {"messages": ...}\\n{"messages": ...}\\n
     {"messages": ...}]        "messages": ...
                             }

The text of a row stays what it is, line ends between its tokens aside: what JSON means by it is decided where lines are read.
The json module of Python finds where a row ends. In memory are a chunk of the file and the row that it ends in.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

START_BYTES = 1 << 20  # by which a file is judged
LONGEST_ROW = 64 << 20  # characters after which an error is one of the file, not of the end of what was read
SPACES = re.compile(r"[ \t\r\n]*")
ON_ONE_LINE = {ord("\n"): " ", ord("\r"): " "}
SELF_DELIMITING = '{["'
DELIMITERS = tuple(" \t\r\n,]")
DECODER = json.JSONDecoder()


def is_document(start: bytes) -> bool:
    r"""
    Whether a file that begins so, its first START_BYTES, is such JSON. A line that is a bare list of messages is a row.

    >>> is_document(b'[{"text": "a"}]'), is_document(b'[{"role": "user"}]'), is_document(b'{\n "a": 1\n}')
    (True, False, True)
    """
    text = start.decode("utf-8", "surrogateescape").lstrip("\ufeff \t\r\n")
    line, _, others = text.partition("\n")
    value, end = _first_value(text)
    if text.startswith("{"):
        return end > len(line) if end else line.strip() == "{"
    if not text.startswith("[") or (end and end <= len(line) and others.strip()):
        return False  # a value a line
    row, row_end = (value[0] if value else None, 0) if end else _first_value(text[1:].lstrip())
    if row_end == 0 and not end:
        return len(start) == START_BYTES  # a row of more than that; a shorter one would have been read
    return isinstance(row, list) or (isinstance(row, dict) and not {"role", "from"} & row.keys())


def _first_value(text: str) -> tuple[Any, int]:
    """The first value of a text and where it ends; 0 where there is none, or not all of it"""
    try:
        return DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None, 0


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The values of such JSON, each as a line. ValueError, with the character, where it is none."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text, before, wait_for = "", 0, 0
    state = "begin"  # begin, value (of an array), comma, objects (one after the other), end
    for chunk in chain(chunks, [b""]):
        text += decode(chunk, final=not chunk)
        if chunk and len(text) < wait_for:
            continue  # a row that did not end: look again when there is twice as much
        place = 0
        while (place := _skip_spaces(text, place)) < len(text):
            sign = text[place]
            if state == "begin":
                place += sign == "\ufeff"
                state = "value" if text[place : place + 1] == "[" else "objects"
                place += state == "value"
                continue
            if state == "comma" and sign in ",]":
                state = "value" if sign == "," else "end"
            elif state == "value" and sign == "]":
                state = "end"
            elif state in ("comma", "end"):
                raise ValueError(f"unexpected {sign!r} at character {before + place:,}")
            else:
                try:
                    _, end = DECODER.raw_decode(text, place)
                except ValueError as error:
                    at = getattr(error, "pos", place)
                    if not chunk or at < len(text) - LONGEST_ROW:
                        raise ValueError(f"{getattr(error, 'msg', error)} at character {before + at:,}") from None
                    break
                if chunk and sign not in SELF_DELIMITING and text[end : end + 1] not in DELIMITERS:
                    break  # a number that goes on
                yield text[place:end].translate(ON_ONE_LINE).encode("utf-8", "surrogateescape") + b"\n"
                place, state = end, "comma" if state == "value" else state
                continue
            place += 1
        text, before = text[place:], before + place
        wait_for = 2 * len(text)
    if state in ("value", "comma"):
        raise ValueError(f"it ends before its array does, at character {before + len(text):,}")


def _skip_spaces(text: str, place: int) -> int:
    found = SPACES.match(text, place)
    return found.end() if found else place
