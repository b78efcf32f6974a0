"""A world that fails: the Hub in all its moods, homes that cannot be written, two builds at once. One line each."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prep.check.verify import problems
from tests.build.test_build import tree
from tests.conftest import chat, midprep_command, write_lines
from tests.torture.fault_hub import FaultHub

MIXTURE = '[[train]]\ntask = "gsm8k"\n[[val]]\ntask = "gsm8k"\n'


@pytest.fixture
def hub() -> Iterator[FaultHub]:
    with FaultHub() as hub:
        yield hub


def build(
    env: dict[str, str], folder: Path, output: str = "out", mixture: str = MIXTURE, *more: str
) -> subprocess.CompletedProcess[str]:
    """`midprep build` as a user runs it; its errors are one line, and leave no output"""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "m.toml").write_text(mixture)
    command = midprep_command("build", "--mixture", folder / "m.toml", "-o", folder / output, "--workers", 1)
    done = subprocess.run([*command, *more], env=env, capture_output=True, text=True, timeout=200, cwd=folder)
    if done.returncode:
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert not list(folder.glob(f".{output}.*"))
    return done


def commit_of(root: Path) -> str:
    manifest = json.loads((root / "manifest.json").read_text())
    return str(manifest["splits"]["train"]["sources"][0]["revision"])


# ---- the Hub ----


@pytest.mark.parametrize(
    ("fault", "only"),
    [("429", "/api/datasets"), ("500", "README.md"), ("500", "/tree/"), ("500", ".parquet"), ("flip", ".parquet")],
)
def test_a_refusal_or_a_damaged_file_is_fetched_again(hub: FaultHub, tmp_path: Path, fault: str, only: str) -> None:
    hub.fault, hub.times, hub.only = fault, 1, only
    done = build(hub.environment(tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    assert hub.times == 0
    assert commit_of(tmp_path / "out") == hub.commit
    assert list(problems(tmp_path / "out")) == []
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    digest = hashlib.sha256(hub.files["main/train-00000-of-00001.parquet"]).hexdigest()
    whole = hashlib.sha256(digest.encode()).hexdigest()
    assert manifest["splits"]["train"]["sources"][0]["sha256"] == whole


@pytest.mark.parametrize("faults", [["drop", "flip"], pytest.param(["429", "500", "cut"], marks=pytest.mark.slow)])
def test_whichever_request_fails_once_the_files_come_right(tmp_path: Path, faults: list[str]) -> None:
    command = [sys.executable, "-m", "tests.torture.hub_trials", str(tmp_path / "home"), *faults]
    outcomes = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=300).stdout)
    assert len(outcomes) >= len(faults) * 5  # README.md, listing, files and what is asked beside them
    assert {trial: outcome for trial, outcome in outcomes.items() if outcome != "right"} == {}


def test_a_file_that_is_damaged_again_is_refused_and_not_kept(hub: FaultHub, tmp_path: Path) -> None:
    env = hub.environment(tmp_path)
    hub.fault, hub.only = "flip", ".parquet"
    assert "was downloaded twice and is not what the Hub says it is" in build(env, tmp_path).stderr
    hub.fault = ""
    assert build(env, tmp_path).returncode == 0
    assert list(problems(tmp_path / "out")) == []


@pytest.mark.parametrize(
    ("fault", "only", "words", "longest"),
    [
        ("401", "/api/datasets", "refuses (401)", 10),
        pytest.param("429", "/api/datasets", "too many requests (429), in 4 tries", 30, marks=pytest.mark.slow),
        pytest.param("500", "/api/datasets", "its server fails (500), in 4 tries", 30, marks=pytest.mark.slow),
        pytest.param("hang", "/api/datasets", "no answer (timed out), in 2 tries", 60, marks=pytest.mark.slow),
        ("html", "/api/datasets", "what answers is no Hub, it gives no JSON", 10),
        pytest.param("hang", ".parquet", "timed out", 190, marks=pytest.mark.slow),
        pytest.param(
            "cut", ".parquet", "cannot be reached, no answer (peer closed connection", 90, marks=pytest.mark.slow
        ),
        pytest.param("500", ".parquet", "its server fails (500), in", 90, marks=pytest.mark.slow),
        pytest.param("500", "README.md", "its server fails (500), in", 90, marks=pytest.mark.slow),
    ],
)
def test_a_hub_that_fails_is_one_line_that_names_the_data_set(
    hub: FaultHub, tmp_path: Path, fault: str, only: str, words: str, longest: float
) -> None:
    hub.fault, hub.only = fault, only
    begin = time.monotonic()
    done = build(hub.environment(tmp_path), tmp_path)
    assert done.returncode == 1
    assert "openai/gsm8k (main, train) on the Hub" in done.stderr
    assert words in done.stderr
    assert "://" not in done.stderr  # of no use to the reader
    assert time.monotonic() - begin < longest
    assert not (tmp_path / "out").exists()


def test_a_download_that_is_cut_off_is_never_taken_for_the_file(hub: FaultHub, tmp_path: Path) -> None:
    env = hub.environment(tmp_path)
    hub.fault, hub.times, hub.only = "cut", 1, ".parquet"
    assert build(env, tmp_path).returncode == 0  # the second try gets it whole
    assert list(problems(tmp_path / "out")) == []
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [split["conversations"] for split in manifest["splits"].values()] == [40, 8]


def test_a_pinned_commit_needs_no_hub_once_it_is_in_the_cache_nor_does_offline(hub: FaultHub, tmp_path: Path) -> None:
    env = hub.environment(tmp_path)
    assert build(env, tmp_path, "first").returncode == 0
    num_requests = len(hub.requests)
    commit = commit_of(tmp_path / "first")
    offline = build(env | {"HF_HUB_OFFLINE": "1"}, tmp_path)
    pinned = build(env, tmp_path, "pinned", MIXTURE.replace('"gsm8k"', f'"gsm8k"\nrevision = "{commit}"'))
    assert (offline.returncode, pinned.returncode) == (0, 0)
    assert len(hub.requests) == num_requests
    assert tree(tmp_path / "out") == tree(tmp_path / "pinned") == tree(tmp_path / "first")
    nothing = build(env | {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path / "empty")}, tmp_path, "none")
    assert "is not in the cache, and HF_HUB_OFFLINE is set" in nothing.stderr


@pytest.mark.slow
def test_a_hub_that_is_down_is_said_so_with_the_way_to_go_on(hub: FaultHub, tmp_path: Path) -> None:
    env = hub.environment(tmp_path)
    assert build(env, tmp_path, "first").returncode == 0
    hub.fault = "500"
    found = build(env, tmp_path)
    assert "set HF_HUB_OFFLINE=1 to build from the cache" in found.stderr
    assert f'pin that commit (revision = "{commit_of(tmp_path / "first")}")' in found.stderr


def test_changed_data_under_the_same_name_is_another_build_and_it_says_why(hub: FaultHub, tmp_path: Path) -> None:
    env, old = hub.environment(tmp_path), hub.commit
    assert build(env, tmp_path).returncode == 0
    before = tree(tmp_path / "out")
    hub.change(first=100)
    found = build(env, tmp_path)
    assert f"train gsm8k revision {old[:12]} -> {hub.commit[:12]}" in found.stderr
    assert tree(tmp_path / "out") == before
    assert build(env, tmp_path, "out", MIXTURE, "--overwrite").returncode == 0
    assert commit_of(tmp_path / "out") == hub.commit
    assert tree(tmp_path / "out") != before
    wrong = build(env, tmp_path, "wrong", MIXTURE.replace('"gsm8k"', f'"gsm8k"\nrevision = "{old[::-1]}"'))
    assert f"it has no revision '{old[::-1]}'" in wrong.stderr


def test_a_directory_with_the_name_of_a_data_set_is_not_taken_for_it(hub: FaultHub, tmp_path: Path) -> None:
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    found = build(hub.environment(tmp_path), tmp_path)
    assert f"would take the directory {tmp_path / 'openai' / 'gsm8k'} for it" in found.stderr


# ---- the machine ----


@pytest.fixture
def own(tmp_path: Path) -> str:
    write_lines(tmp_path / "a.jsonl", [chat(f"q{i}", "an answer") for i in range(50)])
    return '[[train]]\ntask = "chat"\npath = "a.jsonl"\n'


def test_a_home_that_cannot_be_written_is_one_line_and_a_cache_dir_helps(tmp_path: Path, own: str) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    env["HOME"] = "/dev/null/nobody"
    found = build(env, tmp_path, "out", own)
    assert "/dev/null/nobody/.cache/midprep" in found.stderr
    assert "--cache-dir" in found.stderr
    assert build(env, tmp_path, "out", own, "--cache-dir", str(tmp_path / "cache")).returncode == 0


def test_a_home_that_cannot_be_written_keeps_nothing_of_the_hub(hub: FaultHub, tmp_path: Path) -> None:
    env = hub.environment(tmp_path) | {"HOME": "/dev/null/nobody"}
    del env["HF_HOME"], env["XDG_CACHE_HOME"]
    found = build(env, tmp_path, "out", MIXTURE, "--cache-dir", str(tmp_path / "cache"))
    assert "HF_HOME" in found.stderr
    assert "openai/gsm8k" in found.stderr


def test_two_builds_at_once_into_one_output_are_one_build_and_one_line(tmp_path: Path) -> None:
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = midprep_command("build", "-o", tmp_path / "out", "--workers", 1, "--mixture")
    (tmp_path / "m.toml").write_text('[[train]]\ntask = "spelling_bee"\nsize = 20000\n')
    command.append(str(tmp_path / "m.toml"))
    both = [subprocess.Popen(command, env=env, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) in ([0, 1], [0, 0])
    for process, error in zip(both, errors, strict=True):
        if process.returncode:
            assert "another build of" in error
            assert error.count("\n") == 1
    assert list(problems(tmp_path / "out")) == []
    assert not list(tmp_path.glob(".out.*"))


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no second file system at hand")
def test_output_and_cache_may_be_on_other_file_systems_and_have_any_name(tmp_path: Path, own: str) -> None:
    elsewhere = Path("/dev/shm") / f"midprep test {os.getpid()} – 目录"
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "a cache – ü")}
    try:
        elsewhere.mkdir()
        found = build(env, tmp_path, str(elsewhere / "der Bau"), own)
        assert found.returncode == 0, found.stderr
        assert list(problems(elsewhere / "der Bau")) == []
        assert list((tmp_path / "a cache – ü" / "midprep" / "runs").glob("*/*.run"))
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


UNGUARDED = """
from pathlib import Path

from prep.build import job
from prep.mixture.mixture import load_mixture
from prep.build.options import BuildOptions
from prep.tokenizer.load import load_tokenizer

job.SMALL_BUILD = 0  # as if it were worth starting workers
options = BuildOptions(cache_dir=Path("cache"), quiet=True, workers=2)
job.build(job.make_job(load_mixture("sample"), load_tokenizer(), options), Path("out"))
"""


def test_a_program_that_cannot_start_workers_is_told_so_and_holds_no_lock(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["main.py"]
