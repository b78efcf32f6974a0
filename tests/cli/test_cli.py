"""The command line as a user meets it: exit codes, one line for an error, help in a blink."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SHARED, check_shards, midprep_command, needs_shared, write_lines


def midprep(*arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        midprep_command(*arguments), cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample mixture, built through the command line"""
    folder = tmp_path_factory.mktemp("sample")
    built = midprep("build", "--mixture", "sample", cwd=folder, XDG_CACHE_HOME=str(folder / "cache"))
    assert built.returncode == 0, built.stderr
    return folder / "shards" / "sample"


def error_of(run: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error of the user's"""
    assert run.returncode == 1, run.stdout + run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("midprep: ")
    return lines[0]


def test_help_imports_nothing_heavy() -> None:
    heavy = "('numpy', 'pyarrow', 'polars', 'torch', 'datasets', 'rich')"
    script = f"import sys, prep.cli.main; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "[]"
    start = time.monotonic()
    assert "build" in midprep("--help").stdout
    assert time.monotonic() - start < 5  # a blink, on a machine that is doing ten other things


def test_version_is_the_packages() -> None:
    from prep import __version__

    assert midprep("--version").stdout == f"midprep {__version__}\n"


def test_the_sample_is_sound_and_has_the_size_it_promises(sample: Path) -> None:
    check_shards(sample)
    manifest = json.loads((sample / "manifest.json").read_text())
    assert 3000 <= manifest["splits"]["train"]["conversations"] <= 10_000
    assert [one["name"] for one in manifest["splits"]["train"]["sources"]] == [
        "simple_spelling", "spelling_bee", "arithmetic", "identity",
    ]  # fmt: skip
    text = (sample / "manifest.json").read_text()
    assert str(sample.parent.parent) not in text
    assert os.uname().nodename not in text


def test_stats_count_what_the_arrays_hold(sample: Path) -> None:
    stats = json.loads(midprep("stats", sample, "--json").stdout)
    docs, rows = np.load(sample / "train.docs.npy"), np.load(sample / "train.rows.npy")
    train = stats["splits"]["train"]
    assert train["rows"] == len(rows)
    assert train["conversations"] == len(docs)
    assert train["total_tokens"] == int(docs["length"].sum()) == int(rows["num_tokens"].sum())
    assert train["trainable_tokens"] == int(docs["trainable"].sum())
    assert train["padding_tokens"] == len(rows) * 2049 - train["total_tokens"]
    assert train["rows_over_bound"] == len(rows) - -(-train["total_tokens"] // 2049)
    assert train["steps"]["524288"] == -(-len(rows) // 256)
    for i, source in enumerate(train["sources"]):
        lengths = docs["length"][docs["source"] == i]
        assert source["lengths"]["max"] == lengths.max()
        assert source["lengths"]["median"] == np.median(lengths)
        assert source["lengths"]["mean"] == pytest.approx(lengths.mean(), abs=0.05)
        assert source["shares"]["total_tokens"] == pytest.approx(lengths.sum() / train["total_tokens"], abs=1e-6)
    table = midprep("stats", sample).stdout
    assert "spelling_bee" in table
    assert f"{len(rows):,} rows, packing efficiency" in table


def test_a_dry_run_says_what_would_be_built_and_builds_nothing(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    (tmp_path / "m.toml").write_text(
        '[[train]]\ntask = "chat"\npath = "a.jsonl"\n[[train]]\ntask = "spelling_bee"\nsize = 9\n'
    )
    found = midprep("build", "--mixture", "m.toml", "--dry-run", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "c"))
    assert found.returncode == 0
    assert "shards/m: would be built" in found.stdout
    assert "0 of 1 blocks cached" in found.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "m.toml"]


def test_errors_of_the_user_are_one_line_and_exit_code_1(tmp_path: Path, sample: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path / "c"), "NANOCHAT_BASE_DIR": str(tmp_path / "none")}
    assert "Did you mean 'sample'" in error_of(midprep("build", "--mixture", "sampel", **env))
    assert "--data-root nowhere not found" in error_of(midprep("build", "--data-root", "nowhere", cwd=tmp_path, **env))
    assert "wanted ordered, bfd, wrapped" in error_of(
        midprep("build", "--mixture", "sample", "--packing", "best", **env)
    )
    assert "manifest.json not found" in error_of(midprep("stats", tmp_path))
    assert "did you mean nano32k" in error_of(midprep("build", "--mixture", "sample", "--tokenizer", "nano32", **env))
    changed = midprep("build", "--mixture", "sample", "-o", sample, "--max-seq-len", 512, **env)
    assert "--overwrite" in error_of(changed)


def test_help_is_whole_at_80_columns() -> None:
    shown = midprep("--help", COLUMNS="80").stdout
    commands = shown.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(commands) == 16
    assert not [line for line in commands if line.endswith("...") or len(line) > 80]


def test_wrong_usage_is_one_line_and_exit_code_2() -> None:
    for arguments, words in (
        (
            ["build", "--mixure", "x"],
            "No such option: --mixure (Possible options: --mixture). See midprep build --help",
        ),
        (["biuld"], "No such command 'biuld'. Did you mean 'build'? See midprep --help"),
        (["stats"], "Missing argument"),
        (["build", "--max-seq-len", "many"], "Invalid value for '--max-seq-len'"),
    ):
        done = midprep(*arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("midprep: ")
        assert words in done.stderr


def test_midprep_alone_helps_a_newcomer_on() -> None:
    done = midprep()
    assert done.returncode == 0
    assert "Start with: midprep build --mixture sample" in done.stdout
    assert "Usage: midprep tokenizer" in midprep("tokenizer").stderr


def test_doctor_says_what_is_there_and_what_follows() -> None:
    done = midprep("doctor", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    found = {line.split()[0]: line for line in done.stdout.splitlines() if not line.startswith(" ")}
    assert {"midprep", "packages", "encoder", "cores", "compiler", "cache", "disk", "hub"} <= set(found)
    assert "offline" in found["hub"]
    assert "numpy" in found["packages"]


@needs_shared
def test_a_missing_identity_file_says_what_it_is_and_how_to_do_without(tmp_path: Path) -> None:
    (tmp_path / "hub").symlink_to(SHARED / "data" / "hub")
    env = {"XDG_CACHE_HOME": str(tmp_path / "c"), "NANOCHAT_BASE_DIR": str(tmp_path / "none")}
    error = error_of(midprep("build", "--data-root", "hub", "--dry-run", cwd=tmp_path, **env))
    assert "midprep build --mixture default --without identity" in error
    without = midprep("build", "--data-root", "hub", "--dry-run", "--without", "identity", cwd=tmp_path, **env)
    assert without.returncode == 0
    assert "identity" not in without.stdout


def test_the_tokenizer_of_a_nanochat_installation_is_pointed_out_and_not_taken(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    assert midprep("tokenizer", "export", tmp_path / "tokenizer").returncode == 0
    env = {"XDG_CACHE_HOME": str(tmp_path / "c"), "NANOCHAT_BASE_DIR": str(tmp_path)}
    found = midprep("build", "--mixture", "sample", "--dry-run", cwd=tmp_path, **env)
    assert "--tokenizer nanochat" in found.stderr
    used = midprep("tokenizer", "info", "nanochat", "--json", **env)
    assert json.loads(used.stdout)["sha256"] == json.loads(midprep("tokenizer", "info", "--json").stdout)["sha256"]


def test_a_trained_tokenizer_can_be_built_with(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("how much wood would a woodchuck chuck " * 40)
    made = midprep("tokenizer", "train", "--vocab-size", 280, "text.txt", "-o", "tok", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    (tmp_path / "m.toml").write_text('[[train]]\ntask = "spelling_bee"\nsize = 9\n')
    built = midprep(
        "build", "--mixture", "m.toml", "--tokenizer", "tok", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "c")
    )
    assert built.returncode == 0, built.stderr
    manifest = json.loads((tmp_path / "shards" / "m" / "manifest.json").read_text())
    assert manifest["vocab_size"] == 280
    check_shards(tmp_path / "shards" / "m")


def test_tasks_and_mixtures_are_listed() -> None:
    assert all(name in midprep("tasks").stdout for name in ("smoltalk", "mmlu", "gsm8k", "chat", "arithmetic"))
    assert "default" in midprep("mixtures").stdout


INTERRUPTED = "midprep: interrupted; no half-written file is left, rendered blocks are kept.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["typer", "prep.cli.build", "pyarrow", "prep.build.job"])
def test_a_signal_in_the_middle_of_an_import_is_one_line(module: str, number: signal.Signals) -> None:
    script = f"""
import os, sys
import prep.__main__

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), {int(number)})
            except BaseException as error:
                raise RuntimeError("Error calling __set_name__") from error

sys.meta_path.insert(0, Finder())
sys.argv = ["midprep", "build", "--mixture", "sample", "--dry-run"]
prep.__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, INTERRUPTED)


@pytest.mark.slow
def test_ctrl_c_at_any_moment_after_the_start_is_one_line(tmp_path: Path) -> None:
    script = "import prep.__main__; prep.__main__.leave_at_once(); print(flush=True); prep.__main__.main()"
    for tenths in range(40):
        command = [sys.executable, "-c", script, "build", "--mixture", "sample", "--cache-dir", str(tmp_path / "cache")]
        process = subprocess.Popen(
            [*command, "-o", str(tmp_path / str(tenths))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(tenths * 0.03)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 130)
        if process.returncode:
            assert errors.endswith(INTERRUPTED)
            assert "Traceback" not in errors
