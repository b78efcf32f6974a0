"""The wheel and the sdist hold what midprep needs, and the wheel works in an empty environment, away from the checkout."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = (
    "nano32k.tiktoken",
    "words.txt.zst",
    "identity.jsonl",
    "problems.toml",
    "facts.toml",
    "phrasings.toml",
    "selftest.jsonl",
    "report.css",
    "NOTICE.md",
)

pytestmark = pytest.mark.slow  # builds, downloads and installs


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of what git has, built into a wheel and an sdist"""
    folder = tmp_path_factory.mktemp("release")
    subprocess.run(["git", "clone", "-q", str(ROOT), "source"], cwd=folder, check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder / "tools"), "build"]
    subprocess.run(pip, check=True, capture_output=True)
    subprocess.run(
        [sys.executable, "-m", "build", "-q", "--outdir", str(folder / "dist")],
        cwd=folder / "source",
        env={"PYTHONPATH": str(folder / "tools"), "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
    )
    return folder / "dist"


def test_both_hold_mixtures_tokenizer_words_and_licences(dist: Path) -> None:
    wheel = zipfile.ZipFile(next(dist.glob("*.whl"))).namelist()
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        sdist = archive.getnames()
    for names in (wheel, sdist):
        for name in (
            *(f"prep/data/{one}" for one in DATA),
            "prep/mixtures/sample.toml",
            "prep/report/page.html.j2",
            "prep/report/runs.html.j2",
            "prep/report/marks.html.j2",
            "prep/py.typed",
            "train/py.typed",
            "train/inference/chat.html",
        ):
            assert any(found.endswith(name) for found in names), name
        assert any(found.endswith("LICENSE") for found in names)
    assert not [name for name in wheel if name.startswith(("tests/", "bench/", "shards/"))]


def test_the_wheel_works_in_an_empty_environment(dist: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    programs = tmp_path / "env" / "bin"
    wheel, constraints = str(next(dist.glob("*.whl"))), str(ROOT / "constraints.txt")
    install = [str(programs / "pip"), "install", "-q", "-c", constraints, wheel]
    subprocess.run(install, check=True, capture_output=True, timeout=900)
    env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(ROOT) not in run("python", "-c", "import prep; print(prep.__file__)")
    run("midprep", "build", "--mixture", "sample", "--max-seq-len", "256")
    run("midprep", "verify", "shards/sample")
    small = [
        "--shards",
        "shards/sample",
        "--depth",
        "1",
        "--total-batch-size",
        "512",
        "--num-iterations",
        "1",
        "--eval-every",
        "0",
    ]
    run("python", "-m", "train.mid", *small)
    run("torchrun", "-m", "train.mid", *small, "--mode", "sft", "--base", "runs/sample")
