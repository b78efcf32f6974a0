"""`make gpu-bench`, on the CPU at tiny size: every part measures, and what it found stands in its file and in the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, environment

from bench import gpu_bench, gpu_steps
from bench.gpu_bench import BEGIN, END, QUESTIONS, measure, write_results, write_tables
from bench.gpu_place import CPU, SIZES, Place
from bench.gpu_steps import Steps, fitting

QUICK = ("loss", "data", "save")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(CPU, SIZES["tiny"], tmp_path / "place")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in QUESTIONS]
)
def test_every_part_measures_and_its_figures_are_in_the_table(name: str, place: Place, tmp_path: Path) -> None:
    found = measure(place, name)
    assert found["command"] == f"python bench/gpu_bench.py --only {name}"
    (run,) = found["runs"]
    assert f"torch {torch.__version__}" in run["machine"]
    assert all(0 <= each["value"] < 1e9 for each in run["results"])
    path = write_results(tmp_path / "results", name, found)
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_tables(page, path.parent)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    for word in (found["command"], run["day"], run["machine"], f"(results/{path.name})"):
        assert word in text
    for each in run["results"]:
        assert f"| {each['what']} | {each['value']:,} | {each['unit']} |" in text
    write_tables(page, path.parent)
    assert page.read_text() == text


def test_the_page_has_its_place_for_the_tables_and_no_figure_of_a_cpu(tmp_path: Path) -> None:
    page = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert 0 < page.index(BEGIN) < page.index(END)
    for path in (ROOT / "bench" / "results").glob("gpu-*.json"):
        machines = [run["machine"] for run in json.loads(path.read_text())["runs"]]
        assert all("driver" in machine for machine in machines)
    (tmp_path / "README.md").write_text("no comments")
    with pytest.raises(ValueError, match="put them where the tables should stand"):
        write_tables(tmp_path / "README.md", tmp_path)


@pytest.mark.parametrize("flags", [["--device", "cpu"], ["--size", "tiny"]])
def test_figures_that_are_not_of_a_gpu_are_written_elsewhere_only(flags: list[str]) -> None:
    command = [sys.executable, str(ROOT / "bench" / "gpu_bench.py"), *flags]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: figures of a CPU or of a tiny size are not those of a GPU: give --out DIR for them\n"


def test_the_plain_step_trains_as_ours_does(place: Place) -> None:
    """What is compared does the same work: the gradients of both"""
    for mode in ("mid", "sft"):
        found = []
        for name in ("ours", "plain"):
            steps = Steps(place, 2, mode, 2)
            steps.model.set_dtype(torch.float32)
            with torch.no_grad():
                steps.model.lm_head.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
            steps.update = lambda: None  # type: ignore[method-assign]
            getattr(steps, name)()
            found.append([weight.grad for weight in steps.model.parameters()])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_a_batch_that_does_not_fit_is_made_smaller(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(steps: Steps) -> None:
        if len(steps.inputs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(Steps, "plain", step)
    assert fitting(place, 1, "mid", 2) is None
    assert gpu_steps.largest_steps(place, 1, "mid")[1] == 1
    monkeypatch.setattr(Steps, "plain", lambda steps: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        fitting(place, 1, "mid", 2)


def test_figures_have_three_digits() -> None:
    assert [gpu_bench.rounded(value) for value in (0.12345, 61.96, 999.6, 123456.7)] == [0.123, 62.0, 1000.0, 123457]
