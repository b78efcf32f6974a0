"""Data is shown and never obeyed: names and texts that drive a terminal, through every command, on one and elsewhere."""

import io
import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prep import __main__
from prep.cli.main import app
from prep.screen import as_json, guarded_streams
from prep.text import is_hidden
from tests.conftest import toy_tokenizer, write_lines

EVIL = "x\x1b[31mKEY\x1b]0;PWNED\x07\x08\x9b2J\u202e\u2066\x7f\u2028\u200e"
OUR_CODES = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-ln-z]|\x1b\[(?!31mKEY)[0-9;]*m"
)  # colours and moves of rich, that text aside
BESIDE = ("\n", "\t", "\r")

Commands = dict[str, list[list[object]]]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, a mixture and a build, all with names that drive a terminal"""
    folder = tmp_path_factory.mktemp("screen")
    talk = [{"role": "user", "content": f"Say {EVIL}"}, {"role": "assistant", "content": EVIL}]
    rows: list[Any] = [{"messages": talk, EVIL: EVIL} for _ in range(40)]
    write_lines(folder / f"{EVIL}.jsonl", [*rows, {"messages": [{"role": EVIL, "content": EVIL}]}])
    write_lines(folder / "bad.jsonl", [{EVIL: EVIL}] * 3)
    mixture = ['name = "m"']
    for split in ("train", "val"):
        mixture += [f"[[{split}]]", 'task = "chat"', f"name = {quoted(EVIL)}", f"path = {quoted(EVIL + '.jsonl')}"]
    (folder / "m.toml").write_text("\n".join(mixture), encoding="utf-8")
    asked = "\n".join([*mixture, 'answer = "exact"', "stop = 4"])
    (folder / "ask.toml").write_text(asked, encoding="utf-8")
    (folder / "wrong.toml").write_text(f"[[train]]\ntask = {quoted(EVIL)}\n", encoding="utf-8")
    (folder / "toy").mkdir()
    toy_tokenizer().write(folder / "toy")
    save_random_model(folder / "model", folder / "toy")
    return folder


def save_random_model(root: Path, tokenizer: Path) -> None:
    """A checkpoint whose answers are random bytes"""
    from train.checkpoint import save_checkpoint
    from train.model import GPT
    from train.sizes import ModelConfig

    model = GPT(ModelConfig(512, 265, 1, 1, 1, 64))
    model.init_weights(0)  # all logits are 0
    save_checkpoint(root, 1, model, (), {"user_config": {"shards": str(tokenizer)}})


def quoted(text: str) -> str:
    return json.dumps(text).replace("\\u007f", "\\u007F")


def run(*arguments: object, terminal: bool, main: Callable[[], Any] = __main__.main) -> str:
    """What a command writes to stdout and stderr, which are a terminal or not"""
    streams = [Terminal() if terminal else io.StringIO() for _ in range(2)]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["midprep", *map(str, arguments)])
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        try:
            main()
        except SystemExit:
            pass
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return "".join(stream.getvalue() for stream in streams)


def check(written: str, terminal: bool) -> None:
    """No character of the data drives the terminal"""
    rest = OUR_CODES.sub("", written) if terminal else written
    obeyed = {char for char in rest if is_hidden(char) and char not in BESIDE}
    assert not obeyed, written[max(0, rest.index(min(obeyed)) - 200) :][:600]
    assert "\x1b[31mKEY" not in written


def commands(folder: Path) -> Commands:
    """Of every command: the lines that print what others wrote, and those of its errors"""
    out, none = folder / EVIL, folder / f"no {EVIL}"
    build = ["build", "--mixture", folder / "m.toml", "--tokenizer", folder / "toy", "--cache-dir", folder / "cache"]
    build += ["--max-seq-len", 256, "--workers", 1]
    run_folder = folder / "run" / EVIL
    return {
        "build": [
            [*build, "-o", out, "--max-rejected", 0],
            [*build, "-o", out, "--dry-run", "-v"],
            [*build, "-o", out, "-v"],
            [*build, "-o", out, "--seed", 3],
            [*build, "-o", out, "--max-seq-len", 128],
            ["build", "--mixture", folder / "wrong.toml"],
            ["build", "--mixture", none],
            [*build, "-o", out, "--json", "--dry-run"],
        ],
        "stats": [["stats", out], ["stats", out, "--lengths"], ["stats", out, out], ["stats", out, "--build"],
                  ["stats", out, "--json"], ["stats", none]],
        "verify": [["verify", out], ["verify", none], ["verify", out, "--json"]],
        "show": [["show", out, "--row", 0], ["show", out, "--step", 0], ["show", out, "--source", EVIL],
                 ["show", out, "--source", "zz"], ["show", out, "--random", 2, "--origin"],
                 ["show", out, "--plain", "--row", 0], ["show", out, "--row", 0, "--json"]],
        "plan": [["plan", out], ["plan", none], ["plan", out, "--json"]],
        "report": [["report", out, "-o", folder / f"{EVIL}.html"], ["report", none]],
        "overlap": [["overlap", out], ["overlap", out, "--json"], ["overlap", none]],
        "watch": [["watch", run_folder], ["watch", none]],
        "try": [["try", folder / f"{EVIL}.jsonl", "-n", 50], ["try", folder / "bad.jsonl"], ["try", none],
                ["try", folder / EVIL]],
        "chat": [["chat", folder / "model", "--device", "cpu", "--prompt", EVIL, "--top-k", 0, "--max-tokens", 300],
                 ["chat", folder / "model", "--device", "cpu", "--prompt", EVIL, "--top-k", 0, "--json"],
                 ["chat", none], ["chat", none, "--prompt", "x"]],
        "evaluate": [["evaluate", folder / "model", "--device", "cpu", "--mixture", folder / "ask.toml", "--max-tokens", 9],
                     ["evaluate", folder / "model", "--mixture", folder / "m.toml"], ["evaluate", none, EVIL]],
        "tasks": [["tasks"]],
        "doctor": [["doctor"]],
        "selftest": [["selftest", EVIL]],
        "mixtures": [["mixtures"], ["mixtures", "show", EVIL]],
        "tokenizer": [["tokenizer", "info", none], ["tokenizer", "info", folder / "toy"], ["tokenizer", "train", none],
                      ["tokenizer", "export", folder / EVIL]],
    }  # fmt: skip


def test_every_command_is_tried() -> None:
    known = {info.name or info.callback.__name__ for info in app.registered_commands if info.callback}
    known |= {str(group.name) for group in app.registered_groups}
    assert known == set(commands(Path()))


@pytest.mark.parametrize("terminal", [False, True])
def test_no_command_lets_data_drive_the_terminal(
    folder: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    shown = ""
    for lines in commands(folder).values():
        for line in lines:
            written = run(*line, terminal=terminal)
            assert written.strip(), line
            assert "Traceback" not in written, written
            check(written, terminal)
            shown += written
    assert shown.count("PWNED") > 20  # it was shown
    assert not [char for char in (folder / EVIL / "rejected.jsonl").read_text(encoding="utf-8") if is_hidden(char)]


def test_what_is_no_text_is_shown_by_its_number() -> None:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with guarded_streams():
            print("a\ud800b", b"\xff".decode("utf-8", "surrogateescape"))
    assert stream.getvalue() == "a\\ud800b \\udcff\n"
    assert json.loads(as_json({EVIL: "\ud800é\U000e0001"})) == {EVIL: "\ud800é\U000e0001"}
    assert as_json("é\U000e0001") == '"é\\udb40\\udc01"'


@pytest.mark.parametrize("terminal", [False, True])
def test_the_trainer_does_not_either(tmp_path: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.train import shards_factory
    from train.mid import main

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(shards_factory, "SOURCES", (EVIL, "beta", "gamma"))
    rows = shards_factory.random_rows(0, 40, 32)
    root = shards_factory.write_build(tmp_path / EVIL, {"train": rows, "val": rows[:8]}, 32, tokenizer=EVIL)
    flags = f"--depth 1 --device cpu --no-compile --total-batch-size 128 --device-batch-size 4 --out {tmp_path / 'run'}"
    written = ""
    for more in (
        ["--dry-run"],
        ["--num-iterations", "2"],
        ["--num-iterations", "2"],
        ["--base", EVIL],
        ["--mode", EVIL],
    ):
        written += run(terminal=terminal, main=lambda more=more: main(["--shards", str(root), *flags.split(), *more]))
    check(written, terminal)
    assert written.count("PWNED") > 4
    assert "step 00001/00002" in written
