"""Encoders: every engine gives what tiktoken gives, or is not used."""

import importlib.util
from itertools import product

import fuzz_encode
import numpy as np
import pytest
from fuzz_encode import make_encoders, with_pattern
from hypothesis import given
from hypothesis import strategies as st

from prep.columns import text_array
from prep.encode import gigatoken as encode_gigatoken
from prep.encode.encode import ENGINES, Encoder, choose_engine, spell_out, why_not
from prep.encode.find import LONG_TEXT, RiskyTexts
from prep.encode.gigatoken import SCHEMES, Gigatoken, Scheme, risky_code_points
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer

NANO = load_tokenizer()
INSTALLED = [name for name in ENGINES if importlib.util.find_spec(name)]
BYTES = [bytes([i]) for i in range(256)]
needs_gigatoken = pytest.mark.skipif("gigatoken" not in INSTALLED, reason="midprep[fast] is not installed")
every_engine = pytest.mark.parametrize("engine", INSTALLED)


def tokenizer_of(tokens: list[bytes], pattern: str = PATTERN) -> Tokenizer:
    special = {name: len(tokens) + i for i, name in enumerate(SPECIAL_TOKENS)}
    return Tokenizer("toy", {token: rank for rank, token in enumerate(tokens)}, pattern, special)


def decoded(tokenizer: Tokenizer, ids: np.ndarray, lengths: np.ndarray) -> list[str]:
    return [tokenizer.decode(some) for some in np.split(ids, np.cumsum(lengths)[:-1])]


# ---- engines agree ----


@pytest.mark.parametrize("number", range(len(SCHEMES)))
def test_engines_agree_with_tiktoken_on_fuzz(number):
    """20,000 strings over all patterns here, a million in `make fuzz`"""
    encoders = make_encoders(with_pattern(NANO, list(SCHEMES)[number]))
    assert list(encoders) == INSTALLED
    for seed in (1, 2):
        assert fuzz_encode.differing(encoders, fuzz_encode.make_texts(100 * number + seed, 2000)) == []


ENCODERS = make_encoders(NANO)


@given(st.lists(st.text(st.characters(codec="utf-8")) | st.from_regex(r"\A[ \r\n\t1-3aſ'sK]*\Z")))
def test_engines_agree_with_tiktoken_on_any_text(texts):
    assert fuzz_encode.differing(ENCODERS, texts) == []


@pytest.mark.parametrize(
    "unit", [" ", "\n", "a", "1", "٣", "\u0301", "你", "👩‍👩‍👧", "'", "-\n", " \n", "\x00", "\uffff", "ab "]
)
def test_engines_agree_with_tiktoken_on_long_runs(unit):
    assert fuzz_encode.differing(ENCODERS, [(unit * n)[:n] for n in (255, 4096, 20_000)]) == []


@every_engine
def test_texts_are_encoded_one_by_one_and_keep_their_order(engine):
    texts = ["2+2?", "", "half ½ of it", " 4", "12345", "", "5 \0", "x\n", ""]
    ids, lengths = Encoder(NANO, engine)(texts)
    assert (ids.dtype.kind, lengths.dtype) == ("u", np.int64)
    assert decoded(NANO, ids, lengths) == texts
    assert lengths[[0, 1, 4]].tolist() == [4, 0, 3]


@every_engine
@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["½"], ["½", ""]])
def test_little_or_nothing_is_encoded_too(engine, texts):
    ids, lengths = Encoder(NANO, engine)(texts)
    assert len(lengths) == len(texts)
    assert decoded(NANO, ids, lengths) == (texts or [""])


@every_engine
def test_typed_special_tokens_are_text(engine):
    ids, _ = Encoder(NANO, engine)(["<|bos|>", "a<|assistant_end|>b", "\0"])
    assert ids.max() < len(NANO.ranks)


@every_engine
def test_what_tiktoken_cannot_encode_is_marked_by_every_engine(engine):
    _, lengths = Encoder(NANO, engine)(["a", " " * 1_200_000, "b" * (LONG_TEXT + 1)])
    assert lengths[:2].tolist() == [1, -1]
    assert lengths[2] > 0


def test_a_difference_stops_the_build_and_shows_the_text():
    encoder = Encoder(NANO, "fastokens")
    encoder._fast = lambda texts: (np.zeros(len(texts), np.uint32), np.ones(len(texts), np.int64))
    with pytest.raises(ValueError, match="encode 'hello world' differently"):
        encoder(["hello world"])


# ---- which engine ----


def test_auto_takes_the_fastest_that_is_installed():
    assert choose_engine(NANO, "auto") == INSTALLED[0]
    assert Encoder(NANO).engine == INSTALLED[0]


def test_an_unknown_engine_is_an_error():
    with pytest.raises(ValueError, match="'fast' is not known, wanted auto, gigatoken, fastokens or tiktoken"):
        choose_engine(NANO, "fast")


@pytest.mark.parametrize(
    "more",
    [{b"abc": 256}, {b"xyz": 256, b"xy": 257}, {b"ab": 265}],
    ids=["not of two tokens", "before its parts", "a gap"],
)
def test_ranks_that_merges_do_not_make_are_for_tiktoken(more):
    special = {name: (256 if 265 in more.values() else 1000) + i for i, name in enumerate(SPECIAL_TOKENS)}
    tokenizer = Tokenizer("toy", {byte: i for i, byte in enumerate(BYTES)} | more, PATTERN, special)
    assert choose_engine(tokenizer, "auto") == "tiktoken"
    with pytest.raises(ValueError, match="needs ranks 0, 1, 2"):
        choose_engine(tokenizer, "fastokens")


@pytest.mark.parametrize(
    "pattern", [r"\w+|\W+", r"\p{Han}+|.", r"[^\S\n]+|\S", r"(?i:straße)|.", r"^a|[\s\S]", r"a|\X"]
)
def test_patterns_that_pcre2_may_read_otherwise_are_not_spelled_out(pattern):
    assert spell_out(pattern) is None


def test_a_pattern_that_is_not_known_to_be_exact_makes_auto_take_tiktoken():
    assert choose_engine(with_pattern(NANO, r"\w+|\W+"), "auto") == "tiktoken"


@needs_gigatoken
def test_a_pattern_without_a_scheme_is_not_for_gigatoken():
    tokenizer = with_pattern(NANO, PATTERN.replace("{1,2}", "{1,4}"))
    assert "is not known to be exact" in (why_not(tokenizer, "gigatoken") or "")
    assert choose_engine(tokenizer, "auto") == "fastokens"


# ---- what an engine sees otherwise, measured over all code points ----

# join the first and last byte of every character with its ASCII neighbour: ids show where the pattern cuts
SHOWING = [*BYTES, *(bytes(pair) for a in b"aA! \n" for b in range(128, 256) for pair in ((a, b), (b, a)))]
CODE_POINTS = [c for c in range(128, 0x110000) if not 0xD800 <= c < 0xE000 and c != ord(encode_gigatoken.SEPARATOR)]


def seen_otherwise(engine: str, pattern: str, contexts: list[str]) -> set[int]:
    """Code points whose ids in one of the contexts are not those of tiktoken"""
    encoder = Encoder(tokenizer_of(SHOWING, pattern), engine)
    found = set()
    for context in contexts:
        places = [CODE_POINTS[i : i + 4096] for i in range(0, len(CODE_POINTS), 4096)]
        while places:
            texts = ["\nx\n".join([context.format(chr(c)) for c in some]) for some in places]
            ours, theirs = (
                np.split(ids, np.cumsum(lengths)[:-1])
                for ids, lengths in (encoder._fast(text_array(texts)), encoder._reference(text_array(texts)))
            )
            bad = [p for p, a, b in zip(places, ours, theirs, strict=True) if not np.array_equal(a, b)]
            found.update(some[0] for some in bad if len(some) == 1)
            places = [some[i::16] for some in bad if len(some) > 1 for i in range(16) if some[i::16]]
    return found


def in_category(category: str) -> set[int]:
    """Code points that tiktoken takes for \\p{category}"""
    encoding = tokenizer_of(SHOWING, rf"\p{{{category}}}a|[^\n]|\n").encoding
    lengths = np.array(
        [len(ids) for ids in encoding.encode_ordinary_batch([chr(c) + "a" for c in CODE_POINTS], num_threads=1)]
    )
    num_bytes = np.array([len(chr(c).encode()) for c in CODE_POINTS])
    return {c for c, joined in zip(CODE_POINTS, lengths == num_bytes, strict=True) if joined}


@needs_gigatoken
@pytest.mark.parametrize("number", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_what_gigatoken_sees_otherwise_is_what_is_listed(number):
    scheme = Scheme(list(SCHEMES.values())[number].name)
    contexts = ["{}a", "A{}"] if number == 0 else ["{}a", "A{}", "!{}", " {}"]
    listed = set(risky_code_points(scheme).tolist())
    found = seen_otherwise("gigatoken", list(SCHEMES)[number], contexts)
    assert found <= listed
    if number:
        assert found == listed


@needs_gigatoken
@pytest.mark.slow
@pytest.mark.parametrize("pattern", list(SCHEMES))
def test_gigatoken_sees_nothing_else_otherwise(pattern):
    contexts = ["a{}", "{}!", "'{}a", "\n{}", "A{}A", "!{}"]
    assert seen_otherwise("gigatoken", pattern, contexts) <= set(risky_code_points(SCHEMES[pattern]).tolist())


@pytest.mark.slow
def test_every_digit_that_is_not_ascii_is_listed():
    digits = Scheme("qwen2", pairs=True)
    assert in_category("N") <= set(risky_code_points(digits).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("category", ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "N", "M", "P", "S"])
def test_fastokens_has_the_categories_of_tiktoken(category):
    assert seen_otherwise("fastokens", rf"\p{{{category}}}a|[^\n]|\n", ["{}a"]) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        r"(?i:[abcdefghijklmnopqrstuvwxyz]|ss|ff|ffi|st)a|[^\n]|\n",
        r"\sa|[^\n]|\n",
        r"\Sa|[^\n]|\n",
        r"[^\s!]a|[^\n]|\n",
    ],
)
def test_fastokens_folds_cases_and_knows_spaces_as_tiktoken_does(pattern):
    assert seen_otherwise("fastokens", pattern, ["{}a"]) == set()


# ---- gigatoken ----

# a token for every string of two to four of these: ids show where white space, digits and contractions are split
CHARS = " \n\r\u00a0a1'st!"
JOINED = [*BYTES, b"\xc2\xa0", *("".join(some).encode() for n in (2, 3, 4) for some in product(CHARS, repeat=n))]


@needs_gigatoken
@pytest.mark.parametrize("pattern", list(SCHEMES))
def test_white_space_digits_and_contractions_are_split_as_tiktoken_splits_them(pattern):
    encoder = Encoder(tokenizer_of(JOINED, pattern), "gigatoken")
    encoder._compare = lambda *_: None
    texts = text_array(["".join(some) for n in (1, 2, 3, 4) for some in product(CHARS, repeat=n)])
    longer = text_array(["".join(some) for some in list(product(CHARS, repeat=5))[::3]])
    for some in (texts, longer):
        for found, wanted in zip(encoder(some), encoder._reference(some), strict=True):
            assert np.array_equal(found, wanted)


@needs_gigatoken
def test_texts_that_end_in_a_space_after_a_line_go_through_tiktoken_where_that_matters():
    find = RiskyTexts([], ends=True)
    texts = ["a\n ", "a \n", "\u00a0", "。", "", " ", "\u3000", "x", "\u2028", "\x85", "\u0141", "\t"]
    assert np.flatnonzero(find(text_array(texts))).tolist() == [0, 2, 5, 6, 8, 9, 11]


@needs_gigatoken
def test_digits_are_paired_from_the_left_of_each_number():
    ids, lengths = Gigatoken(NANO, SCHEMES[PATTERN])(text_array(["in 12345.6", "7", "89 0"]))
    tokens = [NANO.decode([id_]) for id_ in ids]
    assert tokens == ["in", " ", "12", "34", "5", ".", "6", "7", "89", " ", "0"]
    assert lengths.tolist() == [7, 1, 3]


@needs_gigatoken
def test_digits_without_a_token_for_both_stay_apart():
    encoder = Encoder(tokenizer_of([*BYTES, b"12"]), "gigatoken")
    ids, _ = encoder(["1234512", "31"])
    assert ids.tolist() == [256, 51, 52, 53, 49, 50, 51, 49]


@needs_gigatoken
def test_memory_is_bounded_whatever_words_come(monkeypatch):
    made = []
    monkeypatch.setattr(encode_gigatoken, "FRESH_TEXT", 1 << 20)
    monkeypatch.setattr(encode_gigatoken, "GROWTH", 32 << 20)
    monkeypatch.setattr(Gigatoken, "_renew", lambda self, renew=Gigatoken._renew: (made.append(1), renew(self)))
    engine = Gigatoken(NANO, SCHEMES[PATTERN])
    rng = np.random.default_rng(0)
    before = encode_gigatoken.resident_bytes()
    if before is None:
        pytest.skip("the system does not say")
    for _ in range(24):
        letters = rng.integers(97, 123, (150_000, 6), dtype=np.uint8)
        letters[:, 0] = 32
        engine(text_array([letters.tobytes().decode()]))
    assert len(made) > 2
    assert (encode_gigatoken.resident_bytes() or 0) - before < 150 << 20
