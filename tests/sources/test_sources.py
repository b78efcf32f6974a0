"""Sources: rows numbered through files, read in blocks, from the Hub or a local copy in its layout."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prep.build.job import make_job
from prep.build.options import BuildOptions
from prep.mixture.mixture import parse_mixture
from prep.mixture.resolve import local_files
from prep.sources import source as sources
from prep.sources import tables
from prep.sources.hub import hub_files
from prep.sources.source import open_files, read_rows
from tests.conftest import SHARED, midprep_command, needs_shared, toy_tokenizer, write_lines


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BLOCK_ROWS", 10)
    monkeypatch.setattr(tables, "BATCH_ROWS", 4)
    monkeypatch.setattr(tables, "READ_ROWS", 3)


def rows_read(source: sources.Source, start: int, stop: int) -> list[int]:
    return [row["n"] for table in read_rows(source, start, stop) for row in table.to_pylist()]


def write_parquet(path: Path, first: int, num_rows: int, group: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"n": range(first, first + num_rows), "other": ["x"] * num_rows}), path, row_group_size=group
    )
    return path


def test_rows_are_numbered_through_files_and_blocks_follow_row_groups(tmp_path: Path) -> None:
    files = [write_parquet(tmp_path / "a.parquet", 0, 25, 4), write_parquet(tmp_path / "b.parquet", 25, 65, 65)]
    source = open_files(files, ["n"])
    assert source.num_rows == 90
    assert source.units == ((0, 12), (12, 24), (24, 25), (25, 35, 45, 55, 65, 75, 85, 90))
    for bounds in source.units:
        for start, stop in itertools.pairwise(bounds):
            assert rows_read(source, start, stop) == list(range(start, stop))
    assert rows_read(source, 35, 75) == list(range(35, 75))


def test_tables_are_as_large_as_their_texts_allow_though_the_file_has_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 8)
    monkeypatch.setattr(tables, "BATCH_BYTES", 4500)
    text = pa.array(["x" * 1000] * 20)
    for name, column in (("plain", text), ("dictionary", text.dictionary_encode())):
        pq.write_table(pa.table({"text": column}), tmp_path / f"{name}.parquet")
        assert os.path.getsize(tmp_path / f"{name}.parquet") < 6000  # of 20,000 bytes of text
        source = open_files([tmp_path / f"{name}.parquet"], ["text"])
        sizes = [len(table) for unit in source.units for table in read_rows(source, unit[0], unit[-1])]
        assert sum(sizes) == 20
        assert max(sizes) == 3


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        with pytest.raises(ValueError, match=f"{name} has several columns 'n'"):
            open_files([tmp_path / name], ["n"])


def test_json_lines_are_numbered_without_blank_ones(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", [json.dumps({"n": i}) + ("\n  \n" if i % 7 == 3 else "") for i in range(33)]
    )
    source = open_files([path], [])
    assert source.num_rows == 33
    assert source.units == ((0, 10), (10, 20), (20, 30), (30, 33))
    for start, stop in ((0, 10), (10, 20), (20, 33)):
        lines = [line for table in read_rows(source, start, stop) for line in table["line"].to_pylist()]
        assert [json.loads(line)["n"] for line in lines] == list(range(start, stop))


def test_a_source_is_known_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    first, second = (write_parquet(tmp_path / name, 0, 5, 5) for name in ("a.parquet", "b.parquet"))
    other = write_parquet(tmp_path / "c.parquet", 1, 5, 5)
    identities = [open_files([path], ["n"]).sha256 for path in (first, second, other)]
    assert identities[0] == identities[1] != identities[2]


def test_both_layouts_of_a_local_copy_are_found(tmp_path: Path) -> None:
    for name in (
        "main/train-00001-of-00002",
        "main/train-00000-of-00002",
        "data/train-00000-of-00001",
        "alt/train/0000",
    ):
        write_parquet(tmp_path / "o" / "n" / f"{name}.parquet", 0, 1, 1)
    assert [path.name for path in local_files(tmp_path, "o/n", "main", "train")] == [
        "train-00000-of-00002.parquet", "train-00001-of-00002.parquet",
    ]  # fmt: skip
    assert [path.name for path in local_files(tmp_path, "o/n", "default", "train")] == ["train-00000-of-00001.parquet"]
    assert [path.name for path in local_files(tmp_path, "o/n", "alt", "train")] == ["0000.parquet"]
    assert local_files(tmp_path, "o/n", "main", "test") == []


def test_identity_conversations_for_a_mixture_without_the_task_are_refused(tmp_path: Path) -> None:
    (tmp_path / "me.jsonl").write_text("[]\n")
    mixture = parse_mixture({"train": [{"task": "arithmetic", "size": 2}]}, "test.toml", tmp_path, "test")
    with pytest.raises(
        ValueError, match=r"--identity .*me\.jsonl: the mixture 'test' has no identity task: leave it out"
    ):
        make_job(mixture, toy_tokenizer(), BuildOptions(cache_dir=tmp_path), None, tmp_path / "me.jsonl")


def test_files_that_are_not_what_they_should_be_are_errors_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "z.jsonl").write_bytes(b"\x1f\x8b\x08\x00")
    wrong = write_parquet(tmp_path / "wrong.parquet", 0, 1, 1)
    for path, words in (
        (tmp_path / "cut.parquet", "not a readable Parquet file"),
        (tmp_path / "empty.jsonl", "has no rows"),
        (tmp_path / "z.jsonl", "not a readable gzip file"),
        (wrong, r"has the columns \['n', 'other'\], wanted \['question'\]"),
        (tmp_path / "none.jsonl", "not found"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
            open_files([path], ["question"])
        assert "\n" not in str(error.value)


# ---- the Hub, for real, against the local server ----


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a process that sees ../shared's data sets as the Hub"""
    server = subprocess.Popen(
        [sys.executable, str(SHARED / "data" / "hub_server.py")], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    port = server.stdout.readline().split()[1]
    home = tmp_path_factory.mktemp("hub")
    yield os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    server.terminate()
    server.wait()
    server.stdout.close()


def midprep(hub: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(midprep_command(*arguments), env=hub, capture_output=True, text=True, timeout=120)


@needs_shared
def test_a_build_from_the_hub_has_the_bytes_of_one_from_a_local_copy(hub: dict[str, str], tmp_path: Path) -> None:
    mixture = tmp_path / "hub.toml"
    mixture.write_text('[[train]]\ntask = "gsm8k"\n[[val]]\ntask = "gsm8k"\nstop = 7\n')
    built = midprep(hub, "build", "--mixture", str(mixture), "-o", str(tmp_path / "hub"))
    assert built.returncode == 0, built.stderr
    local = midprep(
        hub,
        "build",
        "--mixture",
        str(mixture),
        "-o",
        str(tmp_path / "local"),
        "--data-root",
        str(SHARED / "data" / "hub"),
    )
    assert local.returncode == 0, local.stderr
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("hub", "local")]
    sources = [manifest["splits"]["train"]["sources"][0] for manifest in manifests]
    assert len(sources[0]["revision"]) == 40
    assert sources[1]["revision"] is None
    assert sources[0]["sha256"] == sources[1]["sha256"]
    assert sources[0]["conversations"] == 7473
    for name in ("train-00000-of-00001.tokens.npy", "val.docs.npy"):
        assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    again = midprep(hub, "build", "--mixture", str(mixture), "-o", str(tmp_path / "hub"))
    assert "up to date" in again.stdout


@needs_shared
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('task = "gsm8k"\nsubset = "mian"', "mian"),
        ('task = "gsm8k"\nsplit = "dev"', "no such split, it has: train, test"),
        ('task = "gsm8k"\nrevision = "v9"', "v9"),
    ],
)
def test_what_the_hub_has_not_is_an_error_that_names_it(
    hub: dict[str, str], tmp_path: Path, entry: str, words: str
) -> None:
    mixture = tmp_path / "hub.toml"
    mixture.write_text(f"[[train]]\n{entry}\n")
    built = midprep(hub, "build", "--mixture", str(mixture), "-o", str(tmp_path / "out"))
    assert built.returncode == 1
    assert words in built.stderr
    assert len(built.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@needs_shared
def test_a_pinned_revision_is_what_is_read(hub: dict[str, str], tmp_path: Path) -> None:
    script = "from prep.sources.hub import hub_files; print(hub_files('openai/gsm8k', 'main', 'test', None)[1])"
    done = subprocess.run([sys.executable, "-c", script], env=hub, capture_output=True, text=True, timeout=60)
    revision = done.stdout.strip()
    mixture = tmp_path / "hub.toml"
    mixture.write_text(f'[[train]]\ntask = "gsm8k"\nrevision = "{revision}"\nstop = 9\n')
    assert midprep(hub, "build", "--mixture", str(mixture), "-o", str(tmp_path / "out")).returncode == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["splits"]["train"]["sources"][0]["revision"] == revision


def test_hub_files_is_the_only_place_that_knows_datasets() -> None:
    prep = Path(hub_files.__code__.co_filename).parent
    users = [path.name for path in prep.rglob("*.py") if "import datasets" in path.read_text(encoding="utf-8")]
    assert users == ["hub.py"]
