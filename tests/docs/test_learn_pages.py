"""What make learn and its experiments write: sections of a page, tables, the picture. Nothing is trained here."""

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import bench.learn
from bench.learn import learned
from bench.learn_experiments import cells_by_measure
from bench.learn_jobs import Job
from bench.learn_page import comparison, replace_section
from bench.learn_plot import draw


def score_of(accuracy: float) -> dict[str, Any]:
    tasks = {
        name: {"questions": 150, "accuracy": accuracy, "low": 0.1, "high": 0.9} for name in ("simple_spelling", "facts")
    }
    tasks |= {"arithmetic": tasks["facts"], "spelling_bee": tasks["facts"] | {"written": 0.05}}
    asked = [{"kind": "maths", "question": "1 + 1?", "said": "2 | `#### 2`\n", "right": False}]
    by_source = {"all": 0.5, "by_source": dict.fromkeys(tasks, 0.25)}
    return {"step": 10, "tasks": tasks, "bits_per_byte": {"answers": by_source, "text": by_source}, "asked": asked}


def test_a_count_that_was_written_out_wrong_stands_beside_its_right_answer() -> None:
    text = learned({"base": score_of(0.0), "mid": score_of(0.9)})
    assert (
        "| counting, 150 questions | 0.0% (10.0 to 90.0) | 90.0% (10.0 to 90.0) |\n| of these, the count written"
        in text
    )
    assert "| maths: 1 + 1? | wrong: `2 \\| '#### 2'` |" in text
    assert {line.replace("\\|", "").count("|") for line in text.splitlines() if line} == {4}


def test_cells_are_compared_by_every_measure() -> None:
    cells = cells_by_measure({"a": [score_of(0.5), score_of(0.6)], "b": [score_of(0.9), score_of(1.0)]})
    text = comparison(cells, {"b - a": {"b": 1.0, "a": -1.0}})
    assert "| spelling | 55.0 (50.0 to 60.0) | 95.0 (90.0 to 100.0) | 7.1 |" in text
    assert "| spelling | **+40.0 ± 30.4** |" in text
    assert "| bits per byte, facts | +0.0000 ± 0.0000 |" in text


@pytest.fixture
def without_training(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """bench.learn without what takes long: jobs write a score where they would; the names of those that ran"""
    names: list[str] = []

    def pretend(jobs: list[Job], out: Path, at_once: int) -> None:
        names.extend(job.name for job in jobs)
        for job in jobs:
            if "-o" in job.command and job.name.startswith("score"):
                path = Path(job.command[job.command.index("-o") + 1])
                path.parent.mkdir(parents=True, exist_ok=True)
                steps = int(job.name.rpartition("-")[2]) if job.name[-1].isdigit() else 1800
                path.write_text(json.dumps(score_of(min(0.9, steps / 2000)) | {"step": steps}))

    monkeypatch.setattr(bench.learn, "run_jobs", pretend)
    monkeypatch.setattr(bench.learn, "run", lambda command: names.append(Path(command[1]).name))
    return names


def main_with(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["bench/learn.py", *map(str, words)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own stay
    bench.learn.main()


def test_experiments_write_their_sections_and_the_picture(
    tmp_path: Path, without_training: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "results.md"
    words = ("--out", tmp_path / "out", "--page", page, "--seeds", 2, "--tokens", 28_000)
    main_with(monkeypatch, "--only", "mask,packing,curves", *words)
    text = page.read_text()
    assert re.findall("^## (.*)$", text, re.MULTILINE) == list(bench.learn.TITLES.values())[1:4]
    assert "`python bench/learn.py --only mask --seed 42 --seeds 2 --tokens 28000`" in text.replace("\n", " ")
    assert "2 seeds, 28,000 tokens a run." in text.replace("\n", " ")
    assert "| 0 | 90.0 |" in text  # base
    assert "| 1,600,000 | 25.0 |" in text  # a run of 500 steps
    assert ElementTree.parse(tmp_path / "out/learn.svg").getroot().tag.endswith("svg")
    main_with(monkeypatch, "--only", "mask", *words)
    assert page.read_text() == text


def test_make_learn_trains_in_three_stages_and_writes_one_section(
    tmp_path: Path, without_training: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main_with(monkeypatch, "--out", tmp_path / "out", "--page", tmp_path / "results.md")
    assert without_training.count("mid.py") == 3
    assert without_training[-3:] == ["score-base", "score-mid", "score-sft"]
    assert "|  | base | mid | sft |" in (tmp_path / "results.md").read_text()


def test_experiments_that_could_tell_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, problem in ((("--seeds", 1), "--seeds is at least 2"), (("--only", "masks"), "--only 'masks' found")):
        with pytest.raises(SystemExit):
            main_with(monkeypatch, "--out", tmp_path, *words)
        assert problem in capsys.readouterr().err


def test_a_section_replaces_what_stood_under_its_heading_and_nothing_else() -> None:
    page = "# Results\n\nBy hand.\n\n## A\n\nold\n\n### B\n\n## B\n\nb\n"
    once = replace_section(page, "A", r"new \1")
    assert once == "# Results\n\nBy hand.\n\n## A\n\nnew \\1\n\n## B\n\nb\n"
    assert replace_section(once, "A", r"new \1") == once
    assert replace_section(once, "C", "c") == once + "\n## C\n\nc\n"
    assert replace_section("", "C", "c") == "# Results\n\n## C\n\nc\n"


def test_the_picture_is_xml_with_a_dot_for_each_run_and_names_that_stand_apart() -> None:
    picture = draw(
        "a < b", {"x & y": [(1e5, 0.0), (4e5, 0.5), (1.6e6, 1.0)], "z": [(1e5, 0.1), (1.6e6, 0.99)]}, "tokens"
    )
    root = ElementTree.fromstring(picture)
    ns = "{http://www.w3.org/2000/svg}"
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter(f"{ns}circle")]
    assert dots[:3] == [(56.0, 310.0), (313.0, 179.0), (570.0, 48.0)]
    assert len(dots) == 5
    names = {text.text: float(text.get("y", "")) for text in root.iter(f"{ns}text") if "name" in text.get("class", "")}
    assert list(names) == ["x & y 100%", "z 99%"]
    assert abs(names["x & y 100%"] - names["z 99%"]) >= 18
    assert "prefers-color-scheme: dark" in picture
