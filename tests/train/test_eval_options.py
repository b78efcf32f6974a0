"""What a run evaluates, and what it says where there is nothing to evaluate."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, records, run_here
from shards_factory import Doc, random_rows, write_build


def test_evaluating_at_the_end_only(build: Path, tmp_path: Path) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY, "--eval-at-end")  # TINY has --eval-every 0
    run_here("--shards", build, "--out", tmp_path / "often", *TINY, "--eval-every", 2, "--eval-at-end")
    for out in (tmp_path, tmp_path / "often"):
        assert [record["step"] for record in records(out) if "val_bpb" in record] == [5]
        assert not any("val_bpb_before" in record for record in records(out))


def test_bits_per_byte_where_no_target_has_bytes_are_none(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = random_rows(1, 20, 16)
    shards = write_build(tmp_path / "shards", {"train": rows, "val": rows}, max_seq_len=16)
    np.save(shards / "token_bytes.npy", np.zeros_like(np.load(shards / "token_bytes.npy")))
    run_here("--shards", shards, "--out", tmp_path, *TINY, "--eval-every", 2, "--num-iterations", 2)
    out = capsys.readouterr().out
    assert "val bpb after 2 steps: none, no target of val that was read has bytes\n" in out
    assert "0.0000" not in out
    assert not any("val_bpb" in record for record in records(tmp_path))
    meta = json.loads((tmp_path / "mid_checkpoints/d1/meta_000002.json").read_text())
    assert meta["val_bpb"] is None


def test_a_val_split_without_targets_is_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = random_rows(1, 20, 16)
    plain = [[untrained(doc) for doc in row] for row in rows[:5]]
    shards = write_build(tmp_path / "shards", {"train": rows, "val": plain}, max_seq_len=16)
    flags = ["--shards", shards, "--out", tmp_path, *TINY, "--eval-every", 2, "--num-iterations", 2]
    run_here(*flags, "--mode", "sft")
    out = capsys.readouterr().out
    said = "no evaluation: none of the 5 rows of val has a target in sft\n"
    assert said in out
    assert out.index(said) < out.index("step 00000")
    run_here(*flags)
    assert "no evaluation" not in capsys.readouterr().out


def untrained(doc: Doc) -> Doc:
    return replace(doc, mask=[0] * len(doc.mask))
