"""verify notices whatever is not as it was written, and checks the mask on what was written, not on the renderer."""

import json
import random
import re
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers

from prep.build.record import find_inputs
from prep.check.mask_rules import UNKNOWN, broken_rules, expected_mask
from prep.check.rebuild import differences
from prep.check.verify import problems
from prep.plan import rows as plan
from prep.shard import manifest_sha256, write_array, write_bytes, write_manifest
from prep.tokenizer.tokenizer import SPECIAL_TOKENS, Tokenizer
from tests.build.test_build import MIXTURE, some_chats, write_sources
from tests.conftest import build_mixture, toy_tokenizer, write_lines

SPECIAL = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
BOS, USER, USER_END, ASSISTANT, END, PYTHON, PYTHON_END, OUTPUT, OUTPUT_END = range(256, 265)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    write_sources(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SHARD_TOKENS", 2000)
        root, manifest, _ = build_mixture(folder, MIXTURE, toy_tokenizer(), max_seq_len=128)
    assert len(manifest["splits"]["train"]["shards"]) > 3
    return root


@pytest.fixture
def copy(build: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(build, tmp_path / "copy"))


# ---- the mask ----


def expected(tokens: list[int], first: list[int]) -> list[int]:
    found: list[int] = expected_mask(np.array(tokens), np.array(first), SPECIAL).tolist()
    return found


def test_the_mask_of_every_token_follows_from_those_around_it() -> None:
    tokens = [
        BOS,
        USER,
        1,
        2,
        USER_END,
        ASSISTANT,
        3,
        PYTHON,
        4,
        PYTHON_END,
        OUTPUT,
        5,
        OUTPUT_END,
        6,
        END,
        BOS,
        USER,
        USER_END,
    ]
    mask = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]
    assert expected(tokens, [0, 15]) == mask


def test_a_document_that_begins_in_a_message_is_judged_by_what_follows() -> None:
    assert expected([1, USER_END, ASSISTANT], [0]) == [0, 0, 0]
    assert expected([1, 2, END], [0]) == [1, 1, 1]
    assert expected([BOS, 1, PYTHON_END], [0]) == [0, 1, 1]
    assert expected([1, OUTPUT_END, 2, END], [0]) == [0, 0, 1, 1]
    assert expected([1, 2], [0]) == [UNKNOWN, UNKNOWN]
    assert expected([1, 1, END], [0, 1]) == [UNKNOWN, 1, 1]  # the next document says nothing about this one


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (0, "trained, which is not the assistant's"),
        (2, "trained, which is not the assistant's"),
        (5, "trained, which is not the assistant's"),
        (6, "not trained, which the assistant says"),
        (7, "not trained, which the assistant says"),
    ],
)
def test_a_mask_bit_that_is_wrong_breaks_a_rule(place: int, what: str) -> None:
    tokens = np.array([BOS, USER, 1, 2, USER_END, ASSISTANT, 3, END])
    mask = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    assert broken_rules(tokens, mask, np.array([0]), SPECIAL, whole=True) == []
    mask[place] ^= 1
    assert broken_rules(tokens, mask, np.array([0]), SPECIAL, whole=True) == [(place, what)]


def test_a_second_or_a_missing_bos_breaks_a_rule() -> None:
    mask = np.zeros(3, dtype=int)
    assert broken_rules(np.array([BOS, BOS, USER]), mask, np.array([0]), SPECIAL, True) == [
        (1, "a bos inside a document")
    ]
    assert broken_rules(np.array([USER, USER_END, BOS]), mask, np.array([0, 2]), SPECIAL, True) == [
        (0, "a document that does not begin with bos")
    ]


# ---- builds ----


def test_a_sound_build_has_no_problems(build: Path) -> None:
    assert list(problems(build)) == []


@pytest.mark.parametrize(
    "options", [{"packing": "wrapped"}, {"excess_length_strategy": "split"}, {"excess_length_strategy": "drop"}]
)
def test_builds_of_every_kind_are_sound(tmp_path: Path, toy: Tokenizer, options: dict[str, Any]) -> None:
    write_sources(tmp_path, long_every=11)
    root, _, _ = build_mixture(tmp_path, MIXTURE, toy, max_seq_len=96, **options)
    assert list(problems(root)) == []


def change(root: Path, how: str) -> None:
    """Damage a build in one way"""
    tokens, mask = sorted(root.glob("train-*.tokens.npy")), sorted(root.glob("train-*.mask.npy"))
    manifest = json.loads((root / "manifest.json").read_text())
    if how == "a bit flipped":
        data = bytearray(tokens[1].read_bytes())
        data[len(data) // 2] ^= 4
        tokens[1].write_bytes(data)
    elif how == "a byte cut":
        mask[0].write_bytes(mask[0].read_bytes()[:-1])
    elif how == "two shards swapped":
        one, two = tokens[0].read_bytes(), tokens[1].read_bytes()
        tokens[0].write_bytes(two)
        tokens[1].write_bytes(one)
    elif how == "a file missing":
        mask[1].unlink()
    elif how == "a stray file":
        (root / "train-00009-of-00010.tokens.npy").write_bytes(b"")
    elif how == "a number changed":
        manifest["splits"]["train"]["sources"][0]["rows"] += 1
        (root / "manifest.json").write_text(json.dumps(manifest))
    elif how == "the last byte of the manifest cut":
        (root / "manifest.json").write_bytes((root / "manifest.json").read_bytes()[:-1])
    elif how == "no manifest":
        (root / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("a bit flipped", "content differs from the manifest"),
        ("a byte cut", "bytes, the manifest says"),
        ("two shards swapped", "differs from the manifest|bytes, the manifest says"),
        ("a file missing", "missing"),
        ("a stray file", "not a file of this build"),
        ("a number changed", "differs from its own checksum"),
        ("the last byte of the manifest cut", "not written as midprep writes it"),
        ("no manifest", "is .* a finished build"),
    ],
)
def test_damage_is_noticed_and_named(copy: Path, how: str, words: str) -> None:
    change(copy, how)
    found = list(problems(copy))
    assert found
    assert any(re.search(words, line) for line in found), found
    assert all("\n" not in line for line in found)


def rewrite(root: Path, name: str, array: np.ndarray) -> None:
    """Replace an array and make the manifest agree: what a mistake in the writer would look like"""
    manifest = json.loads((root / "manifest.json").read_text())
    entry = write_array(root / name, array)
    for split in manifest["splits"].values():
        for files in (manifest["files"], split["files"], *(shard["files"] for shard in split["shards"])):
            if name in files:
                files[name] = entry
    write_manifest(root, manifest)


def test_rows_and_docs_that_disagree_are_noticed_whatever_the_checksums_say(copy: Path) -> None:
    docs = np.load(copy / "train.docs.npy")
    docs["length"][3] += 1
    rewrite(copy, "train.docs.npy", docs)
    assert any("its documents have" in line for line in problems(copy))


def test_a_value_that_is_wrong_is_noticed_whatever_the_checksums_say(copy: Path) -> None:
    tokens, mask = (min(copy.glob(f"train-*.{kind}.npy")).name for kind in ("tokens", "mask"))
    num_rows = len(np.load(copy / tokens))
    padded = int(np.flatnonzero(np.load(copy / "train.rows.npy")["num_tokens"][:num_rows] < 129)[0])
    for name, place, value, words in (
        ("train.rows.npy", ("num_targets", 0), 1, "num_targets of a row is not its tokens less one"),
        ("train.rows.npy", ("num_trainable", 2), 1, "num_trainable of row 2 differs from its mask"),
        ("train.docs.npy", ("trainable", 5), 1, "document 5 has another number of loss tokens"),
        ("train.docs.npy", ("source", 5), 9, "source|IndexError"),
        ("train.docs.npy", ("repeat", 5), 9, "is of copy"),
        (mask, (0, 16), 1 << 7, "bits after the last token of rows"),
        (mask, (padded, 16), 1, "padding in rows .* is not pad_id with mask 0"),
        (tokens, (padded, 128), 1, "padding in rows .* is not pad_id with mask 0"),
        (tokens, (0, 3), 60_000, "is outside the vocabulary"),
        ("token_bytes.npy", (65,), 1, "not the bytes of the tokenizer's tokens"),
    ):
        sound = np.load(copy / name)
        array = sound.copy()
        inner = array[place[0]] if array.dtype.names else array
        inner[place[1] if array.dtype.names else place] += value
        rewrite(copy, name, array)
        assert any(re.search(words, line) for line in problems(copy)), (name, words, list(problems(copy)))
        rewrite(copy, name, sound)
    assert list(problems(copy)) == []


def test_wrapped_rows_that_do_not_share_a_token_are_noticed(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    root, _, _ = build_mixture(tmp_path, MIXTURE, toy, max_seq_len=96, packing="wrapped")
    name = next(path.name for path in root.glob("train-*.tokens.npy"))
    tokens = np.load(root / name)
    tokens[3, 0] ^= 1
    rewrite(root, name, tokens)
    assert any("do not share a token" in line for line in problems(root))


def test_a_mask_that_trains_the_user_is_noticed_whatever_the_checksums_say(copy: Path) -> None:
    name = sorted(path.name for path in copy.glob("train-*.mask.npy"))[0]
    mask = np.load(copy / name)
    mask[0, 0] |= 1 << 2  # the first token of the first question
    rewrite(copy, name, mask)
    assert any("document 0, token 2: trained, which is not the assistant's" in line for line in problems(copy))


def test_a_count_that_is_wrong_is_noticed_whatever_the_checksum_says(copy: Path) -> None:
    for path in (
        ("rows_without_trainable",),
        ("total_tokens",),
        ("conversations",),
        ("padding_tokens",),
        ("min_rows",),
    ):
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["splits"]["train"][path[0]] += 1
        write_manifest(copy, manifest)
        assert any(path[0] in line for line in problems(copy)), path
        manifest["splits"]["train"][path[0]] -= 1
        write_manifest(copy, manifest)
    assert list(problems(copy)) == []


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all numbers in a manifest"""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    own = [path] if isinstance(value, int | float) and not isinstance(value, bool) else []
    return own + [found for key, inner in items for found in numbers(inner, (*path, key))]


def test_a_number_that_is_wrong_is_noticed_whatever_the_checksum_says(copy: Path) -> None:
    sound = json.loads((copy / "manifest.json").read_text())
    unnoticed = set()
    for path in numbers(sound):
        manifest = json.loads(json.dumps(sound))
        inner = manifest
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] += 1
        write_manifest(copy, manifest)
        if not list(problems(copy)):
            unnoticed.add(path[-1])
    assert unnoticed == {"truncated", "asked_in_train", "of"}  # what these count is in no file of a build


@pytest.mark.parametrize("value", [None, [], "x", 7, {"a": 1}, 2**70])
def test_a_manifest_of_other_types_is_no_traceback(copy: Path, value: Any) -> None:
    sound = json.loads((copy / "manifest.json").read_text())
    for path in [("splits",), ("files",), ("mixture",), ("tokenizer",), ("mixture", "train"), ("mixture", "train", 1),
                 ("splits", "train", "sources"), ("splits", "train", "sources", 0), ("splits", "train", "shards", 0, "rows"),
                 ("splits", "train", "sources", 0, "rejected"), ("max_seq_len",), ("token_dtype",)]:  # fmt: skip
        manifest = json.loads(json.dumps(sound))
        inner = manifest
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        write_manifest(copy, manifest)
        assert list(problems(copy)), (path, value)


def test_rejected_rows_are_in_the_file_as_often_as_in_the_manifest(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "a.jsonl", [*some_chats(9), {"messages": []}, "no JSON", {"messages": []}])
    mixture = {"name": "m", "train": [{"task": "chat", "path": "a.jsonl", "repeat": 3}]}
    root, manifest, _ = build_mixture(tmp_path, mixture, toy, max_seq_len=64, max_rejected=1.0)
    assert list(problems(root)) == []
    lines = (root / "rejected.jsonl").read_text().splitlines(keepends=True)
    manifest["files"]["rejected.jsonl"] = write_bytes(root / "rejected.jsonl", "".join(lines[1:]).encode())
    write_manifest(root, manifest)
    assert [line.partition(": ")[2] for line in problems(root)] == [
        "1 rows of train: chat: no messages, the manifest says 2"
    ]


def corrupt(root: Path, seed: int) -> str:
    """One random corruption; returns what it was"""
    rng = random.Random(seed)
    files = sorted(path for path in root.iterdir() if path.name != "build.json" and path.stat().st_size)
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "cut", "remove", "swap", "number", "grow"])
    if kind == "flip" and path.name != "manifest.json":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        data = data[: rng.randrange(len(data))]
    elif kind == "remove":
        path.unlink()
        return f"{kind} {path.name}"
    elif kind == "swap":
        other = rng.choice([one for one in files if one.read_bytes() != bytes(data)])
        data, theirs = bytearray(other.read_bytes()), data
        other.write_bytes(theirs)
    elif kind == "grow":
        data += bytes([rng.randrange(33, 127)])
    else:
        path = root / "manifest.json"
        manifest = json.loads(path.read_text())
        place = rng.choice(numbers(manifest))
        inner = manifest
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] += rng.choice([-1, 1, 7])
        data = bytearray(json.dumps(manifest).encode())
    path.write_bytes(data)
    return f"{kind} {path.name}"


def check_corruptions(build: Path, folder: Path, seeds: range) -> None:
    for seed in seeds:
        root = Path(shutil.copytree(build, folder / str(seed)))
        what = corrupt(root, seed)
        assert list(problems(root)), f"seed {seed}: {what} was not noticed"
        shutil.rmtree(root)


def test_random_corruptions_are_noticed(build: Path, tmp_path: Path) -> None:
    check_corruptions(build, tmp_path, range(40))


@pytest.mark.torture
def test_a_thousand_random_corruptions_are_noticed(build: Path, tmp_path: Path) -> None:
    check_corruptions(build, tmp_path, range(1000, 2000))


@settings(max_examples=20)
@given(number=integers(0, 10**9))
def test_the_checksum_of_a_manifest_covers_every_value(number: int) -> None:
    one = {"a": {"b": [1, number]}, "sha256": "x"}
    other = {"a": {"b": [1, number + 1]}, "sha256": "x"}
    assert manifest_sha256(one) != manifest_sha256(other)
    assert manifest_sha256(one) == manifest_sha256({"sha256": "y", "a": {"b": [1, number]}})


# ---- the proof ----

TOML = 'name = "m"\n[[train]]\ntask = "chat"\npath = "a.jsonl"\n[[train]]\ntask = "spelling_bee"\nsize = 40\n'


def test_a_rebuild_has_the_same_bytes_or_says_what_changed(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", some_chats(30))
    root, _, _ = build_mixture(tmp_path, tomllib.loads(TOML), toy_tokenizer(), max_seq_len=256)

    def proof() -> list[str]:
        return list(differences(root, find_inputs(root, None, None, None), 1, lambda line: None))

    assert proof() == []
    docs = bytearray((root / "train.docs.npy").read_bytes())
    docs[-1] ^= 1
    (root / "train.docs.npy").write_bytes(docs)
    assert proof() == ["train.docs.npy: other bytes than in the rebuild"]
    write_lines(tmp_path / "a.jsonl", some_chats(31))
    found = proof()
    assert len(found) == 2
    assert found[0].startswith(f"{tmp_path / 'a.jsonl'}: other contents than the build was made from (sha256 ")
    assert found[1].startswith("train chat sha256 ")


def test_neither_a_build_nor_its_proof_has_files_outside_its_own_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a temporary file with a name, which a kill would leave")

    for name in ("mkdtemp", "mkstemp", "NamedTemporaryFile"):
        monkeypatch.setattr(tempfile, name, refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache home"))
    write_lines(tmp_path / "a.jsonl", some_chats(30))
    root, _, _ = build_mixture(tmp_path, tomllib.loads(TOML), toy_tokenizer(), max_seq_len=256)
    assert list(differences(root, find_inputs(root, None, None, None), 1, lambda line: None)) == []
    assert not list(tmp_path.rglob("scratch/*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "cache", "cache home", "out"]


def test_a_rebuild_names_the_file_that_changed_since(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", some_chats(20))
    entries = [f'[[train]]\ntask = "chat"\nname = "{name}"\npath = "{name}.jsonl"' for name in ("a", "b")]
    root, _, _ = build_mixture(tmp_path, tomllib.loads("\n".join(entries)), toy_tokenizer(), max_seq_len=256)
    with (tmp_path / "b.jsonl").open("r+b") as file:
        byte = file.read().index(b'content": "') + 12
        file.seek(byte)
        file.write(b"o")
    lines = list(differences(root, find_inputs(root, None, None, None), 1, lambda line: None))
    assert lines[0].startswith(f"{tmp_path / 'b.jsonl'}: other contents than the build was made from (sha256 ")
    assert not any("a.jsonl" in line for line in lines)
