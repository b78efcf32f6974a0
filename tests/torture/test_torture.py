"""Builds that are killed, stopped, starved of disk or robbed of their cache: the next one has the right bytes."""

import gzip
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prep.build import job as building
from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.check.verify import problems
from prep.mixture.mixture import load_mixture
from prep.render.block_cache import list_blocks
from prep.tokenizer.load import load_tokenizer
from tests.build.test_build import some_chats, tree
from tests.conftest import midprep_command, toy_tokenizer, write_lines

TOML = """
[[train]]
task = "chat"
path = "a.jsonl"
[[train]]
task = "spelling_bee"
size = 20000
[[val]]
task = "arithmetic"
size = 500
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture, a tokenizer, and the build as it should be, in `wanted`"""
    folder = tmp_path_factory.mktemp("torture")
    write_lines(folder / "a.jsonl", some_chats(400))
    (folder / "m.toml").write_text(TOML)
    (folder / "toy").mkdir()
    toy_tokenizer().write(folder / "toy")
    finish(folder, folder / "wanted", folder / "first cache")
    return folder


def finish(folder: Path, root: Path, cache: Path) -> None:
    """The same build in this process, to its end"""
    options = BuildOptions(max_seq_len=512, cache_dir=cache, quiet=True)
    build(make_job(load_mixture(str(folder / "m.toml")), load_tokenizer(folder / "toy"), options), root)


def build_command(folder: Path, place: Path, *more: object) -> list[str]:
    """The same build as a command"""
    command = midprep_command(
        "build", "--mixture", folder / "m.toml", "--tokenizer", folder / "toy", "--max-seq-len", 512
    )
    return [*command, "-o", str(place / "out"), "--cache-dir", str(place / "cache"), "-q", *map(str, more)]


def start(folder: Path, place: Path, **limits: int) -> subprocess.Popen[str]:
    """The same build as a process group of its own"""
    command = build_command(folder, place, "--workers", 2)
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"],) * 2)) if limits else None
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=limit
    )


def check(folder: Path, place: Path) -> None:
    """Building again gives the right bytes and leaves nothing beside them"""
    finish(folder, place / "out", place / "cache")
    assert tree(place / "out") == tree(folder / "wanted")
    assert sorted(path.name for path in place.iterdir()) == ["cache", "out"]
    assert not list((place / "cache").rglob("*.tmp"))


def kill_at_random(folder: Path, place: Path, seed: int, longest: float) -> None:
    place.mkdir()
    process = start(folder, place)
    time.sleep(random.Random(seed).uniform(0.2, longest))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if (place / "out").exists():
        assert list(problems(place / "out")) == []  # what has the name of a finished build is one
    check(folder, place)
    shutil.rmtree(place)


def seconds_of_a_build(folder: Path, place: Path) -> float:
    place.mkdir()
    begin = time.monotonic()
    process = start(folder, place)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return time.monotonic() - begin


def test_a_build_killed_at_any_moment_is_built_right_by_the_next(folder: Path, tmp_path: Path) -> None:
    longest = seconds_of_a_build(folder, tmp_path / "timed")
    for seed in range(10):
        kill_at_random(folder, tmp_path / str(seed), seed, longest)


@pytest.mark.torture
def test_a_hundred_kills(folder: Path, tmp_path: Path) -> None:
    longest = seconds_of_a_build(folder, tmp_path / "timed")
    for seed in range(100, 220):
        kill_at_random(folder, tmp_path / str(seed), seed, longest)


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def wait_for_end(pids: list[int]) -> None:
    """Until none of the processes runs any more; one that has ended may wait for its new parent to notice"""
    deadline = time.monotonic() + 20
    while subprocess.run(
        ["ps", "-o", "stat=", "-p", ",".join(map(str, pids))], capture_output=True, text=True
    ).stdout.strip("Z+s\n "):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_build_that_is_stopped_says_so_in_one_line_and_takes_its_workers_along(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(folder, tmp_path)
    deadline = time.monotonic() + 60
    while len(workers := children_of(process.pid)) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # Ctrl-C goes to the whole group
    _, errors = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have been done already
        assert process.returncode == 130, errors
        assert errors.strip().splitlines() == [
            "midprep: interrupted; no half-written file is left, rendered blocks are kept."
        ]
        assert not (tmp_path / "out").exists()
    wait_for_end(workers)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    check(folder, tmp_path)


def test_workers_end_with_a_parent_that_was_killed(folder: Path, tmp_path: Path) -> None:
    process = start(folder, tmp_path)
    deadline = time.monotonic() + 60
    while not (workers := children_of(process.pid)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)  # the parent alone
    process.communicate()
    wait_for_end(workers)
    check(folder, tmp_path)


WITHOUT_CONTEXT = """
import os, signal
from prep.workers import local
local._send = lambda *arguments: None  # as of a parent that was killed before it could
with local._processes({}, 2) as pool:
    pool.submit(len, "")
    pool.submit(len, "")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_that_wait_for_their_context_end_with_a_parent_that_was_killed() -> None:
    """A worker, or the tracker of multiprocessing, that lives on holds stdout, for which `run` waits"""
    subprocess.run([sys.executable, "-c", WITHOUT_CONTEXT], stdout=subprocess.PIPE, timeout=30)


@pytest.mark.slow
def test_no_process_outlives_a_parent_that_is_killed_while_workers_start(folder: Path, tmp_path: Path) -> None:
    for seed in range(50):
        process = start(folder, tmp_path / str(seed))
        while not children_of(process.pid) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, 0.8))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=5)  # until nobody holds its stdout and stderr any more


@pytest.mark.parametrize("file_bytes", [300, 200_000])
def test_a_disk_that_is_full_is_one_line_and_no_build(folder: Path, tmp_path: Path, file_bytes: int) -> None:
    process = start(folder, tmp_path, file_bytes=file_bytes)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.strip().splitlines()) == 1, errors
    assert "File too large" in errors
    assert not (tmp_path / "out").exists()
    check(folder, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_cannot_be_written_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"cannot be written .*: give another -o DIR"):
        finish(folder, tmp_path / "closed" / "out", tmp_path / "cache")


def test_an_output_below_a_file_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written .*: give another -o DIR"):
        finish(folder, tmp_path / "file" / "out", tmp_path / "cache")


def test_a_cache_that_vanishes_in_mid_build_is_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is deleted once each pass has begun to rely on it"""
    real, calls = building.write_split, []

    def write_split(*arguments: object) -> object:
        calls.append(1)
        if len(calls) in (1, 3):
            shutil.rmtree(tmp_path / "cache" / "runs")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(building, "write_split", write_split)
    said: list[str] = []
    options = BuildOptions(max_seq_len=512, cache_dir=tmp_path / "cache", quiet=True)
    job = make_job(load_mixture(str(folder / "m.toml")), load_tokenizer(folder / "toy"), options)
    build(job, tmp_path / "out", said.append)
    assert len(said) == 2
    assert all("went from the cache" in line for line in said)
    check(folder, tmp_path)


def test_a_cache_that_is_deleted_again_and_again_costs_time_and_not_the_build(folder: Path, tmp_path: Path) -> None:
    """Ten times, at any moment, the copies of compressed files included"""
    chats = (folder / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(chats))
    (tmp_path / "m.toml").write_text(TOML.replace("a.jsonl", "a.jsonl.gz"))
    options = BuildOptions(max_seq_len=512, cache_dir=tmp_path / "cache", quiet=True)
    ended = threading.Event()

    def delete() -> None:
        for _ in range(10):
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
            ended.wait(0.1)

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        job = make_job(load_mixture(str(tmp_path / "m.toml")), load_tokenizer(folder / "toy"), options)
        build(job, tmp_path / "out")
    finally:
        ended.set()
        deleter.join()
    wanted, found = tree(folder / "wanted"), tree(tmp_path / "out")
    assert {name: data for name, data in found.items() if name.endswith(".npy")} == {
        name: data for name, data in wanted.items() if name.endswith(".npy")
    }


def build_elsewhere(folder: Path, place: Path, **env: str) -> dict[str, bytes]:
    place.mkdir()
    command = build_command(folder, place, *env.pop("options", "").split())
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return tree(place / "out")


def test_hash_seed_time_zone_locale_workers_and_encoder_do_not_change_a_byte(folder: Path, tmp_path: Path) -> None:
    wanted = tree(folder / "wanted")
    for number, env in enumerate(
        (
            {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "options": "--workers 1 --encoder tiktoken"},
            {"PYTHONHASHSEED": "2", "LC_ALL": "tr_TR.UTF-8", "LANG": "C", "options": "--workers 5"},
            {"PYTHONUTF8": "0", "LC_ALL": "C", "options": "--workers 2 --encoder fastokens"},
        )
    ):
        assert build_elsewhere(folder, tmp_path / str(number), **env) == wanted


def test_two_builds_may_share_a_cache(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cache").symlink_to(tmp_path / "shared")
    (tmp_path / "shared").mkdir()
    both = [start(folder, tmp_path / name) for name in ("one", "two")]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert tree(tmp_path / "one" / "out") == tree(tmp_path / "two" / "out") == tree(folder / "wanted")
    assert not list((tmp_path / "shared" / "runs").glob("*/*.tmp"))


def test_leftovers_of_killed_writers_are_not_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "ab").mkdir(parents=True)
    (tmp_path / "runs" / "ab" / "abc.123.tmp").write_bytes(b"half")
    assert list(list_blocks(tmp_path)) == []
