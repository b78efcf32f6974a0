"""docs/architecture.md answers its questions truly: every file and function that it names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:prep|train)/[\w/]+\.py):([\w.]+)`", PAGE)))
QUESTIONS = (
    "mask",
    "truncated",
    "denominator",
    "Hub file",
    "midprep stats",
    "damaged checkpoint",
    "start from",
    "last step",
)


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods of a file"""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            names |= {
                f"{node.name}.{inner.name}" for inner in getattr(node, "body", []) if isinstance(inner, ast.FunctionDef)
            }
    return names


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_function_that_the_page_names_is_in_its_file(file: str, name: str) -> None:
    assert name in names_in(ROOT / file)


def test_each_question_has_an_answer_that_names_a_function() -> None:
    answers = [line for line in PAGE.splitlines() if line.startswith("| Where") or line.startswith("| What")]
    for word, answer in zip(QUESTIONS, answers, strict=True):
        assert word in answer
        assert re.search(r"`(?:prep|train)/[\w/]+\.py:[\w.]+`", answer)


def test_every_folder_of_prep_is_on_the_page_or_in_the_docstring_of_prep() -> None:
    import prep

    folders = [path.parent.name for path in (ROOT / "prep").glob("*/__init__.py")]
    assert [name for name in folders if name not in PAGE and name not in str(prep.__doc__)] == []
