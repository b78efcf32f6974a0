"""A mixture that extends another has its entries, less those that are dropped, and its own behind them."""

from pathlib import Path
from typing import Any

import pytest

from prep.mixture.mixture import Mixture, load_mixture, parse_mixture
from prep.mixture.resolve import resolve
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, write_lines


def parse(data: dict[str, Any], folder: Path = Path()) -> Mixture:
    return parse_mixture(data, "m.toml", folder, "m")


def labels(mixture: Mixture) -> dict[str, list[str]]:
    return {split: [entry.label for entry in entries] for split, entries in mixture.splits.items()}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_entries_come_behind_those_of_the_mixture_that_it_extends() -> None:
    default = load_mixture("default")
    mixture = parse(
        {"extends": "default", "train": [{"task": "arithmetic", "size": 9}, {"task": "gsm8k", "repeat": 2}]}
    )
    assert mixture.splits["train"][:6] == default.splits["train"]
    assert labels(mixture)["train"][6:] == ["arithmetic", "gsm8k-2"]
    assert mixture.splits["val"] == default.splits["val"]
    assert (mixture.name, mixture.seed) == ("m", 42)  # never its name, by which a build of it would be replaced
    assert labels(parse({"extends": "sample"})) == labels(load_mixture("sample"))


@pytest.mark.parametrize(
    ("drop", "train", "val"),
    [
        (["identity"], ["simple_spelling", "spelling_bee", "arithmetic"], ["spelling_bee", "arithmetic"]),
        (["arithmetic"], ["simple_spelling", "spelling_bee", "identity"], ["spelling_bee"]),
        (["val.arithmetic"], ["simple_spelling", "spelling_bee", "arithmetic", "identity"], ["spelling_bee"]),
        (["train.spelling_bee"], ["simple_spelling", "arithmetic", "identity"], ["spelling_bee", "arithmetic"]),
        (["val.*", "identity"], ["simple_spelling", "spelling_bee", "arithmetic"], None),
    ],
)  # fmt: skip
def test_a_drop_takes_an_inherited_entry_out_of_one_split_or_both(
    drop: list[str], train: list[str], val: list[str] | None
) -> None:
    found = labels(parse({"extends": "sample", "drop": drop}))
    assert (found["train"], found.get("val")) == (train, val)


def test_an_entry_is_replaced_by_dropping_it_and_giving_another() -> None:
    own = {"task": "identity", "path": "me.jsonl", "repeat": 5}
    mixture = parse({"extends": "sample", "drop": ["identity", "val.*"], "train": [own], "val": [own]})
    assert [(entry.label, entry.repeat) for entry in mixture.splits["train"]][-1] == ("identity", 5)
    assert labels(mixture)["val"] == ["identity"]


def test_seed_and_mix_are_its_own_where_it_says_them(tmp_path: Path) -> None:
    write(tmp_path, "base", 'seed = 7\nmix = {by = "conversations", dedup = "exact"}\ntrain = [{task = "gsm8k"}]\n')
    kept, changed = (
        parse({"extends": "base.toml", **more}, tmp_path) for more in ({}, {"seed": 0, "mix": {"by": "tokens"}})
    )
    assert (kept.seed, kept.mix.by, kept.mix.dedup) == (7, "conversations", "exact")
    assert (changed.seed, changed.mix.by, changed.mix.dedup) == (0, "tokens", "exact")


def test_files_of_an_inherited_entry_are_found_from_its_own_directory(tmp_path: Path) -> None:
    write_lines(tmp_path / "base" / "a.jsonl", [chat("Hi", "a")])
    write_lines(tmp_path / "base" / "more" / "b.jsonl", [chat("Hi", "b")])
    (tmp_path / "base" / "t.py").write_text("def t(row):\n    return row\n")
    entries = (
        '{task = "chat", path = "a.jsonl"}, {task = "chat", path = "more/*.jsonl"}, {task = "t.py:t", path = "a.jsonl"}'
    )
    write(tmp_path / "base", "base", f"train = [{entries}]\n")
    middle = write(tmp_path / "middle", "middle", 'extends = "../base/base.toml"\ndrop = ["chat-2"]\n')
    for given, names in (("base/base.toml", ["a.jsonl", "b.jsonl", "a.jsonl"]), (str(middle), ["a.jsonl", "a.jsonl"])):
        inputs = resolve(parse({"extends": given}, tmp_path), None, None)["train"]
        assert [Path(entry.source.files[0]).name for entry in inputs] == names


def test_what_is_built_is_what_the_written_out_mixture_builds(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "a.jsonl", [chat("Hi", "a"), chat("Ho", "b")])
    bee = {"task": "spelling_bee", "size": 20}
    write(tmp_path, "base", 'train = [{task = "gsm8k"}, {task = "spelling_bee", size = 20}]\nval = [{task = "mmlu"}]\n')
    own = {"task": "chat", "path": "a.jsonl"}
    short = {"name": "n", "extends": "base.toml", "drop": ["gsm8k", "val.*"], "train": [own], "val": [own]}
    manifests = [
        build_mixture(tmp_path, mixture, toy, output, max_seq_len=512)[1]
        for output, mixture in (("short", short), ("whole", {"name": "n", "train": [bee, own], "val": [own]}))
    ]
    assert manifests[0] == manifests[1]
    assert "extends" not in manifests[0]["mixture"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"extends": "defalt"}, "mixture 'defalt' not found.*Did you mean 'default'"),
        ({"extends": ["default"]}, r"extends = \['default'\] found, wanted a string"),
        ({"extend": "default"}, "key 'extend' is not known.*Did you mean 'extends'"),
        ({"extends": "sample", "drop": "identity"}, "drop = 'identity' found, wanted a list of names"),
        ({"extends": "sample", "drop": [1]}, r"drop = \[1\] found, wanted names of entries"),
        ({"extends": "sample", "drop": ["identty"]}, "names no inherited entry.*Did you mean 'identity'"),
        ({"extends": "sample", "drop": ["val.identity"]}, "names no inherited entry"),
        ({"extends": "sample", "drop": ["train.*"]}, r"has no \[\[train\]\] entry"),
        ({"drop": ["identity"], "train": [{"task": "gsm8k"}]}, "drop found without extends"),
        ({"extends": "sample", "train": [{"task": "gsm8"}]}, "m.toml, train entry 1: task = 'gsm8' is not known"),
        ({"extends": "sample", "train": [{"task": "arithmetic", "name": "identity"}]}, "is an entry of 'sample' too"),
        ({"extends": "sample", "train": [{"task": "mmlu", "proportion": 1}]}, "proportions add up to 1"),
    ],
)
def test_a_mistake_is_one_clear_line(data: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words) as found:
        parse(data)
    assert "\n" not in str(found.value)


def test_a_mistake_in_the_mixture_that_it_extends_names_that_file(tmp_path: Path) -> None:
    write(tmp_path, "base", 'train = [{task = "gsm8"}]\n')
    with pytest.raises(ValueError, match=r"base\.toml, train entry 1: task = 'gsm8'"):
        parse({"extends": "base.toml"}, tmp_path)


@pytest.mark.parametrize("circle", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_circle_is_refused_with_its_files(tmp_path: Path, circle: list[str]) -> None:
    for name, following in zip(circle, [*circle[1:], circle[0]], strict=True):
        write(tmp_path, name, f'extends = "{following}.toml"\n')
    words = " extends ".join(f"{name}.toml" for name in [*circle, circle[0]])
    for start in (str(tmp_path / "a.toml"), f"{tmp_path}/../{tmp_path.name}/a.toml"):
        with pytest.raises(ValueError, match=f"^{words}: a mixture cannot extend itself"):
            load_mixture(start)


def test_the_identity_conversations_that_ship_have_a_name(tmp_path: Path) -> None:
    for path, found in (("midprep:identity.jsonl", True), ("midprep:identiy.jsonl", False)):
        mixture = parse({"train": [{"task": "identity", "path": path}]}, tmp_path)
        if found:
            (entry,) = resolve(mixture, None, None)["train"]
            assert entry.source.num_rows > 100
            assert entry.describe()["path"] == "identity.jsonl"
        else:
            with pytest.raises(ValueError, match=r"Did you mean 'midprep:identity\.jsonl'"):
                resolve(mixture, None, None)
