"""Runs as users start them: ranks, kills, signals, wrong flags."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY, command, environment, losses, records, run, run_here
from shards_factory import random_rows, write_build

from prep.files import Lock
from train.config import Config, parse_args
from train.distributed import Ranks, start_ranks
from train.metrics import Metrics, peak_flops
from train.setup import set_up


def test_a_run_says_its_plan_and_writes_a_line_and_an_object_a_step(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY, "--eval-every", 4)
    out = capsys.readouterr().out
    assert "43 rows x 16, 128 tokens per step: 6 steps\n" in out
    assert "step 00000/00006 (0.00%) | loss: 4.094345 | lrm: 1.00 | dt: " in out  # ln 60: nothing is known yet
    assert f"--mode sft --base {tmp_path}" in out
    found = records(tmp_path)
    assert [record["step"] for record in found] == list(range(6))
    assert found[0].keys() >= {"num_steps", "loss", "lrm", "dt", "tokens_per_second", "mfu", "num_targets"}
    assert [record["tokens_per_second"] * record["dt"] for record in found] == pytest.approx([128] * 6)
    assert [record["step"] for record in found if "val_bpb" in record] == [3, 5]
    assert [record["step"] for record in found if "val_bpb_before" in record] == [0]
    assert found[5]["val_bpb"] < found[0]["val_bpb_before"]
    assert set(found[5]["val_bpb_by_source"]) == {"alpha", "beta", "gamma"}
    assert found[5]["loss"] < found[0]["loss"]


def test_mid_and_sft_train_the_same_rows_with_other_targets(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, *TINY, "--num-iterations", 4]
    run_here(*flags, "--out", tmp_path)
    run_here(*flags, "--out", tmp_path, "--mode", "sft", "--base", tmp_path)
    mid, sft = records(tmp_path), records(tmp_path, "chatsft_checkpoints")
    assert all(0 < b["num_targets"] < a["num_targets"] for a, b in zip(mid, sft, strict=True))
    assert sft[0]["lrm"] == 0.02


def test_a_killed_run_resumes_to_the_bit(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, *TINY, "--num-epochs", 2.5, "--save-every", 2]
    run_here(*flags, "--out", tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    root = tmp_path / "killed" / "mid_checkpoints" / "d1"
    for path in root.glob("*_00001[0-9]*"):  # as if killed after step 9: the log is ahead of the checkpoint
        path.unlink()
    (root / "metrics.jsonl").write_text("".join((root / "metrics.jsonl").read_text().splitlines(True)[:10]) + '{"ste')
    run_here(*flags, "--out", tmp_path / "killed")
    assert [r["step"] for r in records(tmp_path / "killed")] == list(range(14))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    a, b = (
        torch.load(tmp_path / x / "mid_checkpoints/d1/model_000014.pt", weights_only=True) for x in ("whole", "killed")
    )
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_two_ranks_train_the_rows_and_losses_of_one(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, *TINY, "--num-iterations", 12, "--eval-every", 6]
    run_here(*flags, "--out", tmp_path / "one", "--device-batch-size", 8)
    two = run(*flags, "--out", tmp_path / "two", "--device-batch-size", 2, ranks=2)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("per step: 12 steps") == 1  # said once
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    for key in ("rows_sha256", "num_targets"):
        assert [r[key] for r in records(tmp_path / "two")] == [r[key] for r in records(tmp_path / "one")]
    for a, b in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        assert a["loss_by_source"] == pytest.approx(b["loss_by_source"], abs=1e-5)
        assert a.get("val_bpb") == pytest.approx(b.get("val_bpb"), abs=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_stop_signal_writes_a_checkpoint_and_says_how_to_go_on(
    build: Path, tmp_path: Path, number: signal.Signals
) -> None:
    flags = ["--shards", build, *TINY, "--num-iterations", 100_000, "--out", tmp_path]
    with subprocess.Popen(
        command(*flags),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # it may be ignored here, as under nohup
    ) as process:
        assert process.stdout is not None
        while "step 00003" not in process.stdout.readline():
            pass
        process.send_signal(number)
        process.send_signal(number)  # as where Slurm sends it to torchrun too, which hands it on
        out = process.stdout.read()
    assert process.returncode == 0
    (path,) = tmp_path.glob("mid_checkpoints/d1/meta_*.json")
    step = json.loads(path.read_text())["step"]
    assert [record["step"] for record in records(tmp_path)] == list(range(step))
    assert f"to continue at step {step}, run the same command" in out


def test_a_signal_that_is_ignored_stays_so_but_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    from train.stops import STOPS, StopRequest

    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        for run_id, ignored in ((None, True), ("job", False)):
            for number in STOPS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
            monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
            if run_id:
                monkeypatch.setenv("TORCHELASTIC_RUN_ID", run_id)
            requested = StopRequest()
            signal.raise_signal(signal.SIGHUP)
            assert bool(requested) is not ignored
            signal.raise_signal(signal.SIGUSR2)
            assert requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_finished_run_is_not_trained_again_and_another_one_is_not_overwritten(
    build: Path, tmp_path: Path, error_of: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--shards", build, *TINY, "--out", tmp_path]
    run_here(*flags)
    capsys.readouterr()
    run_here(*flags)
    assert "step 00000" not in capsys.readouterr().out
    error = error_of(*flags, "--matrix-lr", 0.01)
    assert (
        "holds a run with matrix_lr 0.02, this one has 0.01: give another --out or --model-tag, or --resume never"
        in error
    )
    run_here(*flags, "--num-iterations", 3, "--resume", "never")
    assert [path.name for path in tmp_path.glob("mid_checkpoints/d1/model_*")] == ["model_000003.pt"]
    error = error_of(*flags, "--base", tmp_path, "--mode", "sft", "--depth", 2)
    assert "--depth 2, but --base" in error
    assert "has 1 layers" in error
    error = error_of(*flags, "--base", tmp_path / "mid_checkpoints", "--resume", "never")
    assert "is where this run would write its own checkpoints" in error
    assert (tmp_path / "mid_checkpoints/d1/model_000003.pt").exists()


def test_weights_that_are_not_finite_are_not_saved(
    build: Path, tmp_path: Path, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.optimizer import Muon

    @torch.no_grad()
    def step(self: Muon) -> None:
        self.param_groups[0]["params"][0][0, 0] = float("inf")

    monkeypatch.setattr(Muon, "step", step)
    error = error_of("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 1)
    assert "the update of step 0 left weights that are not finite" in error
    assert not list(tmp_path.rglob("model_*"))


def test_a_loss_that_is_not_finite_stops_with_step_rows_and_sources(
    build: Path, tmp_path: Path, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.loss import BatchLoss

    plain, calls = BatchLoss.forward, []

    def forward(self: BatchLoss, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        total, per_target = plain(self, *args)
        return total, per_target * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(BatchLoss, "forward", forward)
    error = error_of("--shards", build, "--out", tmp_path, *TINY, "--save-every", 2)
    assert error.startswith("error: loss is nan at step 3 (rows 24, 25, 26, 27, 28, 29, 30, 31 of train; sources alpha")
    assert error.endswith(f"last checkpoint: step 2 in {tmp_path}/mid_checkpoints/d1")


def test_errors_are_one_line_and_say_what_to_do(build: Path, tmp_path: Path, error_of: Callable[..., str]) -> None:
    flags = ["--shards", build, "--out", tmp_path / "out", "--device", "cpu"]
    assert "is not a multiple of rows of 16 tokens: give 96 or 112" in error_of(*flags, "--total-batch-size", 100)
    assert "give --total-batch-size 96 or 192" in error_of(*flags, "--total-batch-size", 160, "--device-batch-size", 6)
    assert "has no split 'test', it has: train, val" in error_of(*flags, "--split", "test")
    assert "`midprep build` makes one" in error_of("--shards", tmp_path, "--device", "cpu")
    if not torch.cuda.is_available():
        assert "no CUDA device was found" in error_of("--shards", build, "--device", "cuda")


def test_verify_finds_a_changed_byte(build: Path, tmp_path: Path, error_of: Callable[..., str]) -> None:
    shards = tmp_path / "s"
    shutil.copytree(build, shards)
    path = next(shards.glob("train-*.tokens.npy"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    error = error_of("--shards", shards, "--verify", "--out", tmp_path / "out")
    assert "content differs from the manifest (sha256)" in error


def test_wrong_usage_ends_with_2(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        ([], "--shards"),
        (["--shards", build, "--mode", "x"], "choose from 'mid', 'sft'"),
        (["--shards", build, "--num-epochs", "0"], "--num-epochs is 0.0, it has to be more than 0"),
        (["--shards", build, "--num-epochs", "inf"], "--num-epochs is inf, it has to be more than 0"),
        (["--shards", build, "--embedding-lr", "nan"], "--embedding-lr is nan, it has to be 0 or more"),
        (["--shards", build, "--warmdown-ratio", "2"], "--warmdown-ratio is 2.0"),
        (["--shards", build, "--base-step", "3"], "--base-step, --base-optimizer and --inherit have no effect"),
    ):
        with pytest.raises(SystemExit) as stop:
            run_here(*flags)
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_a_dry_run_promises_the_numbers_of_the_run(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--mode", "sft", "--num-epochs", 1.5]
    run_here(*flags, "--dry-run")
    said = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    run_here(*flags)
    targets = [record["num_targets"] for record in records(tmp_path, "chatsft_checkpoints")]
    said = {line[:20].rstrip(): line[20:] for line in said.splitlines()}
    assert said["steps"] == f"{len(targets)} steps"
    assert said["targets"] == f"{sum(targets):,} targets"
    assert said["per step, least"] == f"{min(targets)} targets"
    assert said["per step, most"] == f"{max(targets)} targets"
    assert said["per step, mean"] == f"{sum(targets) / len(targets):,.0f} targets"
    lrms = [record["lrm"] for record in records(tmp_path, "chatsft_checkpoints")]
    assert lrms[0] == 0.02
    assert said["warm-down"] == f"from step {next(step for step, lrm in enumerate(lrms) if lrm < 0.02)}"
    assert said["lr multiplier"] == f"0.02, in the last step {lrms[-1]:.4g}"


def test_a_dry_run_shows_what_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from shards_factory import Doc

    rows = [[Doc([0, 5, 6, 7], [0, 0, 1, 1]), Doc([0, 8], [0, 1])]]
    shards = write_build(tmp_path / "s", {"train": rows}, max_seq_len=8, num_shards=1)
    run_here("--shards", shards, "--mode", "sft", "--dry-run", "--device", "cpu", "--out", tmp_path / "o")
    assert "row 0, targets in [[ ]]:\n<|bos|>t5[[t6t7]]<|bos|>[[t8]]<|bos|>" in capsys.readouterr().out


def test_bfloat16_and_isolated_documents_train(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, *TINY, "--num-iterations", 8]
    run_here(*flags, "--out", tmp_path / "plain")
    run_here(*flags, "--out", tmp_path / "bf16", "--dtype", "bfloat16")
    run_here(*flags, "--out", tmp_path / "isolated", "--attention", "isolated")
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "plain"), abs=0.1)
    isolated, plain = records(tmp_path / "isolated"), records(tmp_path / "plain")
    assert all(a["num_targets"] < b["num_targets"] for a, b in zip(isolated, plain, strict=True))
    assert isolated[-1]["loss"] < isolated[0]["loss"]


@pytest.mark.slow
def test_nothing_is_compiled_again_after_the_first_step(tmp_path: Path) -> None:
    rows = random_rows(0, 64, 64)
    shards = write_build(tmp_path / "s", {"train": rows, "val": rows[:7]}, max_seq_len=64)
    flags = ["--shards", shards, *TINY, "--total-batch-size", 512, "--mode", "sft", "--compile", "--out", tmp_path]
    before = dict(os.environ)
    os.environ["TORCH_LOGS"] = "recompiles"
    try:
        done = run(*flags)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert done.returncode == 0, done.stderr
    assert "Recompiling function" not in done.stderr
    run_here(*flags[:-1], tmp_path / "eager", "--no-compile")
    compiled = losses(tmp_path, "chatsft_checkpoints")
    assert compiled == pytest.approx(losses(tmp_path / "eager", "chatsft_checkpoints"), abs=1e-5)


@pytest.mark.slow
def test_two_threads_compiled_train_the_same_twice(tmp_path: Path) -> None:
    rows = random_rows(0, 64, 256)
    shards = write_build(tmp_path / "s", {"train": rows, "val": rows[:7]}, max_seq_len=256)
    flags = ["--shards", shards, *TINY, "--depth", 2, "--total-batch-size", 2048, "--compile", "--num-iterations", 12]
    for name in ("one", "other"):
        env = environment() | {"OMP_NUM_THREADS": "2"}
        done = subprocess.run(
            command(*flags, "--out", tmp_path / name), env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "one") == losses(tmp_path / "other")


@pytest.mark.slow
def test_two_agents_of_two_ranks_train_as_one_rank(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, *TINY, "--num-iterations", 6]
    run_here(*flags, "--out", tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = []
    for node in (0, 1):
        launch = command(*flags, "--out", tmp_path / "four", ranks=2)
        launch[3:4] = [
            "--nnodes",
            "2",
            "--node-rank",
            str(node),
            "--master-addr",
            "127.0.0.1",
            "--master-port",
            str(port),
        ]
        agents.append(subprocess.Popen(launch, env=environment(), stdout=subprocess.DEVNULL))
    assert [agent.wait(timeout=120) for agent in agents] == [0, 0]
    assert losses(tmp_path / "four") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


@pytest.mark.slow
def test_a_rank_that_is_killed_comes_back_from_the_last_checkpoint(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, *TINY, "--num-iterations", 400, "--save-every", 20]
    run_here(*flags, "--out", tmp_path / "whole")
    launch = command(*flags, "--out", tmp_path / "killed", ranks=2)
    launch[4:4] = ["--max-restarts", "1"]
    with subprocess.Popen(
        launch, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as agent:
        assert agent.stdout is not None
        while "step 00050/" not in agent.stdout.readline():
            pass
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        out = agent.stdout.read()
    assert agent.returncode == 0
    assert "resuming" in out
    whole, killed = records(tmp_path / "whole"), records(tmp_path / "killed")
    assert [r["rows_sha256"] for r in whole] == [r["rows_sha256"] for r in killed]
    assert [r["loss"] for r in whole[:100]] == pytest.approx([r["loss"] for r in killed[:100]], abs=1e-4)


@pytest.mark.slow
def test_an_error_of_several_ranks_is_shown_once(tmp_path: Path) -> None:
    failed = run("--shards", tmp_path / "nope", ranks=2)
    assert failed.returncode == 1
    assert failed.stderr.count("manifest.json not found") == 1


def run_two_ranks(script: str, flags: list[Any]) -> subprocess.CompletedProcess[str]:
    """Two ranks that each go through a line of bash, in which "$@" is the trainer's command"""
    launch = [*command(ranks=2)[:-1], "--no-python", "bash", "-c", script, "bash", *command(*flags)]
    return subprocess.run(launch, env=environment(), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_rank_that_fails_ends_one_that_waits_and_hears_no_signal(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(
        "import time\n"
        "from train.distributed import start_ranks\n"
        "from train.stops import StopRequest\n"
        'with start_ranks("cpu") as ranks:\n'
        "    StopRequest()\n"
        '    if ranks.rank == 1: raise ValueError("row 7 is bad")\n'
        "    time.sleep(500)\n"
    )
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    started = time.monotonic()
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert done.stderr.count("error: row 7 is bad") == 1
    assert time.monotonic() - started < 25  # torchrun kills after 30


def test_ranks_with_other_flags_are_refused_before_the_first_step(build: Path, tmp_path: Path) -> None:
    script = f'exec "$@" --shards {build} --eval-tokens 3$RANK'
    failed = run_two_ranks(script, [*TINY, "--out", tmp_path / "out"])
    assert failed.returncode == 1
    assert failed.stderr.count("error: rank 1 has other flags than rank 0") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ranks_that_see_other_shards_are_refused_before_the_first_step(build: Path, tmp_path: Path) -> None:
    rows = random_rows(5, 43, 16)
    other = write_build(tmp_path / "other", {"train": rows, "val": rows}, max_seq_len=16)
    link = tmp_path / "link"
    script = f'cd {tmp_path}; ln -s $([ $RANK = 0 ] && echo {build} || echo {other}) r$RANK; exec "$@" --shards r$RANK'
    failed = run_two_ranks(script, [*TINY, "--out", tmp_path / "out"])
    assert failed.returncode == 1
    assert failed.stderr.count("error: rank 1 has other") == 1
    assert not (tmp_path / "out").exists()
    assert not link.exists()


@pytest.mark.slow
def test_thirty_steps_on_2_ranks_are_10_on_1_killed_10_on_4_stopped_and_10_on_2(tmp_path: Path) -> None:
    shards = write_build(
        tmp_path / "s", {"train": random_rows(0, 101, 16), "val": random_rows(1, 9, 16)}, max_seq_len=16
    )
    flags = ["--shards", shards, "--depth", 2, "--total-batch-size", 128, "--eval-every", 0, "--num-epochs", 2.37]
    flags += ["--device", "cpu", "--save-every", 5]
    whole = run(*flags, "--out", tmp_path / "whole", ranks=2)
    assert whole.returncode == 0, whole.stderr
    assert len(losses(tmp_path / "whole")) == 30
    out = [*flags, "--out", tmp_path / "parts"]
    stop_at(out, 1, 10, signal.SIGKILL)
    stop_at([*out, "--device-batch-size", 2], 4, 20, signal.SIGTERM)
    last = run(*out, "--device-batch-size", 1, ranks=2)
    assert last.returncode == 0, last.stderr
    a, b = records(tmp_path / "whole"), records(tmp_path / "parts")
    assert [r["rows_sha256"] for r in a] == [r["rows_sha256"] for r in b]
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in b], abs=1e-5)


def stop_at(flags: list[Any], ranks: int, step: int, number: signal.Signals) -> None:
    """Send a signal to every rank once a step is printed; they, not torchrun, decide how the run ends."""
    with subprocess.Popen(
        command(*flags, ranks=ranks), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        while f"step {step:05d}/" not in process.stdout.readline():
            pass
        if ranks == 1:
            process.send_signal(number)
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[-1]), number)  # one of them: the others must stop at the same step
        process.stdout.read()
    assert process.returncode == (0 if number == signal.SIGTERM else -number)


@pytest.mark.parametrize("logger", ["wandb", "trackio"])
def test_a_named_run_is_sent_to_the_logger(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger: str
) -> None:
    sent: list[Any] = []
    module = ModuleType(logger)
    module.init = lambda **about: sent.append(about) or module  # type: ignore[attr-defined]
    module.log = lambda record, step: sent.append((step, record))  # type: ignore[attr-defined]
    module.finish = lambda: sent.append("finished")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, logger, module)
    flags = ["--shards", build, *TINY, "--num-iterations", 3, "--out", tmp_path]
    run_here(*flags)
    assert sent == []  # a run without a name stays here
    run_here(*flags, "--resume", "never", "--logger", logger, "--run", "first")
    assert (sent[0]["project"], sent[0]["name"], sent[0]["config"]["num_iterations"]) == ("midprep", "first", 3)
    assert sent[1:] == [*enumerate(records(tmp_path)), "finished"]


@pytest.mark.parametrize("fails", ["log", "finish"])
def test_a_logger_that_fails_is_said_once_and_the_run_goes_on(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("the service\nis away")

    module = ModuleType("wandb")
    functions = {"init": lambda **about: module, "log": lambda record, step: None, "finish": lambda: None} | {
        fails: fail
    }
    for name, function in functions.items():
        setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "wandb", module)
    run_here("--shards", build, *TINY, "--out", tmp_path, "--run", "first")
    printed = capsys.readouterr()
    assert printed.err.count("the logger failed (the service is away): nothing more is sent to it") == 1
    assert "mid run finished" in printed.out
    assert len(records(tmp_path)) == 6


def test_a_logger_that_is_not_installed_is_named(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Callable[..., str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    line = error_of("--shards", build, *TINY, "--out", tmp_path, "--run", "first")
    assert line.startswith("error: --run first (wandb): import of wandb halted")
    assert line.endswith(": install it, or log in")
    module = ModuleType("wandb")
    module.init = lambda **about: {}["No API key\nconfigured"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    line = error_of("--shards", build, *TINY, "--out", tmp_path, "--run", "first")
    assert line.startswith("error: --run first (wandb): 'No API key")


def test_a_run_that_is_being_trained_is_left_alone(build: Path, tmp_path: Path, error_of: Callable[..., str]) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2]
    run_here(*flags)
    before = records(tmp_path)
    with Lock(tmp_path / "mid_checkpoints/d1/.lock", "", ""):
        assert "another process trains in" in error_of(*flags, "--resume", "never")
    assert records(tmp_path) == before
    run_here(*flags, "--resume", "never")  # the lock goes with the run that held it


def test_what_is_replaced_goes_when_all_else_is_ready(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Callable[..., str]
) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2]
    run_here(*flags)
    before = records(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "wandb" in error_of(*flags, "--resume", "never", "--run", "mine")
    assert records(tmp_path) == before
    assert (tmp_path / "mid_checkpoints/d1/model_000002.pt").is_file()


def test_what_torchrun_restarts_is_not_to_be_replaced_each_time(
    build: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(SystemExit) as ended:
        parse_args(["--shards", str(build), "--resume", "never"])
    assert ended.value.code == 2
    assert "--resume never would replace the run at each of torchrun's --max-restarts" in capsys.readouterr().err


def test_a_logger_without_a_name_is_not_ignored(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_args(["--shards", str(build), "--logger", "trackio"])
    assert ended.value.code == 2
    assert "--logger has no effect without a named run" in capsys.readouterr().err


def test_a_base_is_known_by_its_checkpoint_and_not_by_its_path(
    build: Path, tmp_path: Path, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mid = ["--shards", build, "--out", tmp_path, *TINY]
    sft = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 1, "--mode", "sft", "--base"]
    run_here(*mid, "--num-iterations", 2)
    run_here(*sft, tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    run_here(*sft, f"{tmp_path.name}/mid_checkpoints/")  # the same, written in another way: nothing is left to train
    run_here(*mid, "--num-iterations", 2, "--seed", 7, "--resume", "never")
    assert "holds a run with base step 2, " in error_of(*sft, tmp_path)


def test_a_broken_line_of_the_metrics_is_named(build: Path, tmp_path: Path, error_of: Callable[..., str]) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 3]
    run_here(*flags)
    path = tmp_path / "mid_checkpoints/d1/metrics.jsonl"
    whole = path.read_bytes()
    for line in (b'{"step": 2, "num\n', b'{"note": 3}\n', b"3\n"):
        path.write_bytes(whole + line)
        assert f"{path}, line 4 is not a record of a step" in error_of(*flags)
        assert path.read_bytes() == whole + line


def test_a_checkpoint_tells_what_was_measured_of_it_alone(build: Path, tmp_path: Path) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2, "--save-every", 1, "--eval-every", 2)
    metas = [json.loads((tmp_path / f"mid_checkpoints/d1/meta_{step:06d}.json").read_text()) for step in (1, 2)]
    assert metas[0]["val_bpb"] is None  # of that checkpoint nothing was measured
    assert metas[1]["val_bpb"] == records(tmp_path)[-1]["val_bpb"]


def test_tokens_of_the_summary_are_those_of_rows_that_there_are(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY)  # 43 rows, 8 a step: the last step has 3
    assert f"{'tokens':<12}{43 * 16:,}" in capsys.readouterr().out


def test_a_run_is_replaced_though_its_metrics_are_broken(build: Path, tmp_path: Path) -> None:
    flags = ["--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2]
    run_here(*flags)
    path = tmp_path / "mid_checkpoints/d1/metrics.jsonl"
    path.write_bytes(b"x" + path.read_bytes())
    (path.parent / ".model.pt.tmp").touch()
    run_here(*flags, "--resume", "never")
    assert [record["step"] for record in records(tmp_path)] == [0, 1]
    assert not (path.parent / ".model.pt.tmp").exists()


@pytest.mark.parametrize(
    "flags",
    ["--attention isolated", "--seed 7", "--mode sft", "--depth 2", "--num-iterations 3", "--total-batch-size 64"],
)
def test_another_run_does_not_go_on_with_the_checkpoints_of_one(build: Path, tmp_path: Path, flags: str) -> None:
    ranks = Ranks(0, 1, torch.device("cpu"))
    base = "--total-batch-size 128 --depth 1 --num-iterations 2"

    def identity(words: str) -> dict[str, Any]:
        config = parse_args(["--shards", str(build), "--out", str(tmp_path), "--device", "cpu", *words.split()])
        return set_up(config, ranks).run_config

    ours, theirs = identity(base), identity(f"{base} {flags}")
    assert ours == identity(base)
    assert ours != theirs
    assert {"shards", "depth", "rows_per_step", "num_steps", "base"} <= set(ours)


def test_a_dry_run_shows_no_filler_rows(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_here("--shards", build, *TINY, "--num-epochs", 0.1, "--dry-run")
    said = capsys.readouterr().out
    assert re.search(r"^steps +1 steps$", said, re.MULTILINE)
    assert re.search(r"^filler rows +3 rows$", said, re.MULTILINE)
    assert "row 4," in said
    assert "row -1" not in said


def test_the_state_of_the_bases_optimizer_is_taken_where_it_is_asked_for(build: Path, tmp_path: Path) -> None:
    run_here("--shards", build, "--out", tmp_path, *TINY, "--num-iterations", 2)
    sft = ["--shards", build, *TINY, "--num-iterations", 2, "--mode", "sft", "--base", tmp_path, "--init-lr-frac", 1]
    for name, more in (("with", ["--base-optimizer"]), ("without", [])):
        run_here(*sft, "--out", tmp_path / name, *more)
    found, plain = (losses(tmp_path / name, "chatsft_checkpoints") for name in ("with", "without"))
    assert found[0] == plain[0]
    assert found[1] != plain[1]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40", 181e12), ("NVIDIA L4", 121e12), ("NVIDIA RTX A1000", 0.0), ("AMD Instinct MI300X", 1.3e15), ("cpu", 0.0),
    ],
)  # fmt: skip
def test_a_device_is_known_by_its_whole_name(name: str, wanted: float) -> None:
    assert peak_flops(name) == wanted


def test_a_progress_line_fits_the_terminal_and_a_resumed_run_counts_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"step": 0, "num_steps": 2, "loss": 1.0, "lrm": 1.0, "dt": 30.0, "tokens_per_second": 1e6, "mfu": 0.0}
    Metrics(tmp_path / "metrics.jsonl", True).write(record)
    again = Metrics(tmp_path / "metrics.jsonl", True)
    again.keep(1, print)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: SimpleNamespace(columns=60))
    capsys.readouterr()
    again.write(record | {"step": 1})
    assert again.total_seconds == 60.0
    assert 40 < len(capsys.readouterr().out.rstrip("\n")) <= 60


def test_flags_of_nanochat_and_zero_mean_what_they_say() -> None:
    assert parse_args(["--shards", "s", "--num-iterations", "-1"]).num_iterations is None
    assert Config(mode="sft", init_lr_frac=0.0).lr_frac == 0.0
    assert (Config().save_every, Config().eval_every, Config().warmdown_ratio, Config().seed) == (500, 150, 0.2, 42)


@pytest.mark.parametrize(("local_ranks", "shown"), [("0", 1), ("1", 0)])
def test_more_ranks_than_gpus_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local_ranks: str, shown: int
) -> None:
    monkeypatch.setenv("LOCAL_RANK", local_ranks)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with pytest.raises(SystemExit), start_ranks("cuda"):
        pass
    wanted = "error: 2 ranks and 1 GPUs on a machine: give --nproc-per-node 1\n"
    assert capsys.readouterr().err == wanted * shown
