"""What `import prep` gives: a fixed list, for nothing until it is used; and what was public before works for one release."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prep
from tests.conftest import chat, midprep_command, write_lines

NAMES = [
    "BuildOptions", "Mixture", "PackedDataset", "Tokenizer", "__version__", "build_shards", "load_mixture",
    "load_tokenizer", "open_shards", "read_conversations", "render_conversation", "verify_shards",
]  # fmt: skip

# as docs/library.md listed them
MOVED = {
    "prep.shard.batches": ["Rows"],
    "prep.tokenizer": ["load_tokenizer", "Tokenizer"],
    "prep.mixture": ["load_mixture"],
    "prep.options": ["Options"],
    "prep.build": ["make_job", "build"],
}
KEPT = {
    "prep.shard": ["open_shards", "Shards", "Split", "read_manifest", "ROW", "DOC"],
    "prep.shard.batches": ["read_batch"],
    "train.checkpoint": ["load_model"],
}


def test_the_public_names_are_these_and_each_is_documented() -> None:
    assert sorted(prep.__all__) == sorted(NAMES)
    for name in NAMES:
        value = getattr(prep, name)
        assert isinstance(value, str) or value.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = prep.nothing  # type: ignore[attr-defined]


def test_importing_prep_imports_nothing_else() -> None:
    script = "import sys; before = set(sys.modules); import prep; print(sorted(set(sys.modules) - before - {'prep'}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ours = [name for name in json.loads(done.stdout.replace("'", '"')) if name.partition(".")[0] in ("prep", "numpy")]
    assert ours == []


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in MOVED.items() for name in names])
def test_a_name_that_moved_works_and_says_where_it_is(module: str, name: str) -> None:
    for _ in range(2):  # also once the module behind it is loaded
        with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is prep"):
            assert callable(getattr(importlib.import_module(module), name))


def test_names_that_stay_are_there() -> None:
    for module, names in KEPT.items():
        assert all(hasattr(importlib.import_module(module), name) for name in names)


MIXTURE = """
name = "mine"
[[train]]
task = "chat"
path = "mine.jsonl"
start = 1
[[train]]
task = "arithmetic"
size = 20
[[val]]
task = "chat"
path = "mine.jsonl"
stop = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [chat("2+2?", "4"), {"messages": []}, chat("Hi", [{"type": "python", "text": "1"}]), chat("3+3?", "6")]
    write_lines(tmp_path / "mine.jsonl", rows)
    (tmp_path / "mine.toml").write_text(MIXTURE)
    return tmp_path


def test_a_build_from_python_can_be_read_proved_and_led_back_to_its_rows(folder: Path) -> None:
    root = folder / "mine"
    manifest = prep.build_shards(folder / "mine.toml", root, max_seq_len=64, max_rejected=0.5)
    assert manifest["splits"]["train"]["conversations"] == 22
    assert prep.verify_shards(root) == []
    tokens = prep.open_shards(root).split("val").read_tokens(np.array([0]))[0]
    ids, mask = prep.render_conversation(chat("2+2?", "4")["messages"], prep.load_tokenizer(root))
    assert tokens[: len(ids)].tolist() == ids
    assert sum(mask) == manifest["splits"]["val"]["trainable_tokens"] == 2
    assert len(prep.PackedDataset(root)) > 0
    (folder / "mine.toml").unlink()  # what was read is in build.json, not the command line
    for command in (["verify", root, "--rebuild"], ["show", root, "--source", "chat", "--origin", "--plain"]):
        done = subprocess.run(midprep_command(*command), cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert '"3+3?"' in done.stdout or '"Hi"' in done.stdout


def test_conversations_of_a_mixture_come_with_source_and_row(folder: Path) -> None:
    mixture = prep.load_mixture(str(folder / "mine.toml"))
    read = list(prep.read_conversations(mixture))
    assert [(example.source, example.index) for example in read[:3]] == [("chat", 2), ("chat", 3), ("arithmetic", 0)]
    assert read[0].messages[1] == {"role": "assistant", "content": [{"type": "python", "text": "1"}]}
    assert [example.messages[0]["content"] for example in prep.read_conversations(mixture, "val")] == ["2+2?"]
    with pytest.raises(ValueError, match="has no split 'test', it has train, val"):
        next(prep.read_conversations(mixture, "test"))


def test_a_prompt_ends_where_the_assistant_starts() -> None:
    tokenizer = prep.load_tokenizer()
    messages = chat("2+2?", "4")["messages"]
    ids, _ = prep.render_conversation(messages, tokenizer)
    for given in (messages, messages[:1]):
        prompt, mask = prep.render_conversation(given, tokenizer, for_completion=True)
        assert prompt == ids[: len(prompt)]
        assert prompt[-1] == tokenizer.special_tokens["<|assistant_start|>"]
        assert not any(mask)
    for wrong in (
        [],
        messages[1:],
        [{"role": "system", "content": "S"}],
        [{"role": "user", "content": [{"type": "x"}]}],
    ):
        with pytest.raises(ValueError, match="wanted"):
            prep.render_conversation(wrong, tokenizer)
