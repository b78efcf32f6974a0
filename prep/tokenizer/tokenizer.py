"""
The tokenizer: ranks, a split pattern and special tokens; of Hugging Face's also added tokens and NFC.

    "2+2?" -> pattern -> "2", "+", "2", "?" -> ranks -> [50, 43, 50, 63]      nano32k: 32,759 ranks + 9 special tokens

    ids    0 .. 32758     32759      32760          ...  32767
           ranks          <|bos|>  <|user_start|>        <|output_end|>

Every tokenizer is checked when it is made (prep/tokenizer/spec.py). Two tokenizers are the same if their sha256 is: it covers
what decides the ids of a text and of control tokens, but neither the name nor the file that it was read from.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from prep import shard
from prep.files import nameless_file
from prep.same_tokenizer import by_id, ranks_file, tokenizer_sha256
from prep.tokenizer.added import added_pattern, to_nfc
from prep.tokenizer.spec import TokenizerSpec, check_spec

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


@dataclass(frozen=True, eq=False)
class Tokenizer(TokenizerSpec):
    """A tokenizer that passed `check_spec`; its vocab_size is the model's, or the number of ids where no file says it."""

    source: str = field(default="", repr=False)  # where it was read from, for people
    bos_id: int | None = field(init=False)  # <|bos|>, or what the files put first

    def __post_init__(self) -> None:
        check_spec(self)
        largest = max(*self.ranks.values(), *self.special_tokens.values(), *self.added_tokens.values())
        object.__setattr__(self, "vocab_size", self.vocab_size or largest + 1)
        first = self.bos_token if self.adds_bos and self.bos_token is not None else None
        object.__setattr__(
            self, "bos_id", self.special_tokens.get(SPECIAL_TOKENS[0], self.special_tokens.get(first or ""))
        )

    @classmethod
    def of(cls, spec: TokenizerSpec, source: str = "") -> "Tokenizer":
        """The tokenizer that a file holds"""
        return cls(**vars(spec), source=source)

    def __getstate__(self) -> dict[str, Any]:
        """Workers get everything but the encoder, and make their own."""
        return {name: value for name, value in vars(self).items() if name not in ("encoding", "_token_bytes")}

    @property
    def num_ids(self) -> int:
        """Its largest id and 1; a model may have more"""
        return max(*self.ranks.values(), *self.special_tokens.values(), *self.added_tokens.values()) + 1

    @cached_property
    def sha256(self) -> str:
        return tokenizer_sha256(self.ranks, self.pattern, self.special_tokens, self.added_tokens, self.normalizer)

    def special_id(self, text: str) -> int:
        """The id of a special token. ValueError where there is none of this text."""
        if text not in self.special_tokens:
            kind = "only as one that stands for ordinary text too" if text in self.added_tokens else "not at all"
            raise ValueError(
                f"tokenizer {self.name} has no special token {text!r:.60} ({kind}): see `midprep tokenizer info`."
            )
        return self.special_tokens[text]

    # ---- text, before the pattern splits it ----

    @cached_property
    def added_pattern(self) -> re.Pattern[str]:
        return added_pattern(self.added_tokens)

    def cut(self, text: str) -> list[str | int]:
        """
        The ids of its added tokens, and the text between them as it stands: the leftmost, of those the longest

        >>> tokenizer.cut("a</think>b")     ["a", 151668, "b"]
        """
        if not self.added_tokens:
            return [text] if text else []
        return [self.added_tokens.get(part, part) for part in self.added_pattern.split(text) if part]

    def normalize(self, piece: str) -> str:
        """A piece between added tokens as its normalizer leaves it"""
        return to_nfc(piece) if self.normalizer else piece

    # ---- ids, and files ----

    @cached_property
    def file(self) -> bytes:
        """The .tiktoken file of its ranks; equal ranks give equal bytes."""
        return ranks_file(self.ranks)

    @cached_property
    def encoding(self) -> "tiktoken.Encoding":
        import tiktoken

        special_tokens = self.special_tokens | self.added_tokens  # for `decode`; no text is encoded to one
        return tiktoken.Encoding(
            self.name, pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens=special_tokens
        )

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens included; bytes that are not UTF-8 become U+FFFD."""
        return self.encoding.decode([int(id_) for id_ in ids], errors="replace")

    def token_bytes(self) -> npt.NDArray[np.uint16]:
        """(V,) number of bytes of each token, 0 for special tokens and unused ids. ValueError over 65,535 bytes."""
        return self._token_bytes

    @cached_property
    def _token_bytes(self) -> npt.NDArray[np.uint16]:
        words = self.ranks | {text.encode(): id_ for text, id_ in self.added_tokens.items()}
        longest = max(words, key=len)
        if len(longest) > 0xFFFF:
            raise ValueError(
                f"tokenizer {self.name}: token {words[longest]} has {len(longest):,} bytes, a build holds 65,535"
            )
        out = np.zeros(self.vocab_size, dtype=np.uint16)
        out[np.fromiter(words.values(), np.int64, len(words))] = [len(word) for word in words]
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
        """
        Write the files that every build has into `root`: three, of Hugging Face's with its own tokenizer.json and what
        stood beside it. Returns {file: {"bytes", "sha256"}}.
        """
        token_bytes = self.token_bytes()
        return {
            "tokenizer.tiktoken": shard.write_bytes(root / "tokenizer.tiktoken", self.file),
            **{name: shard.write_bytes(root / name, data) for name, data in (self.files or self._own_file()).items()},
            "token_bytes.npy": shard.write_array(root / "token_bytes.npy", token_bytes),
        }

    def _own_file(self) -> dict[str, bytes]:
        """tokenizer.json with what ranks do not say"""
        about: dict[str, Any] = {"name": self.name, "pattern": self.pattern}
        about["special_tokens"] = dict(by_id(self.special_tokens))
        if self.added_tokens:
            about["added_tokens"] = dict(by_id(self.added_tokens))
        if self.normalizer:
            about["normalizer"] = self.normalizer
        text = json.dumps(about | {"sha256": self.sha256}, ensure_ascii=False, indent=1) + "\n"
        return {"tokenizer.json": text.encode()}
