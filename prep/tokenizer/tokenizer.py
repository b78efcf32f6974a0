"""
The tokenizer: ranks, a split pattern and special tokens.

    "2+2?" -> pattern -> "2", "+", "2", "?" -> ranks -> [50, 43, 50, 63]      nano32k: 32,759 ranks + 9 special tokens

    ids    0 .. 32758     32759      32760          ...  32767
           ranks          <|bos|>  <|user_start|>        <|output_end|>

Every tokenizer is checked when it is made, in 10 ms: it encodes any text and loses none of it. A file that is damaged or
malicious is refused there, in one line, and not in the middle of a build. Two tokenizers are the same if their sha256 is:
it covers ranks, pattern and special tokens, but neither the name nor the file they were read from.
"""

import json
import re
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from prep import shard
from prep.files import nameless_file
from prep.same_tokenizer import by_id, ranks_file, tokenizer_sha256

if TYPE_CHECKING:
    import tiktoken

PATTERN: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS: Final = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
BYTE_RANKS: Final = {bytes([byte]): byte for byte in range(256)}
MAX_ID: Final = (1 << 24) - 1  # every table with a place for each id has this size at most

# at least one of every kind of character that patterns tell apart
PROBE: Final = "".join(map(chr, range(128))) + (
    " a  b\r\n\n\t 12345\u00e9\u0130\u4e2d\u6587\u0301\u2019s\U0001f600\u00a0\u3000\u0660\ufffd\ue000 "
)


class TokenizerSpec(NamedTuple):
    """What a tokenizer file holds; its special tokens may lack some of SPECIAL_TOKENS."""

    name: str
    ranks: dict[bytes, int]
    pattern: str
    special_tokens: dict[str, int]


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer that passed `check_spec` and has all of SPECIAL_TOKENS. The encoder is made on first use, in 10 ms."""

    name: str
    ranks: dict[bytes, int]
    pattern: str
    special_tokens: dict[str, int]
    source: str = field(default="", repr=False)  # where it was read from, for people
    vocab_size: int = field(init=False)
    bos_id: int = field(init=False)

    def __post_init__(self) -> None:
        check_spec(TokenizerSpec(self.name, self.ranks, self.pattern, self.special_tokens), SPECIAL_TOKENS)
        largest = max(*self.ranks.values(), *self.special_tokens.values())
        object.__setattr__(self, "vocab_size", largest + 1)
        object.__setattr__(self, "bos_id", self.special_tokens[SPECIAL_TOKENS[0]])

    def __getstate__(self) -> dict[str, Any]:
        """Workers get everything but the encoder, and make their own."""
        return {name: value for name, value in vars(self).items() if name != "encoding"}

    @cached_property
    def sha256(self) -> str:
        return tokenizer_sha256(self.ranks, self.pattern, self.special_tokens)

    @cached_property
    def file(self) -> bytes:
        """The .tiktoken file of its ranks; equal ranks give equal bytes."""
        return ranks_file(self.ranks)

    @cached_property
    def encoding(self) -> "tiktoken.Encoding":
        import tiktoken

        return tiktoken.Encoding(
            self.name, pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens=self.special_tokens
        )

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens included; bytes that are not UTF-8 become U+FFFD."""
        return self.encoding.decode([int(id_) for id_ in ids], errors="replace")

    def token_bytes(self) -> npt.NDArray[np.uint16]:
        """(V,) number of bytes of each token, 0 for special tokens and unused ids. ValueError over 65,535 bytes."""
        longest = max(self.ranks, key=len)
        if len(longest) > 0xFFFF:
            raise ValueError(
                f"tokenizer {self.name}: token {self.ranks[longest]} has {len(longest):,} bytes, a build holds 65,535"
            )
        out = np.zeros(self.vocab_size, dtype=np.uint16)
        out[np.fromiter(self.ranks.values(), np.int64, len(self.ranks))] = [len(token) for token in self.ranks]
        return out

    @contextmanager
    def as_file(self) -> Iterator[Path]:
        """A .tiktoken file of its ranks, for libraries that read one; it has no name, so nobody needs to remove it"""
        with nameless_file() as file:
            file.write(self.file)
            file.flush()
            file.seek(0)
            yield Path(f"/dev/fd/{file.fileno()}")

    def write(self, root: Path) -> dict[str, dict[str, Any]]:
        """Write the three files that every build has into `root`; returns {file: {"bytes", "sha256"}}."""
        special_tokens, token_bytes = dict(by_id(self.special_tokens)), self.token_bytes()
        about = {"name": self.name, "pattern": self.pattern, "special_tokens": special_tokens, "sha256": self.sha256}
        text = json.dumps(about, ensure_ascii=False, indent=1) + "\n"
        return {
            "tokenizer.tiktoken": shard.write_bytes(root / "tokenizer.tiktoken", self.file),
            "tokenizer.json": shard.write_bytes(root / "tokenizer.json", text.encode()),
            "token_bytes.npy": shard.write_array(root / "token_bytes.npy", token_bytes),
        }


# ---- what makes a tokenizer ----


def check_spec(spec: TokenizerSpec, required: tuple[str, ...] = ()) -> None:
    """ValueError, in one line, if the spec does not make a tokenizer that has the `required` special tokens"""
    if problem := next(_problems(spec, required), None):
        raise ValueError(f"tokenizer {spec.name if isinstance(spec.name, str) else '':.40}: {problem}")


def _problems(spec: TokenizerSpec, required: tuple[str, ...]) -> Iterator[str]:
    """What is wrong, the first problem first; what follows it may be nonsense"""
    for field_name, value, kind in zip(spec._fields, spec, (str, dict, str, dict), strict=True):
        if type(value) is not kind:
            yield f"{field_name} is {type(value).__name__}, wanted {kind.__name__}"
    tokens_of_ids: dict[int, bytes | str] = {}
    for kind, ids_of_tokens in ((bytes, spec.ranks), (str, spec.special_tokens)):
        for token, id_ in ids_of_tokens.items():
            if type(token) is not kind or not token or type(id_) is not int or not 0 <= id_ <= MAX_ID:
                yield f"token {token!r:.40} has id {reprlib.repr(id_):.40}, wanted {kind.__name__} and 0 .. {MAX_ID}"
            if id_ in tokens_of_ids:
                yield f"id {id_} is taken twice, by {tokens_of_ids[id_]!r:.40} and {token!r:.40}"
            tokens_of_ids[id_] = token
    for text in spec.special_tokens:
        if re.search("[\ud800-\udfff]", text):
            yield f"special token {text!r:.40} is not valid Unicode"
    missing_bytes = [byte for byte in BYTE_RANKS if byte not in spec.ranks]
    if missing_bytes:
        yield f"byte 0x{missing_bytes[0].hex()} is not a token ({len(missing_bytes)} missing), wanted all 256"
    largest = max(spec.ranks.values())  # a hole below it means a damaged file, and an id without text
    hole = next((id_ for id_ in range(largest) if id_ not in tokens_of_ids), None)
    if hole is not None:
        yield f"no token has id {hole}, there are {len(spec.ranks):,} ranks up to {largest:,}"
    missing = [text for text in required if text not in spec.special_tokens]
    if missing:
        yield f"special tokens missing: {', '.join(missing)}"
    yield from _problems_of_pattern(spec.pattern)


def _problems_of_pattern(pattern: str) -> Iterator[str]:
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
