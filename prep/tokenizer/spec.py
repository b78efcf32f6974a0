"""
What tokenizer files hold, and what makes a tokenizer of it: it encodes any text, loses none, and has one id for each token.

    name, ranks, pattern, special_tokens     every kind of file
    added_tokens, normalizer                 Hugging Face's: cut out of ordinary text; "NFC" or None
    bos_token .. chat_template, files        what stands beside it: names, a template, the files as they are
    vocab_size                               the model's, from config.json: it may be padded; 0 where nobody says it

A file that is damaged or malicious is refused in one line, the first problem first, before anything is made of it. 10 ms.
"""

import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

BYTE_RANKS: Final = {bytes([byte]): byte for byte in range(256)}
MAX_ID: Final = (1 << 24) - 1  # every table with a place for each id has this size at most

# at least one of every kind of character that patterns tell apart
PROBE: Final = "".join(map(chr, range(128))) + (
    " a  b\r\n\n\t 12345\u00e9\u0130\u4e2d\u6587\u0301\u2019s\U0001f600\u00a0\u3000\u0660\ufffd\ue000 "
)


@dataclass(frozen=True, eq=False)
class TokenizerSpec:
    """What a tokenizer file holds, before it is checked"""

    name: str
    ranks: dict[bytes, int]
    pattern: str
    special_tokens: dict[str, int]  # control tokens: text that spells one is ordinary text
    added_tokens: dict[str, int] = field(default_factory=dict)  # cut out of ordinary text, longest first
    normalizer: str | None = None  # "NFC", of each piece between added tokens
    bos_token: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None
    adds_bos: bool = False  # the files put bos_token first
    chat_template: str | None = field(default=None, repr=False)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)  # that a build keeps as they are
    vocab_size: int = 0


def check_spec(spec: TokenizerSpec) -> None:
    """ValueError, in one line, if the spec does not make a tokenizer"""
    if problem := next(_problems(spec), None):
        raise ValueError(f"tokenizer {spec.name if isinstance(spec.name, str) else '':.40}: {problem}")


def _problems(spec: TokenizerSpec) -> Iterator[str]:
    """What is wrong, the first problem first; what follows it may be nonsense"""
    kinds = {"name": str, "ranks": dict, "pattern": str, "special_tokens": dict, "added_tokens": dict}
    for field_name, wanted in kinds.items():
        value = getattr(spec, field_name)
        if type(value) is not wanted:
            yield f"{field_name} is {type(value).__name__}, wanted {wanted.__name__}"
    if spec.normalizer not in (None, "NFC"):
        yield f"its normalizer is {spec.normalizer!r:.40}, wanted NFC or none"
    tokens_of_ids: dict[int, bytes | str] = {}
    for kind, ids_of_tokens in ((bytes, spec.ranks), (str, spec.special_tokens), (str, spec.added_tokens)):
        for token, id_ in ids_of_tokens.items():
            if type(token) is not kind or not token or type(id_) is not int or not 0 <= id_ <= MAX_ID:
                yield f"token {token!r:.40} has id {reprlib.repr(id_):.40}, wanted {kind.__name__} and 0 .. {MAX_ID}"
            if id_ in tokens_of_ids:
                yield f"id {id_} is taken twice, by {tokens_of_ids[id_]!r:.40} and {token!r:.40}"
            tokens_of_ids[id_] = token
    for text in (*spec.special_tokens, *spec.added_tokens):
        if re.search("[\ud800-\udfff]", text):
            yield f"special token {text!r:.40} is not valid Unicode"
    if both := next((text for text in spec.added_tokens if text in spec.special_tokens), None):
        yield f"{both!r:.40} is a special token and an added one that stands for ordinary text, wanted one"
    missing_bytes = [byte for byte in BYTE_RANKS if byte not in spec.ranks]
    if missing_bytes:
        yield f"byte 0x{missing_bytes[0].hex()} is not a token ({len(missing_bytes)} missing), wanted all 256"
    largest = max(spec.ranks.values())  # a hole below it means a damaged file, and an id without text
    hole = next((id_ for id_ in range(largest) if id_ not in tokens_of_ids), None)
    if hole is not None:
        yield f"no token has id {hole}, there are {len(spec.ranks):,} ranks up to {largest:,}"
    last_id = max(tokens_of_ids)
    if spec.vocab_size and spec.vocab_size <= last_id:
        yield f"it has id {last_id:,}, the model's vocabulary of {spec.vocab_size:,} ends before: give the model's vocab_size"
    if spec.vocab_size > MAX_ID:
        yield f"the model's vocabulary has {spec.vocab_size:,} ids, wanted at most {MAX_ID:,}"
    yield from problems_of_pattern(spec.pattern)


def problems_of_pattern(pattern: str) -> Iterator[str]:
    """It must compile, match no empty text (tiktoken would panic), and leave no character out (it would be lost)"""
    import tiktoken

    ranks = BYTE_RANKS | {b"": 256}  # 256 shows an empty match
    try:
        encoding = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        ids = encoding.encode_ordinary(PROBE)
    except (ValueError, TypeError) as error:
        yield f"the pattern {pattern!r:.80} does not compile ({' '.join(str(error).split())[:120]})"
        return
    if 256 in ids:
        yield f"the pattern {pattern!r:.80} matches empty text, wanted a pattern that never does"
    if bytes(ids) != PROBE.encode():
        yield f"the pattern {pattern!r:.80} leaves characters out, which would be lost"
