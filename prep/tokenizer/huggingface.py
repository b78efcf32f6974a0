"""
Hugging Face's tokenizer.json, read and written: with equal ids, or refused.

    ranks   h 72 .. e 101 .. l 108 .. el 256, hel 257      tiktoken: neighbours whose bytes are a token, lowest first
    merges  (e, l), (h, el)                                Hugging Face: listed pairs, in the order of the list

A token's last two parts are found by merging its bytes by rank, as tiktoken would. One pair per token is enough: whatever
stands beside a token, its bytes are merged in the order in which they would be alone, and alone they come to two parts in
one way only. A token that its own bytes never merge to has no pair, and is found only as a whole piece (`ignore_merges`), as
in tiktoken. Reading is the reverse: the file must list these pairs, in rank order; further pairs are never met. NFC and added
tokens that are cut out of ordinary text are read too (prep/tokenizer/added.py); what would give other ids (another normalizer,
a second split, tokens that depend on what stands beside them) is refused by name. 32,768 tokens take 0.4 s each way.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from prep.same_tokenizer import by_id
from prep.tokenizer.added import read_added_tokens, read_normalizer
from prep.tokenizer.nanochat import write_files
from prep.tokenizer.regex import from_oniguruma, to_oniguruma
from prep.tokenizer.spec import BYTE_RANKS, TokenizerSpec, problems_of_pattern
from prep.tokenizer.tokenizer import Tokenizer

MAX_TOKEN: Final = 1024  # bytes; finding the parts of a token is quadratic
GPT2_PATTERN: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# a byte is written as one visible character: as itself where that is one in Latin-1, else as the next from U+0100 on
_VISIBLE: Final = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN: Final = [byte for byte in range(256) if byte not in set(_VISIBLE)]
CHARS: Final = {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(256 + i) for i, byte in enumerate(_HIDDEN)}
BYTES: Final = {char: byte for byte, char in CHARS.items()}


def to_chars(token: bytes) -> str:
    """b" the" -> "Ġthe" """
    return "".join(CHARS[byte] for byte in token)


def to_bytes(text: str) -> bytes:
    """ "Ġthe" -> b" the"; KeyError for a character that stands for no byte"""
    return bytes(BYTES[char] for char in text)


def last_parts(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two parts that merge to `token` when its bytes are merged by rank; None if they never do"""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [(ranks.get(parts[i] + parts[i + 1], -1), i) for i in range(len(parts) - 1)]
        _, i = min((pair for pair in pairs if pair[0] >= 0), default=(0, -1))
        if i < 0:
            return None
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def find_merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, tuple[bytes, bytes] | None]]:
    """(token, its last two parts) of every token of more than one byte, by rank"""
    longest = max(ranks, key=len)
    if len(longest) > MAX_TOKEN:
        raise ValueError(f"token {ranks[longest]} has {len(longest):,} bytes, merges are found up to {MAX_TOKEN:,}")
    for token, _ in by_id(ranks):
        if len(token) > 1:
            yield token, last_parts(token, ranks)


# ---- writing ----


def export_hf(tokenizer: Tokenizer, root: Path) -> list[Path]:
    """
    Write tokenizer.json for Hugging Face into `root`, of one that came from there its own files; returns their paths.
    ValueError if ids would not be equal.
    """
    if tokenizer.files:
        return write_files({root / name: data for name, data in tokenizer.files.items()})
    text = json.dumps(hf_content(tokenizer), ensure_ascii=False, indent=1) + "\n"
    return write_files({root / "tokenizer.json": text.encode()})


def hf_content(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer.json as an object"""
    others = by_id(tokenizer.special_tokens | tokenizer.added_tokens)
    vocab = {to_chars(token): rank for token, rank in by_id(tokenizer.ranks)}
    clash = next((text for text, _ in others if text in vocab), None)
    if clash:
        raise ValueError(f"tokenizer {tokenizer.name}: {clash} is a special token and the text of a rank, wanted one")
    merges = [[to_chars(part) for part in parts] for _, parts in find_merges(tokenizer.ranks) if parts is not None]
    regex = {"Regex": to_oniguruma(tokenizer.pattern)}
    split = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id_, "content": text, **flags, "special": text in tokenizer.special_tokens} for text, id_ in others
        ],
        "normalizer": {"type": "NFC"} if tokenizer.normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocab | dict(others),
            "merges": merges,
        },
    }


# ---- reading ----


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}): give a tokenizer.json") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, wanted an object: give a tokenizer.json")
    return content


def read_hf(path: Path, content: dict[str, Any]) -> TokenizerSpec:
    """The byte-level BPE of a tokenizer.json with this content. ValueError, in one line, where ids would not be equal."""
    name = path.stem if path.stem != "tokenizer" else path.resolve().parent.name
    try:
        normalizer = read_normalizer(content.get("normalizer"))
        pattern = _pattern(content.get("pre_tokenizer"))
        special, added = read_added_tokens(content.get("added_tokens") or [], normalizer)
        model = content.get("model")
        ranks = _ranks(model, special | added)
        _check_merges(content["model"], ranks, special | added)
        if content["model"].get("ignore_merges"):
            _check_pieces(pattern, [text for text in special | added if text in content["model"]["vocab"]])
        bos = _first_token(content.get("post_processor"), special)
    except ValueError as error:
        raise ValueError(f"{path} cannot be represented exactly: {error}.") from None
    return TokenizerSpec(name, ranks, pattern, special, added, normalizer, bos_token=bos, adds_bos=bos is not None)


def _first_token(processor: Any, special: dict[str, int]) -> str | None:
    """The special token that its post_processor puts before a text. ValueError if it puts anything else."""
    if processor is None or (isinstance(processor, dict) and processor.get("type") == "ByteLevel"):
        return None
    kind = processor.get("type") if isinstance(processor, dict) else processor
    if kind == "Sequence" and isinstance(processor.get("processors"), list):
        puts = [text for step in processor["processors"] if (text := _first_token(step, special)) is not None]
        if len(puts) > 1:
            raise ValueError(f"its post_processor puts {len(puts)} tokens before a text, wanted one at most")
        return puts[0] if puts else None
    if kind != "TemplateProcessing" or not isinstance(single := processor.get("single"), list):
        raise ValueError(f"its post_processor is {kind!r:.40}, wanted ByteLevel or TemplateProcessing")
    names = [step["SpecialToken"].get("id") if "SpecialToken" in step else None for step in single]
    if names in ([None], []):
        return None
    if len(names) != 2 or names[1] is not None or names[0] not in special:
        raise ValueError(
            f"its post_processor puts {names!r:.60} around a text (None), wanted one special token before it"
        )
    about = (processor.get("special_tokens") or {}).get(names[0])
    if not isinstance(about, dict) or about.get("ids") != [special[names[0]]]:
        raise ValueError(f"its post_processor has other ids for {names[0]!r:.40} than {special[names[0]]}")
    return str(names[0])


def _pattern(pre_tokenizer: Any) -> str:
    """The pattern of its one split, for tiktoken"""
    is_sequence = isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence"
    steps = pre_tokenizer.get("pretokenizers") if is_sequence else [pre_tokenizer]
    steps = [step if isinstance(step, dict) else {} for step in steps] if isinstance(steps, list) else []
    kinds = [step.get("type") for step in steps]
    if kinds not in (["ByteLevel"], ["Split", "ByteLevel"]):
        raise ValueError(f"its pre_tokenizer is {kinds!r:.80}, wanted one Split and ByteLevel")
    if steps[-1].get("add_prefix_space", True):
        raise ValueError("it puts a space before the text (add_prefix_space)")
    if steps[-1].get("use_regex", True) != (len(steps) == 1):
        raise ValueError("it does not split by exactly one pattern (use_regex of ByteLevel)")
    if len(steps) == 1:
        return GPT2_PATTERN
    split = steps[0]
    behavior = (split.get("behavior"), split.get("invert", False))
    regex = split["pattern"].get("Regex") if isinstance(split.get("pattern"), dict) else None
    if behavior not in (("Isolated", False), ("Removed", True)) or not isinstance(regex, str):
        raise ValueError(f"its Split is {behavior!r:.60}, wanted a Regex, Isolated")
    return from_oniguruma(regex)


def _ranks(model: Any, special: dict[str, int]) -> dict[bytes, int]:
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise ValueError(f"its model is {kind!r:.40}, wanted BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise ValueError(f"its model has {key} {model[key]!r:.40}")
    ranks: dict[bytes, int] = {}
    vocab = model.get("vocab")
    for text, rank in vocab.items() if isinstance(vocab, dict) else ():
        if type(rank) is not int:
            raise ValueError(f"token {text!r:.40} has id {rank!r:.40}")
        if special.get(text, rank) != rank:
            raise ValueError(f"added token {text!r:.40} has ids {rank} and {special[text]}")
        try:
            if text not in special:
                ranks[to_bytes(text)] = rank
        except KeyError as error:
            raise ValueError(f"token {text!r:.40} is not byte-level (it has {error})") from None
    if not ranks:
        raise ValueError("its vocabulary is empty")
    return ranks


def _check_merges(model: dict[str, Any], ranks: dict[bytes, int], other: dict[str, int]) -> None:
    """ValueError if the file's merges do something else than merging by rank"""
    places: dict[tuple[str, str], int] = {}
    merges = model.get("merges")
    for place, merge in enumerate(merges if isinstance(merges, list) else []):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
            raise ValueError(f"its merge {merge!r:.60} is not a pair")
        if pair[0] + pair[1] in other:
            raise ValueError(f"its added token {pair[0] + pair[1]!r:.40} is also merged from ordinary text")
        places[pair[0], pair[1]] = place  # of a pair that is listed twice Hugging Face keeps the later
    last_place = -1
    for token, parts in find_merges(ranks):
        shown = f"token {ranks[token]} ({token!r:.40})"
        if parts is None:
            if not model.get("ignore_merges"):
                raise ValueError(f"{shown} is never merged from its bytes, tiktoken finds it")
            continue
        place = places.get((to_chars(parts[0]), to_chars(parts[1])), -1)
        if place < 0:
            raise ValueError(f"{shown} has no merge of {parts[0]!r:.40} and {parts[1]!r:.40}")
        if place <= last_place:
            raise ValueError(f"{shown} merges before one of a lower id")
        last_place = place


def _check_pieces(pattern: str, texts: list[str]) -> None:
    """ValueError if one of these, which are in the vocabulary, is a whole piece of text: it would be found without merges"""
    import tiktoken

    if problem := next(problems_of_pattern(pattern), None):
        raise ValueError(problem)
    words = {to_bytes(text): text for text in texts if set(text) <= BYTES.keys()}
    ids = {word: 256 + i for i, word in enumerate(word for word in words if len(word) > 1)}
    encoding = tiktoken.Encoding("pieces", pat_str=pattern, mergeable_ranks=BYTE_RANKS | ids, special_tokens={})
    for word, id_ in ids.items():
        if id_ in encoding.encode_ordinary(word.decode(errors="replace")):
            raise ValueError(f"its added token {words[word]!r:.40} is also a token of ordinary text")
