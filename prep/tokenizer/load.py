"""
Load a tokenizer by its name, or from any file that holds one.

    nano32k                               shipped with midprep: the default
    nanochat                              the tokenizer.pkl of a nanochat installation
    gpt2, o200k_base, ...                 tiktoken's own, downloaded by tiktoken and cached
    mine.tiktoken                         "IQ== 0\\nIg== 1\\n...": base64 of the bytes, rank; one token per line
    tokenizer.pkl                         a pickled tiktoken.Encoding of nanochat's: nothing in it runs
    tokenizer.tiktoken + tokenizer.json   midprep's own, in every finished build
    tokenizer.json                        Hugging Face's, alone or with what stands around it: prep/tokenizer/directory.py
    Qwen/Qwen3-0.6B                       the same, from the Hub

A .tiktoken file holds ranks alone, and takes the pattern that is given; it gets nanochat's nine special tokens after its last
id. A tokenizer with special tokens of its own gets none. Loading nano32k takes 0.03 s.
"""

import binascii
import difflib
import hashlib
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from prep import shard
from prep.files import nanochat_home
from prep.same_tokenizer import by_id
from prep.tokenizer.directory import hub_tokenizer, last_id, read_directory, read_kept, with_built_size
from prep.tokenizer.huggingface import read_json
from prep.tokenizer.nanochat import read_nanochat
from prep.tokenizer.spec import TokenizerSpec
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer

DEFAULT: Final = "nano32k"
DEFAULT_PATH: Final = Path(__file__).parents[1] / "data" / "nano32k.tiktoken"
HUB_ID: Final = re.compile(r"(\w[\w.-]*/(\w[\w.-]*))(?:@([\w./-]+))?")  # OWNER/NAME, OWNER/NAME@REVISION
SAMPLE: Final = (
    "The quick brown fox jumps over the lazy dog. It's 12:45, and 3,141 people don't know why!\n"
    "def area(r):\n    return 3.14159 * r ** 2\n\n"
    "Größe zählt nicht. ¿Qué hora es? Привет, мир. 今日は天気がいいですね。 مرحبا بالعالم 🙂\n"
)


def load_tokenizer(
    name: str | Path | None = None, pattern: str | None = None, vocab_size: int | None = None
) -> Tokenizer:
    """
    The tokenizer of a name or path: nano32k, nanochat, one of tiktoken's names; nanochat's directory or .pkl, a
    finished build, a .tiktoken file (the one kind that takes a `pattern`), Hugging Face's tokenizer.json or directory, or
    OWNER/NAME, OWNER/NAME@REVISION on the Hub. Names win over paths, paths over the Hub: write ./gpt2 for a file of that
    name. `vocab_size` is the model's, where no config.json says it. ValueError, FileNotFoundError or ConnectionError in
    one line.
    """
    name = DEFAULT if name is None else str(name)
    path, source = Path(name).expanduser(), name
    if name == DEFAULT:
        spec, source = read_path(DEFAULT_PATH, PATTERN), "shipped with midprep"
    elif name == "nanochat":
        path = _nanochat_pickle()
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: set NANOCHAT_BASE_DIR to nanochat's directory, or give a path.")
        spec, source = read_nanochat(path), str(path)
    elif name in tiktoken_names():
        spec, source = read_tiktoken_name(name), "tiktoken"
    elif path.exists():
        spec = read_path(path, PATTERN if pattern is None else pattern)
    elif (asked := HUB_ID.fullmatch(name)) and (asked[3] or path.suffix not in (".json", ".tiktoken", ".pkl")):
        path, commit = hub_tokenizer(asked[1], asked[3])
        spec, source = replace(read_directory(path), name=asked[2]), f"{asked[1]} on the Hub, commit {commit}"
    else:
        raise FileNotFoundError(_unknown(name, [DEFAULT, "nanochat", *tiktoken_names()]))
    if pattern not in (None, spec.pattern):
        raise ValueError(
            f"{name} has its own pattern ({spec.pattern[:60]} ...): --pattern is for a .tiktoken file only."
        )
    return make_tokenizer(spec if vocab_size is None else replace(spec, vocab_size=vocab_size), source)


def make_tokenizer(spec: TokenizerSpec, source: str) -> Tokenizer:
    """
    The tokenizer of a spec. Ranks alone, or with some of nanochat's nine special tokens, get those that they lack after the
    last id. Any other tokenizer is a model's, and stays as it is: an id behind its vocabulary has no embedding.
    """
    is_own = spec.special_tokens.keys() <= set(SPECIAL_TOKENS) and not spec.added_tokens and not spec.normalizer
    return Tokenizer.of(with_special_tokens(spec) if is_own else spec, source)


def with_special_tokens(spec: TokenizerSpec) -> TokenizerSpec:
    """The spec with those of nanochat's nine special tokens that it lacks, after its last id"""
    missing = [text for text in SPECIAL_TOKENS if text not in spec.special_tokens]
    if not missing:
        return spec
    first_free = last_id(spec) + 1
    new = {text: first_free + i for i, text in enumerate(missing)}
    return replace(spec, special_tokens=spec.special_tokens | new, files={})


def add_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """
    The tokenizer with all of nanochat's nine special tokens, which may grow its vocabulary: for a base model that is to
    learn nanochat's chat format.
    """
    spec = TokenizerSpec(**{each.name: getattr(tokenizer, each.name) for each in fields(TokenizerSpec)})
    more = with_special_tokens(spec)
    return Tokenizer.of(replace(more, vocab_size=max(spec.vocab_size, last_id(more) + 1)), tokenizer.source)


def notice_of_nanochat() -> str | None:
    """The line to print when no tokenizer was named and nanochat has one: it is never chosen silently."""
    path = _nanochat_pickle()
    if not path.is_file():
        return None
    return f"nanochat's tokenizer found at {path}, not used (using {DEFAULT}): --tokenizer nanochat uses it."


def _nanochat_pickle() -> Path:
    """Where a nanochat installation keeps its tokenizer"""
    return nanochat_home() / "tokenizer" / "tokenizer.pkl"


def tiktoken_names() -> list[str]:
    import tiktoken

    return tiktoken.list_encoding_names()


def _unknown(name: str, names: list[str]) -> str:
    """The error for a name that is neither known nor a path, with the nearest known names"""
    if os.sep in name or Path(name).suffix:
        return f"{name} not found: wanted a tokenizer file, a directory that has one, or a name such as {DEFAULT}."
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    advice = f"did you mean {' or '.join(near)}?" if near else f"names are {', '.join(names)}."
    return f"tokenizer {name!r} is neither a known name nor a file: {advice}"


# ---- files; the formats of other programs have modules of their own ----


def read_path(path: Path, pattern: str) -> TokenizerSpec:
    """What a file or directory holds; `pattern` is for a file that holds ranks alone."""
    root = path if path.is_dir() else path.parent
    if path.is_dir() or path.name in ("tokenizer.json", "tokenizer.tiktoken"):
        own = root / "tokenizer.json"  # midprep's has the name of Hugging Face's, and a sha256
        if own.is_file() and "sha256" in read_json(own):
            return read_written(root)
        if all((root / name).is_file() for name in ("tokenizer.json", "tokenizer.tiktoken", "token_bytes.npy")):
            return read_kept(root)
    if path.is_dir():
        files = [root / name for name in ("tokenizer.pkl", "tokenizer/tokenizer.pkl", "tokenizer.json")]
        path = next((file for file in files if file.is_file()), path)
    if path.suffix == ".pkl":
        return read_nanochat(path)
    if path.suffix == ".tiktoken":
        return TokenizerSpec(path.stem, read_tiktoken(path), pattern, {})
    if path.suffix == ".json":
        return read_directory(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path} has no tokenizer: wanted a finished build, tokenizer.pkl or tokenizer.json.")
    raise ValueError(f"{path} is not a tokenizer file: wanted .tiktoken, .pkl, tokenizer.json or a directory.")


def read_tiktoken(path: Path) -> dict[bytes, int]:
    """The ranks of a .tiktoken file. ValueError names the first line that is not one of them."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            encoded, rank_text = line.split()
            token = binascii.a2b_base64(encoded, strict_mode=True)
            rank = int(rank_text)
        except ValueError:
            shown = line[:40].decode(errors="replace")
            raise ValueError(f"{path}, line {number}: {shown!r} found, wanted base64, a space and a rank") from None
        if token in ranks:
            raise ValueError(f"{path}, line {number}: token {token!r} is there twice, as {ranks[token]} and {rank}")
        ranks[token] = rank
    return ranks


def read_written(root: Path) -> TokenizerSpec:
    """What `Tokenizer.write` wrote into `root`. ValueError if the files do not have the sha256 that they name."""
    path, ranks_path = root / "tokenizer.json", root / "tokenizer.tiktoken"
    if not ranks_path.is_file():
        raise FileNotFoundError(
            f"{ranks_path} not found, which belongs to {path}: is the build complete? See `midprep verify`."
        )
    about = read_json(path)
    parts: dict[str, Any] = {key: about.get(key) for key in ("name", "pattern", "special_tokens")}
    parts |= {key: about[key] for key in ("added_tokens", "normalizer") if key in about}
    spec = TokenizerSpec(ranks=read_tiktoken(ranks_path), **parts)
    sha256, recorded = Tokenizer.of(spec).sha256, about["sha256"]
    if sha256 != recorded:
        raise ValueError(
            f"{path} is for sha256 {recorded!r:.13}, the files have {sha256:.12}: damaged, build it again."
        )
    return with_built_size(spec, root)


def read_tiktoken_name(name: str) -> TokenizerSpec:
    """One of tiktoken's own encodings, from its cache or downloaded by it"""
    import tiktoken

    try:
        encoding = tiktoken.get_encoding(name)
    except OSError as error:  # what requests raises is an OSError
        raise FileNotFoundError(
            f"{name} is downloaded by tiktoken and that failed ({type(error).__name__}): go online once, set "
            "TIKTOKEN_CACHE_DIR to a cache that has it, or give its .tiktoken file with --pattern."
        ) from None
    return TokenizerSpec(name, encoding._mergeable_ranks, encoding._pat_str, dict(encoding._special_tokens))


# ---- what `midprep tokenizer info` shows ----


def info(tokenizer: Tokenizer) -> dict[str, Any]:
    template = tokenizer.chat_template
    num_bytes, num_tokens = len(SAMPLE.encode()), len(tokenizer.encoding.encode_ordinary(SAMPLE))
    return {
        "name": tokenizer.name,
        "source": tokenizer.source,
        "vocab_size": tokenizer.vocab_size,
        "ranks": len(tokenizer.ranks),
        "special_tokens": dict(by_id(tokenizer.special_tokens)),
        "added_tokens": dict(by_id(tokenizer.added_tokens)),
        "normalizer": tokenizer.normalizer,
        "bos_id": tokenizer.bos_id,
        "bos_token": tokenizer.bos_token,
        "adds_bos": tokenizer.adds_bos,
        "eos_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
        "chat_template": None if template is None else hashlib.sha256(template.encode()).hexdigest(),
        "pattern": tokenizer.pattern,
        "sha256": tokenizer.sha256,
        "token_dtype": shard.token_dtype(tokenizer.vocab_size).name,
        "longest_token": int(tokenizer.token_bytes().max()),
        "bytes_per_token": round(num_bytes / num_tokens, 3),
    }
