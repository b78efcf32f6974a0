"""--eval-tasks-every: a run that asks questions trains as one that does not, and gets the answers that evaluate gets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prep import build_shards
from prep.tokenizer.tokenizer import Tokenizer
from tests.cli.test_screen import run
from tests.conftest import write_lines
from tests.train.conftest import losses, records, run_here
from tests.train.conftest import run as run_ranks
from tests.train.inference.speakers import question
from train.inference.exam import BATCH_SIZE, MAX_TOKENS, QUESTIONS

MIXTURE = """
name = "greetings"
[[train]]
task = "chat"
path = "greetings.jsonl"
[[val]]
task = "chat"
path = "greetings.jsonl"
answer = "exact"
stop = 24
[[val]]
task = "chat"
name = "letters"
path = "letters.jsonl"
answer = "letter"
[[val]]
task = "chat"
name = "others"
path = "greetings.jsonl"
"""
NUM_STEPS = 16
ASKED = ("--eval-tasks-every", 6)


def write_shards(folder: Path, toy: Tokenizer, mixture: str = MIXTURE) -> Path:
    """Half of the questions are answered with Ho, half with No: a tiny model learns that in some steps"""
    folder.mkdir(exist_ok=True)
    greetings = [("Hi", "Ho"), ("Go", "No")] * 60
    talks = [[*question(asked), {"role": "assistant", "content": answer}] for asked, answer in greetings]
    write_lines(folder / "greetings.jsonl", [{"messages": messages} for messages in talks])
    letters = [{"messages": [*question("A or B?"), {"role": "assistant", "content": "B"}]}] * 3
    write_lines(folder / "letters.jsonl", letters)
    (folder / "m.toml").write_text(mixture)
    build_shards(
        folder / "m.toml", folder / "shards", tokenizer=toy, max_seq_len=32, cache_dir=folder / "cache", workers=1
    )
    return folder / "shards"


@pytest.fixture(scope="module")
def shards(toy: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("exam"), toy)


def flags(shards: Path, out: Path, *more: Any) -> list[Any]:
    steps = ["--num-iterations", NUM_STEPS, "--total-batch-size", 256, "--save-every", 7]
    return ["--shards", shards, "--out", out, "--device", "cpu", "--depth", 1, "--eval-every", 0, *steps, *more]


@pytest.fixture(scope="module")
def asked(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with questions after steps 6, 12 and the last"""
    out = tmp_path_factory.mktemp("asked")
    run_here(*flags(shards, out, *ASKED))
    return out


def answers(out: Path) -> dict[int, dict[str, Any]]:
    """{steps done: what the record has of the answers}"""
    keys = ("accuracy_by_task", "chat_core")
    return {record["step"] + 1: {key: record[key] for key in keys} for record in records(out) if keys[0] in record}


def test_losses_with_and_without_questions_are_equal_to_the_bit(shards: Path, asked: Path, tmp_path: Path) -> None:
    run_here(*flags(shards, tmp_path))
    assert losses(tmp_path) == losses(asked)
    assert answers(tmp_path) == {}


def test_answers_are_in_the_records_of_every_so_many_steps_and_the_last(asked: Path) -> None:
    by_step = answers(asked)
    assert list(by_step) == [6, 12, 16]
    assert all(set(record["accuracy_by_task"]) == {"chat", "letters"} for record in by_step.values())
    greetings = [record["accuracy_by_task"]["chat"] for record in by_step.values()]
    assert greetings == [0.5, 1.0, 1.0]


def test_a_resumed_run_has_the_same_records(shards: Path, asked: Path, tmp_path: Path) -> None:
    shutil.copytree(asked, tmp_path / "out")
    later = [path for step in (14, 16) for path in (tmp_path / "out").glob(f"mid_checkpoints/d1/*{step:06d}*")]
    assert len(later) == 6
    for path in later:
        path.unlink()
    run_here(*flags(shards, tmp_path / "out", *ASKED))
    assert answers(tmp_path / "out") == answers(asked)


@pytest.mark.slow
def test_two_ranks_get_the_same_answers(shards: Path, tmp_path: Path) -> None:
    alone, two = (tmp_path / "alone", tmp_path / "two")
    run_here(*flags(shards, alone, *ASKED, "--num-iterations", 6))
    done = run_ranks(*flags(shards, two, *ASKED, "--num-iterations", 6), ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("right answers after 6 steps") == 1
    assert answers(two) == answers(alone)


def test_the_last_answers_are_those_of_midprep_evaluate(asked: Path, shards: Path) -> None:
    mixture = shards.parent / "m.toml"
    written = run("evaluate", asked, "--mixture", mixture, "--device", "cpu", "--json", terminal=False)
    (summary,) = json.loads(written[written.index("{") : written.rindex("}\n") + 1])["checkpoints"].values()
    last = answers(asked)[NUM_STEPS]
    assert {name: task["accuracy"] for name, task in summary["tasks"].items()} == last["accuracy_by_task"]
    assert summary["chat_core"] == last["chat_core"]


def test_the_limits_are_the_defaults_of_midprep_evaluate() -> None:
    from inspect import signature

    from prep.cli.model import evaluate

    options = signature(evaluate).parameters
    named = [options[name].default for name in ("questions", "max_tokens", "batch_size")]
    assert named == [QUESTIONS, MAX_TOKENS, BATCH_SIZE]


def test_the_end_of_a_run_has_the_first_and_the_last_answers(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(*flags(shards, tmp_path, "--eval-tasks-every", 1, "--num-iterations", 2))
    out = capsys.readouterr().out
    assert "others has no answer that can be graded: not asked\n" in out
    assert "right answers after 1 steps: " in out
    assert "right answers\n" in out
    assert " over chance\n" in out


def test_the_logger_gets_the_answers(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    logged: list[dict[str, Any]] = []
    remote = SimpleNamespace(log=lambda record, step: logged.append(record), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=lambda **options: remote))
    more = ("--eval-tasks-every", 2, "--num-iterations", 2, "--run", "x", "--logger", "trackio")
    run_here(*flags(shards, tmp_path, *more))
    assert ["chat_core" in record for record in logged] == [False, True]


def test_a_build_with_nothing_to_ask_is_one_line(
    shards: Path, toy: Tokenizer, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    ungraded = write_shards(tmp_path / "ungraded", toy, MIXTURE.replace("answer =", "# answer ="))
    assert error_of(*flags(ungraded, tmp_path / "out", *ASKED)) == (
        f"error: --eval-tasks-every: the mixture of {ungraded} has nothing to ask in [[val]]: leave the flag out"
    )
    shutil.copytree(shards, tmp_path / "moved")
    (tmp_path / "moved" / "build.json").unlink()
    assert error_of(*flags(tmp_path / "moved", tmp_path / "out", *ASKED)) == (
        f"error: --eval-tasks-every: {tmp_path}/moved/build.json does not say what {tmp_path}/moved was built from: "
        "copy it along, or leave the flag out"
    )
    assert not list((tmp_path / "out").rglob("*.jsonl"))  # nothing was trained
