"""Runs under torchrun that are told to stop: by it, or by its death."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import TINY, command, environment, records

from train import stops


def test_a_rank_whose_torchrun_is_gone_stops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stops.signal, "signal", lambda *arguments: None)
    monkeypatch.setenv("LOCAL_RANK", "0")
    for run_id, parent, is_gone in (
        ("job", os.getppid(), False),
        ("job", os.getppid() + 1, True),
        (None, os.getppid() + 1, False),  # alone, as under nohup: the parent may leave
    ):
        monkeypatch.setattr(stops, "PARENT", parent)
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        if run_id:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", run_id)
        requested = stops.StopRequest()
        assert [bool(requested), bool(requested)] == [is_gone, is_gone]
        said = "torchrun is gone: stopping after this step, with a checkpoint\n"
        assert capsys.readouterr().err == said * is_gone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "options", "agent_dies"),
    [
        (signal.SIGTERM, [], False),
        (signal.SIGHUP, [], False),  # handed on in spite of nohup
        (signal.SIGUSR1, [], True),
        (signal.SIGUSR2, [], True),
        (signal.SIGKILL, [], True),
        (signal.SIGUSR1, ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGUSR1"], False),
    ],
)
def test_what_torchrun_is_sent_ends_a_run_with_a_checkpoint(
    build: Path, tmp_path: Path, number: signal.Signals, options: list[str], agent_dies: bool
) -> None:
    launch = command("--shards", build, *TINY, "--num-iterations", 100_000, "--out", tmp_path, ranks=2)
    launch[4:4] = options

    def as_nohup() -> None:
        for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with subprocess.Popen(
        launch, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=as_nohup
    ) as agent:
        assert agent.stdout is not None
        while "step 00003/" not in agent.stdout.readline():
            pass
        agent.send_signal(number)
        said = agent.stdout.read()  # until the last rank has ended
    assert agent.returncode == (-number if agent_dies else 1)
    (path,) = tmp_path.glob("mid_checkpoints/d1/meta_*.json")
    step = json.loads(path.read_text())["step"]
    assert f"to continue at step {step}, run the same command" in said
    assert [record["step"] for record in records(tmp_path)] == list(range(step))
    assert said.count("torchrun is gone: stopping after this step, with a checkpoint") == agent_dies
