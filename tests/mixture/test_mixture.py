"""Mixtures are data: what is not known is an error that names the nearest right one."""

import doctest
from pathlib import Path
from typing import Any

import pytest

from prep.mixture import checks
from prep.mixture.mixture import load_mixture, mixture_names, parse_mixture


def parse(data: dict[str, Any]) -> Any:
    return parse_mixture(data, "m.toml", Path(), "m")


def test_the_example_in_a_docstring_is_right() -> None:
    assert doctest.testmod(checks) == (0, 1)


def test_the_shipped_mixtures_are_valid() -> None:
    assert mixture_names() == ["default", "learn", "learn-sft", "sample", "sft-2026-07"]
    default = load_mixture("default")
    assert (default.name, default.seed) == ("mid", 42)
    assert [(e.task, e.repeat, e.size) for e in default.splits["train"]] == [
        ("smoltalk", 1, None), ("mmlu", 1, None), ("gsm8k", 1, None), ("identity", 2, None),
        ("simple_spelling", 1, 200_000), ("spelling_bee", 1, 80_000),
    ]  # fmt: skip
    assert [(e.task, e.stop) for e in default.splits["val"]] == [("smoltalk", None), ("mmlu", 5200), ("gsm8k", 420)]


def test_the_mixtures_of_learn_have_one_val_split_and_sft_asks_what_mid_did_not() -> None:
    mid, sft = load_mixture("learn"), load_mixture("learn-sft")
    assert mid.splits["val"] == sft.splits["val"]
    assert [entry.task for entry in mid.splits["train"]] == ["simple_spelling", "spelling_bee", "arithmetic"]
    assert [entry.task for entry in sft.splits["train"] if entry.seed == 42] == ["facts", "identity"]


def test_the_sft_mixture_of_2026_07_has_nanochats_entries_in_its_order() -> None:
    sft = load_mixture("sft-2026-07")
    assert (sft.name, sft.seed) == ("sft-2026-07", 42)
    assert [(e.task, e.repeat, e.size) for e in sft.splits["train"]] == [
        ("smoltalk", 1, None), ("identity", 2, None), ("mmlu", 3, None), ("gsm8k", 4, None),
        ("simple_spelling", 1, 200_000), ("spelling_bee", 1, 80_000),
    ]  # fmt: skip
    assert sft.splits["val"] == load_mixture("default").splits["val"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"train": [{"task": "gsm8"}]}, "task = 'gsm8' is not known.*Did you mean 'gsm8k'"),
        ({"train": [{"task": "gsm8k", "repeats": 2}]}, "key 'repeats' is not known.*Did you mean 'repeat'"),
        ({"trian": []}, "key 'trian' is not known.*Did you mean 'train'"),
        ({"train": [{"task": "gsm8k", "repeat": "2"}]}, "repeat = '2' found, wanted a whole number"),
        ({"train": [{"task": "gsm8k", "repeat": True}]}, "repeat = True found"),
        ({"train": [{"task": "gsm8k", "repeat": 0}]}, "repeat = 0 found, wanted 1 to 65,535"),
        ({"train": [{"task": "gsm8k", "size": 3}]}, "task 'gsm8k' takes no size"),
        ({"train": [{"task": "spelling_bee", "path": "x"}]}, "task 'spelling_bee' takes no path"),
        ({"train": [{"task": "spelling_bee", "split": "val"}]}, "split = 'val' found, wanted train or test"),
        ({"train": [{"task": "chat"}]}, 'task "chat" needs a path'),
        ({"train": [{"task": "gsm8k", "start": 5, "stop": 5}]}, "select nothing"),
        ({"val": [{"task": "gsm8k"}]}, r"has no \[\[train\]\] entry"),
        ({"train": [{"task": "gsm8k"}], "seed": -1}, "seed = -1 found"),
        ({"train": [{"task": "gsm8k"}], "name": "../up"}, "wanted a plain name"),
        ({"train": ["gsm8k"]}, "wanted a table"),
    ],
)
def test_a_mistake_in_a_mixture_is_one_clear_line(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as found:
        parse(data)
    assert "\n" not in str(found.value)


def test_entries_of_the_same_name_are_numbered() -> None:
    mixture = parse(
        {"train": [{"task": "gsm8k"}, {"task": "gsm8k", "subset": "socratic"}, {"task": "mmlu", "name": "quiz"}]}
    )
    assert [entry.label for entry in mixture.splits["train"]] == ["gsm8k", "gsm8k-2", "quiz"]
    mixture = parse({"train": [{"task": "mmlu", "name": "gsm8k-2"}, {"task": "gsm8k"}, {"task": "gsm8k"}]})
    assert [entry.label for entry in mixture.splits["train"]] == ["gsm8k-2", "gsm8k", "gsm8k-3"]


def test_what_train_and_val_both_read_has_one_name() -> None:
    a, b, c = ({"task": "chat", "path": f"{name}.jsonl"} for name in "abc")
    mixture = parse({"train": [a, b], "val": [b, c, a]})
    assert [entry.label for entry in mixture.splits["val"]] == ["chat-2", "chat-3", "chat"]
    named = {"task": "chat", "path": "x.jsonl", "name": "chat-2"}
    mixture = parse({"train": [a, b], "val": [b, named, c]})
    assert [entry.label for entry in mixture.splits["val"]] == ["chat-2-2", "chat-2", "chat-3"]
    mixture = parse({"train": [a], "val": [b]})
    assert mixture.splits["val"][0].label == "chat"
    parts = [{"task": "chat", "hub": "o/x", "subset": name} for name in "AB"]
    mixture = parse({"train": parts, "val": parts})
    assert [entry.label for entry in mixture.splits["val"]] == ["chat", "chat-2"]
    mixture = parse({"train": [a, {**a, "start": 5}], "val": [a]})
    assert mixture.splits["val"][0].label == "chat"
    mixture = parse({"train": [{"task": "q.py:quiz"}, {"task": "q.py:sums"}], "val": [{"task": "q.py:sums"}]})
    assert [[entry.label for entry in mixture.splits[split]] for split in ("train", "val")] == [
        ["quiz", "sums"],
        ["sums"],
    ]


def test_without_leaves_a_task_out_of_every_split() -> None:
    mixture = parse({"train": [{"task": "gsm8k"}, {"task": "mmlu"}], "val": [{"task": "gsm8k"}]})
    left = mixture.without(["gsm8k"])
    assert {split: [e.task for e in entries] for split, entries in left.splits.items()} == {"train": ["mmlu"]}
    with pytest.raises(ValueError, match="has no such task, it has gsm8k, mmlu"):
        mixture.without(["identity"])
    with pytest.raises(ValueError, match="leaves nothing to train on"):
        mixture.without(["gsm8k", "mmlu"])


def test_a_mixture_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'sampel' not found.*default, learn, .*sample.*Did you mean 'sample'"):
        load_mixture("sampel")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(ValueError, match="not valid TOML"):
        load_mixture(str(broken))


def test_a_mixture_that_is_nested_too_deeply_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("x = " + "[" * 50_000 + "]" * 50_000)
    with pytest.raises(ValueError, match=r"deep\.toml cannot be read: its tables and lists are nested too deeply"):
        load_mixture(str(tmp_path / "deep.toml"))


@pytest.mark.parametrize("task", ["arithmetic", "simple_spelling", "spelling_bee", "mine.py:rows"])
def test_more_rows_than_can_be_shuffled_are_refused_before_any_is_made(task: str) -> None:
    with pytest.raises(ValueError, match=r"size = 100000000000000 found, wanted 1 to 4,294,967,296"):
        parse_mixture({"train": [{"task": task, "size": 10**14}]}, "m.toml", Path(), "m")
