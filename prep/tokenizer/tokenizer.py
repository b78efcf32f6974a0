"""
The tokenizer: ranks, a split pattern and special tokens, from whatever file they come.

    load_tokenizer("nano32k")       "2+2?" -> [50, 43, 50, 63]        32,759 ranks + 9 special tokens = 32,768 ids
    ids    0 .. 32758     32759      32760          ...  32767
           ranks          <|bos|>  <|user_start|>        <|output_end|>

A tokenizer is what it does, not where it lay: its sha256 covers ranks, pattern and special tokens, so the same one in
a pickle of nanochat's, a .tiktoken file and a finished build has one identity, and its name counts for nothing.
A tokenizer that lacks some of the nine special tokens gets them after its own last id; all others are kept.
Loading nano32k costs 0.03 s; the encoder, 0.01 s more, is made on first use.
"""

import difflib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from prep import shard
from prep.files import nanochat_home
from prep.tokenizer.load import identity, read_path, read_tiktoken_name, tiktoken_bytes
from prep.tokenizer.nanochat import read_nanochat
from prep.tokenizer.spec import TokenizerSpec, check_spec

if TYPE_CHECKING:
    import tiktoken

DEFAULT: Final = "nano32k"
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
SAMPLE: Final = (
    "The quick brown fox jumps over the lazy dog. It's 12:45, and 3,141 people don't know why!\n"
    "def area(r):\n    return 3.14159 * r ** 2\n\n"
    "Größe zählt nicht. ¿Qué hora es? Привет, мир. 今日は天気がいいですね。 مرحبا بالعالم 🙂\n"
)


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer that is known to be sound: `check_spec` has passed. Two are the same if their sha256 is."""

    name: str
    ranks: dict[bytes, int]
    pattern: str
    special_tokens: dict[str, int]
    source: str = field(default="", repr=False)  # where it came from, for people

    def __post_init__(self) -> None:
        check_spec(TokenizerSpec(self.name, self.ranks, self.pattern, self.special_tokens), SPECIAL_TOKENS)

    def __getstate__(self) -> dict[str, Any]:
        """Workers get the parts and the file of them, and make their own encoder"""
        return {name: value for name, value in vars(self).items() if name != "encoding"}

    @cached_property
    def vocab_size(self) -> int:
        return max(max(self.ranks.values()), max(self.special_tokens.values())) + 1

    @property
    def bos_id(self) -> int:
        return self.special_tokens[SPECIAL_TOKENS[0]]

    @cached_property
    def sha256(self) -> str:
        """Identity: over ranks, pattern and special tokens in a fixed form, never over the name"""
        return identity(self.file, self.pattern, self.special_tokens)

    @cached_property
    def file(self) -> bytes:
        """The .tiktoken file of its ranks"""
        return tiktoken_bytes(self.ranks)

    @cached_property
    def encoding(self) -> "tiktoken.Encoding":
        import tiktoken

        return tiktoken.Encoding(
            self.name, pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens=self.special_tokens
        )

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens included; bytes that are no UTF-8 become U+FFFD"""
        return self.encoding.decode([int(id_) for id_ in ids], errors="replace")

    def token_bytes(self) -> npt.NDArray[np.uint16]:
        """(V,) bytes of each token, 0 for special tokens and unused ids. ValueError over 65,535 bytes."""
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
        """A temporary .tiktoken file of its ranks, for libraries that read one"""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tokenizer.tiktoken"
            try:
                path.write_bytes(self.file)
            except OSError as error:  # a full disk does not say which file it is about
                raise OSError(error.errno, error.strerror, str(path)) from None
            yield path

    def write(self, root: Path) -> dict[str, dict[str, Any]]:
        """Write it into `root` as every build has it; returns {file: {"bytes", "sha256"}}. Equal parts, equal files."""
        by_id = dict(sorted(self.special_tokens.items(), key=lambda item: item[1]))
        about = {"name": self.name, "pattern": self.pattern, "special_tokens": by_id, "sha256": self.sha256}
        text = json.dumps(about, ensure_ascii=False, indent=1) + "\n"
        return {
            "tokenizer.tiktoken": shard.write_bytes(root / "tokenizer.tiktoken", self.file),
            "tokenizer.json": shard.write_bytes(root / "tokenizer.json", text.encode()),
            "token_bytes.npy": shard.write_array(root / "token_bytes.npy", self.token_bytes()),
        }


def make_tokenizer(parts: TokenizerSpec, source: str) -> Tokenizer:
    """A tokenizer of these parts; those of the nine special tokens that it lacks get the ids after its last"""
    known = [id_ for id_ in (*parts.ranks.values(), *parts.special_tokens.values()) if isinstance(id_, int)]
    free = max(known, default=-1) + 1
    missing = [text for text in SPECIAL_TOKENS if text not in parts.special_tokens]
    special_tokens = parts.special_tokens | {text: free + i for i, text in enumerate(missing)}
    return Tokenizer(parts.name, parts.ranks, parts.pattern, special_tokens, source)


# ---- finding one ----


def nanochat_pickle() -> Path:
    """Where a nanochat installation keeps its tokenizer"""
    return nanochat_home() / "tokenizer" / "tokenizer.pkl"


def notice_of_nanochat() -> str | None:
    """The line to say when no tokenizer was asked for and nanochat has one: nothing is chosen silently"""
    path = nanochat_pickle()
    if not path.is_file():
        return None
    return f"nanochat's tokenizer found at {path}, not used (using {DEFAULT}): --tokenizer nanochat uses it."


def load_tokenizer(name: str | Path | None = None, pattern: str | None = None) -> Tokenizer:
    """
    The tokenizer of a name or path: nano32k, nanochat, one of tiktoken's names; nanochat's directory or .pkl, a
    finished build, a .tiktoken file (the one kind that takes a `pattern`), Hugging Face's tokenizer.json or directory.
    Names win over paths: write ./gpt2 for a file of that name. ValueError or FileNotFoundError in one line.
    """
    name = DEFAULT if name is None else str(name)
    path, source = Path(name).expanduser(), name
    if name == DEFAULT:
        path, source = Path(__file__).parents[1] / "data" / "nano32k.tiktoken", "shipped with midprep"
        parts = read_path(path, PATTERN)
    elif name == "nanochat":
        path = nanochat_pickle()
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: set NANOCHAT_BASE_DIR to nanochat's directory, or give a path.")
        parts, source = read_nanochat(path), str(path)
    elif name in tiktoken_names():
        parts, source = read_tiktoken_name(name), "tiktoken"
    elif path.exists():
        parts = read_path(path, PATTERN if pattern is None else pattern)
    else:
        raise FileNotFoundError(unknown(name))
    if pattern not in (None, parts.pattern):
        raise ValueError(
            f"{name} has its own pattern ({parts.pattern[:60]} ...): --pattern goes with a .tiktoken file only."
        )
    return make_tokenizer(parts, source)


def tiktoken_names() -> list[str]:
    import tiktoken

    return tiktoken.list_encoding_names()


def unknown(name: str) -> str:
    """The line for a name that is nothing known, with the nearest right ones"""
    if os.sep in name or Path(name).suffix:
        return f"{name} not found: wanted a tokenizer file, a directory that has one, or a name such as {DEFAULT}."
    names = [DEFAULT, "nanochat", *tiktoken_names()]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"tokenizer {name!r} is no name and no file: did you mean {' or '.join(near)}?"
    return f"tokenizer {name!r} is no name and no file: names are {', '.join(names)}."


def info(tokenizer: Tokenizer) -> dict[str, Any]:
    """What `midprep tokenizer info` shows"""
    num_bytes, num_tokens = len(SAMPLE.encode()), len(tokenizer.encoding.encode_ordinary(SAMPLE))
    return {
        "name": tokenizer.name,
        "source": tokenizer.source,
        "vocab_size": tokenizer.vocab_size,
        "ranks": len(tokenizer.ranks),
        "special_tokens": dict(sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])),
        "bos_id": tokenizer.bos_id,
        "pattern": tokenizer.pattern,
        "sha256": tokenizer.sha256,
        "token_dtype": shard.token_dtype(tokenizer.vocab_size).name,
        "longest_token": int(tokenizer.token_bytes().max()),
        "bytes_per_token": round(num_bytes / num_tokens, 3),
    }
