"""
The files that hold a tokenizer, each read into the same four parts.

    nano32k.tiktoken    "IQ== 0\\nIg== 1\\n..."             base64 of the bytes, rank; one token a line
    tokenizer.pkl       a pickled tiktoken.Encoding       nanochat's: `prep.tokenizer.nanochat`, nothing in it runs
    tokenizer.tiktoken + tokenizer.json                   ours, in every finished build
    tokenizer.json      a tokenizer of Hugging Face       `prep.tokenizer.huggingface`
    gpt2, o200k_base    tiktoken's own                    downloaded by tiktoken, and cached

A file that holds ranks alone takes the caller's pattern. The readers check the form; `prep.tokenizer.spec` checks that
what they found is a tokenizer.
"""

import binascii
import hashlib
import json
from operator import itemgetter
from pathlib import Path
from typing import Any

from prep.tokenizer.nanochat import read_nanochat
from prep.tokenizer.spec import TokenizerSpec, check_spec


def read_tiktoken(path: Path) -> dict[bytes, int]:
    """The ranks of a .tiktoken file. ValueError names the line that is none."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            key, value = binascii.a2b_base64(token, strict_mode=True), int(rank)
        except ValueError:
            shown = line[:40].decode(errors="replace")
            raise ValueError(f"{path}, line {number}: {shown!r} found, wanted base64, a space and a rank") from None
        if key in ranks:
            raise ValueError(f"{path}, line {number}: token {key!r} is there twice, as {ranks[key]} and {value}")
        ranks[key] = value
    return ranks


def tiktoken_bytes(ranks: dict[bytes, int]) -> bytes:
    """The .tiktoken file of these ranks, sorted by rank: equal ranks, equal bytes"""
    base64 = binascii.b2a_base64
    by_rank = sorted(ranks.items(), key=itemgetter(1))
    return b"".join([b"%s %d\n" % (base64(token, newline=False), rank) for token, rank in by_rank])


def identity(file: bytes, pattern: str, special_tokens: dict[str, int]) -> str:
    """sha256 over what a tokenizer does, in a fixed form: its .tiktoken file, whatever file it came from or its name"""
    by_id = sorted(special_tokens.items(), key=lambda item: item[1])
    content = [hashlib.sha256(file).hexdigest(), pattern, by_id]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_written(root: Path) -> TokenizerSpec:
    """What `Tokenizer.write` wrote into `root`. ValueError if it is not what its sha256 says."""
    path = root / "tokenizer.json"
    entry = read_json(path)
    wanted = {"name": str, "pattern": str, "special_tokens": dict, "sha256": str}
    for key, kind in wanted.items():
        if not isinstance(entry.get(key), kind):
            raise ValueError(
                f"{path}: {key} is {type(entry.get(key)).__name__}, wanted {kind.__name__}: build it again"
            )
    ranks = root / "tokenizer.tiktoken"
    if not ranks.is_file():
        raise FileNotFoundError(
            f"{ranks} not found, which belongs to {path}: is the build whole? See `midprep verify`."
        )
    parts = TokenizerSpec(entry["name"], read_tiktoken(ranks), entry["pattern"], entry["special_tokens"])
    check_spec(parts, ())
    found, recorded = identity(tiktoken_bytes(parts.ranks), parts.pattern, parts.special_tokens), entry["sha256"]
    if found != recorded:
        raise ValueError(
            f"{path} is for sha256 {recorded[:12]:s}, the files have {found[:12]}: damaged, build it again."
        )
    return parts


def is_written(path: Path) -> bool:
    """Whether tokenizer.json is ours, not the one of Hugging Face that has the same name"""
    return path.is_file() and "sha256" in read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}): give a tokenizer.json") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{path} holds {type(entry).__name__}, wanted an object: give a tokenizer.json")
    return entry


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


# ---- which of them a path is ----


def read_path(path: Path, pattern: str) -> TokenizerSpec:
    """The tokenizer of a file or directory; `pattern` is for a file that holds ranks alone"""
    if path.is_dir():
        return read_directory(path)
    if path.name in ("tokenizer.json", "tokenizer.tiktoken") and is_written(path.parent / "tokenizer.json"):
        return read_written(path.parent)  # the ranks alone would lose its pattern and special tokens
    if path.suffix == ".pkl":
        return read_nanochat(path)
    if path.suffix == ".tiktoken":
        return TokenizerSpec(path.stem, read_tiktoken(path), pattern, {})
    if path.suffix == ".json":
        return read_hugging_face(path)
    raise ValueError(f"{path} is no kind of tokenizer file: wanted .tiktoken, .pkl, tokenizer.json or a directory.")


def read_directory(root: Path) -> TokenizerSpec:
    """A finished build or what `Tokenizer.write` wrote, nanochat's directory, or one with a tokenizer.json"""
    if is_written(root / "tokenizer.json"):
        return read_written(root)
    for path in (root / "tokenizer.pkl", root / "tokenizer" / "tokenizer.pkl"):
        if path.is_file():
            return read_nanochat(path)
    if (root / "tokenizer.json").is_file():
        return read_hugging_face(root / "tokenizer.json")
    raise FileNotFoundError(f"{root} has no tokenizer: wanted a finished build, or a tokenizer.pkl or tokenizer.json.")


def read_hugging_face(path: Path) -> TokenizerSpec:
    from prep.tokenizer.huggingface import read_hf

    return read_hf(path)
