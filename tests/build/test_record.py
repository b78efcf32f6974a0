"""What a build was made from is in its build.json, whoever built it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import (
    booleans,
    dictionaries,
    fixed_dictionaries,
    integers,
    just,
    lists,
    one_of,
    sampled_from,
)

from prep.build.record import find_inputs, mixture_data
from prep.mixture.mixture import load_mixture, mixture_names, parse_mixture
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, write_lines

GENERATED = fixed_dictionaries(
    {"task": sampled_from(["arithmetic", "spelling_bee"])},
    optional={
        "size": integers(5, 99), "start": integers(0, 4), "seed": integers(0, 9), "min_tokens": integers(1, 9),
        "repeat": sampled_from([1, 2, 0.5, 1.5]), "name": sampled_from(["a", "b"]), "split": sampled_from(["train", "test"]),
    },
)  # fmt: skip
CHAT = fixed_dictionaries(
    {"task": just("chat"), "path": just("x.jsonl")},
    optional={
        "roles": dictionaries(sampled_from(["bot", "human"]), sampled_from(["user", "assistant"])),
        "train_on": sampled_from(["all", "last", "none"]), "choose": integers(1, 9),
    },
)  # fmt: skip
MIXTURES = fixed_dictionaries(
    {"train": lists(one_of(GENERATED, CHAT), min_size=1, max_size=4), "val": lists(GENERATED, min_size=1, max_size=2)},
    optional={"seed": integers(0, 99), "mix": fixed_dictionaries({"dedup": just("exact")}, optional={})},
)


@given(data=MIXTURES, named=booleans())
def test_a_mixture_as_data_is_the_same_mixture(data: dict[str, Any], named: bool) -> None:
    mixture = parse_mixture(data | ({"name": "n"} if named else {}), "here", Path("folder"), "default")
    again = parse_mixture(json.loads(json.dumps(mixture_data(mixture))), "there", Path("folder"), "other")
    assert again == mixture


@pytest.mark.parametrize("name", mixture_names())
def test_shipped_mixtures_are_the_same_as_data(name: str) -> None:
    mixture = load_mixture(name)
    assert parse_mixture(mixture_data(mixture), "data", mixture.folder, "x") == mixture


def test_what_is_given_wins_over_what_is_recorded(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "a.jsonl", [chat("q", "a")])
    entry = {"task": "chat", "path": "a.jsonl"}
    root, _, _ = build_mixture(tmp_path, {"name": "m", "train": [entry]}, toy, data_root=tmp_path)
    recorded = find_inputs(root, None, None, None)
    assert (recorded.mixture.name, recorded.mixture.folder) == ("m", tmp_path)
    assert (recorded.data_root, recorded.identity) == (tmp_path, None)
    given = find_inputs(root, "sample", Path("elsewhere"), Path("who.jsonl"))
    assert given.mixture.name == "sample"
    assert (given.data_root, given.identity) == (Path("elsewhere"), Path("who.jsonl"))
    (root / "build.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"does not say what .* was built from: give --mixture"):
        find_inputs(root, None, None, None)
