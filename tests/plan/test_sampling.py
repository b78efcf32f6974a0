"""Shares: what was asked for is what is in the split, to the conversation, and nothing is lost on the way."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from prep.check.verify import problems
from prep.inspect.stats import share_lines
from prep.mixture.mixture import parse_mixture
from prep.plan.order import mixture_order
from prep.plan.sampling import amounts, apportion
from prep.shard import open_shards
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, check_shards, write_lines

# ---- allocation ----


@given(total=integers(0, 10**12), weights=lists(integers(1, 10**6), min_size=1, max_size=9))
def test_apportioned_numbers_add_up_and_are_within_one_of_their_quota(total: int, weights: list[int]) -> None:
    found = apportion(total, [Fraction(w) for w in weights])
    assert sum(found) == total
    assert all(abs(n - Fraction(total * w, sum(weights))) < 1 for n, w in zip(found, weights, strict=True))


def test_the_largest_remainders_get_what_is_left() -> None:
    assert apportion(10, [Fraction(n) for n in (33, 33, 34)]) == [3, 3, 4]
    assert apportion(7, [Fraction(1), Fraction(1)]) == [4, 3]


def test_three_tenths_and_seven_tenths_are_one() -> None:
    parse_mixture({"train": [{"task": "mmlu", "proportion": 0.1}, {"task": "gsm8k", "proportion": 0.2},
                             {"task": "smoltalk", "proportion": 0.7}]}, "m", Path(), "m")  # fmt: skip


@given(
    fixed=integers(1, 10**6),
    entries=lists(tuples(integers(1, 100), integers(0, 10**6)), min_size=1, max_size=6),
)
def test_an_entry_has_its_proportion_or_all_that_it_may(fixed: int, entries: list[tuple[int, int]]) -> None:
    whole = sum(weight for weight, _ in entries) + 1
    proportions, limits = [Fraction(weight, whole) for weight, _ in entries], [limit for _, limit in entries]
    found = amounts(fixed, proportions, limits)
    size = fixed + sum(found)
    for amount, proportion, limit in zip(found, proportions, limits, strict=True):
        assert amount <= limit
        # whole numbers: the size is off by less than one an entry, and by what that makes of a proportion
        assert amount == limit or abs(amount - size * proportion) < 2 + len(entries)


def test_proportions_of_everything_are_as_large_as_the_scarcest_entry_allows() -> None:
    assert amounts(None, [Fraction(1, 2), Fraction(1, 2)], [300, 100]) == [100, 100]
    assert amounts(None, [Fraction(3, 4), Fraction(1, 4)], [300, 200]) == [300, 100]


def test_what_one_entry_cannot_give_leaves_the_others_their_proportions() -> None:
    # 100 fixed, half asked of an entry that has 20: the quarter is a quarter of 160
    assert amounts(100, [Fraction(1, 2), Fraction(1, 4)], [20, 999]) == [20, 40]


# ---- the order ----


@given(entries=lists(tuples(integers(0, 9), integers(0, 3)), max_size=4), seed=integers(0, 99))
def test_whole_copies_alone_give_the_order_that_they_always_had(entries: list[tuple[int, int]], seed: int) -> None:
    sizes, repeats = [n for n, _ in entries], [r for _, r in entries]
    none = [np.zeros(0, dtype=np.int64)] * len(sizes)
    one, other = mixture_order(sizes, repeats, seed)[:], mixture_order(sizes, repeats, seed, none)[:]
    for name in ("entry", "repeat", "position"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


def test_a_part_stands_after_the_whole_copies_of_its_entry() -> None:
    import random

    order = mixture_order([3, 2], [1, 2], 7, [np.array([0, 2]), np.array([1])])[:]
    pairs = [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 2)]
    pairs += [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1), (1, 2, 1)]
    random.Random(7).shuffle(pairs)
    assert list(zip(order.entry.tolist(), order.repeat.tolist(), order.position.tolist(), strict=True)) == pairs


# ---- builds ----


def write_some(folder: Path) -> None:
    """40 long conversations, 200 short ones that train much, 10 of which 2 are none"""
    write_lines(folder / "long.jsonl", [chat(f"long {i} " + "x" * (60 + i % 7), "yes") for i in range(40)])
    write_lines(folder / "short.jsonl", [chat(f"{i}", "y" * (10 + i % 5)) for i in range(200)])
    write_lines(folder / "few.jsonl", [chat(f"few {i}", "z" * 20) if i % 5 else {"messages": []} for i in range(10)])


def entry(name: str, **keys: Any) -> dict[str, Any]:
    return {"task": "chat", "name": name, "path": f"{name}.jsonl", **keys}


def built(folder: Path, toy: Tokenizer, train: list[dict[str, Any]], name: str = "out", **more: Any) -> dict[str, Any]:
    """The train split's part of the manifest, after every check there is"""
    write_some(folder)
    mix = {key: more.pop(key) for key in ("by", "dedup") if key in more}
    options = {"max_seq_len": 128, "max_rejected": 0.5} | more
    root, manifest, _ = build_mixture(folder, {"mix": mix, "train": train}, toy, name, **options)
    check_shards(root)
    assert list(problems(root)) == []
    split: dict[str, Any] = manifest["splits"]["train"]
    for source in split["sources"]:
        inside = source["conversations"] - source["extra_pieces"]
        assert source["rows"] == inside + sum(source["rejected"].values())
    return split


@pytest.mark.parametrize(
    ("by", "key"),
    [("tokens", "total_tokens"), ("trained_tokens", "trainable_tokens"), ("conversations", "conversations")],
)
@pytest.mark.parametrize("packing", ["bfd", "wrapped"])
def test_a_proportion_is_what_the_split_has_of_it(
    tmp_path: Path, toy: Tokenizer, by: str, key: str, packing: str
) -> None:
    split = built(tmp_path, toy, [entry("long"), entry("short", proportion=0.3, max_repeats=9)], by=by, packing=packing)
    long, short = split["sources"]
    assert long["conversations"] == 40
    half_a_conversation = 1 if by == "conversations" else 12
    assert short[key] / split[key] == pytest.approx(0.3, abs=half_a_conversation / split[key])
    assert short["share"] == {
        "of": by, "asked": 0.3, "got": round(short[key] / split[key], 6), "limited": False,
    }  # fmt: skip


def test_a_proportion_beyond_max_repeats_gets_what_there_is_and_says_so(tmp_path: Path, toy: Tokenizer) -> None:
    split = built(tmp_path, toy, [entry("long"), entry("few", proportion=0.9, max_repeats=3)], by="conversations")
    few = split["sources"][1]
    assert (few["conversations"], few["repeat"]) == (24, 3.0)
    assert few["share"] == {"of": "conversations", "asked": 0.9, "got": 0.375, "limited": True}
    assert share_lines(split) == [
        "few: asked 90.00% of conversations, got 37.50% (3 copies, its max_repeats)",
    ]


def test_proportions_of_conversations_are_exact_and_the_rest_is_not_chosen(tmp_path: Path, toy: Tokenizer) -> None:
    train = [entry("long", proportion=0.25), entry("short", proportion=0.75)]
    split = built(tmp_path, toy, train, by="conversations")
    assert [s["conversations"] for s in split["sources"]] == [40, 120]
    assert [s["not_chosen"] for s in split["sources"]] == [0, 80]


def test_proportions_of_tokens_count_what_is_left_after_cutting(tmp_path: Path, toy: Tokenizer) -> None:
    train = [entry("long", proportion=0.5), entry("short", proportion=0.5, max_repeats=5)]
    split = built(tmp_path, toy, train, max_seq_len=40)
    assert split["sources"][0]["truncated"] == 40
    assert split["sources"][0]["share"]["got"] == pytest.approx(0.5, abs=0.01)
    trained = built(
        tmp_path,
        toy,
        [entry("short"), entry("few", proportion=0.1, max_repeats=9)],
        "t",
        max_seq_len=20,
        by="trained_tokens",
    )
    assert trained["sources"][1]["truncated"] > 0
    assert trained["sources"][1]["share"]["got"] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("excess", ["split", "drop"])
def test_choosing_goes_with_every_way_of_what_is_too_long(tmp_path: Path, toy: Tokenizer, excess: str) -> None:
    train = [entry("long", choose=7), entry("short", repeat=1.25), entry("few", proportion=0.02)]
    split = built(tmp_path, toy, train, max_seq_len=79, excess_length_strategy=excess)
    long = split["sources"][0]
    assert long["conversations"] - long["extra_pieces"] == 7
    assert ("too long" in long["rejected"]) == (excess == "drop")


def test_chosen_are_exactly_so_many_the_same_every_time_and_more_hold_fewer(tmp_path: Path, toy: Tokenizer) -> None:
    def chosen(number: int, name: str) -> set[tuple[int, int]]:
        split = built(tmp_path, toy, [entry("short", choose=number, max_repeats=3)], name)
        assert split["conversations"] == split["sources"][0]["rows"] == number
        docs = open_shards(tmp_path / name).split("train").docs
        return set(zip(docs["repeat"].tolist(), docs["index"].tolist(), strict=True))

    assert chosen(50, "a") == chosen(50, "b") < chosen(60, "c")
    assert {index for copy, index in chosen(450, "d") if copy < 2} == set(range(200))


def test_a_broken_repeat_is_whole_copies_and_a_part(tmp_path: Path, toy: Tokenizer) -> None:
    split = built(tmp_path, toy, [entry("short", repeat=2.5), entry("few", repeat=1.5), entry("long", repeat=0.1)])
    short, few, long = split["sources"]
    assert (short["conversations"], few["conversations"], long["conversations"]) == (500, 12, 4)
    assert few["rejected"] == {"no messages": 2}
    assert (short["repeat"], few["rows"], long["not_chosen"]) == (2.5, 14, 36)
    assert short["share"] == {"of": "repeat", "asked": 2.5, "got": 2.5}
    docs = open_shards(tmp_path / "out").split("train").docs
    assert np.bincount(docs["repeat"][docs["source"] == 0]).tolist() == [200, 200, 100]


def test_two_is_the_same_build_written_as_2_or_2_0_and_nothing_is_said_of_shares(
    tmp_path: Path, toy: Tokenizer
) -> None:
    one = built(tmp_path, toy, [entry("short", repeat=2)], "one")
    assert one == built(tmp_path, toy, [entry("short", repeat=2.0)], "other")
    assert not {"share", "not_chosen"} & set(one["sources"][0])
    assert (tmp_path / "one" / "manifest.json").read_bytes() == (tmp_path / "other" / "manifest.json").read_bytes()


def test_another_share_renders_nothing_again(tmp_path: Path, toy: Tokenizer) -> None:
    built(tmp_path, toy, [entry("short"), entry("long")], "one")
    built(tmp_path, toy, [entry("short", proportion=0.4), entry("long", min_tokens=70)], "two")
    blocks = json.loads((tmp_path / "two" / "build.json").read_text())["passes"]["render"]["blocks"]
    assert blocks == {"cached": 2}


def test_filters_are_counted_by_reason_and_never_stop_a_build(tmp_path: Path, toy: Tokenizer) -> None:
    train = [entry("long", min_tokens=77), entry("short", min_trained_tokens=12, max_trained_tokens=13)]
    split = built(tmp_path, toy, train, max_rejected=0.0)
    long, short = split["sources"]
    lengths = [
        len(f"long {i} " + "x" * (60 + i % 7)) + 5 + 4 for i in range(40)
    ]  # bos, two starts, two ends; "yes" + 1
    assert long["rejected"] == {"too few tokens": sum(n - 1 < 77 for n in lengths)}
    assert short["rejected"] == {"too few trained tokens": 40, "too many trained tokens": 80}
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert len(lines) == sum(long["rejected"].values()) + 120


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([{"proportion": 0.3, "choose": 4}], "proportion and choose found, each says how much"),
        ([{"repeat": 2, "choose": 4}], "choose and repeat found"),
        ([{"proportion": 0}], "proportion = 0 found, wanted more than 0"),
        ([{"proportion": float("nan")}], "proportion = nan found"),
        ([{"repeat": float("inf")}], "repeat = inf found, wanted 1 to 65,535"),
        ([{"choose": 0}], "choose = 0 found, wanted 1 or more"),
        ([{"max_repeats": 2}], "max_repeats found without proportion or choose"),
        ([{"min_tokens": 9, "max_tokens": 3}], "min_tokens = 9 is more than max_tokens = 3"),
        ([{"proportion": 0.3}], "add up to 0.3, wanted 1, as every entry has one"),
        ([{"proportion": 0.6}, {"proportion": 0.4}, {}], "add up to 1, wanted less than 1, for the 1 entries without"),
    ],
)
def test_a_share_that_makes_no_sense_is_one_clear_line(train: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValueError, match=words) as found:
        parse_mixture({"train": [{"task": "gsm8k"} | keys for keys in train]}, "m.toml", Path(), "m")
    assert "\n" not in str(found.value)


def test_a_mix_that_is_not_known_names_what_is() -> None:
    for mix, words in (({"by": "rows"}, "by = 'rows' found, wanted tokens or"), ({"dedupe": "exact"}, "Did you mean 'dedup'"),
                       ({"dedup": True}, "dedup = True found, wanted a string")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            parse_mixture({"mix": mix, "train": [{"task": "gsm8k"}]}, "m.toml", Path(), "m")


def test_what_an_entry_does_not_have_is_said_with_what_it_has(tmp_path: Path, toy: Tokenizer) -> None:
    with pytest.raises(
        ValueError, match=r"choose = 500 found, 200 conversations are usable.*at most 200, or max_repeats = 3"
    ):
        built(tmp_path, toy, [entry("short", choose=500)])
    with pytest.raises(ValueError, match=r"proportion = 0\.5 found, and it has no tokens to take"):
        built(tmp_path, toy, [entry("long"), entry("short", proportion=0.5, min_tokens=9999)])
    with pytest.raises(ValueError, match=r"long: proportion = .* the entries without one, which fix the size"):
        built(tmp_path, toy, [entry("long", proportion=0.5), entry("short", min_tokens=9999)])


def test_what_is_cut_before_it_is_dropped_is_not_too_long(tmp_path: Path, toy: Tokenizer) -> None:
    options = {"max_seq_len": 60, "max_tokens": 50, "excess_length_strategy": "drop"}
    split = built(tmp_path, toy, [entry("long", choose=40)], **options)
    assert (split["conversations"], split["sources"][0]["truncated"], split["sources"][0]["rejected"]) == (40, 40, {})


def test_without_an_entry_the_proportions_must_still_add_up() -> None:
    train = [
        {"task": "mmlu", "proportion": 0.5},
        {"task": "gsm8k", "proportion": 0.5},
    ]
    mixture = parse_mixture({"train": train}, "m.toml", Path(), "m")
    with pytest.raises(ValueError, match=r"--without mmlu, train: the proportions add up to 0\.5, wanted 1"):
        mixture.without(["mmlu"])
