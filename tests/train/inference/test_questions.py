"""evaluate: what counts as right, what as a format error, the same answers in any batch, and what is asked was held out."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prep.build.api import Example, read_conversations
from prep.cli.model import ROWS_AT_ONCE
from prep.render.reference import make_prompt, render_conversation
from prep.tasks import facts
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer
from tests.cli.test_screen import run
from tests.conftest import build_mixture, toy_tokenizer, write_lines
from tests.train.conftest import environment, run_here
from tests.train.inference.speakers import KNOWN, question, random_model
from train.distributed import Ranks
from train.evaluate import evaluate_shards
from train.inference.generate import Reader
from train.inference.scores import interval, summarise, table
from train.inference.speaker import Speaker, open_speaker
from train.inference.tasks import (
    HOW,
    Answer,
    Question,
    ask,
    grade,
    likeliest_letters,
    number_of,
    question_of,
    read_questions,
)
from train.model import GPT

TOY = toy_tokenizer()
ALONE = Ranks(0, 1, torch.device("cpu"))
COUNTED = [
    {"type": "text", "text": "b:0\na:1\n"}, {"type": "python", "text": "'ba'.count('a')"},
    {"type": "python_output", "text": "1"}, {"type": "text", "text": "\n\n#### 1"},
]  # fmt: skip


def read(content: Any, ended: bool = True) -> Reader:
    """An answer as a reader has it after its last token"""
    messages = [*question("?"), {"role": "assistant", "content": content}]
    prompt = make_prompt(messages, TOY)
    reader = Reader(prompt, TOY)
    for id_ in render_conversation(messages, TOY)[0][len(prompt.ids) : None if ended else -1]:
        reader.read(id_)
    reader.finish()
    return reader


def asked(how: str, expected: str, has_count: bool = False) -> Question:
    return Question("task", how, question("?"), expected, has_count)


@pytest.mark.parametrize(
    ("said", "right"),
    [("apple:a,p", True), ("apple:a,p ", False), ("Apple:a,p", False), ("", False), ("apple:a,p,p", False)],
)
def test_spelling_is_right_to_the_character(said: str, right: bool) -> None:
    assert grade(asked("exact", "apple:a,p"), read(said), None).right is right


def test_a_spelling_that_does_not_end_is_not_right() -> None:
    answer = grade(asked("exact", "apple:a,p"), read("apple:a,p", ended=False), None)
    assert (answer.right, answer.errors) == (False, ("not ended",))


@pytest.mark.parametrize(
    ("text", "number"),
    [("#### 3", 3), ("x\n#### 1,250\n", 1250), ("#### -0.50", -0.5), ("####.5", 0.5), ("#### 3.0", 3)]
    + [(text, None) for text in ("3", "#### three", "#### 3 apples", "#### ", "### 3", "#### 3\n#### x", "#### 1e5")],
)  # fmt: skip
def test_what_number_an_answer_ends_with(text: str, number: float | None) -> None:
    assert number_of(text) == number


def test_a_count_is_right_by_its_last_line_and_beside_it_by_what_was_written_before_the_call() -> None:
    wrong_count = [{**COUNTED[0], "text": "b:0\na:0\n"}, *COUNTED[1:]]
    nothing_written = COUNTED[1:]
    graded = [
        grade(asked("####", "#### 1", True), read(content), None)
        for content in (COUNTED, wrong_count, nothing_written, "a:1\n#### 2")
    ]
    assert [(answer.right, answer.written) for answer in graded] == [
        (True, True), (True, False), (True, False), (False, True),
    ]  # fmt: skip


def test_a_letter_is_right_by_the_logits_and_beside_it_as_said() -> None:
    graded = [grade(asked("letter", "B"), read(said), letter) for said, letter in [("B", "B"), ("A", "B"), ("B", "A")]]
    assert [(answer.right, answer.said) for answer in graded] == [(True, True), (True, False), (False, True)]


def test_letters_are_the_likeliest_of_four_after_each_prompt_alone() -> None:
    speaker = Speaker(Path("x"), 1, random_model(), TOY)
    prompts = [make_prompt(question(text), TOY) for text in ("a", "What is it?", "b")]
    alone = []
    for prompt in prompts:
        logits = speaker.model(torch.tensor([prompt.ids]))[0, -1, [ord(letter) for letter in "ABCD"]]
        alone.append("ABCD"[int(logits.argmax())])
    assert likeliest_letters(speaker, prompts) == alone


# ---- asking ----


def test_answers_are_the_same_for_any_batch_size(parrot: GPT, toy: Tokenizer) -> None:
    speaker = Speaker(Path("x"), 7, parrot, toy)
    texts = [asked for asked, _ in KNOWN] + ["Hello", "What is 2+2?", "x" * 140, "3", "Bell"]
    questions = [Question(text, "####", question(text), "#### 5", False) for text in texts]

    def by_text(batch_size: int) -> dict[str, Answer]:
        return {answer.question.task: answer for answer in ask(speaker, questions, 40, batch_size)}

    answers = by_text(1)
    assert answers.keys() == set(texts)
    assert answers == by_text(3) == by_text(16)
    assert answers["2+3?"].right
    assert [
        answer.said for answer in ask(speaker, [Question("quiz", "letter", question("x" * 140), "A", False)], 9, 9)
    ] == [False]
    assert answers["x" * 140].errors == ("too long",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_are_the_same_for_any_number_of_ranks(dtype: torch.dtype) -> None:
    model = random_model()
    model.set_dtype(dtype)
    speaker = Speaker(Path("x"), 1, model, TOY)
    texts = ["a" * number for number in (0, 3, 7, 9, 20, 31, 40, 61)] + ["x" * 99, "y" * 99, "z" * 99]
    questions = [Question(text, "####", question(text), "#### 5", False) for text in texts]

    def by_text(world_size: int) -> dict[str, Answer]:
        answers = [each for rank in range(world_size) for each in ask(speaker, questions, 30, 2, rank, world_size)]
        assert len(answers) == len(texts)
        return {answer.question.task: answer for answer in answers}

    assert by_text(1) == by_text(2) == by_text(3) == by_text(7)


def test_questions_are_those_of_val() -> None:
    questions, others = read_questions("sample", 60, None)
    assert Counter(q.task for q in questions) == {"spelling_bee": 60, "arithmetic": 60}
    assert others == []
    questions, others = read_questions("learn-sft", 5, None)
    assert Counter((q.task, q.how) for q in questions) == {
        ("simple_spelling", "exact"): 5, ("spelling_bee", "####"): 5, ("arithmetic", "####"): 5, ("facts", "exact"): 5,
    }  # fmt: skip
    assert others == []


@pytest.mark.parametrize("mixtures", [("sample",), ("learn", "learn-sft")])
def test_no_word_problem_or_phrasing_that_is_asked_was_trained(mixtures: tuple[str, ...]) -> None:
    trained = {key for name in mixtures for example in read_conversations(name, "train") for key in keys_of(example)}
    for name in mixtures:
        held_out = [(key, example) for example in read_conversations(name, "val") for key in keys_of(example)]
        assert {example.source for _, example in held_out} == {q.task for q in read_questions(name, 1, None)[0]}
        assert [example.messages for key, example in held_out if key in trained] == []


def keys_of(example: Example) -> Iterator[tuple[str, str]]:
    """What an example of val must not have in common with one of train, whatever task that is of"""
    messages = example.messages
    if example.source == "simple_spelling":
        yield "word", messages[-1]["content"].partition(":")[0]
    elif example.source == "spelling_bee":
        yield "word", str(messages[1]["content"][1]["text"]).split("'")[1]
    elif example.source == "arithmetic":  # the way to the answer has the numbers without the names of people
        yield "problem", "".join(part["text"] for part in messages[-1]["content"])
    for message in messages:
        if message["role"] == "user":
            yield "question", plain(message["content"])


def plain(text: str) -> str:
    """A question without what facts put around it, its case, and its final mark"""
    data = facts.load()
    opener = max((opener for opener in data["openers"] if text.startswith(opener)), key=len)
    closer = max((closer for closer in data["closers"] if text.endswith(closer)), key=len)
    return text.removeprefix(opener).removesuffix(closer).lower().rstrip("?.!").strip()


def test_a_question_is_the_same_whatever_stands_around_it() -> None:
    assert plain("Hey, a question: what is your name Thanks.") == plain("What is your name?") == "what is your name"
    train, test = ({plain(text) for text in facts.phrasings(split)[0].to_pylist()} for split in ("train", "test"))
    assert len(train) + len(test) == len({q for fact in facts.load()["fact"] for q in map(plain, fact["questions"])})
    assert not train & test


def is_bee(source: str) -> bool:
    return source == "spelling_bee"


def test_a_right_answer_of_each_generated_task_is_graded_as_right() -> None:
    for example in list(read_conversations("learn", "val"))[::7]:
        asked_about = question_of(example, HOW[example.source], is_bee(example.source))
        graded = grade(asked_about, read(example.messages[-1]["content"]), None)
        assert (graded.right, graded.errors) == (True, ())
        assert graded.written is (True if is_bee(example.source) else None)


OWN = """
name = "m"
[[train]]
task = "arithmetic"
size = 9
[[val]]
task = "chat"
path = "capitals.jsonl"
answer = "exact"
[[val]]
task = "chat"
name = "quiz"
path = "quiz.jsonl"
answer = "%s"
"""


def test_questions_of_your_own_are_asked_where_their_entry_says_how(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(OWN % "letter")
    capitals = [[*question("Capital of Norway?"), {"role": "assistant", "content": "Oslo."}], question("And?")]
    write_lines(tmp_path / "capitals.jsonl", [{"messages": messages} for messages in capitals])
    write_lines(tmp_path / "quiz.jsonl", [{"messages": [*question("A or B?"), {"role": "assistant", "content": "B"}]}])
    questions, others = read_questions(str(tmp_path / "m.toml"), 9, None)
    assert [(q.task, q.how, q.expected) for q in questions] == [("chat", "exact", "Oslo."), ("quiz", "letter", "B")]
    assert others == []
    (tmp_path / "m.toml").write_text(OWN % "####")
    with pytest.raises(
        ValueError, match="quiz, row 0: answer = \"####\", but its answer is 'B', wanted a number after"
    ):
        read_questions(str(tmp_path / "m.toml"), 9, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("%s", "number"), "answer = 'number' found, wanted exact or #### or letter."),
        (
            ("size = 9", 'size = 9\nanswer = "exact"'),
            "train entry 1: answer found, wanted in [[val]], which evaluate asks.",
        ),
    ],
)
def test_an_answer_that_no_entry_can_have_is_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "m.toml").write_text(OWN.replace(*change))
    with pytest.raises(ValueError) as error:
        read_questions(str(tmp_path / "m.toml"), 9, None)
    assert message in str(error.value)


# ---- counting ----


@given(num=st.integers(1, 500), share=st.floats(0, 1))
def test_an_interval_holds_its_share(num: int, share: float) -> None:
    num_right = round(share * num)
    low, high = interval(num_right, num)
    assert 0 <= low <= num_right / num + 1e-9
    assert num_right / num - 1e-9 <= high <= 1


def test_a_summary_has_the_mean_over_chance() -> None:
    answers = [Answer(asked("letter", "A"), [], right, (), said=False) for right in (True, True, False, False)]
    other = Question("sums", "####", [], "#### 1", False)
    answers += [Answer(other, [], right, errors) for right, errors in ((True, ()), (False, ("not ended",)))]
    summary = summarise(answers)
    assert summary["chat_core"] == pytest.approx(((0.5 - 0.25) / 0.75 + 0.5) / 2)
    assert summary["tasks"]["sums"]["format_errors"]["not ended"] == 1
    assert table({"a": summary, "b": summary})[0][0] == "sums (2)"
    assert ["  letter said", "0.0%", "0.0%"] in table({"a": summary, "b": summary})


def test_bits_per_byte_are_those_of_the_trainer(tmp_path: Path, toy: Tokenizer) -> None:
    mixture = {
        "train": [{"task": "arithmetic", "size": 40}],
        "val": [{"task": "arithmetic", "size": 30}, {"task": "simple_spelling", "size": 60}],
    }
    root, _, _ = build_mixture(tmp_path, mixture, toy, max_seq_len=128)
    flags = ["--shards", root, "--out", tmp_path / "run", "--depth", 1, "--total-batch-size", 1024, "--device", "cpu"]
    run_here(*flags, "--num-iterations", 2, "--eval-tokens", 2560, "--no-compile")
    (metrics,) = (tmp_path / "run").glob("mid_checkpoints/d1/metrics.jsonl")
    record = json.loads(metrics.read_text().splitlines()[-1])
    speaker = open_speaker(str(tmp_path / "run"), None, None, "cpu", print)
    bits = evaluate_shards(speaker.model, speaker.open_shards(root), 2560, 3, ALONE)
    assert bits["rows"] == 20
    assert bits["all"] == pytest.approx(record["val_bpb"], rel=1e-6)
    assert bits["by_source"] == pytest.approx(record["val_bpb_by_source"], rel=1e-6)
    other = Speaker(Path("x"), 1, speaker.model, load_tokenizer())
    with pytest.raises(ValueError, match="have tokenizer toy, x another: give shards that were built"):
        other.open_shards(root)


# ---- the command ----


def test_checkpoints_are_shown_side_by_side_and_as_json(
    run_of_parrot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "none"))
    other = tmp_path / "other"
    shutil.copytree(run_of_parrot, other)
    mixture = ['name = "m"', "[[train]]", 'task = "arithmetic"', "size = 9"]
    mixture += ["[[val]]", 'task = "simple_spelling"', "size = 3", "[[val]]", 'task = "chat"', 'path = "chat.jsonl"']
    (tmp_path / "m.toml").write_text("\n".join(mixture))
    write_lines(tmp_path / "chat.jsonl", [{"messages": [*question("Hi"), {"role": "assistant", "content": "Ho"}]}] * 3)
    flags = ["--mixture", tmp_path / "m.toml", "--device", "cpu", "--max-tokens", 5]
    written = run("evaluate", run_of_parrot, other, *flags, terminal=False)
    assert "chat has no answer that can be graded: not asked" in written
    assert written.count("3 of 3 questions") == 2
    assert re.search(r"simple_spelling \(3\) +0\.0% \(0\.0 to 56\.2\) +0\.0% \(0\.0 to 56\.2\)", written)
    as_json = run("evaluate", other, *flags, "--json", terminal=False)
    value = json.loads(as_json[as_json.index("{") if as_json.startswith("{") else 0 : as_json.rindex("}\n") + 1])
    (summary,) = value["checkpoints"].values()
    assert summary["tasks"]["simple_spelling"]["questions"] == 3


slow = partial(pytest.param, marks=pytest.mark.slow)


def on_two_ranks(*words: object) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "prep"]
    command = [*launch, "evaluate", *map(str, words)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)


def test_two_ranks_print_once_what_one_prints(run_of_parrot: Path, tmp_path: Path, toy: Tokenizer) -> None:
    mixture = {"train": [{"task": "arithmetic", "size": 9}], "val": [{"task": "simple_spelling", "size": 60}]}
    root, _, _ = build_mixture(tmp_path, mixture, toy, max_seq_len=128)
    flags = ["--device", "cpu", "--max-tokens", 8, "--questions", 21, "--batch-size", 4, "--shards", root, "--json"]
    done = on_two_ranks(run_of_parrot, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("42 of 42 questions") == done.stderr.count("could not be checked") == 1
    alone = run("evaluate", run_of_parrot, *flags, terminal=False)
    (two,), (one,) = (
        json.loads(text)["checkpoints"].values() for text in (done.stdout, alone[: alone.rindex("}") + 1])
    )
    bits = [summary.pop("bits_per_byte") for summary in (two, one)]
    assert two == one
    assert bits[0]["all"] == pytest.approx(bits[1]["all"], rel=1e-12)
    assert bits[0]["rows"] == bits[1]["rows"] > ROWS_AT_ONCE


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["nowhere"], "error: no checkpoint (model_*.pt with its meta_*.json) in "),
        slow(["nowhere", "--device", "gpu"], "error: --device 'gpu' found, wanted auto, cpu, cuda."),
        slow(["nowhere", "--questions", 0], "midprep: Invalid value for '--questions': "),
    ],
)
def test_an_error_of_two_ranks_is_one_line(flags: list[object], line: str) -> None:
    done = on_two_ranks(*flags)
    assert done.returncode != 0
    assert done.stderr.count(line) == 1, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "has no [[val]]: evaluate asks what is held out, give one that has"),
        ('[[val]]\ntask = "identity"\npath = "midprep:identity.jsonl"\n', "has nothing to ask in [[val]]"),
    ],
)
def test_a_mixture_with_nothing_to_ask_is_one_line(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "m.toml").write_text('name = "m"\n[[train]]\ntask = "arithmetic"\nsize = 9\n' + lines)
    written = run("evaluate", tmp_path, "--mixture", tmp_path / "m.toml", terminal=False)
    assert message in written.splitlines()[-1]
    assert written.splitlines()[-1].startswith("midprep: ")
