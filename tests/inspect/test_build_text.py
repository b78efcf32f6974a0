"""`midprep stats --build`: where the time of a build went, from its build.json."""

import json
import subprocess
from pathlib import Path

import pytest

from prep.build.record import find_inputs
from prep.inspect.build_text import print_timings, read_timings
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, midprep_command, write_lines


@pytest.fixture
def root(tmp_path: Path, toy: Tokenizer) -> Path:
    write_lines(tmp_path / "a.jsonl", [chat("q", "an answer")] * 30)
    return build_mixture(tmp_path, {"train": [{"task": "chat", "path": "a.jsonl"}]}, toy)[0]


def test_build_json_has_seconds_rates_and_bytes_of_every_pass(root: Path) -> None:
    about = read_timings(root)
    assert list(about["passes"]) == ["render", "plan", "write"]
    for one in about["passes"].values():
        assert one["conversations"] == 30
        assert one["tokens"] == 30 * (5 + 1 + 9)
        assert one["tokens_per_second"] > 0
    shards = json.loads((root / "manifest.json").read_text())["splits"]["train"]["shards"]
    assert about["passes"]["write"]["bytes"] == sum(file["bytes"] for one in shards for file in one["files"].values())
    runs = (root.parent / "cache" / "runs").glob("*/*.run")
    assert about["passes"]["render"]["bytes"] == sum(run.stat().st_size for run in runs)
    assert about["passes"]["render"]["blocks"] == {"rendered": 1}
    assert (about["engine"], about["workers"]) == ("local", 1)
    assert {"midprep", "numpy", "tiktoken"} <= set(about["versions"])


def test_the_table_adds_up(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = read_timings(root)
    about |= {"seconds": 2.0, "finished": "2026-01-02T03:04:05+0000", "command": ["midprep", "build"]}
    for name, seconds in (("render", 1.0), ("plan", 0.25), ("write", 0.5)):
        about["passes"][name]["seconds"] = seconds
    print_timings(about)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:5] == ["render", "1.00", "50.0%", "30", "30"]
    assert [(line[0], line[1], line[2]) for line in lines[2:6]] == [
        ("plan", "0.25", "12.5%"), ("write", "0.50", "25.0%"), ("other", "0.25", "12.5%"), ("all", "2.00", "100.0%"),
    ]  # fmt: skip
    assert lines[-1] == ["finished", "2026-01-02T03:04:05+0000:", "midprep", "build"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "not found: is .* a finished build|does not say what .* was built from: give --mixture"),
        *((text, "not as midprep writes it: remove it") for text in ("", "{", "[]", "null", '{"command": 5}', '"x"')),
        ('{"seconds": 1, "passes": {"render": 2}, "command": [], "directory": "."}', "not as midprep writes it"),
    ],
)
def test_a_build_json_that_is_not_there_or_no_such_thing_is_one_line(root: Path, text: str | None, words: str) -> None:
    (root / "build.json").unlink()
    if text is not None:
        (root / "build.json").write_text(text)
    for reader in (read_timings, lambda root: find_inputs(root, None, None, None)):
        with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
            reader(root)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["verify", "ROOT", "--workers", "3"], "--workers has no effect without --rebuild"),
        (["show", "ROOT", "--row", "0", "--source", "chat"], "--source has no effect with --row"),
        (["show", "ROOT", "--rank", "0"], "--rank has no effect without --step"),
        (["show", "ROOT", "--data-root", "."], "--data-root has no effect without --origin"),
        (["stats", "ROOT", "ROOT", "--build"], "--build has no effect with two builds"),
        (["stats", "ROOT", "--build", "--lengths"], "--lengths has no effect with --build"),
    ],
)
def test_an_option_without_effect_is_refused(root: Path, words: list[str], found: str) -> None:
    command = midprep_command(*(str(root) if word == "ROOT" else word for word in words))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"midprep: {found}: change that, or leave it out.\n")
