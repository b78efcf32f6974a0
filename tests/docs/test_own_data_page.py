"""The tables of docs/own-data.md are those that rows are read by."""

import doctest
import json
import sys
from pathlib import Path

import pytest

import prep.text
from prep import columns
from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.conversations import layouts
from prep.mixture.mixture import load_mixture
from prep.render import render
from prep.sources import json_documents, jsonl
from tests.conftest import toy_tokenizer
from tests.docs.test_docs import blocks

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "own-data.md"


def test_the_tables_are_up_to_date(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    from make_layouts import renewed  # type: ignore[import-not-found]

    text = PAGE.read_text(encoding="utf-8")
    assert renewed(text) == text, "docs/own-data.md is out of date: run `make docs`"


def test_the_examples_of_the_modules_are_right() -> None:
    for module in (layouts, columns, render, prep.text, json_documents, jsonl):
        assert doctest.testmod(module).failed == 0


def test_every_example_of_the_page_builds_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mixtures = []
    for kind, name, body in blocks(PAGE):
        if kind in ("jsonl", "toml", "python") and name and not name.startswith("not-run"):
            (tmp_path / name).write_text(body, encoding="utf-8")
            mixtures += [tmp_path / name] if kind == "toml" else []
        elif kind == "python" and "tools.parquet" in body:
            exec(body, {})  # writes the Parquet file of tool calls
    assert len(mixtures) >= 5
    for path in mixtures:
        options = BuildOptions(max_seq_len=128, cache_dir=tmp_path / "cache", quiet=True, max_rejected=0.5)
        manifest, _ = build(make_job(load_mixture(str(path)), toy_tokenizer(), options), tmp_path / path.stem)
        for source in manifest["splits"]["train"]["sources"]:
            assert source["conversations"], json.dumps(source)
