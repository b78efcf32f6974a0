"""Tasks of your own: a function in a file, or an entry point; no fork is needed."""

import re
from pathlib import Path
from typing import Any

import pytest

from prep.check.verify import problems
from prep.inspect.show import show_conversation
from prep.inspect.terminal import plain
from prep.mixture.mixture import parse_mixture
from prep.shard import open_shards
from prep.tasks.custom import find
from tests.conftest import build_mixture, toy_tokenizer, write_lines

TOY = toy_tokenizer()
PAGE = (Path(__file__).parents[2] / "docs" / "own-tasks.md").read_text(encoding="utf-8")
LINE = """
def pair(row):
    return [{"role": "user", "content": row["a"]}, {"role": "assistant", "content": row["b"]}] if row["a"] else None
"""


def conversations(root: Path, split: str = "train") -> list[str]:
    found = open_shards(root).split(split)
    docs = [(int(d["source"]), int(d["index"]), i) for i, d in enumerate(found.docs)]
    return [plain(show_conversation(found, TOY, doc)["segments"]) for _, _, doc in sorted(docs)]


def build(folder: Path, *entries: dict[str, Any], output: str = "out", **options: Any) -> tuple[Path, Any]:
    options = {"max_seq_len": 256} | options
    root, manifest, _ = build_mixture(folder, {"train": list(entries)}, TOY, output, **options)
    return root, manifest["splits"]["train"]["sources"]


def test_the_example_of_the_documentation_is_complete_and_short(tmp_path: Path) -> None:
    for kind, name in (("python", "quiz.py"), ("jsonl", "claims.jsonl")):
        (body,) = re.findall(rf"^```{kind} {name}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
        (tmp_path / name).write_text(body, encoding="utf-8")
    assert len((tmp_path / "quiz.py").read_text().splitlines()) <= 32
    entries = {"task": "quiz.py:quiz", "path": "claims.jsonl"}, {"task": "quiz.py:sums", "size": 20}
    root, sources = build(tmp_path, *entries, workers=2)
    assert [(s["name"], s["task"], s["rows"], s["conversations"]) for s in sources] == [
        ("quiz", "quiz.py:quiz", 2, 2), ("sums", "quiz.py:sums", 20, 20),
    ]  # fmt: skip
    assert conversations(root)[0].endswith(
        "<|assistant_start|>Ready.<|assistant_end|><|user_start|>7 * 8 = 54<|user_end|><|assistant_start|>"
        "[[<|python_start|>7 * 8 == 54<|python_end|>]]<|output_start|>False<|output_end|>[[That is false.<|assistant_end|>]]"
    )
    assert list(problems(root)) == []
    assert build(tmp_path, *entries, output="again", cache_dir=tmp_path / "other")[1] == sources


def test_rows_are_a_table_a_dict_or_made(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        LINE
        + """
from prep.conversations.rows import rows_of
def table(rows):
    return [pair(row) for row in rows_of(rows)]
def made(start, stop, seed, split):
    return [pair({"a": f"{split} {seed}", "b": str(i)}) for i in range(start, stop)]
"""
    )
    write_lines(tmp_path / "a.jsonl", [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}])
    shown = {
        name: conversations(build(tmp_path, {"task": f"mine.py:{name}", **more}, output=name)[0])
        for name, more in (
            ("pair", {"path": "a.jsonl"}),
            ("table", {"path": "a.jsonl"}),
            ("made", {"size": 1, "seed": 7}),
        )
    }
    assert shown["pair"] == shown["table"]
    assert shown["pair"][1] == "<|bos|><|user_start|>y<|user_end|><|assistant_start|>[[2<|assistant_end|>]]"
    assert shown["made"] == ["<|bos|><|user_start|>train 7<|user_end|><|assistant_start|>[[0<|assistant_end|>]]"]


def test_rows_that_a_task_leaves_out_or_cannot_be_read_are_counted(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LINE)
    write_lines(tmp_path / "a.jsonl", [{"a": "x", "b": "1"}, {"a": "", "b": "2"}, "{", {"a": "x", "b": 3}])
    _, (source,) = build(tmp_path, {"task": "mine.py:pair", "path": "a.jsonl"}, max_rejected=1.0)
    assert source["rejected"] == {"left out by its task": 1, "invalid JSON": 1, "content is not text": 1}
    assert (source["rows"], source["conversations"]) == (4, 1)


def test_an_edited_task_renders_again_and_is_another_build(tmp_path: Path) -> None:
    task, entry = tmp_path / "mine.py", {"task": "mine.py:pair", "path": "a.jsonl"}
    write_lines(tmp_path / "a.jsonl", [{"a": "x", "b": "1"}])
    task.write_text(LINE)
    first = conversations(build(tmp_path, entry, output="one")[0])
    task.write_text(LINE.replace('row["b"]', 'row["b"] + "!"'))
    with pytest.raises(ValueError, match="--overwrite"):
        build(tmp_path, entry, output="one")
    assert conversations(build(tmp_path, entry, output="two")[0]) == [first[0].replace("[[1", "[[1!")]
    task.write_text(LINE)
    runs = len(list((tmp_path / "cache" / "runs").rglob("*.run")))
    assert conversations(build(tmp_path, entry, output="three")[0]) == first
    assert len(list((tmp_path / "cache" / "runs").rglob("*.run"))) == runs == 2


@pytest.mark.parametrize(
    ("source", "task", "words"),
    [
        ("def pair(row):\n    return row['c']\n", "mine.py:pair", r"mine.py, line 2: KeyError: 'c'. Fix the task"),
        ("def pair(row):\n    raise SystemExit(0)\n", "mine.py:pair", r"mine.py, line 2: SystemExit: 0"),
        ("import sys\nsys.exit()\n", "mine.py:pair", "mine.py, line 2: SystemExit"),
        ("def pair(row)\n", "mine.py:pair", "mine.py, line 1: SyntaxError"),
        ("import nothing_such\n", "mine.py:pair", "mine.py, line 1: ModuleNotFoundError"),
        ("def other(row): ...\n", "mine.py:pair", "mine.py has no 'pair', it has: other"),
        ("pair = 3\n", "mine.py:pair", "is int, wanted a function"),
        ("def pair(x, y): ...\n", "mine.py:pair", r"takes \(x, y\), wanted one of \(row\), \(rows\), \(start, stop"),
        ("def pair(rows): return []\n", "mine.py:pair", "returns 0 conversations for 1 rows, wanted one per row"),
        ("def pair(rows): return 3\n", "mine.py:pair", "returns int, wanted Conversations or a list"),
        ("", "none.py:pair", "none.py not found"),
    ],
)
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_mistake_in_a_task_is_one_line_that_names_the_file(
    tmp_path: Path, source: str, task: str, words: str, workers: int
) -> None:
    (tmp_path / "mine.py").write_text(source)
    write_lines(tmp_path / "a.jsonl", [{"a": "x", "b": "1"}])
    with pytest.raises((ValueError, FileNotFoundError), match=words) as found:
        build(tmp_path, {"task": task, "path": "a.jsonl"}, workers=workers)
    assert "\n" not in str(found.value)


def test_an_entry_that_does_not_suit_its_task_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LINE + "def made(start, stop, seed, split): ...\n")
    for entry, words in (
        ({"task": "mine.py:pair"}, "reads rows: give a path"),
        ({"task": "mine.py:made"}, "makes its rows: say how many, as size = 1000"),
        ({"task": "mine.py:made", "size": 3, "path": "a"}, "makes its rows: drop the path"),
        ({"task": "mine.py:pair", "path": "a", "train_on": "last"}, "takes no train_on"),
        ({"task": "mine.py"}, "'mine.py' is not known"),
    ):
        with pytest.raises(ValueError, match=words):
            build(tmp_path, entry)


def test_an_installed_package_offers_tasks_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "jokes-1.dist-info").mkdir(parents=True)
    (site / "jokes-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: jokes\nVersion: 1\n")
    (site / "jokes-1.dist-info" / "entry_points.txt").write_text("[midprep.tasks]\njoke = joke_book:pair\n")
    (site / "joke_book.py").write_text(LINE)
    monkeypatch.syspath_prepend(site)
    write_lines(tmp_path / "a.jsonl", [{"a": "x", "b": "1"}])
    root, (source,) = build(tmp_path, {"task": "joke", "path": "a.jsonl"}, workers=2)
    assert (source["task"], source["task_version"]) == ("joke", find("joke", tmp_path).version)
    assert conversations(root) == ["<|bos|><|user_start|>x<|user_end|><|assistant_start|>[[1<|assistant_end|>]]"]
    with pytest.raises(ValueError, match="task = 'jok' is not known"):
        parse_mixture({"train": [{"task": "jok"}]}, "m.toml", tmp_path, "m")
