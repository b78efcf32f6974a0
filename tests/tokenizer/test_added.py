"""NFC and added tokens: what `tokenizers` does, with the tables of Unicode 9, whatever Python runs."""

import random
import unicodedata

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from prep.tokenizer.added import may_change, newer, read_added_tokens, to_nfc
from prep.tokenizer.tokenizer import Tokenizer
from tests.tokenizer.models import QWEN, THINK

NFC = tokenizers.normalizers.NFC()
BYTES = {bytes([byte]): byte for byte in range(256)}
CONTEXTS = ["{}", "a{}\u0334", "a\u0345{}", "a{}\u0301", "e{}\u0323", "{}\u0307", "\u1100{}", "\uac00{}", "<{}\u0338"]


def test_newer_characters_are_those_for_which_this_python_differs_from_tokenizers() -> None:
    """One by one, and each with what it is composed of"""
    moving = []
    for code in range(0xA0, 0x30000):
        char, parts = chr(code), unicodedata.decomposition(chr(code))
        if unicodedata.combining(char) or (parts and not parts.startswith("<")):
            moving.append((code, parts.split()))
    differing = set()
    for code, parts in moving:
        texts = [context.format(chr(code)) for context in CONTEXTS] + ["".join(chr(int(part, 16)) for part in parts)]
        if any(NFC.normalize_str(text) != unicodedata.normalize("NFC", text) for text in texts):
            differing |= {code, *(int(part, 16) for part in parts)}
        assert [to_nfc(text) for text in texts] == [NFC.normalize_str(text) for text in texts], hex(code)
    old = {code for code in differing if unicodedata.ucd_3_2_0.category(chr(code)) != "Cn"}
    assert differing - old == newer()


@pytest.mark.slow
def test_every_code_point_is_normalised_as_by_tokenizers() -> None:
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            for context in CONTEXTS:
                text = context.format(chr(code))
                assert to_nfc(text) == NFC.normalize_str(text), hex(code)


def test_texts_of_what_moves_and_joins_are_normalised_as_by_tokenizers() -> None:
    rng = random.Random(0)
    pool = [*may_change(), *(5 * [*newer()]), *(20 * [*map(ord, "aeiouAE<>= \u1100\u1112\uac00\U00011935\U000105d2")])]
    for _ in range(20_000):
        text = "".join(chr(rng.choice(pool)) for _ in range(rng.randint(1, 7)))
        assert to_nfc(text) == NFC.normalize_str(text), ascii(text)


@given(st.text())
def test_a_text_without_what_may_change_stays(text: str) -> None:
    kept = "".join(char for char in text if ord(char) not in MAY_CHANGE and not 0xD800 <= ord(char) < 0xE000)
    assert to_nfc(kept) == kept == NFC.normalize_str(kept)


MAY_CHANGE = may_change()


# ---- cutting ----


def of_added(*texts: str, normalizer: str | None = "NFC") -> Tokenizer:
    return Tokenizer(
        "m", BYTES, QWEN, {}, added_tokens={t: 256 + i for i, t in enumerate(texts)}, normalizer=normalizer
    )


def test_a_text_is_cut_at_the_leftmost_and_longest_added_token() -> None:
    tokenizer = of_added("<a", "<a>", "a><", ".*")
    assert tokenizer.cut("x<a>y<a><.*") == ["x", 257, "y", 257, "<", 259]
    assert tokenizer.cut("<a<a><") == [256, 257, "<"]
    assert tokenizer.cut("") == []
    assert of_added().cut("plain") == ["plain"]


def test_pieces_are_normalised_only_where_the_tokenizer_does_so() -> None:
    assert of_added(*THINK).normalize("e\u0301") == "\u00e9"
    assert of_added(*THINK, normalizer=None).normalize("e\u0301") == "e\u0301"


def test_an_added_token_counts_its_bytes_and_is_decoded() -> None:
    tokenizer = of_added("<thínk>")
    assert tokenizer.token_bytes()[256] == 8
    assert tokenizer.decode([97, 256, 98]) == "a<thínk>b"


def token(text: str, **flags: bool) -> dict[str, object]:
    return {"id": 256 + len(text), "content": text, "special": False, **flags}


@pytest.mark.parametrize(
    ("tokens", "normalizer", "words"),
    [
        ([token("<a>", normalized=True)], "NFC", "'<a>' is looked for after the normalizer (normalized: true)"),
        ([token("ab"), token("bcd", normalized=True)], None, "'bcd' (normalized: true) overlaps with 'ab' (false)"),
        ([token("a"), token("bac", normalized=True)], None, "'bac' (normalized: true) overlaps with 'a' (false)"),
        ([token("<a>", lstrip=True)], None, "'<a>' depends on what stands beside it (lstrip)"),
        ([token("<a>"), token("<a>")], None, "'<a>' is there twice"),
        ([{"content": "<a>"}], None, "has no content and id"),
    ],
)
def test_added_tokens_that_would_be_found_otherwise_are_refused(
    tokens: list[object], normalizer: str | None, words: str
) -> None:
    with pytest.raises(ValueError) as error:
        read_added_tokens(tokens, normalizer)
    assert words in str(error.value)


def test_without_a_normalizer_added_tokens_may_be_looked_for_after_it() -> None:
    tokens = [token("<a>", normalized=True), token("[b]")]
    assert read_added_tokens(tokens, None) == ({}, {"<a>": 259, "[b]": 259})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"added_tokens": {"<a>": 97}}, "id 97 is taken twice"),
        ({"special_tokens": {"<a>": 256}, "added_tokens": {"<a>": 257}}, "a special token and an added one"),
        ({"normalizer": "NFD"}, "its normalizer is 'NFD', wanted NFC or none"),
        ({"vocab_size": 255}, "it has id 255, the model's vocabulary of 255 ends before"),
        ({"vocab_size": 1 << 25}, "the model's vocabulary has 33,554,432 ids, wanted at most"),
    ],
)
def test_what_is_no_tokenizer_is_refused_in_one_line(fields: dict[str, object], words: str) -> None:
    parts: dict[str, object] = {"name": "m", "ranks": BYTES, "pattern": QWEN, "special_tokens": {}}
    with pytest.raises(ValueError) as error:
        Tokenizer(**(parts | fields))  # type: ignore[arg-type]
    assert words in str(error.value)
    assert "\n" not in str(error.value)
