"""What a new user types first: a mixture to start from, rows of a task, a build without --mixture; and JSON for programs."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from prep.check import installation
from prep.cli.main import app
from prep.mixture.mixture import load_mixture, mixture_names
from tests.conftest import chat, write_lines


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def midprep(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def as_json(*arguments: object) -> Any:
    done = midprep(*arguments, "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", mixture_names())
def test_a_shipped_mixture_is_printed_as_the_start_of_your_own(folder: Path, name: str) -> None:
    (folder / "mine.toml").write_text(midprep("mixtures", "show", name).stdout)
    assert load_mixture("mine.toml").splits == load_mixture(name).splits
    assert name in midprep("mixtures").stdout
    assert name in as_json("mixtures")


def test_the_printed_sample_builds_where_it_is(folder: Path) -> None:
    (folder / "mine.toml").write_text(midprep("mixtures", "show", "sample").stdout)
    assert midprep("build", "--mixture", "mine.toml", "--dry-run").exit_code == 0


def test_a_mixture_that_is_not_there_is_one_line() -> None:
    done = midprep("mixtures", "show", "sampel")
    assert "Did you mean 'sample'" in str(done.exception)


@pytest.mark.parametrize("task", ["simple_spelling", "spelling_bee", "arithmetic"])
def test_rows_that_a_task_makes_are_shown_without_a_file(task: str) -> None:
    shown = midprep("try", "--task", task, "--rows", 2, "--plain").stdout
    assert shown.startswith(f"task {task}: generated, split train, seed 42\n")
    assert "row 1  |" in shown
    found = as_json("try", "--task", task, "-n", 3)
    assert (found["task"], found["file"], len(found["rows"])) == (task, None, 3)


def test_so_are_those_of_a_task_of_your_own(folder: Path) -> None:
    (folder / "t.py").write_text(
        "def made(start, stop, seed, split):\n"
        "    return [{'messages': [{'role': 'user', 'content': str(i)}, {'role': 'assistant', 'content': 'x'}]}\n"
        "            if i else {'messages': []} for i in range(start, stop)]\n"
    )
    shown = midprep("try", "--task", "t.py:made", "--rows", 2, "--plain").stdout
    assert "row 0: rejected" in shown
    assert "<|user_start|>1<|user_end|>" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no PATH given: give a file to read, or with --task"),
        (["--task", "arithmetik"], "Did you mean 'arithmetic'"),
        (["--task", "gsm8k"], "reads rows of openai/gsm8k on the Hub"),
        (["--task", "identity"], "give the file, as midprep try FILE"),
        (["--task", "arithmetic", "--layout", "alpaca"], "--layout has no effect with --task"),
        (["a.jsonl", "--task", "arithmetic"], "drop a.jsonl"),
    ],
)
def test_what_cannot_be_tried_is_one_line(folder: Path, arguments: list[str], words: str) -> None:
    write_lines(folder / "a.jsonl", [chat("Hi", "a")])
    message = str(midprep("try", *arguments).exception)
    assert words in message
    assert "\n" not in message


def test_a_build_without_a_mixture_says_what_it_fetches_and_how_to_start_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def stop(*_: object) -> None:
        raise ValueError("here the fetching starts")

    monkeypatch.setattr("prep.build.job.make_job", stop)
    said = midprep("build").stderr
    assert said.startswith("no --mixture given: default fetches from the Hugging Face Hub")
    assert "HuggingFaceTB/smol-smoltalk  484,570 rows, about 970 MB" in said
    assert "midprep build --mixture sample" in said
    assert "smol-smoltalk" not in midprep("build", "--without", "smoltalk").stderr
    for silent in (["--data-root", "."], ["--mixture", "default"], ["--quiet"], ["--json"]):
        assert midprep("build", *silent).stderr == "", silent


def test_a_build_and_a_dry_run_speak_json(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [chat("Hi", "a"), {"messages": []}, chat("Ho", "b")])
    (folder / "m.toml").write_text(
        'train = [{task = "chat", path = "a.jsonl"}]\nval = [{task = "arithmetic", size = 9}]\n'
    )
    build = ("build", "--mixture", "m.toml", "--max-rejected", 1)
    planned = as_json(*build, "--dry-run")
    assert (planned["state"], planned["root"]) == ("absent", "shards/m")
    assert planned["sources"][0] == {
        "split": "train", "name": "chat", "examples": 3, "blocks": 1, "blocks_cached": 0, "files": ["a.jsonl"],
        "revision": None,
    }  # fmt: skip
    built = as_json(*build)
    manifest = json.loads((folder / "shards" / "m" / "manifest.json").read_text())
    assert (built["built"], built["fingerprint"]) == (True, planned["fingerprint"])
    for name, split in manifest["splits"].items():
        assert built["splits"][name] == {key: split[key] for key in built["splits"][name] if key != "sources"} | {
            "sources": [
                {key: source[key] for key in built["splits"][name]["sources"][0]} for source in split["sources"]
            ]
        }
    assert built["splits"]["train"]["sources"][0]["rejected"] == {"no messages": 1}
    assert as_json(*build)["built"] is False
    assert as_json(*build, "--dry-run")["state"] == "current"
    assert as_json(*build, "--dry-run", "--max-seq-len", 64)["state"] == "different"
    again = midprep(*build, "--overwrite", "--max-seq-len", 64, "--verbose", "--json")
    assert "render" in json.loads(again.stdout)["times"]["passes"]
    failed = midprep("build", "--mixture", "m.toml", "-o", "other", "--json")
    assert failed.stdout == ""
    assert "\n" not in str(failed.exception)


def test_selftest_speaks_json_and_fails_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "run_checks", lambda: iter([("encoders", "", 0.5)]))
    assert as_json("selftest") == {"checks": [{"check": "encoders", "exact": True, "failure": "", "seconds": 0.5}]}
    monkeypatch.setattr(installation, "run_checks", lambda: iter([("encoders", "they differ", 0.5)]))
    done = midprep("selftest", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["checks"][0]["failure"] == "they differ"
