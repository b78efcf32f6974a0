"""make learn and its experiments: held-out questions, cells that differ in one thing, what few runs tell, what is written."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from bench.learn_experiments import Plan, plan_curves, plan_mask, plan_packing
from bench.learn_gradients import distance, gradients_of_rows, new_model, write_uneven
from bench.learn_jobs import Job, run_jobs
from bench.learn_score import ASKED
from bench.learn_statistics import Cells, t_quantile
from prep.build.job import build as build_shards
from prep.build.job import make_job
from prep.build.options import BuildOptions
from prep.mixture.mixture import load_mixture
from prep.shard import open_shards
from prep.tasks import arithmetic, facts
from prep.tasks.words import is_test_word
from prep.tokenizer.load import load_tokenizer
from train.loader import make_batch
from train.loss import BatchLoss


def test_the_questions_of_make_learn_are_held_out() -> None:
    chat, knowledge, maths, spelling = ((question, answer) for _, question, answer, _ in ASKED)
    held_out = zip(*(column.to_pylist() for column in facts.phrasings("test")), strict=True)
    assert {chat, knowledge} <= set(held_out)
    assert is_test_word(pa.array([spelling[0].split()[-1]], pa.large_string())).all()
    problem = next(problem for problem in arithmetic.problems()[0] if problem.question == "What is {a} + {b}?")
    a, b = map(int, re.findall(r"\d+", maths[0]))
    assert a in arithmetic.first_values(problem.question, problem.draws["a"], "test")
    assert maths[1] == f"#### {a + b}"


# ---- cells ----


def flags_of(plan: Plan, name: str) -> dict[str, str]:
    [command] = [job.command for job in plan.jobs if job.name == name]
    return {flag: value for flag, value in zip(command, [*command[1:], ""], strict=True) if flag.startswith("--")}


def test_a_cell_of_the_mask_differs_in_the_mode_of_its_stages_alone(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 10)
    contrasts = plan_mask(plan, [42, 43], 28_000)
    modes = {
        (mid, sft): [flags_of(plan, name)["--mode"] for name in (f"mask-{mid}-42", f"mask-{mid}-{sft}-42")]
        for mid in ("all", "mask")
        for sft in ("all", "mask")
    }
    assert modes == {
        ("all", "all"): ["mid", "mid"],
        ("all", "mask"): ["mid", "sft"],
        ("mask", "all"): ["sft", "mid"],
        ("mask", "mask"): ["sft", "sft"],
    }
    assert flags_of(plan, "mask-all-42") | {"--mode": "", "--out": ""} == (
        flags_of(plan, "mask-mask-42") | {"--mode": "", "--out": ""}
    )
    for (mid, sft), (mode, _) in modes.items():  # sft begins where mid has saved, whatever its mode
        run, flags = tmp_path / f"runs/mask-{mid}-42", flags_of(plan, f"mask-{mid}-{sft}-42")
        assert flags["--base"] == str(run / {"mid": "mid_checkpoints", "sft": "chatsft_checkpoints"}[mode])
    assert {len(files) for files in plan.scores.values()} == {2}
    assert all(set(weights) == set(plan.scores) and sum(weights.values()) == 0 for weights in contrasts.values())


def test_a_cell_of_packing_differs_in_the_build_alone(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 10)
    plan_packing(plan, [42], 28_000)
    assert [flags_of(plan, f"build-mid-{name}-42")["--packing"] for name in plan.scores] == [
        "ordered",
        "bfd",
        "wrapped",
    ]
    runs = [flags_of(plan, f"packing-{name}-42") | {"--out": "", "--shards": ""} for name in plan.scores]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0]["--attention"] == "causal"


def test_each_point_of_a_curve_is_a_run_from_the_base(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 10)
    plan_curves(plan, 42)
    runs = [job for job in plan.jobs if "--base" in job.command]
    assert [flags_of(plan, job.name).get("--num-iterations") for job in runs] == ["125", "250", "500", "1000", "1800"]
    assert {flags_of(plan, job.name)["--base"] for job in runs} == {str(tmp_path / "runs/base")}


# ---- denominators ----


def test_the_mean_of_means_is_the_gradient_where_micro_batches_have_as_many_targets() -> None:
    grads = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 0.0], [7.0, 2.0]])
    assert distance(grads, np.array([10, 30, 20, 20]), 1) > 0.01
    assert distance(grads, np.array([10, 30, 20, 20]), 2) == pytest.approx(0)  # 40 targets each
    assert distance(grads, np.array([1, 300, 1, 300]), 4) == pytest.approx(0)  # the whole step


@pytest.fixture
def build(tmp_path: Path) -> Path:
    options = BuildOptions(max_seq_len=64, cache_dir=tmp_path / "cache", workers=1, quiet=True)
    build_shards(make_job(load_mixture(write_uneven(tmp_path)), load_tokenizer(), options), tmp_path / "shards")
    return tmp_path / "shards"


def test_rows_of_a_step_give_the_gradient_of_the_step(build: Path) -> None:
    split = open_shards(build).split("train")
    model = new_model(split.manifest["vocab_size"])
    net, rows = BatchLoss(model, False), np.arange(2)
    grads, counts = gradients_of_rows(net, split, rows)
    batch = make_batch(split, rows, "sft", True)
    net.zero_grad(set_to_none=True)
    net(batch.inputs, batch.positions, batch.labels, batch.docs)[0].backward()
    whole = torch.cat([weight.grad.flatten() for weight in net.parameters() if weight.grad is not None])
    assert counts.sum() == (batch.labels >= 0).sum()
    assert torch.allclose(grads.sum(dim=0), whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


# ---- statistics ----


def test_intervals_hold_what_is_true_19_times_in_20_and_the_least_difference_is_found_4_times_in_5() -> None:
    rng = np.random.default_rng(0)
    covered = found = 0
    least = (t_quantile(0.975, 8) + t_quantile(0.8, 8)) * np.sqrt(2 / 3)  # of a deviation of 1
    for _ in range(2_000):
        drawn = rng.normal(size=(4, 3)) + np.array([[least], [0], [0], [0]])
        cells = Cells({name: values.tolist() for name, values in zip("abcd", drawn, strict=True)})
        difference = cells.difference({"a": 1.0, "b": -1.0})
        covered += abs(difference.value - least) < difference.margin
        found += difference.is_seen
    assert 0.935 < covered / 2_000 < 0.965
    assert 0.76 < found / 2_000 < 0.84


def test_the_pooled_deviation_is_that_within_the_cells() -> None:
    cells = Cells({"a": [1.0, 3.0], "b": [101.0, 103.0]})
    assert cells.deviation == pytest.approx(2**0.5)
    assert cells.difference({"b": 1.0, "a": -1.0}).value == 100


# ---- jobs ----


def writing(path: Path, word: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", f"open({str(path)!r}, 'a').write({word!r})")


def test_jobs_run_after_what_they_need_and_once(tmp_path: Path) -> None:
    path = tmp_path / "words"
    jobs = [Job("last", writing(path, "c"), ("middle",)), Job("middle", writing(path, "b"), ("first",))]
    jobs.append(Job("first", writing(path, "a")))
    run_jobs(jobs, tmp_path, 2)
    run_jobs(jobs, tmp_path, 2)
    assert path.read_text() == "abc"
    run_jobs([*jobs[1:], Job("last", writing(path, "d"), ("middle",))], tmp_path, 2)  # another command
    assert path.read_text() == "abcd"


def test_a_job_that_fails_is_named_with_what_it_said_and_runs_again(tmp_path: Path) -> None:
    failing = Job("failing", (sys.executable, "-S", "-c", "import sys; sys.exit('no disk')"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"failing ended with 1, .*failing\.txt(?s:.*)no disk"):
            run_jobs([failing], tmp_path, 1)


def test_a_run_that_was_stopped_before_its_last_step_is_not_done(tmp_path: Path) -> None:
    job = Job("run", (sys.executable, "-S", "-c", ""), run=tmp_path / "run")
    (tmp_path / "run").mkdir()
    record = {"step": 3, "num_steps": 5, "loss": 1.0, "dt": 1.0, "tokens_per_second": 1.0, "lrm": 1.0}
    (tmp_path / "run/metrics.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(RuntimeError, match="run was stopped: the same command goes on"):
        run_jobs([job], tmp_path, 1)
    (tmp_path / "run/metrics.jsonl").write_text(json.dumps(record | {"step": 4}) + "\n")
    run_jobs([job], tmp_path, 1)
