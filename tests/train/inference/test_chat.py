"""chat: the history is what was said, an interrupted answer stays, nothing said drives the terminal, errors are one line."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prep.render.reference import Prompt, render_conversation
from prep.tokenizer.tokenizer import Tokenizer
from tests.cli.test_screen import Terminal, run
from tests.train.inference.speakers import KNOWN, question
from train.inference.chat import Chat, Screen, answer_once, talk
from train.inference.generate import Sampling, Token
from train.inference.speaker import Speaker
from train.model import GPT

STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def chat(parrot: GPT, toy: Tokenizer) -> Chat:
    return Chat(Speaker(Path("runs/parrot"), 7, parrot, toy), Sampling(), 60)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return screen_on(Terminal(), monkeypatch)


def screen_on(stream: Terminal, monkeypatch: pytest.MonkeyPatch, **env: str) -> Screen:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm-256color", **env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream)
    return Screen()


def shown_on(screen: Screen) -> str:
    stream: Any = screen.console.file
    return str(stream.getvalue())


def lines(*typed: str | type[BaseException]) -> Callable[[str], str]:
    """What is typed at the prompt, line by line; then the end of the input"""
    left: Iterator[str | type[BaseException]] = iter(typed)

    def read(prompt: str) -> str:
        line = next(left, EOFError)
        if not isinstance(line, str):
            raise line
        return line

    return read


# ---- the history ----


def test_answers_are_in_the_history_as_their_parts(chat: Chat) -> None:
    chat.clear("Be brief.")
    chat.clear()
    for asked, answer in KNOWN[:2]:
        chat.clear()
        assert "".join(text for _, text in chat.ask(asked))
        parts = answer if isinstance(answer, list) else [{"type": "text", "text": answer}]
        assert chat.messages == [*question(asked), {"role": "assistant", "content": parts}]
        assert chat.reader is not None
        assert (chat.reader.ended, chat.reader.problems) == (True, [])
    assert chat.result()["answer"] == "That is 5.\n#### 5"
    assert chat.result()["parts"] == KNOWN[1][1]


def test_the_next_prompt_holds_the_conversation_so_far(
    chat: Chat, toy: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[list[int]] = []

    def say_nothing(self: Speaker, asked: Sequence[Prompt], *others: Any) -> Iterator[Token]:
        prompts.append(asked[0].ids)
        yield from ()

    chat.clear("Short.")
    list(chat.ask("Hi"))
    monkeypatch.setattr(Speaker, "answer", say_nothing)
    list(chat.ask("2+3?"))
    before = [{"role": "system", "content": "Short."}, *question("Hi"), chat.messages[2], *question("2+3?")]
    assert chat.messages == [*before, {"role": "assistant", "content": []}]
    assert prompts == [render_conversation(before, toy, for_completion=True)[0]]


def test_an_answer_that_is_interrupted_stays_as_far_as_it_came(chat: Chat) -> None:
    with closing(chat.ask("Hi")) as pieces:
        assert [next(pieces)[1] for _ in range(3)] == ["H", "e", "l"]
    assert chat.messages[-1] == {"role": "assistant", "content": [{"type": "text", "text": "Hel"}]}
    assert chat.reader is not None
    assert not chat.reader.ended


# ---- the terminal ----


def test_a_talk_shows_answers_obeys_commands_and_ends_with_the_input(chat: Chat, screen: Screen) -> None:
    typed = ["Hi", "", "/system Be brief.", "/clear", "/nonsense", "Hi", "?" * 200, "/system", "Hi"]
    talk(chat, screen, lines(*typed))
    said = STYLE.sub("", shown_on(screen)).splitlines()
    assert said[0].startswith("(runs/parrot, step 7; /clear forgets")
    assert said[1] == "Hello! ☺"
    assert said[2] == "(a new conversation, with the system message 'Be brief.')"
    assert said[3] == "(cleared; the system message stays, /system without a text removes it)"
    assert said[4].startswith("(/nonsense is no command: /clear forgets")
    assert "(the question has 215 tokens, the model's context of 128 has room for 96" in "\n".join(said)
    assert said[-3:] == ["(a new conversation, without one)", "Hello! ☺", ""]
    assert len(chat.messages) == 2


@pytest.mark.parametrize("end", ["/quit", KeyboardInterrupt, EOFError])
def test_a_talk_ends_in_three_ways(chat: Chat, screen: Screen, end: Any) -> None:
    talk(chat, screen, lines("Hi", end, "2+3?"))
    assert len(chat.messages) == 2


def test_ctrl_c_ends_an_answer_and_not_the_talk(chat: Chat, screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    show, left = screen.show, [3]

    def show_some(kind: str, text: str) -> None:
        if left[0] == 0:
            left[0] = -1
            raise KeyboardInterrupt
        left[0] -= 1
        show(kind, text)

    monkeypatch.setattr(screen, "show", show_some)
    talk(chat, screen, lines("Hi", "/clear", "2+3?"))
    said = STYLE.sub("", shown_on(screen))
    assert "Hel\n(interrupted)\n(cleared)\n" in said
    assert "That is 2+3 = 55.\n#### 5\n" in said


def test_turns_that_are_left_out_are_told_once(chat: Chat, screen: Screen) -> None:
    talk(chat, screen, lines(*["Hi"] * 12))
    assert shown_on(screen).count("longer than the context of 128 tokens: oldest turns left out") == 1


def test_an_answer_at_its_limit_is_told(chat: Chat, screen: Screen) -> None:
    chat.max_tokens = 3
    talk(chat, screen, lines("Hi"))
    assert "Hel\n(the answer reached its limit: --max-tokens, or the model's context)" in STYLE.sub(
        "", shown_on(screen)
    )


def test_calls_are_coloured_and_without_colour_they_have_the_names_of_their_tokens(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured = screen_on(Terminal(), monkeypatch)
    answer_once(chat, "2+3?", coloured)
    assert "\x1b[36m2\x1b[0m\x1b[36m+\x1b[0m\x1b[36m3\x1b[0m\x1b[2m = \x1b[0m\x1b[32m5\x1b[0m" in shown_on(coloured)
    plain = screen_on(Terminal(), monkeypatch, NO_COLOR="1")
    chat.clear()
    answer_once(chat, "2+3?", plain)
    expected = "That is <|python_start|>2+3<|python_end|><|output_start|>5<|output_end|>5.\n#### 5\n"
    assert shown_on(plain) == expected


def test_no_text_is_taken_for_a_token_of_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = screen_on(Terminal(), monkeypatch, NO_COLOR="1")
    for kind, text in [
        ("text", "a <|b|> <"),
        ("text", "|c|>"),
        ("special", "<|bos|>"),
        ("python", "|<"),
        ("text", "|"),
    ]:
        plain.show(kind, text)
    plain.end()
    assert STYLE.sub("", shown_on(plain)) == "a <\\|b|> <\\|c|><|bos|><|python_start|>|<<|python_end|>|\n"


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_what_a_model_says_does_not_drive_the_terminal(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, no_colour: str
) -> None:
    screen = screen_on(Terminal(), monkeypatch, NO_COLOR=no_colour)
    answer_once(chat, "Bell?", screen)
    assert "\\x1b]0;owned\\x07<script>" in STYLE.sub("", shown_on(screen))
    assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]|\x1b(?!\[)", shown_on(screen))


# ---- the command ----


@pytest.fixture
def midprep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `midprep chat` writes, away from any nanochat"""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "none"))

    def chat(*arguments: object, terminal: bool = False) -> str:
        return run("chat", "--device", "cpu", *arguments, terminal=terminal)

    return chat


def test_one_answer_is_printed_as_text_or_as_json(run_of_parrot: Path, midprep: Callable[..., str]) -> None:
    greedy = ["--temperature", 0, "--max-tokens", 60]
    written = midprep(run_of_parrot, "--prompt", "2+3?", *greedy)
    assert written.endswith("That is <|python_start|>2+3<|python_end|><|output_start|>5<|output_end|>5.\n#### 5\n") or (
        "does not note its tokenizer, so it could not be checked: using toy" in written
    )
    answer = midprep(run_of_parrot, "--prompt", "2+3?", *greedy, "--json")
    value = json.loads(answer[: answer.rindex("}") + 1])
    assert value["parts"] == KNOWN[1][1]
    assert (value["ended"], value["step"]) == (True, 7)


def test_the_tokenizer_comes_from_its_option_the_shards_or_nanochat(
    run_of_parrot: Path, toy: Tokenizer, tmp_path: Path, midprep: Callable[..., str]
) -> None:
    from prep.tokenizer.nanochat import export_nanochat

    copy = tmp_path / "copy"
    shutil.copytree(run_of_parrot, copy)
    note(copy, user_config={"shards": str(tmp_path / "gone")})
    asked = ["--prompt", "Hi", "--temperature", "0"]
    assert "give --tokenizer NAME" in midprep(copy, *asked)
    assert "Hello! ☺" in midprep(copy, *asked, "--tokenizer", run_of_parrot.parent / "shards")
    export_nanochat(toy, tmp_path / "none" / "tokenizer")
    assert "Hello! ☺" in midprep(copy, *asked)
    export_nanochat(toy, copy / "tokenizer")
    assert f"using nanochat ({copy / 'tokenizer'}" in midprep(copy, *asked)
    note(copy, midprep={"identity": {}, "tokenizer_sha256": toy.sha256})
    assert midprep(copy, *asked) == "Hello! ☺\n"


def note(run: Path, **changes: Any) -> None:
    """Change what the meta of a run's checkpoint says"""
    path = run / "mid_checkpoints" / "d2" / "meta_000007.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, [], "chat needs a terminal, and this is none: give --prompt TEXT for one answer, or --web."),
        ({}, ["--prompt", "x", "--device", "tpu"], "--device 'tpu' found, wanted auto, cpu, cuda."),
        ({}, ["--prompt", "x", "--port", 1], "--port has no effect without --web"),
        ({}, ["--web", "--prompt", "x"], "--prompt has no effect with --web"),
        ({}, ["--json"], "--json has no effect without --prompt"),
        ({}, ["--prompt", "x", "--step", 8], "has no step 8, it has: 7"),
        ({}, ["--prompt", "x" * 200], "the question has 204 tokens, the model's context of 128 has room for 96"),
        ({}, ["--prompt", "x", "--tokenizer", "nano32k"], "has a vocabulary of 265, tokenizer nano32k"),
        ({"midprep": {"identity": {}, "tokenizer_sha256": "0" * 64}}, ["--prompt", "x"],
         "was trained with tokenizer 000000000000, toy"),
        ({"model_config": {}}, ["--prompt", "x"], "is not a meta with a model_config"),
        ({"user_config": None}, ["--prompt", "x"], "has no tokenizer in its meta, which names no shards"),
        (None, ["--prompt", "x"], "model_000007.pt"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(
    run_of_parrot: Path, tmp_path: Path, midprep: Callable[..., str], changes: Any, arguments: list[Any], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_of_parrot, copy)
    if changes is None:
        path = copy / "mid_checkpoints" / "d2" / "model_000007.pt"
        path.write_bytes(path.read_bytes()[:5000])
    else:
        note(copy, **changes)
    written = midprep(copy, *arguments)
    *notices, error = written.splitlines()
    assert all("does not note its tokenizer" in line for line in notices)
    assert error.startswith("midprep: ")
    assert message in error


def test_a_directory_without_a_checkpoint_is_one_line(tmp_path: Path, midprep: Callable[..., str]) -> None:
    for name in (tmp_path, "d77"):
        assert "midprep: no checkpoint (model_*.pt with its meta_*.json) in " in midprep(name, "--prompt", "x")
