"""Tokenizers from every kind of file: one identity, one line for what is wrong. No network."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from prep import shard
from prep.tokenizer.load import info, load_tokenizer, make_tokenizer, notice_of_nanochat
from prep.tokenizer.spec import TokenizerSpec
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer

SHARED = Path(__file__).parents[3] / "shared"
NANO = load_tokenizer()
BYTES = {bytes([byte]): byte for byte in range(256)}
NANO32K = "d55e15011a9aed77a3f0338bfac36df328847a632f264dd9e998618e7b4f0274"


def toy(
    ranks: dict[bytes, int] | None = None, pattern: str = PATTERN, special: dict[str, int] | None = None
) -> Tokenizer:
    return make_tokenizer(TokenizerSpec("toy", BYTES | (ranks or {}), pattern, special or {}), "")


def replaced(tokenizer: Tokenizer, **fields: Any) -> Tokenizer:
    parts = {name: getattr(tokenizer, name) for name in ("name", "ranks", "pattern", "special_tokens")}
    return Tokenizer(**(parts | fields))


# ---- what it is ----


def test_nano32k_is_the_default_and_has_32768_ids_with_the_nine_special_tokens_last() -> None:
    tokenizer = load_tokenizer()
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.bos_id) == ("nano32k", 32_768, 32_759)
    assert tokenizer.special_tokens == {text: 32_759 + i for i, text in enumerate(SPECIAL_TOKENS)}
    assert tokenizer.encoding.encode_ordinary("2+2?") == [50, 43, 50, 63]
    assert tokenizer.decode(np.array([50, 43, 50, 63, 32_759])) == "2+2?<|bos|>"


def test_its_identity_stays_the_same_for_ever() -> None:
    assert load_tokenizer("nano32k").sha256 == NANO32K


def test_identity_covers_ranks_pattern_and_special_tokens_but_not_name_order_or_source() -> None:
    base = toy({b"ab": 256, b"bc": 257})
    backwards = dict(reversed(base.ranks.items()))
    special = dict(reversed(base.special_tokens.items()))
    assert Tokenizer("other", backwards, PATTERN, special, source="elsewhere").sha256 == base.sha256
    others = [
        toy({b"ab": 257, b"bc": 256}),
        toy({b"ab": 256, b"bd": 257}),
        toy({b"ab": 256}),
        toy({b"ab": 256, b"bc": 257}, pattern=PATTERN + r"|\s"),
        toy({b"ab": 256, b"bc": 257}, special={"<|end|>": 258}),
        replaced(base, added_tokens={"<think>": 300}),
        replaced(base, added_tokens={"<think>": 301}),
        replaced(base, normalizer="NFC"),
    ]
    assert len({tokenizer.sha256 for tokenizer in [base, *others]}) == 9


def test_token_bytes_are_lengths_and_0_for_special_tokens_and_unused_ids() -> None:
    lengths = toy({b"ab": 256, b"abc": 257}, special={"<|bos|>": 260}).token_bytes()
    assert lengths.dtype == np.uint16
    assert lengths.tolist() == [1] * 256 + [2, 3, 0, 0] + [0] * 9


def test_a_token_of_65535_bytes_fits_and_one_more_is_refused() -> None:
    assert toy({b"a" * 65_535: 256}).token_bytes()[256] == 65_535
    with pytest.raises(ValueError, match="token 256 has 65,536 bytes, a build holds 65,535"):
        toy({b"a" * 65_536: 256}).token_bytes()


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(32_768, "uint16"), (65_535, "uint16"), (65_536, "uint16"), (65_537, "uint32")]
)
def test_the_largest_id_decides_the_token_dtype(vocab_size: int, dtype: str, tmp_path: Path) -> None:
    num_more = vocab_size - 9 - 256
    tokenizer = toy({b"%05d" % i: 256 + i for i in range(num_more)})
    assert tokenizer.vocab_size == vocab_size
    assert info(tokenizer)["token_dtype"] == shard.token_dtype(vocab_size).name == dtype
    assert len(tokenizer.token_bytes()) == vocab_size
    tokenizer.write(tmp_path)
    assert load_tokenizer(tmp_path).sha256 == tokenizer.sha256
    assert tokenizer.encoding.decode([vocab_size - 1]) == "<|output_end|>"


def test_a_worker_gets_the_parts_and_makes_its_own_encoder() -> None:
    tokenizer = toy({b"ab": 256})
    assert tokenizer.encoding.encode_ordinary("ab") == [256]
    assert "encoding" not in tokenizer.__getstate__()
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.sha256 == tokenizer.sha256
    assert copy.encoding.encode_ordinary("ab") == [256]


def test_info_says_what_it_is_and_where_it_came_from(tmp_path: Path) -> None:
    about = info(load_tokenizer())
    assert about["source"] == "shipped with midprep"
    assert about["ranks"] == 32_759
    assert about["longest_token"] == 238
    assert about["special_tokens"]["<|bos|>"] == about["bos_id"] == 32_759
    assert 1.5 < about["bytes_per_token"] < 4
    json.dumps(about)


def test_importing_it_loads_neither_torch_nor_tiktoken_nor_pyarrow() -> None:
    heavy = "{'torch', 'tiktoken', 'rustbpe', 'pyarrow', 'tokenizers'}"
    code = f"import prep.tokenizer.load, sys; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


# ---- files ----


def test_what_is_written_is_read_back_the_same_and_the_same_files_again(tmp_path: Path) -> None:
    tokenizer = toy({b"ab": 256, b"abc": 257}, pattern=r"\w+|\W", special={"<|\u00e9nd|>": 300})
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    entries = tokenizer.write(first)
    again = load_tokenizer(str(first))
    assert (again.name, again.sha256, again.special_tokens) == ("toy", tokenizer.sha256, tokenizer.special_tokens)
    assert again.write(second) == entries
    assert sorted(entries) == sorted(path.name for path in first.iterdir())
    assert np.load(first / "token_bytes.npy").tolist() == tokenizer.token_bytes().tolist()
    assert (first / "tokenizer.tiktoken").read_bytes().startswith(b"AA== 0\nAQ== 1\n")


def test_any_file_of_a_build_leads_to_its_tokenizer_with_pattern_and_special_tokens(tmp_path: Path) -> None:
    tokenizer = toy({b"ab": 256}, pattern=r"\w+|\W", special={"<|bos|>": 300})
    tokenizer.write(tmp_path)
    for name in ("tokenizer.tiktoken", "tokenizer.json"):
        assert load_tokenizer(tmp_path / name).sha256 == tokenizer.sha256


def test_a_damaged_build_says_so(tmp_path: Path) -> None:
    toy({b"ab": 256}).write(tmp_path)
    path = tmp_path / "tokenizer.tiktoken"
    path.write_bytes(path.read_bytes().replace(b"YWI= 256", b"YWM= 256"))
    with pytest.raises(ValueError, match=r"tokenizer\.json is for sha256 .*: damaged, build it again"):
        load_tokenizer(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.tiktoken not found, which belongs to .*tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_tiktoken_file_takes_a_pattern_or_the_default_and_the_nine_tokens_after_its_ranks(tmp_path: Path) -> None:
    path = tmp_path / "mine.tiktoken"
    toy({b"ab": 256}).write(tmp_path)
    (tmp_path / "tokenizer.tiktoken").rename(path)
    plain, other = load_tokenizer(path), load_tokenizer(path, pattern=r"\w+|\W")
    assert (plain.name, plain.pattern, plain.bos_id) == ("mine", PATTERN, 257)
    assert (other.pattern, other.sha256 == plain.sha256) == (r"\w+|\W", False)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_fixtures_are_one_tokenizer_whatever_file_they_are_in() -> None:
    fixtures = SHARED / "fixtures"
    for name in ("nano32k.tiktoken", "nanochat_tokenizer.pkl"):
        assert load_tokenizer(fixtures / name).sha256 == NANO32K


def test_a_pattern_for_what_has_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nano32k has its own pattern .*: --pattern is for a .tiktoken file only"):
        load_tokenizer("nano32k", pattern=r"\w+|\W")


LINES = [
    (b"AA==", "line 1: 'AA==' found, wanted base64, a space and a rank"),
    (b"AA== 0\n\xff\xfe 1", "line 2"),
    (b"A=== 0", "line 1"),
    (b"AA== x", "line 1"),
    (b"AA== 0\nAA== 1", r"line 2: token b'\\x00' is there twice, as 0 and 1"),
    (b"", "byte 0x00 is not a token .256 missing., wanted all 256"),
]


@pytest.mark.parametrize(("content", "words"), LINES)
def test_a_tiktoken_file_that_is_none_names_the_line(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tiktoken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value)


# ---- what is no tokenizer ----

BAD_PARTS = [
    (BYTES | {b"ab": 255}, {}, "id 255 is taken twice, by b'\\xff' and b'ab'"),
    (BYTES | {b"ab": 258}, {}, "no token has id 256, there are 257 ranks up to 258"),
    (BYTES | {b"ab": 1 << 40}, {}, "token b'ab' has id 1099511627776, wanted bytes and 0 .. 16777215"),
    (BYTES | {b"ab": -1}, {}, "has id -1"),
    (BYTES | {b"ab": "256"}, {}, "token b'ab' has id '256'"),
    (BYTES | {b"ab": True}, {}, "has id True"),
    (BYTES | {b"ab": 256.0}, {}, "has id 256.0"),
    (BYTES | {"ab": 256}, {}, "token 'ab' has id 256"),
    (BYTES | {b"": 256}, {}, "token b'' has id 256"),
    ({b"b%d" % i: i for i in range(256)}, {}, "byte 0x00 is not a token"),
    (BYTES, {"<|bos|>": 65}, "id 65 is taken twice, by b'A' and '<|bos|>'"),
    (BYTES, {"<|bos|>": 256, "<|user_end|>": 256}, "id 256 is taken twice"),
    (BYTES, {"<|bos|>": "256"}, "token '<|bos|>' has id '256', wanted str and"),
    (BYTES, {7: 256}, "token 7 has id 256"),
    (BYTES, {"": 256}, "token '' has id 256"),
    (BYTES, {"\ud800": 256}, "is not valid Unicode"),
    (BYTES, {"<|bos|>": 1 << 31}, "token '<|bos|>' has id 2147483648"),
]


@pytest.mark.parametrize(("ranks", "special", "words"), BAD_PARTS)
def test_ranks_and_special_tokens_that_are_no_tokenizer_are_refused_in_one_line(
    ranks: dict[bytes, int], special: dict[str, int], words: str
) -> None:
    with pytest.raises(ValueError) as error:
        make_tokenizer(TokenizerSpec("bad", ranks, PATTERN, special), "")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


BAD_PATTERNS = [
    ("(", "does not compile"),
    ("(((a{1000}){1000}){1000})", "does not compile"),
    ("\ud800", "does not compile"),
    ("", "matches empty text"),
    ("x*", "matches empty text"),
    (r"\w+", "leaves characters out, which would be lost"),
    (r"[^\n]+", "leaves characters out"),
]


@pytest.mark.parametrize(("pattern", "words"), BAD_PATTERNS)
def test_a_pattern_that_panics_or_loses_text_is_refused_in_one_line(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        toy(pattern=pattern)
    assert "\n" not in str(error.value)


# ---- names ----


def test_a_tokenizer_with_special_tokens_of_its_own_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"<|endoftext|>": 257, "<|user_end|>": 300}  # 256 is filled by a rank after it, as in p50k_base
    ranks = BYTES | {b"ab": 256, b"abc": 258}
    encoding = tiktoken.Encoding("p50k_base", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens=own)
    monkeypatch.setattr(tiktoken, "get_encoding", {"p50k_base": encoding}.__getitem__)
    tokenizer = load_tokenizer("p50k_base")
    assert tokenizer.special_tokens == own
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.source) == (301, None, "tiktoken")
    with pytest.raises(ValueError, match=r"p50k_base has no special token '<\|bos\|>' \(not at all\)"):
        tokenizer.special_id("<|bos|>")


def test_some_of_nanochats_nine_tokens_get_the_others_after_the_last_id() -> None:
    tokenizer = toy({b"ab": 256}, special={"<|user_end|>": 300})
    assert (tokenizer.special_id("<|user_end|>"), tokenizer.special_id("<|bos|>"), tokenizer.vocab_size) == (
        300,
        301,
        309,
    )


def test_without_network_a_name_of_tiktokens_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> tiktoken.Encoding:
        raise ConnectionError("HTTPSConnectionPool: Max retries exceeded\nfor a reason of many lines")

    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    with pytest.raises(FileNotFoundError) as error:
        load_tokenizer("cl100k_base")
    assert str(error.value) == (
        "cl100k_base is downloaded by tiktoken and that failed (ConnectionError): go online once, set "
        "TIKTOKEN_CACHE_DIR to a cache that has it, or give its .tiktoken file with --pattern."
    )


UNKNOWN = [
    ("nano32", "did you mean nano32k"),
    ("gtp2", "did you mean gpt2?"),
    ("o200k", "did you mean o200k_base"),
    ("qqqqqq", "names are nano32k, nanochat, gpt2"),
    ("gone.tiktoken", "gone.tiktoken not found: wanted a tokenizer file"),
    ("./no/where", "./no/where not found"),
]


@pytest.mark.parametrize(("name", "words"), UNKNOWN)
def test_an_unknown_name_is_told_the_nearest_right_ones(name: str, words: str) -> None:
    with pytest.raises(FileNotFoundError) as error:
        load_tokenizer(name)
    assert words in str(error.value)


def test_a_file_or_directory_of_no_kind_says_what_was_wanted(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a")
    with pytest.raises(FileNotFoundError, match="has no tokenizer: wanted a finished build"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"words.txt is not a tokenizer file: wanted .tiktoken"):
        load_tokenizer(tmp_path / "words.txt")


def test_nanochat_is_found_by_name_and_noticed_but_never_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    assert notice_of_nanochat() is None
    with pytest.raises(FileNotFoundError, match="not found: set NANOCHAT_BASE_DIR"):
        load_tokenizer("nanochat")
    path = tmp_path / "tokenizer" / "tokenizer.pkl"
    path.parent.mkdir()
    tokenizer = toy({b"ab": 256})
    encoding = tiktoken.Encoding(
        "rustbpe", pat_str=PATTERN, mergeable_ranks=tokenizer.ranks, special_tokens=tokenizer.special_tokens
    )
    path.write_bytes(pickle.dumps(encoding))
    assert notice_of_nanochat() == (
        f"nanochat's tokenizer found at {path}, not used (using nano32k): --tokenizer nanochat uses it."
    )
    assert load_tokenizer().name == "nano32k"
    for name in ("nanochat", tmp_path, tmp_path / "tokenizer", path):
        found = load_tokenizer(name)
        assert (found.name, found.sha256) == ("nanochat", tokenizer.sha256)


@given(st.text())
def test_decoding_gives_back_any_text(text: str) -> None:
    assert NANO.decode(NANO.encoding.encode_ordinary(text)) == text
