"""Training a tokenizer: text, JSON lines and parquet in, the same ranks every time."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.cli.main import app
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS
from prep.tokenizer.train import MAX_PIECE, cut, read_pieces, train_tokenizer

TEXTS = [f"the cat {i} sat on the mat,\nit's 日本 {i * i}\n" for i in range(60)]
MESSAGES = [[{"role": "user", "content": text}, {"role": "assistant", "content": [{"text": "yes"}]}] for text in TEXTS]


def files_of(root: Path) -> list[Path]:
    """The texts in every form that is read"""
    paths = [root / name for name in ("a.txt", "b.jsonl", "c.jsonl", "d.jsonl", "e.parquet", "f.parquet")]
    paths[0].write_text("".join(TEXTS), encoding="utf-8")
    paths[1].write_text("".join(json.dumps({"text": text}) + "\n\n" for text in TEXTS))
    paths[2].write_text("".join(json.dumps({"messages": row}) + "\n" for row in MESSAGES))
    paths[3].write_text("".join(json.dumps(row) + "\n" for row in MESSAGES))
    pq.write_table(pa.table({"text": TEXTS, "id": range(60)}), paths[4])
    plain = [[{"role": "user", "content": text}] for text in TEXTS]
    pq.write_table(pa.table({"messages": plain}), paths[5])
    return paths


def test_every_form_gives_its_text_and_all_bytes_are_reported(tmp_path: Path) -> None:
    paths = files_of(tmp_path)
    both = "".join(text + "yes" for text in TEXTS)
    for path, text in zip(paths, ["".join(TEXTS)] * 2 + [both] * 2 + ["".join(TEXTS)] * 2, strict=True):
        assert "".join(read_pieces([path])) == text
    seen: list[tuple[int, int]] = []
    pieces = list(read_pieces(paths, lambda done, total: seen.append((done, total))))
    total = sum(path.stat().st_size for path in paths)
    assert len(pieces) > 300
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_training_gives_exactly_the_size_asked_for_and_the_same_every_time(tmp_path: Path) -> None:
    paths = files_of(tmp_path)
    first, second = (train_tokenizer(read_pieces(paths), 300, name) for name in ("trained", "mine"))
    assert (first.vocab_size, first.bos_id, first.pattern, second.name) == (300, 291, PATTERN, "mine")
    assert list(first.special_tokens) == list(SPECIAL_TOKENS)
    assert first.sha256 == second.sha256
    assert first.token_bytes().max() > 1
    (tmp_path / "out").mkdir()
    first.write(tmp_path / "out")
    assert load_tokenizer(tmp_path / "out").sha256 == first.sha256
    assert len(first.encoding.encode_ordinary("".join(TEXTS))) < len("".join(TEXTS)) / 1.5


def test_the_first_merge_is_the_most_frequent_pair(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("ab ab ab ab cd cd")
    ranks = train_tokenizer(read_pieces([path]), 267).ranks
    assert sorted(ranks, key=ranks.__getitem__)[256:] == [b"ab", b" ab"]


@given(st.text("a \n日", max_size=300), st.integers(1, 400))
def test_cutting_loses_nothing_and_keeps_to_the_limit(text: str, repeats: int) -> None:
    long = text * repeats
    pieces = list(cut(long))
    assert "".join(pieces) == long
    assert all(0 < len(piece) <= MAX_PIECE for piece in pieces)


def test_lines_longer_than_a_block_and_characters_across_blocks_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    text = "日" * 50_000 + "\r\n" + "x" * 20_000 + " " + "y" * 20_000
    path.write_bytes(text.encode())
    pieces = list(read_pieces([path]))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= MAX_PIECE


def test_a_million_spaces_do_not_panic(tmp_path: Path) -> None:
    path = tmp_path / "spaces.txt"
    path.write_text(" " * 2_000_000 + "ab ab")
    assert train_tokenizer(read_pieces([path]), 270).vocab_size == 270


def test_lone_surrogates_of_json_become_the_replacement_character(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\\ud800b"}\n')
    assert list(read_pieces([path])) == ["a\ufffdb"]


ERRORS = [
    ("a.txt", b"ab", "the text gives 266 tokens, 300 wanted: more text or a smaller --vocab-size"),
    ("a.txt", b"", "the text gives 265 tokens"),
    ("a.txt", b"ab\xff", r"a.txt is not UTF-8 text near byte 3 \(invalid start byte\)"),
    ("a.txt", "日".encode()[:2], r"not UTF-8 text near byte 2 \(unexpected end of data\)"),
    ("a.jsonl", b'{"text": "a"}\n{"text"', "line 2: not valid JSON"),
    ("a.jsonl", b'{"text": "a"}\n\n{"texts": "a"}', "line 3: no text, wanted `text` or `messages`"),
    ("a.jsonl", b'{"messages": [{"content": 7}]}', "line 1: a message without text"),
    ("a.jsonl", b'{"messages": [{"content": [{"text": null}]}]}', "line 1: a message without text"),
    ("a.jsonl", b"7", "line 1: no text"),
    ("a.parquet", b"PAR1", "a.parquet is not a readable Parquet file"),
]


@pytest.mark.parametrize(("name", "content", "words"), ERRORS)
def test_what_is_no_text_is_named_in_one_line(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        train_tokenizer(read_pieces([path]), 300)
    assert "\n" not in str(error.value)


def test_wrong_arguments_are_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("ab")
    with pytest.raises(ValueError, match="vocabulary of 264: wanted at least 265"):
        train_tokenizer(read_pieces([path]), 264)
    assert train_tokenizer(read_pieces([path]), 265).vocab_size == 265
    with pytest.raises(FileNotFoundError, match=r"gone.txt not found: wanted text, .jsonl or .parquet"):
        train_tokenizer(read_pieces([path, tmp_path / "gone.txt"]), 300)
    with pytest.raises(ValueError, match="does not compile"):
        train_tokenizer(read_pieces([path]), 300, pattern="(")
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has the columns words: wanted `text` or `messages`"):
        train_tokenizer(read_pieces([tmp_path / "a.parquet"]), 300)


def test_a_mixture_gives_what_it_trains_on_and_files_or_a_mixture_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixture = tmp_path / "m.toml"
    mixture.write_text(
        '[[train]]\ntask = "chat"\npath = "a.jsonl"\nrepeat = 3\n[[val]]\ntask = "chat"\npath = "b.jsonl"\n'
    )
    for name, text in (("a", "zebra zebra"), ("b", "quartz quartz quartz")):
        row = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"messages": row}) + "\n")
    out = tmp_path / "tokenizer"
    app(["tokenizer", "train", "--mixture", str(mixture), "--vocab-size", "268", "-o", str(out)], standalone_mode=False)
    assert "268 ids" in capsys.readouterr().out
    merged = [token for token, rank in load_tokenizer(out).ranks.items() if rank > 255]
    assert len(merged) == 3
    assert set(b"".join(merged)) <= set(b" zebra")
    with pytest.raises(ValueError, match=r"give files, or a --mixture: one of them"):
        app(["tokenizer", "train"], standalone_mode=False)
    with pytest.raises(ValueError, match=r"--data-root has no effect without --mixture"):
        app(["tokenizer", "train", "a.txt", "--data-root", "x", "-o", "y"], standalone_mode=False)
