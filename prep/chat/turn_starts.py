r"""
Where turns are in tokens that are written already: for verify, and for what a user says.

    <|im_start|> user \n 2+2? <|im_end|> \n <|im_start|> assistant \n 4 <|im_end|> \n
     start, role user ^                      start, role assistant   ^ said from here on

In ChatML a role is text: a turn begins with a control, and what follows says whose it is. A newline of the prompt may be one
token with what is said; such a token is said.
"""

from dataclasses import dataclass

import numpy as np

from prep.arrays import Array
from prep.chat.encoding import Segment, cut_controls
from prep.chat.template import ChatTemplate
from prep.conversations.conversation import ROLES
from prep.jinja.format import JinjaTemplate
from prep.tokenizer.tokenizer import Tokenizer

OTHER = len(ROLES)  # a turn of no known role


@dataclass(frozen=True)
class Turns:
    """Turns in flat tokens (n,)"""

    starts: Array  # (K,) of the control with which each begins
    said: Array  # (K,) of the first token after its prompt
    roles: Array  # (K,) place in ROLES, or OTHER


@dataclass(frozen=True)
class Opening:
    """What a turn of a role begins with: ids that are always these, and bytes that may be one token with what is said"""

    role: int
    ids: tuple[int, ...]
    rest: int


def openings(template: ChatTemplate | JinjaTemplate, tokenizer: Tokenizer) -> list[Opening]:
    """Of each role of a format; of a Jinja template they are not known"""
    out: list[Opening] = []
    if isinstance(template, JinjaTemplate):
        return out
    for role, turn in template.format.turns.items():
        opens = turn.opens if template.mask == "sampled" else ""
        pieces = cut_controls([Segment(turn.before + opens, False)], template.format.controls, tokenizer)
        ids: list[int] = []
        rest = ""
        for number, (text, _, id_) in enumerate(pieces):
            if id_ is not None:
                ids.append(id_)
                continue
            is_last = number == len(pieces) - 1
            fixed = text.rstrip("\n") if is_last else text
            rest = text[len(fixed) :] if is_last else ""
            ids += tokenizer.encoding.encode_ordinary(fixed)
        out.append(Opening(ROLES.index(role), tuple(ids), len(rest.encode())))
    return out


def find_turns(tokens: Array, template: ChatTemplate | JinjaTemplate, tokenizer: Tokenizer) -> Turns:
    """The turns in flat tokens (n,)"""
    known = openings(template, tokenizer)
    starts = np.flatnonzero(np.isin(tokens, [opening.ids[0] for opening in known]))
    padded = np.append(tokens, np.full(64, tokenizer.vocab_size, dtype=np.int64))
    roles, said = np.full(len(starts), OTHER), starts + 1
    sizes = np.append(tokenizer.token_bytes().astype(np.int64), 1 << 30)
    for opening in known:
        matches = np.ones(len(starts), dtype=bool)
        for j, id_ in enumerate(opening.ids):
            matches &= padded[starts + j] == id_
        place, left = starts[matches] + len(opening.ids), np.full(int(matches.sum()), opening.rest)
        for _ in range(opening.rest):  # tokens that are wholly of the prompt
            size = sizes[padded[place]]
            inside = (size <= left) & (size > 0)
            place, left = place + inside, left - np.where(inside, size, 0)
        roles[matches], said[matches] = opening.role, place
    return Turns(starts, said, roles)
