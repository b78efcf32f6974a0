"""Hugging Face's tokenizer.json: equal ids or a refusal in one line. `tokenizers` itself is the judge."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.tokenizer.huggingface import export_hf, hf_content, last_parts, to_bytes, to_chars
from prep.tokenizer.load import load_tokenizer, make_tokenizer
from prep.tokenizer.regex import from_oniguruma, to_oniguruma
from prep.tokenizer.spec import TokenizerSpec
from prep.tokenizer.tokenizer import PATTERN, Tokenizer

tokenizers = pytest.importorskip("tokenizers")

SHARED = Path(__file__).parents[3] / "shared"
NANO = load_tokenizer()
BYTES = {bytes([byte]): byte for byte in range(256)}

# those of tiktoken that tokenizers are made with, as it writes them
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = "|".join(
    [
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ]
)
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
PATTERNS = {"nanochat": PATTERN, "gpt2": GPT2, "cl100k": CL100K, "o200k": O200K}
CONTEXTS = ["{}", " {}", "a{}", "{}a", "{}1", "1{}", "'{}", "{}\n", "\n{}", "  {}", "{}  ", "!{}?"]
CHARS = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]


def toy(ranks: dict[bytes, int], pattern: str = PATTERN, special: dict[str, int] | None = None) -> Tokenizer:
    return make_tokenizer(TokenizerSpec("toy", BYTES | ranks, pattern, special or {}), "")


def hugging_face(tokenizer: Tokenizer) -> Any:
    hf = tokenizers.Tokenizer.from_str(json.dumps(hf_content(tokenizer)))
    hf.encode_special_tokens = True  # a special token typed as text is text, as it always is for midprep
    return hf


NANO_HF = hugging_face(NANO)


def ids_of(hf: Any, text: str) -> list[int]:
    ids: list[int] = hf.encode(text, add_special_tokens=False).ids
    return ids


# ---- out ----


def test_the_bytes_of_a_token_are_written_as_visible_characters() -> None:
    assert to_chars(b" the\n\x00\xff\xad") == "ĠtheĊĀÿŃ"
    every = bytes(range(256))
    assert to_bytes(to_chars(every)) == every
    assert len(set(to_chars(every))) == 256


def test_the_last_two_parts_of_a_token_are_those_that_merging_by_rank_comes_to() -> None:
    ranks = BYTES | {b"bc": 256, b"ab": 257, b"abc": 258, b"abcd": 259, b"xyz": 260}
    assert last_parts(b"abc", ranks) == (b"a", b"bc")
    assert last_parts(b"abcd", ranks) == (b"abc", b"d")
    assert last_parts(b"ab", ranks) == (b"a", b"b")
    assert last_parts(b"xyz", ranks) is None


def test_special_tokens_are_found_by_hugging_face_and_have_their_ids() -> None:
    hf = tokenizers.Tokenizer.from_str(json.dumps(hf_content(NANO)))
    text = "<|bos|>2+2?<|user_end|>"
    assert ids_of(hf, text) == [32_759, 50, 43, 50, 63, 32_761]
    assert ids_of(NANO_HF, text) == NANO.encoding.encode_ordinary(text)
    assert NANO_HF.decode([32_759, 50, 43, 50, 63], skip_special_tokens=True) == "2+2?"
    assert NANO_HF.get_vocab_size() == 32_768


def test_ids_above_a_hole_are_kept() -> None:
    tokenizer = toy({b"ab": 256}, special={"<|end|>": 300})
    hf = hugging_face(tokenizer)
    assert {text: hf.token_to_id(text) for text in tokenizer.special_tokens} == tokenizer.special_tokens


@given(st.text(max_size=300))
def test_any_text_has_equal_ids(text: str) -> None:
    assert ids_of(NANO_HF, text) == NANO.encoding.encode_ordinary(text)


@given(st.text("aAsS'ſßKtTlLvVrRdDmM ſ\n\r\t12², ", max_size=60))
def test_contractions_digits_and_spaces_have_equal_ids_by_every_pattern(text: str) -> None:
    for name, pattern in PATTERNS.items():
        tokenizer, hf = PATTERN_PAIRS[name]
        assert ids_of(hf, text) == tokenizer.encoding.encode_ordinary(text), pattern


# a token for each of the characters that decide on splits, so that a split elsewhere gives other ids
PAIRS = [a + b for a in "as'1 \n" for b in "as'1 \n"]
PATTERN_PAIRS = {}
for _name, _pattern in PATTERNS.items():
    _tokenizer = toy({pair.encode(): 256 + i for i, pair in enumerate(PAIRS)}, _pattern)
    PATTERN_PAIRS[_name] = (_tokenizer, hugging_face(_tokenizer))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize("name", ["alice.txt", "tinyshakespeare.txt", "wagahai_neko_ja.txt"])
def test_a_corpus_has_equal_ids(name: str) -> None:
    text = (SHARED / "data" / "corpus" / name).read_text(encoding="utf-8")
    assert ids_of(NANO_HF, text) == NANO.encoding.encode_ordinary(text)


def test_long_runs_have_equal_ids() -> None:
    for text in ("a" * 3000, " " * 3000, "\n" * 3000, "1" * 3000, "=-" * 3000, "日本" * 1000, "aA" * 3000):
        assert ids_of(NANO_HF, text) == NANO.encoding.encode_ordinary(text)


def in_contexts(chars: list[str], contexts: list[str]) -> str:
    return "|".join("|".join(context.format(char) for char in chars) for context in contexts)


def test_characters_of_every_kind_have_equal_ids_in_twelve_contexts() -> None:
    chars = [*CHARS[:0x250], *random.Random(0).sample(CHARS, 1500)]
    text = in_contexts(chars, CONTEXTS)
    assert ids_of(NANO_HF, text) == NANO.encoding.encode_ordinary(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
def test_every_character_is_split_alike_in_twelve_contexts(name: str) -> None:
    tokenizer, hf = PATTERN_PAIRS[name]
    for start in range(0, len(CHARS), 1 << 14):
        text = in_contexts(CHARS[start : start + (1 << 14)], CONTEXTS)
        assert ids_of(hf, text) == tokenizer.encoding.encode_ordinary(text)


@settings(max_examples=150)
@given(
    st.lists(st.text("ab", min_size=2, max_size=6), min_size=1, max_size=12, unique=True),
    st.lists(st.text("ab ", max_size=40), min_size=1, max_size=5),
)
def test_any_ranks_at_all_give_equal_ids_both_ways(tokens: list[str], texts: list[str]) -> None:
    """Tokens that nothing trained: parts that are ranked after the whole, tokens that are never merged"""
    tokenizer = toy({token.encode(): 256 + i for i, token in enumerate(tokens)})
    hf = hugging_face(tokenizer)
    for text in texts:
        assert ids_of(hf, text) == tokenizer.encoding.encode_ordinary(text)


def test_what_cannot_be_written_exactly_is_refused_in_one_line(tmp_path: Path) -> None:
    cases = [
        (toy({}, pattern=r"\w+|\W"), r"'\\w+|\\W' in the pattern"),
        (toy({b"<|bos|>": 256}), "<|bos|> is a special token and the text of a rank"),
        (toy({b"a" * 1025: 256}), "token 256 has 1,025 bytes, merges are found up to 1,024"),
    ]
    for tokenizer, words in cases:
        with pytest.raises(ValueError) as error:
            export_hf(tokenizer, tmp_path / "out")
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    NANO.write(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer.json exists with other content: move it away"):
        export_hf(NANO, tmp_path)
    assert load_tokenizer(tmp_path).sha256 == NANO.sha256


# ---- in ----


def test_what_was_written_is_read_back_as_the_same_tokenizer(tmp_path: Path) -> None:
    (path,) = export_hf(NANO, tmp_path / "nano")
    assert export_hf(NANO, tmp_path / "nano") == [path]
    for name in (path, path.parent):
        found = load_tokenizer(name)
        assert (found.name, found.sha256) == ("nano", NANO.sha256)
    for i, pattern in enumerate(PATTERNS.values()):
        tokenizer = toy({b"ab": 256, b"abc": 257}, pattern, {"<|end|>": 258})
        export_hf(tokenizer, tmp_path / str(i))
        assert load_tokenizer(tmp_path / str(i)).sha256 == tokenizer.sha256


def test_a_tokenizer_that_hugging_face_trained_has_equal_ids(tmp_path: Path) -> None:
    hf = tokenizers.Tokenizer(tokenizers.models.BPE())
    hf.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>", "<|bos|>"], initial_alphabet=alphabet, show_progress=False
    )
    texts = [
        f"it's {word} and {word}ing, {i * 37}  日本語 ñandú\n" for i, word in enumerate(["walk", "talk", "sing"] * 50)
    ]
    hf.train_from_iterator(texts, trainer)
    hf.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special_tokens["<|endoftext|>"] == 0
    assert tokenizer.bos_id == 1
    for text in [*texts, "walking, talked\n\n  sang 1234 🙂", "it's'S"]:
        assert tokenizer.encoding.encode_ordinary(text) == ids_of(hf, text)


def test_older_forms_are_read_alike(tmp_path: Path) -> None:
    tokenizer = toy({b"ab": 256, b"abc": 257})
    content = hf_content(tokenizer)
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    content["model"]["ignore_merges"] = False
    content["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    assert load_content(content, tmp_path).sha256 == tokenizer.sha256


def test_further_merges_do_no_harm(tmp_path: Path) -> None:
    """Some converters list every pair of tokens that makes a token; only one of them is ever met"""
    tokenizer = toy({b"bc": 256, b"ab": 257, b"abc": 258})
    content = hf_content(tokenizer)
    assert content["model"]["merges"] == [["b", "c"], ["a", "b"], ["a", "bc"]]
    content["model"]["merges"].insert(2, ["ab", "c"])
    assert load_content(content, tmp_path).sha256 == tokenizer.sha256
    assert ids_of(tokenizers.Tokenizer.from_str(json.dumps(content)), "abcab") == [258, 257]


def load_content(content: dict[str, Any], root: Path) -> Tokenizer:
    (root / "tokenizer.json").write_text(json.dumps(content))
    return load_tokenizer(root)


def change(path: str, value: object) -> dict[str, Any]:
    content = hf_content(toy({b"ab": 256, b"abc": 257, b"xyz": 258}))
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    target: Any = content
    for key in keys:
        target = target[key]
    target[last] = value
    return content


SPLIT = "pre_tokenizer.pretokenizers.0"
REFUSED = [
    ("normalizer", {"type": "NFKC"}, "it changes text by a normalizer, 'NFKC', wanted NFC or none"),
    (
        "normalizer",
        {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend"}]},
        "a normalizer, 'Prepend'",
    ),
    ("pre_tokenizer", None, "its pre_tokenizer is [None], wanted one Split and ByteLevel"),
    ("pre_tokenizer", {"type": "Whitespace"}, "its pre_tokenizer is ['Whitespace']"),
    ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}, "a space before the text"),
    (
        "pre_tokenizer",
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        "does not split by exactly one pattern",
    ),
    ("pre_tokenizer.pretokenizers.1.use_regex", True, "does not split by exactly one pattern"),
    ("pre_tokenizer.pretokenizers.1.type", "Digits", "['Split', 'Digits']"),
    (f"{SPLIT}.behavior", "MergedWithNext", "wanted a Regex, Isolated"),
    (f"{SPLIT}.pattern", {"String": " "}, "wanted a Regex, Isolated"),
    (f"{SPLIT}.pattern.Regex", r"\p{N}{1,3}+|\D", "not known to mean the same"),
    (f"{SPLIT}.pattern.Regex", r"\s+$|\s|\S", "not known to mean the same"),
    (f"{SPLIT}.pattern.Regex", r"(?<=a)b|\s|\S", "not known to mean the same"),
    (f"{SPLIT}.pattern.Regex", "", "matches empty text"),
    ("added_tokens.0.lstrip", True, "'<|bos|>' depends on what stands beside it (lstrip)"),
    ("added_tokens.0.rstrip", True, "'<|bos|>' depends on what stands beside it (rstrip)"),
    ("added_tokens.0.single_word", True, "'<|bos|>' depends on what stands beside it (single_word)"),
    ("post_processor", {"type": "BertProcessing"}, "its post_processor is 'BertProcessing'"),
    ("model.byte_fallback", True, "its model has byte_fallback True"),
    ("model.merges", [["<|bos|", ">"]], "its added token '<|bos|>' is also merged from ordinary text"),
    ("added_tokens.0.id", "0", "has no content and id"),
    ("added_tokens.0.id", 300, "added token '<|bos|>' has ids 259 and 300"),
    ("added_tokens", 7, "has no content and id"),
    ("model.type", "Unigram", "its model is 'Unigram', wanted BPE"),
    ("model", None, "its model is None, wanted BPE"),
    ("model.dropout", 0.1, "its model has dropout 0.1"),
    ("model.end_of_word_suffix", "</w>", "end_of_word_suffix"),
    ("model.vocab", {}, "its vocabulary is empty"),
    ("model.vocab", {"a": 0}, "byte 0x00 is not a token"),
    ("model.vocab.ab", "256", "has id '256'"),
    ("model.vocab.日", 300, "is not byte-level"),
    ("model.merges", [], "token 256 (b'ab') has no merge of b'a' and b'b'"),
    ("model.merges", [["a", "b"]], "token 257 (b'abc') has no merge of b'ab' and b'c'"),
    ("model.merges", [["ab", "c"], ["a", "b"]], "token 257 (b'abc') merges before one of a lower id"),
    ("model.merges", [7], "its merge 7 is not a pair"),
    ("model.ignore_merges", False, "token 258 (b'xyz') is never merged from its bytes"),
]


@pytest.mark.parametrize(("path", "value", "words"), REFUSED)
def test_what_tiktoken_would_encode_otherwise_is_refused_in_one_line(
    path: str, value: object, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as error:
        load_content(change(path, value), tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "[" * 5000])
def test_what_is_no_json_object_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=r"tokenizer\.json") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


# ---- patterns ----


def test_patterns_are_rewritten_where_the_engines_differ_and_back() -> None:
    assert to_oniguruma(PATTERN) == PATTERN
    assert to_oniguruma(r"\p{N}{1,3}+|[ab]{2}+|\s++$") == r"(?>\p{N}{1,3})|(?>[ab]{2})|\s++\z"
    for pattern in PATTERNS.values():
        assert from_oniguruma(to_oniguruma(pattern)) == pattern


REFUSED_PATTERNS = [
    r"\w+", r"\b", r"(?<=a)b", r"(?P<n>a)", r"(a)\1", r"[[:alpha:]]", r"[a&&b]", r"[\w]", r"[a-\s]", r"^a", r"a.", r"a+?",
    r"a{2}?", r"a{,2}", r"(ab){2}+", r"(?i:ss)", r"(?i:fi)", r"(?i)a", r"(?x) a", r"\p{Greek}", r"a**", r"*a", r"\h",
    r"(?>ab)", r"\z", r"[]a]", r"\x41", r"[a", r"a}",
]  # fmt: skip


@pytest.mark.parametrize("pattern", REFUSED_PATTERNS)
def test_a_pattern_that_is_not_known_to_mean_the_same_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not known to mean the same to tiktoken and to Hugging Face"):
        to_oniguruma(pattern)


CATEGORIES = [
    *(
        *("L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Ps", "Pe"),
        *("Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "C", "Cc", "Cf", "Co", "Cn"),
    ),
    "Han",
    "Hiragana",
    "Katakana",
    "Latin",
]
CLASSES = [rf"\p{{{name}}}" for name in CATEGORIES]
FOLDS = [rf"(?i:{letter})" for letter in "abcdefghijklmnopqrstuvwxyz"]


def compare_class(pattern: str, chars: str) -> None:
    assert to_oniguruma(pattern) == pattern
    ours = tiktoken.Encoding("one", pat_str=pattern, mergeable_ranks=BYTES, special_tokens={})
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(f"(?:{pattern})+"), "removed", invert=True)
    theirs = "".join(piece for piece, _ in split.pre_tokenize_str(chars))
    assert bytes(ours.encode_ordinary(chars)).decode() == theirs


ADMITTED = [*CLASSES, r"\s", r"\S", r"\d", r"\P{L}", r"[^\s\p{L}\p{N}]", r"[a-z]", *FOLDS]


@pytest.mark.parametrize("pattern", ADMITTED)
def test_a_class_holds_the_same_code_points_in_both_engines(pattern: str) -> None:
    compare_class(pattern, "".join([*CHARS[:0x3200], *CHARS[0x3200::61]]))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ADMITTED)
def test_a_class_holds_the_same_of_all_code_points_in_both_engines(pattern: str) -> None:
    compare_class(pattern, "".join(CHARS))
