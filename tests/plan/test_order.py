"""The order of a mixture is that of nanochat's TaskMixture, for any repeat, start and stop."""

import hashlib
import json
import random

import numpy as np
from hypothesis import given
from hypothesis.strategies import integers, lists, tuples

from prep.plan.order import mixture_order
from prep.plan.table import select_examples
from tests.conftest import SHARED, needs_shared


def plain_order(sizes: list[int], repeats: list[int], seed: int) -> list[tuple[int, int, int]]:
    """The list of all pairs, shuffled: what the design says, in its words"""
    pairs = [(e, r, i) for e, n in enumerate(sizes) for r in range(repeats[e]) for i in range(n)]
    random.Random(seed).shuffle(pairs)
    return pairs


@given(entries=lists(tuples(integers(0, 12), integers(1, 3)), max_size=5), seed=integers(0, 2**32))
def test_the_list_of_all_pairs_is_shuffled_by_random(entries: list[tuple[int, int]], seed: int) -> None:
    sizes, repeats = [n for n, _ in entries], [r for _, r in entries]
    order = mixture_order(sizes, repeats, seed)[:]
    found = list(zip(order.entry.tolist(), order.repeat.tolist(), order.position.tolist(), strict=True))
    assert found == plain_order(sizes, repeats, seed)


def test_hub_sources_are_permuted_by_seed_42_and_then_sliced() -> None:
    whole = np.random.default_rng(42).permutation(10)
    assert select_examples(10, True, 0, None).tolist() == whole.tolist()
    assert select_examples(10, True, 2, 5).tolist() == whole[2:5].tolist()
    assert select_examples(10, False, 2, 5).tolist() == [2, 3, 4]
    assert select_examples(4, False, 0, 99).tolist() == [0, 1, 2, 3]


@needs_shared
def test_the_index_map_is_nanochats_to_the_hash() -> None:
    wanted = json.loads((SHARED / "fixtures" / "nanochat_order.json").read_text())
    order = mixture_order(wanted["lengths"][:4], [1, 1, 1, 2], wanted["seed"])[:]  # identity stands there twice
    pairs = np.stack([order.entry.astype(np.int64) + order.repeat, order.position], axis=1)
    assert hashlib.sha256(pairs.astype("<i8").tobytes()).hexdigest() == wanted["index_map_sha256"]
