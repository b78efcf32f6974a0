"""Overlap: planted copies are found whatever their case, spacing and punctuation; other questions are not."""

import json
import random
import re
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import characters, lists, sampled_from, text

from prep.chat.template import ChatTemplate
from prep.check.verify import problems
from prep.encode import decode as user_text
from prep.inspect.overlap import find_overlap
from prep.plan import overlap as grams
from prep.plan import rows as plan
from prep.plan.overlap import HeldOut, hash_ngrams
from prep.render import text_hash
from prep.render.text_hash import hash_texts, normalized, words
from prep.shard import open_shards
from prep.sources import source as sources
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, check_shards, midprep_command, write_lines

# ---- what counts as the same ----


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 2 + 2?", "WHAT IS 2+2 ?!"),
        ("Tom's dog, Rex - a 3-year-old", "toms dog rex a 3 year old"),
        ("It costs $1,200.50", "it costs 120050"),
        ("naïve café", "NAI\u0308VE CAFE\u0301"),
        ("１２ ＋ ３", "12 + 3"),
        ("“Why?” — he asked…", '"Why?" - he asked...'),
        ("你好，世界！", "你好 世界"),
        ("ab\u00a0cd\u2003ef", "abcdef"),
        ("12 – 3", "12 - 3"),
        ("Straße", "STRASSE"),
    ],
)
def test_spelling_does_not_matter(first: str, second: str) -> None:
    texts = [first.encode(), second.encode()]
    assert len(set(normalized(texts))) == 1
    assert len(set(hash_texts(texts).tolist())) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("12 - 3", "12 + 3"), ("12 * 3", "12 / 3"), ("3 × 4", "3 ÷ 4"), ("3 < 4", "3 > 4"), ("12 + 3", "123"),
        ("5 * -3", "5 + -3"), ("12 <= 3", "12 >= 3"), ("2**3", "2 == 3"), ("10⁻³", "10³"), ("दिन", "दीन"), ("ไม่", "ไม้"),
        ("ab", "ac"), ("é", "e"), ("你好", "你们"),
    ],
)  # fmt: skip
def test_other_questions_are_other_texts(first: str, second: str) -> None:
    assert len(set(normalized([first.encode(), second.encode()]))) == 2


def test_a_text_of_which_nothing_is_left_is_a_copy_of_nothing() -> None:
    assert hash_texts([b"", b" ?! ", "…".encode()]).tolist() == [0, 0, 0]
    held = HeldOut([b"?!"])
    assert held.match([b"...", b"?!"]).tolist() == [0, 0]


@settings(deadline=None)
@given(lists(text(), max_size=5))
def test_any_text_has_words_and_a_hash_and_normalizing_words_again_changes_nothing(texts: list[str]) -> None:
    data = [text.encode("utf-8", "ignore") for text in texts]
    once = words(data)
    assert words([text.encode() for text in once]) == once
    assert len(hash_texts(data)) == len(normalized(data)) == len(texts)


SIGNS = "+*=<>^×÷-"


def rule(text: str) -> bytes:
    """`normalized` of one text, by the standard library"""
    text = lower(unicodedata.normalize("NFKC", lower(text))).replace("ß", "ss").replace("ς", "σ")
    text = re.sub("[\u2010-\u2015\u2212]", "-", text)
    text = "".join(char for char in text if char.isalnum() or char in SIGNS or is_vowel_mark(char))
    return re.sub(rf"(?<![\d{SIGNS}])[{SIGNS}]+|[{SIGNS}]+(?![\d{SIGNS}])", "", text).encode()


def lower(text: str) -> str:
    return text.replace("İ", "i").lower()  # one character for one


def is_vowel_mark(char: str) -> bool:
    scripts = re.match(f"[{text_hash.VOWEL_MARKS}]", char)
    return scripts is not None and unicodedata.category(char)[0] == "M"


def test_every_character_is_normalized_by_the_rule() -> None:
    # of Unicode 3.2: which later ones are known depends on the versions of Python and pyarrow. U+0345 has no capital.
    chars = [chr(code) for code in range(1, 0x30000) if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")]
    for frame in ("a{}b", "1{}-2", "가{}"):
        texts = [frame.format(char) for char in chars if char != "\u0345"]
        assert normalized([text.encode() for text in texts]) == [rule(text) for text in texts]


@pytest.mark.parametrize("between", ["_", " ", "'", "\u2019", "\u2014", "-"])
def test_what_is_dropped_keeps_marks_and_letters_apart(between: str) -> None:
    texts = [f"{before}{between}{after}" for before, after in ("a\u0301", "B\u0301", "İ\u0301", "가", "कि", "か\u3099")]
    assert normalized([text.encode() for text in texts]) == [rule(text) for text in texts]


ALPHABET = "aB1+-=<*×⁻ि é０中한각ᆨ\u0301ßẞΣςİﬁ٣。Я़क_\n\t\xa0–"


@settings(max_examples=40, deadline=None)
@given(texts=lists(text(sampled_from(ALPHABET)), max_size=9))
def test_texts_of_a_batch_are_normalized_as_each_alone_and_by_the_rule(texts: list[str]) -> None:
    batch = normalized([text.encode() for text in texts])
    assert batch == [rule(text) for text in texts]
    assert batch == [normalized([text.encode()])[0] for text in texts]


@settings(deadline=None)
@given(texts=lists(text(sampled_from("aB1 2+-=<*?.\n")), max_size=9))
def test_plain_texts_skip_what_would_change_nothing(texts: list[str]) -> None:
    assert normalized([text.encode() for text in texts]) == [rule(text) for text in texts]


@settings(deadline=None)
@given(text(characters(max_codepoint=127)))
def test_words_of_plain_texts_are_those_of_others(plain: str) -> None:
    alone, beside = words([plain.encode(), f"{plain} é".encode()])
    assert beside == f"{alone} é".strip()


@settings(deadline=None)
@given(lists(lists(sampled_from("abc"), max_size=20), max_size=6))
def test_runs_are_the_same_where_their_words_are_and_only_there(texts: list[list[str]]) -> None:
    hashes, owner = hash_ngrams([" ".join(some).encode() for some in texts])
    found = list(zip(owner.tolist(), hashes.tolist(), strict=True))
    plain = [(i, tuple(some[k : k + 13])) for i, some in enumerate(texts) for k in range(len(some) - 12)]
    assert [i for i, _ in found] == [i for i, _ in plain]
    assert len({run for _, run in found}) == len({run for _, run in plain})


def test_the_share_is_of_the_held_out_texts_runs_and_the_best_text_is_named() -> None:
    held = HeldOut([" ".join(f"w{i}" for i in range(20)).encode()])
    texts = [" ".join(["x", *(f"w{i}" for i in range(stop)), "x"]).encode() for stop in (12, 14, 19, 13)]
    assert held.match(texts, first=70).tolist() == [0, 2 / 8, 7 / 8, 1 / 8]
    assert (held.share[0], held.where[0], held.exact[0]) == (7 / 8, 72, False)


def test_a_form_that_many_held_out_texts_share_does_not_count() -> None:
    form = " ".join(f"f{i}" for i in range(30))
    held = HeldOut([f"{form} {i}".encode() for i in range(grams.MOST_SHARED + 1)])
    assert held.match([form.encode()]).tolist() == [0]
    assert held.match([f"{form} 7".encode()]).tolist() == [1]


# ---- planted copies ----


def question(draw: random.Random) -> str:
    """Ten to sixty words with numbers, commas, quotes and decimals, no two alike"""
    syllables = ["ka", "lo", "mi", "re", "sun", "ter", "vo", "qui", "ble", "nor"]
    out = []
    for _ in range(draw.randrange(10, 60)):
        word = "".join(draw.choice(syllables) for _ in range(draw.randrange(1, 4)))
        kinds = [
            word,
            word,
            word,
            f"{word},",
            f"“{word}”",
            f"{word}-{word}",
            f"${draw.randrange(1, 900)}.50",
            f"{word}'s",
        ]
        out.append(draw.choice(kinds))
    return (" ".join(out) + draw.choice("?.!")).capitalize()


def strip(some: str) -> str:
    return "".join(c for c in some if c.isalnum() or c.isspace())


ALTERED: list[Callable[[str], str]] = [
    str.upper, str.lower, str.title, strip,
    lambda some: some.replace(" ", "  \n"),
    lambda some: some.replace(",", " ,").replace(".", " . "),
    lambda some: f"  «{some}»!!! ",
    lambda some: strip(some).upper().replace(" ", "\u00a0"),
    lambda some: some.replace("“", '"').replace("”", '"').replace("-", "–"),
    lambda some: "Please answer: " + some,
    lambda some: some + " Think step by step, and give a number.",
]  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, toy: Tokenizer) -> Path:
    """600 val questions: 150 copied to train as they are, 330 altered, 120 not there. 2 turns in some of train."""
    folder, draw = tmp_path_factory.mktemp("planted"), random.Random(0)
    val = [question(draw) for _ in range(600)]
    train = [chat(question(draw), "no") for _ in range(1500)] + [chat(some, "yes") for some in val[:150]]
    for i, some in enumerate(val[150:480]):
        train.append(chat(ALTERED[i % len(ALTERED)](some), "yes"))
        if i % 3 == 0 and len(some.split()) > 30:
            train[-1]["messages"] += chat("And now?", "Now, too.")["messages"]
    draw.shuffle(train)
    write_lines(folder / "train.jsonl", train)
    for name, some in (("copied", val[:150]), ("altered", val[150:480]), ("new", val[480:])):
        write_lines(folder / f"{name}.jsonl", [chat(q, "?") for q in some])
    return folder


def mixture(**mix: str) -> dict[str, Any]:
    return {
        "mix": mix,
        "train": [{"task": "chat", "name": "train", "path": "train.jsonl"}],
        "val": [{"task": "chat", "name": name, "path": f"{name}.jsonl"} for name in ("copied", "altered", "new")],
    }


def built(folder: Path, toy: Tokenizer, name: str, mix: dict[str, str], **options: Any) -> tuple[Path, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_ROWS", 400)
        patch.setattr(plan, "SHARD_TOKENS", 1 << 17)
        options = {"max_seq_len": 2048} | options
        root, manifest, _ = build_mixture(folder, mixture(**mix), toy, name, **options)
    check_shards(root)
    assert list(problems(root)) == []
    return root, manifest


def overlaps(manifest: dict[str, Any]) -> list[int]:
    return [source["overlap"]["asked_in_train"] for source in manifest["splits"]["val"]["sources"]]


def test_a_build_counts_every_exact_copy_and_those_of_another_spelling(planted: Path, toy: Tokenizer) -> None:
    _, manifest = built(planted, toy, "plain", {})
    copied, altered, new = overlaps(manifest)
    assert (copied, new) == (150, 0)
    # 2 of 11 ways add words, and a third of the long ones has another turn: the full look finds those
    assert 150 < altered < 330
    assert manifest["splits"]["val"]["sources"][1]["overlap"]["of"] == 330
    assert "overlap" not in manifest["splits"]["train"]["sources"][0]


@pytest.mark.parametrize("packing", ["bfd", "wrapped"])
def test_the_full_look_finds_all_copies_and_nearly_all_altered_ones(
    planted: Path, toy: Tokenizer, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = built(planted, toy, f"full-{packing}", {}, packing=packing, max_tokens=1 << 20)
    monkeypatch.setattr(user_text, "BLOCK_TOKENS", 7 * 2049)
    found = find_overlap(root, [], None, 0.5)
    copied, altered, new = found["held_out"]
    assert (copied["copies"], copied["conversations"]) == (150, 150)
    assert (new["copies"], new["near"]) == (0, 0)
    assert altered["copies"] + altered["near"] >= 0.95 * 330
    assert 464 <= found["train"]["hits"] <= 480
    assert found["train"]["conversations"] == 1980
    example = copied["examples"][0]
    assert example["share"] == 1
    docs = open_shards(root).split("train").docs
    lines = (planted / "train.jsonl").read_text().splitlines()
    asked = json.loads(lines[docs["index"][example["train"]]])["messages"][0]["content"]
    assert asked.startswith(example["text"].removesuffix("...")[:40])


@pytest.mark.parametrize(("kind", "least"), [("exact", 150), ("13-gram", 150 + 314)])
def test_what_val_asks_is_left_out_of_train_where_the_mixture_says_so(
    planted: Path, toy: Tokenizer, kind: str, least: int
) -> None:
    root, manifest = built(planted, toy, f"drop-{kind}", {"drop_overlap": kind}, max_rejected=0.0)
    train = manifest["splits"]["train"]["sources"][0]
    assert least <= train["rejected"]["asked in val"] <= 480
    assert train["rows"] == 1980 == train["conversations"] + train["rejected"]["asked in val"]
    assert overlaps(manifest) == [0, 0, 0]
    found = find_overlap(root, [], None, 0.5)
    assert sum(one["copies"] for one in found["held_out"]) == 0
    if kind == "13-gram":
        assert found["train"]["hits"] == 0


def test_val_is_as_it_was_and_an_order_without_the_hits_is_the_order_less_those(planted: Path, toy: Tokenizer) -> None:
    streams = []
    for name, mix in (("with", {}), ("without", {"drop_overlap": "exact"})):
        root, _ = built(planted, toy, name, mix, packing="wrapped", max_tokens=1 << 20)
        docs = open_shards(root).split("train").docs["index"].tolist()
        streams.append([b for a, b in zip([None, *docs], docs, strict=False) if a != b])
    left = set(streams[1])
    assert [index for index in streams[0] if index in left] == streams[1]
    one, other = ((planted / name / "val.docs.npy").read_bytes() for name in ("with", "without"))
    assert one == other


def test_files_are_compared_with_through_the_command_line(planted: Path, toy: Tokenizer) -> None:
    root, _ = built(planted, toy, "plain", {})
    write_lines(
        planted / "bench.jsonl",
        [chat("What is new?", "?"), json.loads((planted / "train.jsonl").read_text().splitlines()[5])],
    )
    command = midprep_command("overlap", root, "--against", planted / "bench.jsonl")
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert "bench.jsonl (against)" in shown.stdout
    found = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120).stdout)
    assert [found["held_out"][3][key] for key in ("conversations", "copies")] == [2, 1]
    wrong = subprocess.run([*command, "--threshold", "2"], capture_output=True, text=True, timeout=120)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "--threshold 2.0 found, wanted more than 0" in wrong.stderr


def test_without_val_there_must_be_something_to_compare_with(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "a.jsonl", [chat("a", "b")])
    train = {"train": [{"task": "chat", "path": "a.jsonl"}]}
    root, manifest, _ = build_mixture(tmp_path, train, toy)
    assert "overlap" not in manifest["splits"]["train"]["sources"][0]
    with pytest.raises(ValueError, match="has no val split: give what to compare with"):
        find_overlap(root, [], None, 0.5)
    with pytest.raises(ValueError, match=r"drop_overlap = 'exact' found without a \[\[val\]\] entry"):
        build_mixture(tmp_path, train | {"mix": {"drop_overlap": "exact"}}, toy)


def test_user_text_is_decoded_turn_by_turn_and_ends_where_a_conversation_is_cut(toy: Tokenizer) -> None:
    bos, user, user_end, assistant, end = (toy.special_tokens[f"<|{n}|>"] for n in
        ("bos", "user_start", "user_end", "assistant_start", "assistant_end"))  # fmt: skip
    tokens = [bos, user, *b"ab", user_end, assistant, *b"no", end, user, *b"c", user_end]
    tokens += [bos, user, *"dé".encode()[:2]]
    decoder = user_text.Decoder(toy, ChatTemplate())
    found = decoder.user_texts(np.array(tokens, dtype=np.uint16), np.array([0, 13]))
    assert found == [b" ab c", b" d\xc3"]
    assert words(found) == ["ab c", "d"]
