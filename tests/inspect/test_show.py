"""show: what is printed is what is stored, back to the source row; data is shown and never obeyed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.cli.main import app
from prep.encode import decode
from prep.inspect import search
from prep.inspect.show import show_conversation, show_row, show_step
from prep.inspect.terminal import coloured, plain
from prep.mixture.mixture import parse_mixture
from prep.shard import Split, open_shards
from prep.shard.steps import FILLER, plan_steps, step_sums
from prep.text import visible
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer

EVIL = "a\x1b]0;owned\x07 [bold]b[/bold] :smile: \u202ec <|assistant_end|> d[[0]]\r"
SUM = {"role": "assistant", "content": [{"type": "text", "text": "It is "}, {"type": "python", "text": "2+2"},
       {"type": "python_output", "text": "4"}, {"type": "text", "text": "4."}]}  # fmt: skip
LINES = [
    [{"role": "user", "content": "2+2?"}, SUM],
    [{"role": "user", "content": EVIL}, {"role": "assistant", "content": "Größe: 🙂"}],
    [{"role": "user", "content": "long"}, {"role": "assistant", "content": "word " * 90}],
]
MIXTURE = {
    "seed": 42,
    "train": [
        {"task": "chat", "name": "mine", "path": "mine.jsonl"},
        {"task": "simple_spelling", "size": 300},
        {"task": "chat", "name": "again", "path": "mine.jsonl", "repeat": 2},
    ],
    "val": [{"task": "spelling_bee", "size": 20}],
}


def make_build(folder: Path, packing: str = "bfd", max_seq_len: int = 128) -> Path:
    (folder / "mine.jsonl").write_text("".join(json.dumps({"messages": line}) + "\n" for line in LINES))
    root = folder / packing
    options = BuildOptions(max_seq_len=max_seq_len, packing=packing, cache_dir=folder / "cache", workers=1, quiet=True)
    build(make_job(parse_mixture(MIXTURE, "test", folder, "tiny"), load_tokenizer(), options), root)
    return root


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("show"))


@pytest.fixture(scope="session")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("wrapped"), "wrapped", 32)


@pytest.fixture(scope="session")
def tokenizer(root: Path) -> Tokenizer:
    return load_tokenizer(root)


@pytest.fixture
def train(root: Path) -> Split:
    return open_shards(root).split("train")


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["show", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def of_line(split: Split, line: int, source: str = "mine") -> int:
    """The document of a line of mine.jsonl"""
    docs, number = split.docs, search.source_number(split, source)
    return int(np.flatnonzero((docs["source"] == number) & (docs["index"] == line))[0])


def test_a_conversation_is_cut_into_segments_where_the_mask_or_a_special_token_begins(
    train: Split, tokenizer: Tokenizer
) -> None:
    shown = show_conversation(train, tokenizer, of_line(train, 0))
    assert [(s["text"], s["special"], s["trained"]) for s in shown["segments"]] == [
        ("<|bos|>", True, False),
        ("<|user_start|>", True, False),
        ("2+2?", False, False),
        ("<|user_end|>", True, False),
        ("<|assistant_start|>", True, False),
        ("It is ", False, True),
        ("<|python_start|>", True, True),
        ("2+2", False, True),
        ("<|python_end|>", True, True),
        ("<|output_start|>", True, False),
        ("4", False, False),
        ("<|output_end|>", True, False),
        ("4.", False, True),
        ("<|assistant_end|>", True, True),
    ]
    assert (shown["source"], shown["index"], shown["repeat"]) == ("mine", 0, 0)
    assert shown["trained_share"] == round(shown["trainable"] / shown["length"], 4)


def test_a_row_shows_every_one_of_its_tokens(train: Split, tokenizer: Tokenizer) -> None:
    for row in range(train.num_rows):
        shown = show_row(train, tokenizer, row)
        filled = train.read_tokens(np.array([row]))[0, : shown["num_tokens"]]
        text = "".join(s["text"] for document in shown["documents"] for s in document["segments"])
        assert text == tokenizer.decode(filled)
        assert sum(document["length"] for document in shown["documents"]) + shown["num_padding"] == 129
        assert sum(document["trainable"] for document in shown["documents"]) == shown["num_trainable"]


def test_wrapped_rows_are_put_together_again_where_a_conversation_crosses_them(
    wrapped: Path, tokenizer: Tokenizer
) -> None:
    split = open_shards(wrapped).split("train")
    starts, lengths = search.conversations(split)
    assert len(starts) == split.entry["conversations"]
    assert lengths.sum() == split.entry["total_tokens"]
    for doc, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        shown = show_conversation(split, tokenizer, doc)
        texts = [segment["text"] for segment in shown["segments"]]
        assert shown["length"] == length
        assert (texts[0], texts[-1], texts.count("<|bos|>")) == ("<|bos|>", "<|assistant_end|>", 1)
    longest = show_conversation(split, tokenizer, search.select(split, None, "longest", 1, 0)[0])
    assert longest["segments"][-2]["text"] == "word " * 90
    assert longest["rows"] > 3


def test_any_document_of_a_conversation_leads_to_its_beginning(wrapped: Path) -> None:
    split = open_shards(wrapped).split("train")
    starts, _ = search.conversations(split)
    docs = np.arange(split.entry["docs"])
    assert [search.conversation_start(split, doc) for doc in docs] == starts[
        np.searchsorted(starts, docs, "right") - 1
    ].tolist()


@pytest.mark.parametrize("tokens_at_once", [1, 200, 1 << 20])
def test_a_search_finds_what_decoding_everything_finds(
    root: Path, wrapped: Path, tokenizer: Tokenizer, tokens_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "BLOCK_TOKENS", tokens_at_once)
    for build_root in (root, wrapped):
        split = open_shards(build_root).split("train")
        shown = [show_conversation(split, tokenizer, int(doc)) for doc in search.conversations(split)[0]]
        for text in ("e", "the ", "2+2", "Größe: 🙂", "word word", ".", "<|assistant_end|>", "nowhere"):
            wanted = [
                one["conversation"]
                for one in shown
                if any(text in s["text"] for s in one["segments"] if not s["special"])
            ]
            assert list(search.find(split, tokenizer, text, None)) == wanted
            mine = [doc for doc in wanted if split.docs["source"][doc] == 0]
            assert list(search.find(split, tokenizer, text, "mine")) == mine


def test_picks_are_of_the_source_and_the_same_for_a_seed(train: Split) -> None:
    chosen = search.select(train, "again", "random", 4, seed=0)
    assert chosen == search.select(train, "again", "random", 4, seed=0)
    assert len(set(chosen)) == 4
    assert set(train.docs["source"][chosen].tolist()) == {2}
    lengths = train.docs["length"][search.select(train, None, "longest", 5, 0)].tolist()
    assert lengths == sorted(train.docs["length"].tolist(), reverse=True)[:5]
    with pytest.raises(
        ValueError, match=r"has no source 'mien', it has: mine, simple_spelling, again. Did you mean 'mine'"
    ):
        search.select(train, "mien", "first", 1, 0)


def test_control_characters_are_shown_and_not_obeyed(root: Path, train: Split) -> None:
    text = "\\x1b]0;owned\\x07 [bold]b[/bold] :smile: \\u202ec"
    number = of_line(train, 1)
    for output in (run(root, "--conversation", number, "--plain"), run(root, "--conversation", number)):
        assert f"a{text} <\\|assistant_end|> d[\\[0\\]]\\x0d" in output
        assert "\x1b" not in output
        assert "\u202e" not in output
    shown = coloured([{"text": EVIL, "special": False, "trained": True}])
    assert shown.plain == "a" + text + " <|assistant_end|> d[[0]]\\x0d"
    assert visible("tab\tline\nname 👩\u200d🚀") == "tab\tline\nname 👩\u200d🚀"


def test_a_terminal_gets_colours_and_no_colour_means_brackets(
    root: Path, monkeypatch: pytest.MonkeyPatch, train: Split
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;32mIt is \x1b[0m" in run(root, "--conversation", of_line(train, 0))
    monkeypatch.setenv("NO_COLOR", "1")
    output = run(root, "--conversation", of_line(train, 0))
    assert "<|assistant_start|>[[It is <|python_start|>2+2<|python_end|>]]<|output_start|>4<|output_end|>[[4." in output
    assert "\x1b" not in output


def test_brackets_of_the_data_are_told_from_ours() -> None:
    for text, wanted in {
        "[[4]]": r"[[\[\[4\]\]]]",
        "[a]": r"[[\[a\]]]",
        "x[1]y": "[[x[1]y]]",
        "<|bos|>": r"[[<\|bos|>]]",
    }.items():
        assert plain([{"text": text, "special": False, "trained": True}]) == wanted


def test_origin_is_the_source_row_as_it_came(root: Path, train: Split, tmp_path: Path) -> None:
    lines = ['name = "tiny"\nseed = 42']
    for split in ("train", "val"):
        for entry in MIXTURE[split]:  # type: ignore[attr-defined]
            lines += [f"[[{split}]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    mixture = root.parent / "mixture.toml"
    mixture.write_text("\n".join(lines))
    shown = json.loads(run(root, "--conversation", of_line(train, 1), "--origin", "--mixture", mixture, "--json"))
    assert json.loads(shown["conversations"][0]["origin"]) == {"messages": LINES[1]}
    of_a_build = [
        "--origin",
        "--mixture",
        mixture,
        "--identity",
        root.parent / "mine.jsonl",
    ]  # whatever it was built with
    spelled = json.loads(run(root, "--source", "simple_spelling", *of_a_build, "--json"))
    [one] = spelled["conversations"]
    question = json.loads(one["origin"])["messages"][0]["content"]
    assert question in [segment["text"] for segment in one["segments"]]
    (tmp_path / "mine.jsonl").write_text('{"messages": []}\n' * 3)
    other = tmp_path / "mixture.toml"
    other.write_text(mixture.read_text())
    with pytest.raises(ValueError, match="mine has changed"):
        run(root, "--conversation", of_line(train, 1), "--origin", "--mixture", other)


@pytest.mark.parametrize("mode", ["mid", "sft"])
def test_steps_are_those_of_the_trainer(root: Path, train: Split, mode: str) -> None:
    from prep.shard.steps import make_plan, micro_batches, row_targets

    counts = row_targets(train, mode, False)
    for batch, epochs in ((128, 1.0), (512, 2.5), (128 * 64, 3.0)):
        theirs = make_plan(counts, batch // 128, None, epochs, 7)
        ours = plan_steps(train, mode, batch, epochs, 7)
        assert ours.num_steps == theirs.num_steps
        rows = [ours.rows_of_step(step).tolist() for step in range(ours.num_steps)]
        assert rows == [theirs.rows_of_step(step).tolist() for step in range(ours.num_steps)]
        targets = step_sums(ours, ours.num_targets).tolist()
        assert targets == [theirs.targets_of_step(step) for step in range(ours.num_steps)]
    for step in (0, ours.num_steps - 1):
        shown = show_step(train, ours, step, mode, 2, 8, 0.5)
        assert shown["targets"] == targets[step]
        for rank in range(2):
            dealt = [
                [one["row"] for one in shown["rows"] if (one["rank"], one["micro_batch"]) == (rank, micro)]
                for micro in range(4)
            ]
            assert dealt == [part.tolist() for part in micro_batches(theirs.rows_of_step(step), 8, rank, 2)]
    assert FILLER in rows[-1]


def test_a_step_says_who_trains_what(root: Path) -> None:
    shown: dict[str, Any] = json.loads(
        run(root, "--step", 1, "--total-batch-size", 512, "--world-size", 2, "--device-batch-size", 1, "--json")
    )
    assert [(one["row"], one["rank"], one["micro_batch"]) for one in shown["rows"]] == [
        (4, 0, 0), (5, 1, 0), (6, 0, 1), (7, 1, 1),
    ]  # fmt: skip
    text = run(root, "--step", 1, "--total-batch-size", 512, "--world-size", 2, "--device-batch-size", 1, "--rank", 1)
    assert [line.split()[:3] for line in text.splitlines()[3:]] == [["1", "0", "5"], ["1", "1", "7"]]
    with pytest.raises(ValueError, match="step 99 not found: this run has steps 0 to"):
        run(root, "--step", 99)


def test_without_options_the_first_row_is_shown_and_two_picks_are_refused(root: Path) -> None:
    assert json.loads(run(root, "--json"))["row"] == 0
    with pytest.raises(ValueError, match="--row and --longest given"):
        run(root, "--row", 1, "--longest")
    with pytest.raises(ValueError, match=r"row 999 not found: train has rows 0 to"):
        run(root, "--row", 999)
