"""midprep try: rows of one's own as a build would render them, before any build."""

import gzip
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prep.cli.main import app
from tests.conftest import midprep_command, write_lines
from tests.conversations.test_layouts import messages

SHARE = {"id": 1, "conversations": [{"from": "human", "value": "Hi"}, {"from": "teacher", "value": "\x1b[31mA"}]}
FINE = {"id": 2, "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}


def tried(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    app(["try", *map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


def test_the_first_rows_are_shown_with_what_trains_and_what_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in (FINE, SHARE, FINE)).encode()))
    assert tried(capsys, path, "--rows", 2).splitlines() == [
        f"{path}: JSON lines, gzip, layout sharegpt, reads conversations, leaves aside id",
        "[[loss tokens]]  context  <|special token|>",
        "row 0  |  10 tokens, 2 loss tokens (20%)",
        "<|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>[[4<|assistant_end|>]]",
        "",
        "row 1: rejected, unknown role 'teacher': roles = { teacher = \"assistant\" }: " + json.dumps(SHARE),
        "",
    ]


def test_options_are_those_of_an_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines(tmp_path / "a.jsonl", [SHARE])
    found = json.loads(tried(capsys, path, "--roles", "teacher=assistant", "--train-on", "none", "--json"))
    assert {key: found[key] for key in ("kind", "layout", "roles", "train_on", "reads", "leaves_aside")} == {
        "kind": "lines", "layout": "sharegpt", "roles": {"teacher": "assistant"}, "train_on": "none",
        "reads": ["conversations"], "leaves_aside": ["id"],
    }  # fmt: skip
    assert (found["rows"][0]["trainable"], found["rows"][0]["trained_share"]) == (0, 0.0)
    shown = tried(capsys, path, "--roles", "teacher=assistant")
    assert r"[[\x1b[31mA<|assistant_end|>]]" in shown  # shown, not obeyed


def test_only_the_first_rows_are_read_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl.gz"
    row = json.dumps(FINE).encode() + b"\n"
    path.write_bytes(gzip.compress(row * 100_000)[:-9])  # cut: a build refuses it
    assert "row 4  |" in tried(capsys, path)
    assert list(tmp_path.iterdir()) == [path]


def test_columns_of_parquet_and_a_directory_are_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.table({"q": ["Q?"], "a": ["A"], "n": [1]}), tmp_path / f"{name}.parquet")
    found = tried(capsys, tmp_path, "--columns", "q=prompt", "--columns", "a=completion")
    assert found.startswith(
        f"{tmp_path}/a.parquet: parquet (the first of 2 files), layout completion, reads q, a, leaves aside n"
    )
    assert "<|user_start|>Q?<|user_end|><|assistant_start|>[[A<|assistant_end|>]]" in found


def test_every_file_is_looked_at_as_a_build_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder := tmp_path / "many").mkdir()
    for name, fields in (("a", {}), ("b", {"topic": "sky"}), ("c", {"system": "Be brief."})):
        write_lines(folder / f"{name}.jsonl", [{"messages": messages("Why?", "Because."), **fields}])
    first = tried(capsys, folder).splitlines()[0]
    assert "reads messages, system" in first
    assert "leaves aside topic" in first
    write_lines(folder / "d.jsonl", [{"messages": messages("Why?", "Because."), "label": False}])
    with pytest.raises(ValueError, match=r"d\.jsonl: `label` says whether an answer is good"):
        tried(capsys, folder)


def test_a_task_of_ones_own_is_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"q": "Q?"}, {"q": ""}])
    task = tmp_path / "mine.py"
    task.write_text(
        'def ask(row):\n    return [{"role": "user", "content": row["q"]}] if row["q"] else None\n'
        "def made(start, stop, seed, split): ...\n"
    )
    found = tried(capsys, path, "--task", f"{task}:ask")
    assert "JSON lines, task mine.py:ask" in found
    assert "<|user_start|>Q?<|user_end|>" in found
    assert "row 1: rejected, left out by its task" in found
    with pytest.raises(ValueError, match="makes its rows"):
        tried(capsys, path, "--task", f"{task}:made")


def test_fields_of_messages_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0, "thoughts": "c"}]
    path = write_lines(tmp_path / "a.jsonl", [{"messages": talk, "tools": [{"type": "function"}]}])
    first = tried(capsys, path, "--plain").splitlines()[0]
    assert first.endswith("reads messages, leaves aside thoughts of messages, tools")


def test_what_cannot_be_tried_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines(tmp_path / "a.jsonl", [FINE])
    empty = tmp_path / "b.jsonl"
    empty.write_text("\n")
    for arguments, words in (
        ([tmp_path / "none.jsonl"], "none.jsonl not found"),
        ([empty], "has no rows"),
        ([path, "--task", "gsm8k"], "--task gsm8k: wanted your own task, as my_task.py:row"),
        ([path, "--task", "a.py:row", "--train-on", "last"], "--train-on has no effect with --task"),
        ([path, "--layout", "alpaca"], "wanted instruction and output of the layout alpaca"),
        ([path, "--layout", "alpaka"], "--layout = 'alpaka' found.*Did you mean 'alpaca'"),
        ([path, "--roles", "gpt"], "--roles gpt found, wanted theirs=ours"),
        ([path, "--roles", "gpt=bot"], "--roles makes 'gpt' 'bot'"),
        ([path, "--columns", "talk=conversations"], "columns names 'talk', its first rows have"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words) as found:
            tried(capsys, *arguments)
        assert "\n" not in str(found.value)
    done = subprocess.run(
        midprep_command("try", tmp_path / "none.jsonl"),
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_what_the_documentation_shows_is_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("talks.jsonl").write_text(page.split("```jsonl talks.jsonl\n")[1].split("```")[0], encoding="utf-8")
    first = tried(capsys, "talks.jsonl").splitlines()
    assert first[0] in " ".join(page.split())
    assert "row 1: rejected, unknown role" in first[-2]
    second = tried(capsys, "talks.jsonl", "--roles", "teacher=assistant", "--train-on", "last").splitlines()
    assert "".join(f"    {line}\n" for line in second[-3:-1]) in page
