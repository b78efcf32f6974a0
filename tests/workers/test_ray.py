"""The Ray engine: the bytes of the local one, whatever dies; not imported, and not needed, unless it is chosen."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prep.build.options import BuildOptions
from prep.plan import rows as plan
from prep.sources import source as sources
from prep.tokenizer.tokenizer import Tokenizer
from prep.workers import ray as engines_ray
from prep.workers.ray import cluster as cluster_of
from tests.build.test_build import MIXTURE, some_chats, tree, write_sources
from tests.conftest import build_mixture, chat, midprep_command, toy_tokenizer, write_lines


def test_a_build_on_one_engine_does_not_import_the_other(tmp_path: Path) -> None:
    script = (
        "import sys; from prep.build.options import BuildOptions; from prep.workers import run; import prep.build.job\n"
        "list(run(max, 0, [1, 2], BuildOptions())); print('ray' in sys.modules, 'prep.workers.local' in sys.modules)\n"
        "del sys.modules['prep.workers.local']; sys.modules['ray'] = None\n"
        "try: list(run(max, 0, [1, 2], BuildOptions(engine='ray', workers=0)))\n"
        "except ValueError as error: print(error, 'prep.workers.local' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "False True",
        "--engine ray needs Ray, which is not installed: pip install 'midprep[ray]'. False",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "spark"}, "--engine 'spark' found, wanted local or ray"),
        ({"address": "auto"}, "--address auto found, which is for --engine ray"),
        ({"workers": 0}, "--workers 0 found, wanted 1 or more"),
    ],
)
def test_options_of_engines_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BuildOptions(**options)


def test_a_cluster_that_is_not_there_is_one_line_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    mixture = write_lines(tmp_path / "m.toml", ['[[train]]\ntask = "chat"\npath = "a.jsonl"'])
    write_lines(tmp_path / "a.jsonl", [chat("a", "b")])
    command = midprep_command("build", "--mixture", mixture, "-o", tmp_path / "out")
    command += ["--engine", "ray", "--address", "127.0.0.1:1", "--cache-dir", str(tmp_path / "cache")]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "no Ray cluster at 127.0.0.1:1" in done.stderr
    assert time.monotonic() - begin < 20
    assert not (tmp_path / "out").exists()


def test_a_node_without_the_cache_or_with_another_midprep_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines_ray, "SHARED_SECONDS", 0.1)
    with engines_ray._shared(tmp_path / "cache") as probe:
        engines_ray._check_shared(str(Path.cwd()), probe)
        with pytest.raises(ValueError, match=r"does not see .*nowhere: sources, cache and output must be"):
            engines_ray._check_shared(str(Path.cwd()), str(tmp_path / "nowhere" / "shared.tmp"))
        monkeypatch.setattr(engines_ray, "__version__", "0.0.0")
        with pytest.raises(ValueError, match=r"has midprep 0\.0\.0, wanted [\d.]+: install that there"):
            engines_ray._check_shared(str(Path.cwd()), probe)
    assert list((tmp_path / "cache").iterdir()) == []


# ---- on a real cluster ----


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes of one core on this machine"""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    nodes.wait_for_nodes()
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_gives_the_bytes_of_one_machine(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK_ROWS", 4)
    monkeypatch.setattr(plan, "SHARD_TOKENS", 3000)
    toy: Tokenizer = toy_tokenizer()
    write_sources(tmp_path, long_every=11)
    write_lines(tmp_path / "c.jsonl", some_chats(1200))
    mixture = {**MIXTURE, "train": [*MIXTURE["train"], {"task": "chat", "path": "c.jsonl"}]}
    local = tree(build_mixture(tmp_path, mixture, toy, "local", max_seq_len=128, cache_dir=tmp_path / "other")[0])
    runs_at_death = []

    def lose_a_node() -> None:
        while (num_runs := len(list((tmp_path / "cache" / "runs").glob("*/*.run")))) < 40:
            time.sleep(0.01)
        runs_at_death.append(num_runs)
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

    killer = threading.Thread(target=lose_a_node)
    killer.start()
    options = {"max_seq_len": 128, "engine": "ray", "address": cluster.address, "workers": 0}
    monkeypatch.chdir(tmp_path)  # relative paths mean the same on the nodes
    root, _, _ = build_mixture(Path(), mixture, toy, "out", **options)
    killer.join()
    assert tree(root) == local
    assert 40 <= runs_at_death[0] < 300
    assert json.loads((root / "build.json").read_text())["engine"] == "ray"
    deadline = time.monotonic() + 60
    while cluster_of(cluster.address, 0) != "2 nodes, 2 cores":  # it takes Ray a while to be sure of a death
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert list((tmp_path / "cache").glob("*.tmp")) == []
    for bad, words in (({"excess_length_strategy": "raise"}, "tokens, max_seq_len is 128"), ({}, None)):
        (tmp_path / "c.jsonl").write_text("[]\n" if words is None else (tmp_path / "c.jsonl").read_text())
        with pytest.raises(ValueError, match=words or "rows of chat") as error:
            build_mixture(Path(), mixture, toy, "bad", **options, **bad)
        assert "\n" not in str(error.value)


@pytest.fixture
def alone() -> Iterator[Any]:
    """Ray on this machine, as a build without --address starts it"""
    ray = pytest.importorskip("ray")
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_dies_costs_its_task_only_and_errors_come_through(alone: Any, tmp_path: Path) -> None:
    def fragile(folder: Path, job: int) -> int:
        if job == 3 and not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(1)
        if job == 100:
            os._exit(1)
        if job == 200:
            (folder / "nothing" / "there").read_text()
        return job * 2

    def run(*jobs: int) -> dict[int, int]:
        return dict(engines_ray.run(fragile, tmp_path, jobs, 2, None, tmp_path / "cache"))

    assert run(*range(8)) == {job: 2 * job for job in range(8)}
    assert (tmp_path / "died").exists()
    with pytest.raises(FileNotFoundError) as missing:
        run(1, 200)
    assert missing.value.filename == str(tmp_path / "nothing" / "there")
    with pytest.raises(RuntimeError, match=r"a task's workers died 6 times \(WorkerCrashedError\)") as died:
        run(100)
    assert "\n" not in str(died.value)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2, 9])
def test_a_build_on_ray_that_is_stopped_says_so_in_one_line(tmp_path: Path, seconds: float) -> None:
    pytest.importorskip("ray")
    write_lines(tmp_path / "m.toml", ['[[train]]\ntask = "spelling_bee"\nsize = 2_000_000'])
    command = midprep_command("build", "--mixture", tmp_path / "m.toml", "--engine", "ray", "-q", "--workers", 2)
    command += ["-o", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
    time.sleep(seconds)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (130, 1), errors
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["m.toml"]
