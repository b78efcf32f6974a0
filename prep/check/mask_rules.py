"""
The rules of the mask, checked on what was written: what each token's mask has to be follows from the tokens around it.

    <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|python_start|> 2+2 <|python_end|> <|assistant_end|>
       0          0          0       0              0            1         1         1        1              1

A special token has a mask of its own; a text token has that of the region it is in, which the last special token before
it says, or the next one after it where a document begins in the middle of a message. No renderer takes part: text never
encodes to a special token, so the shards alone are enough.

Where the data says that some turns of the assistant's are context (`train_on`, "train": false), a turn is trained as above
or not at all; nothing else is ever trained.
"""

from typing import Any

import numpy as np

from prep.arrays import Array
from prep.chat.template import ChatTemplate
from prep.chat.turn_starts import find_turns
from prep.conversations.conversation import ASSISTANT
from prep.tokenizer.tokenizer import Tokenizer

UNKNOWN = 2

# token: its own mask, that of the text after it, that of the text before it
RULES = {
    "<|bos|>": (0, UNKNOWN, UNKNOWN),  # before text only where a bos leads the rest of a conversation that was split
    "<|user_start|>": (0, 0, UNKNOWN),
    "<|user_end|>": (0, UNKNOWN, 0),
    "<|assistant_start|>": (0, 1, UNKNOWN),
    "<|assistant_end|>": (1, UNKNOWN, 1),
    "<|python_start|>": (1, 1, 1),
    "<|python_end|>": (1, 1, 1),
    "<|output_start|>": (0, 0, 1),
    "<|output_end|>": (0, 1, 0),
}


def expected_mask(tokens: Array, first: Array, special_tokens: dict[str, int]) -> Array:
    """
    Flat tokens (n,) of documents that begin at `first` (D,) -> the mask each token must have (n,) uint8, UNKNOWN where
    the document does not say: it is a part of one message without any special token.
    """
    num_ids = max(int(tokens.max(initial=0)), *special_tokens.values()) + 1
    own, after, before = (np.full(num_ids, UNKNOWN, dtype=np.uint8) for _ in range(3))
    special = np.zeros(num_ids, dtype=bool)
    for name, rule in RULES.items():
        own[special_tokens[name]], after[special_tokens[name]], before[special_tokens[name]] = rule
        special[special_tokens[name]] = True
    place, is_special = np.arange(len(tokens)), special[tokens]
    starts = np.repeat(first, np.diff(np.append(first, len(tokens))))  # of the document of each token
    ends = np.repeat(np.append(first[1:], len(tokens)), np.diff(np.append(first, len(tokens))))
    last = np.maximum.accumulate(np.where(is_special, place, -1))
    following = np.minimum.accumulate(np.where(is_special, place, len(tokens))[::-1])[::-1]
    from_last = np.where(last >= starts, after[tokens[np.maximum(last, 0)]], UNKNOWN)
    from_next = np.where(following < ends, before[tokens[np.minimum(following, len(tokens) - 1)]], UNKNOWN)
    text = np.where(from_last != UNKNOWN, from_last, from_next)
    expected: Array = np.where(is_special, own[tokens], text)
    return expected


def may_skip(sources: list[dict[str, Any]]) -> Array:
    """(sources,) bool: of whose conversations a turn of the assistant's may be context, by the manifest's entries"""
    return np.array([source.get("train_flags", False) or source.get("train_on", "all") != "all" for source in sources])


def may_skip_parts(sources: list[dict[str, Any]]) -> Array:
    """(sources,) bool: of whose conversations a part of a turn may be context, as `train_on` lists what trains of it"""
    return np.array([isinstance(source.get("train_on"), list) for source in sources], dtype=bool)


def broken_rules(
    tokens: Array,
    mask: Array,
    first: Array,
    special_tokens: dict[str, int],
    whole: bool,
    may_skip: Array | bool = False,
    may_skip_parts: Array | bool = False,
) -> list[tuple[int, str]]:
    """
    Where flat tokens (n,) and mask (n,) of documents beginning at `first` (D,) break a rule: [(place, what), ...], the
    first place of each rule. `whole`: every document begins with a bos and has no other. `may_skip` (D,) bool: documents in
    which turns of the assistant's may be context.
    """
    bos = special_tokens["<|bos|>"]
    is_first = np.zeros(len(tokens), dtype=bool)
    is_first[first] = True
    num_tokens = np.diff(np.append(first, len(tokens)))
    skipped = _skipped(tokens, mask, is_first, special_tokens)
    skipped &= np.repeat(np.broadcast_to(may_skip, len(first)), num_tokens)
    skipped |= np.repeat(np.broadcast_to(may_skip_parts, len(first)), num_tokens)
    wrong = {
        "a bos inside a document": (tokens == bos) & ~is_first,
        "a document that does not begin with bos": (tokens != bos) & is_first & whole,
        "trained, which is not the assistant's": (expected := expected_mask(tokens, first, special_tokens)) < mask,
        "not trained, which the assistant says": (expected > mask) & (expected != UNKNOWN) & ~skipped,
    }
    return [(int(np.flatnonzero(where)[0]), what) for what, where in wrong.items() if where.any()]


def broken_turns(
    tokens: Array,
    mask: Array,
    first: Array,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    may_skip: Array | bool = False,
) -> list[tuple[int, str]]:
    """
    The same for a chat format in which a turn begins with a control and a role: what the assistant says trains from its first
    token to the end of its turn, or (where it may be skipped) in part or not at all; nothing else does, but for documents.
    """
    turns = find_turns(tokens, template, tokenizer)
    num_tokens = np.diff(np.append(first, len(tokens)))
    bounds = np.unique(np.concatenate([turns.starts, first, [len(tokens)]]))  # a turn ends where another begins
    ends = bounds[np.searchsorted(bounds, turns.starts, side="right")]
    is_assistant = (turns.roles == ASSISTANT) & (turns.said < ends)
    change = np.bincount(turns.said[is_assistant], minlength=len(tokens) + 1)
    change -= np.bincount(ends[is_assistant], minlength=len(tokens) + 1)
    says = np.cumsum(change[:-1]) > 0  # (n,) the assistant does
    turn = np.cumsum(np.isin(np.arange(len(tokens)), turns.starts))
    headless = turn == np.repeat(
        np.append(0, turn)[first], num_tokens
    )  # a document, or the rest of a turn that was split
    is_control = np.isin(tokens, [tokenizer.special_id(name) for name in template.format.controls])
    must = says & ~np.repeat(np.broadcast_to(may_skip, len(first)), num_tokens)
    may = says | headless
    if template.mask == "sampled":  # not what stands in the prompt, nor what follows the end
        must &= is_control
        may &= ~np.append(False, is_control[:-1]) | is_control
    wrong = {
        "trained, which is not the assistant's": (mask > 0) & ~may,
        "not trained, which the assistant says": (mask == 0) & must,
    }
    return [(int(np.flatnonzero(where)[0]), what) for what, where in wrong.items() if where.any()]


def _skipped(tokens: Array, mask: Array, is_first: Array, special_tokens: dict[str, int]) -> Array:
    """(n,) bool: tokens from one start of the assistant's, or of a document, to the next, of which none is trained"""
    if not len(tokens):
        return np.zeros(0, dtype=bool)
    begins = np.flatnonzero((tokens == special_tokens["<|assistant_start|>"]) | is_first)
    return np.repeat(np.maximum.reduceat(mask, begins) == 0, np.diff(np.append(begins, len(tokens))))
