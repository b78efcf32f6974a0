"""A build of a Jinja template is checked against its source rows; where they are gone, verify says so."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from prep.check.again import SAMPLE, Again, render_again, sample
from prep.check.verify import problems, verify_shards
from prep.cli.main import app
from prep.shard import open_shards
from tests.chat.toys import toy_for
from tests.check.test_verify import rewrite
from tests.conftest import build_mixture, chat, write_lines

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NUM_ROWS = 3 * SAMPLE


def build_by_template(folder: Path, more: int = 0, others: Sequence[dict[str, Any]] = (), **options: Any) -> Path:
    """Answers of several lengths, the longest `more` characters longer"""
    (folder / "own.jinja").write_text(TEMPLATE, encoding="utf-8")
    rows = [chat(f"What is {n}?", f"It is {n}." + "x" * (more * n // NUM_ROWS)) for n in range(NUM_ROWS)]
    write_lines(folder / "mine.jsonl", rows)
    mixture = {"train": [{"task": "chat", "path": "mine.jsonl", "repeat": 2}, *others]}
    template = str(folder / "own.jinja")
    return build_mixture(folder, mixture, toy_for(), chat_template=template, max_seq_len=128, **options)[0]


def verified(root: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["verify", str(root), "--json", *options])
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == bool(result["problems"])
    return result


@pytest.mark.parametrize("packing", ["ordered", "bfd", "wrapped"])
def test_a_sample_of_rows_is_rendered_again(tmp_path: Path, packing: str) -> None:
    root = build_by_template(tmp_path, packing=packing)
    split = open_shards(root).split("train")
    docs = sample(split, 0)
    assert len(set(docs.tolist())) == SAMPLE  # each another row, first copies
    assert render_again(root) == Again()
    assert verified(root) == {"root": str(root), "problems": [], "notice": None}


@pytest.mark.parametrize(
    "options",
    [{}, {"max_tokens": 40}, {"packing": "wrapped"}, {"excess_length_strategy": "split"}, {"packing": "bfd"}],
    ids=str,
)
def test_what_was_truncated_is_compared_as_far_as_it_goes(tmp_path: Path, options: dict[str, Any]) -> None:
    root = build_by_template(tmp_path, more=200, **options)
    assert verify_shards(root) == []


def shift_masks(root: Path) -> None:
    """What trains is one token earlier, as often as before"""
    for name in sorted(path.name for path in root.glob("train-*.mask.npy")):
        bits = np.unpackbits(np.load(root / name), axis=1, bitorder="little")
        rewrite(root, name, np.packbits(np.roll(bits, -1, axis=1), axis=1, bitorder="little"))


def test_a_source_that_is_gone_hides_no_difference_in_another(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", [chat("B?", "B.")])
    root = build_by_template(tmp_path, others=[{"task": "chat", "name": "b", "path": "b.jsonl"}])
    shift_masks(root)
    (tmp_path / "b.jsonl").unlink()
    assert len(verified(root)["problems"]) == SAMPLE


def test_rows_that_were_moved_are_named_by_a_mixture(tmp_path: Path) -> None:
    root = build_by_template(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "mine.jsonl").rename(tmp_path / "there/mine.jsonl")
    mixture = tmp_path / "there/test.toml"
    mixture.write_text('name = "test"\n[[train]]\ntask = "chat"\npath = "mine.jsonl"\nrepeat = 2\n', encoding="utf-8")
    assert "mine.jsonl" in verified(root)["notice"]
    assert verified(root, "--mixture", str(mixture)) == {"root": str(root), "problems": [], "notice": None}


def test_a_mask_that_no_template_wrote_is_noticed_whatever_the_checksums_say(tmp_path: Path) -> None:
    root = build_by_template(tmp_path)
    shift_masks(root)
    assert not any("not the assistant" in line for line in problems(root))  # no rule knows a template's tokens
    lines = verify_shards(root)
    assert len(lines) == SAMPLE
    assert " is not what row " in lines[0]
    assert lines[0].endswith(" of chat gives")


def test_a_build_whose_rows_are_gone_is_sound_and_the_check_that_is_missing_is_said(tmp_path: Path) -> None:
    root = build_by_template(tmp_path)
    (tmp_path / "mine.jsonl").unlink()
    result = verified(root)
    assert result["problems"] == []
    assert result["notice"].startswith(
        "not rendered again, by which alone the mask of a template is checked: train chat: "
    )
    write_lines(tmp_path / "mine.jsonl", [chat("Other?", "Rows.")])
    assert "chat has changed: its source has sha256" in verified(root)["notice"]
