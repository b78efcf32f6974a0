"""The mixing figure: 1 for conversations in random order, more where packing gathers those of a source."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prep.plan.ordered import pack_in_order
from prep.plan.packing import pack
from prep.shard import open_shards
from prep.shard.mixing import Mixing, measure_mixing, mixing
from tests.train.shards_factory import random_doc, write_build


def measured(rows: np.ndarray, lengths: np.ndarray, sources: np.ndarray, rows_per_step: int) -> Mixing:
    num_steps = (int(rows.max()) + 1) // rows_per_step
    tokens = np.zeros((num_steps + 1, int(sources.max()) + 1))
    np.add.at(tokens, (np.minimum(rows // rows_per_step, num_steps), sources), lengths)
    found = measure_mixing(tokens, np.bincount(sources, weights=lengths.astype(float) ** 2), rows_per_step)
    assert found is not None
    return found


def mixture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and sources of 60,000 conversations in random order: three sources with lengths of their own"""
    rng = np.random.default_rng(seed)
    sources = rng.choice(3, 60_000, p=[0.5, 0.3, 0.2])
    return rng.integers(1, 60, 60_000) + np.array([20, 200, 400])[sources], sources


def test_a_random_order_has_the_figure_one() -> None:
    lengths, sources = mixture(0)
    stream = measured((np.cumsum(lengths) - 1) // 2049, lengths, sources, 16)
    assert stream.figure == pytest.approx(1, abs=0.06)
    assert stream.share == pytest.approx(np.bincount(sources, weights=lengths) / lengths.sum())


def test_sources_one_after_the_other_have_a_high_one() -> None:
    lengths, sources = mixture(0)
    order = np.argsort(sources, kind="stable")
    assert measured((np.cumsum(lengths[order]) - 1) // 2049, lengths[order], sources[order], 16).figure > 10


@pytest.mark.parametrize("rows_per_step", [1, 16, 64])
def test_rows_in_order_mix_as_the_order_does_and_rows_by_length_do_not(rows_per_step: int) -> None:
    figures = {"stream": 0.0, "ordered": 0.0, "bfd": 0.0}
    for seed in range(5):
        lengths, sources = mixture(seed)
        order, docs_per_row = pack_in_order(lengths, 2049)
        by_length, num_rows = pack(lengths, 2049)
        shuffled = np.random.default_rng(seed).permutation(num_rows)[by_length]
        rows = {"stream": (np.cumsum(lengths) - 1) // 2049, "bfd": shuffled}
        for name, row in rows.items():
            figures[name] += measured(row, lengths, sources, rows_per_step).figure / 5
        in_rows = np.repeat(np.arange(len(docs_per_row)), docs_per_row)
        figures["ordered"] += measured(in_rows, lengths[order], sources[order], rows_per_step).figure / 5
    assert figures["ordered"] < 1.1 * figures["stream"] < figures["bfd"]


def test_steps_are_counted_from_the_documents_of_a_build(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    docs = {source: replace(random_doc(rng, 4), source=source) for source in (0, 1)}
    rows = [[docs[0], docs[1]], [docs[1], docs[1]]] * 20
    split = open_shards(write_build(tmp_path / "build", {"train": rows}, max_seq_len=8)).split("train")
    found = mixing(split)
    assert found is not None
    assert (found.rows_per_step, found.num_steps) == (1, 40)
    assert found.share[:2].tolist() == [0.25, 0.75]
    assert found.deviation[:2].tolist() == [0.25, 0.25]  # half of a row is of source 0, and none of the next
    assert mixing(split, 2) is None  # 20 steps say too little
