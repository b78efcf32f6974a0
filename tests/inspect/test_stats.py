"""Statistics: of one build, and of two side by side with what changed; where shares mislead, it is said."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prep.build.changes import changes
from prep.inspect.compare import compare_stats, print_comparison, side_by_side
from prep.inspect.stats import histogram, length_lines, print_stats, read_stats, uneven_lines
from prep.shard import open_shards, read_manifest
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, midprep_command, write_lines


def entry(name: str, **keys: Any) -> dict[str, Any]:
    return {"task": "chat", "name": name, "path": f"{name}.jsonl", **keys}


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory, toy: Tokenizer) -> tuple[Path, Path]:
    """Questions that train a letter beside stories; then fewer questions, shorter rows and another source"""
    folder = tmp_path_factory.mktemp("stats")
    write_lines(folder / "quiz.jsonl", [chat("q" * 90, "A") for _ in range(60)])
    write_lines(folder / "story.jsonl", [chat("Tell me", "s" * (20 + i)) for i in range(40)])
    write_lines(folder / "other.jsonl", [chat("o", "p" * 9)] * 5)
    val = [entry("story", stop=3)]
    first = {"name": "one", "train": [entry("quiz"), entry("story")], "val": val}
    second = {"name": "two", "train": [entry("quiz", choose=30), entry("story", repeat=2), entry("other")], "val": val}
    roots = [
        build_mixture(folder, mixture, toy, name, max_seq_len=size)[0]
        for mixture, name, size in ((first, "one", 256), (second, "two", 128))
    ]
    return roots[0], roots[1]


def midprep(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = midprep_command(*arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env or None)


def test_every_document_is_in_the_bin_of_its_length(builds: tuple[Path, Path]) -> None:
    split = open_shards(builds[0]).split("train")
    found = histogram(split)
    for number, counts in enumerate(found["sources"]):
        lengths = split.docs["length"][split.docs["source"] == number]
        assert counts == np.histogram(lengths, bins=found["edges"])[0].tolist()
    assert np.sum(found["sources"]) == 100
    assert found["edges"] == sorted(set(found["edges"]))


def test_lengths_stand_under_their_axis(builds: tuple[Path, Path]) -> None:
    train = read_stats(builds[0])["splits"]["train"]
    assert train["histogram"]["edges"] == [32, 45, 64, 91, 128]
    assert length_lines(train) == ["lengths  32", "quiz        █", "story    ▅█▃"]


def test_shares_more_than_3x_apart_are_said_and_others_are_not(builds: tuple[Path, Path]) -> None:
    train = read_stats(builds[0])["splits"]["train"]
    assert uneven_lines(train) == [
        "quiz: 60.0% of conversations, 73.7% of tokens, 6.9% of loss tokens: more than 3x apart",
        "story: 40.0% of conversations, 26.3% of tokens, 93.1% of loss tokens: more than 3x apart",
    ]
    even = {"name": "even", "shares": {"conversations": 0.3, "total_tokens": 0.1, "trainable_tokens": 0.11}}
    none = {"name": "none", "shares": {"conversations": 0.3, "total_tokens": 0.1, "trainable_tokens": 0.0}}
    assert [line.split(":")[0] for line in uneven_lines({"sources": [even, none]})] == ["none"]


def test_what_changed_between_two_builds_is_named(builds: tuple[Path, Path]) -> None:
    manifests = [read_manifest(root) for root in builds]
    assert changes(manifests[0], manifests[0]) == []
    assert changes(manifests[0], manifests[1]) == [
        "mixture one -> two", "max_seq_len 256 -> 128", "train other is new",
        "train quiz choose none -> 30", "train story repeat 1 -> 2",
    ]  # fmt: skip
    assert "train other is gone" in changes(manifests[1], manifests[0])


def test_side_by_side_are_the_counts_of_both(builds: tuple[Path, Path]) -> None:
    one, two = (read_stats(root) for root in builds)
    train = {row["name"]: row for row in side_by_side(one, two)["train"]}
    assert list(train) == ["quiz", "story", "other", "all"]
    assert [train["quiz"][side]["conversations"] for side in ("first", "second")] == [[60, 0.6], [30, 0.26087]]
    assert train["other"]["first"] is None
    assert train["all"]["second"]["conversations"] == [115, 1.0]
    assert side_by_side(one, two)["val"][0]["first"] == side_by_side(one, two)["val"][0]["second"]


def test_two_builds_are_shown_and_given_as_json(builds: tuple[Path, Path]) -> None:
    shown = midprep("stats", *builds)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    (quiz,) = (line for line in lines if line.startswith("quiz "))
    assert quiz.split() == ["quiz", "conversations", "60", "60.0%", "30", "26.1%"]
    (other,) = (line for line in lines if line.startswith("other "))
    assert other.split()[:4] == ["other", "conversations", "-", "-"]
    assert max(map(len, lines[: lines.index("changed:")])) <= 80 + len(str(builds[0]))
    assert lines[lines.index("changed:") :][2:4] == ["  max_seq_len 256 -> 128", "  train other is new"]
    found = json.loads(midprep("stats", *builds, "--json").stdout)
    assert set(found) == {"builds", "changed", "side_by_side"}
    missing = midprep("stats", builds[0], builds[0] / "no")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "not found" in missing.stderr


def test_shares_are_in_the_table_and_in_json(builds: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    stats = read_stats(builds[1])
    assert stats["splits"]["train"]["sources"][0]["share"] == {"of": "choose", "asked": 30, "got": 30}
    print_stats(stats, by_length=True)
    shown = capsys.readouterr().out
    assert "quiz: choose 30, got 30 (0.5 copies), 30 not chosen" in shown
    assert "quiz x0.5 " in shown
    assert "story: 3 of 3 are also asked in train (midprep overlap)" in shown
    assert "\n  lengths " in shown


def test_every_line_fits_80_columns(tmp_path: Path, toy: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    long = "a_source_with_a_name_that_is_far_too_long_for_a_table"
    write_lines(tmp_path / f"{long}.jsonl", [chat("q" * 90, "A") for _ in range(60)] + [{"messages": []}] * 3)
    write_lines(tmp_path / "other.jsonl", [chat("o", "p" * 90)] * 50)
    mixture = {"name": "n" * 70, "train": [entry(long, repeat=2.5), entry("other", choose=30)], "val": [entry(long)]}
    stats = read_stats(build_mixture(tmp_path, mixture, toy, max_seq_len=256, max_rejected=0.9)[0])
    for split in stats["splits"].values():  # as large as a build has ever been
        for counts in (split, *split["sources"]):
            counts.update(conversations=98_765_432, total_tokens=98_765_432_100, trainable_tokens=87_654_321_000)
        split.update(rows=48_225_308, min_rows=48_225_301, padding_tokens=98_765_432, bytes=10**14)
    print_stats(stats, by_length=True)
    print_comparison(compare_stats([stats, stats], ["max_seq_len 2,048 -> 512 " * 9]))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert "98.77B" in "".join(lines)  # no number is cut
    assert "…" not in "".join(lines)


def test_a_terminal_without_bars_is_shown_question_marks(
    builds: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_stats(read_stats(builds[0]), by_length=True)
    sys.stdout.flush()
    assert b"quiz" in raw.getvalue()
    assert b"?" in raw.getvalue()
