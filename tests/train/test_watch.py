"""watch: where a run stands, from a file that grows, is cut by a kill, or is written anew."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prep.cli.main import app
from train import watch


def record(step: int, **more: Any) -> dict[str, Any]:
    base = {"step": step, "num_steps": 10, "loss": 4.0 - step / 10, "lrm": 1.0, "dt": 2.0, "tokens_per_second": 1.5e6}
    return {**base, "mfu": 40.0, "num_targets": 100, "loss_by_source": {"[bold]a": 4.0 - step / 10}, **more}


def write(path: Path, records: list[dict[str, Any]], end: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + end)


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "mid" / "mid_checkpoints" / "d4" / "metrics.jsonl"
    first = record(0, val_bpb_before=2.5, val_bpb_by_source_before={"b": 2.5})
    write(path, [first, *(record(i) for i in range(1, 5)), record(5, val_bpb=1.5, val_bpb_by_source={"b": 1.5})])
    return path


def test_a_look_says_where_the_run_stands(metrics: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["watch", str(tmp_path / "mid"), "--once"], catch_exceptions=False)
    assert result.stdout == "6 of 10 steps (60.0%)  loss 3.5000  bpb 1.5000  1.50M tok/s  lr x 1.00  0:08 left\n"
    result = CliRunner().invoke(app, ["watch", str(metrics), "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert (found["steps_done"], found["val_bpb_first"], found["val_bpb"], found["targets"]) == (6, 2.5, 1.5, 600)
    assert found["loss_by_source"] == {"[bold]a": pytest.approx([3.9, 3.6])}
    assert found["val_bpb_by_source"] == {"b": [2.5, 1.5]}


def test_a_plain_line_is_printed_until_the_run_ends(metrics: Path) -> None:
    write(metrics, [record(i) for i in range(10)])
    result = CliRunner().invoke(app, ["watch", str(metrics), "--every", "0"], catch_exceptions=False)
    assert result.stdout == "10 of 10 steps (100.0%)  loss 3.1000  1.50M tok/s  lr x 1.00  finished in 0:20\n"


def test_ctrl_c_ends_a_watch_without_a_word(metrics: Path) -> None:
    command = [sys.executable, "-m", "prep", "watch", str(metrics)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("6 of 10 steps")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_only_what_is_new_is_read_and_a_line_that_is_not_whole_waits(metrics: Path) -> None:
    tail = watch.Tail(metrics)
    assert len(tail.read()) == 6
    line = json.dumps(record(6)) + "\n"
    with open(metrics, "a") as file:
        file.write(line[:20])
        file.flush()
        assert len(tail.read()) == 6
        file.write(line[20:])
    assert [one["step"] for one in tail.read()] == [0, 1, 2, 3, 4, 5, 6]


def test_a_resumed_run_that_rewrites_the_file_is_read_from_its_beginning(metrics: Path) -> None:
    tail = watch.Tail(metrics)
    tail.read()
    write(metrics, [record(i, loss=9.0) for i in range(3)])
    assert [one["loss"] for one in tail.read()] == [9.0, 9.0, 9.0]


def test_a_file_that_was_cut_and_grew_longer_again_is_read_from_its_beginning(metrics: Path) -> None:
    tail = watch.Tail(metrics)
    tail.read()
    write(metrics, [record(i, loss=9.0) for i in range(9)])
    assert [one["loss"] for one in tail.read()] == [9.0] * 9


def test_a_file_that_is_no_metrics_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello\n")
    with pytest.raises(ValueError, match=r"README.md is not a metrics.jsonl"):
        watch.find_metrics(tmp_path / "README.md")


def test_a_step_that_is_told_twice_counts_once(metrics: Path) -> None:
    write(metrics, [record(0), record(1), record(2), record(1, loss=7.0)], end='{"step": 2, "lo')
    assert [(one["step"], one["loss"]) for one in watch.read_records(metrics)] == [(0, 4.0), (1, 7.0)]


def test_the_newest_run_of_a_directory_is_watched(metrics: Path, tmp_path: Path) -> None:
    newer = tmp_path / "mid" / "chatsft_checkpoints" / "d4" / "metrics.jsonl"
    write(newer, [record(0)])
    assert watch.find_metrics(tmp_path / "mid") == newer
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no metrics.jsonl in .*empty: give the directory of a run"):
        watch.find_metrics(tmp_path / "empty")


def test_which_run_of_a_directory_is_watched_is_said(metrics: Path, tmp_path: Path) -> None:
    for place, said in ((tmp_path, f"the newest of {tmp_path}: {metrics}\n"), (metrics, ""), (metrics.parent, "")):
        result = CliRunner().invoke(app, ["watch", str(place), "--once"], catch_exceptions=False)
        assert result.stderr == said


def test_a_run_without_a_step_says_so(metrics: Path) -> None:
    write(metrics, [])
    result = CliRunner().invoke(app, ["watch", str(metrics), "--once"], catch_exceptions=False)
    assert result.stdout.endswith("metrics.jsonl: no step yet\n")


def test_the_live_view_shows_curves_and_takes_no_name_for_markup(metrics: Path) -> None:
    from rich.console import Console

    records = watch.read_records(metrics)
    console = Console(width=100, record=True, file=open("/dev/null", "w"), force_terminal=True)  # noqa: SIM115
    console.print(watch.view(watch.summary(metrics, records), records, 100))
    console.file.close()
    text = console.export_text()
    for words in ("6 of 10 steps", "[bold]a", "3.9000", "█▇▅▄▂▁", "2.5000", "val bpb", "0:08 left"):
        assert words in text


def test_a_sparkline_keeps_to_its_width() -> None:
    assert watch.sparkline([], 10) == ""
    assert watch.sparkline([1.0, 1.0], 10) == "▁▁"
    assert len(watch.sparkline([float(i) for i in range(1000)], 40)) == 40
