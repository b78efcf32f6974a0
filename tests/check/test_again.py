"""A build of a Jinja template is checked against its source rows; where they are gone, verify says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from prep.check.again import SAMPLE, differing_documents, sample
from prep.check.verify import problems
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


def build_by_template(folder: Path, **options: Any) -> Path:
    (folder / "own.jinja").write_text(TEMPLATE, encoding="utf-8")
    rows = [chat(f"What is {n}?", f"It is {n}.") for n in range(NUM_ROWS)]
    write_lines(folder / "mine.jsonl", rows)
    entry = {"task": "chat", "path": "mine.jsonl", "repeat": 2}
    template = str(folder / "own.jinja")
    return build_mixture(folder, {"train": [entry]}, toy_for(), chat_template=template, max_seq_len=128, **options)[0]


def verified(root: Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["verify", str(root), "--json"])
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == bool(result["problems"])
    return result


@pytest.mark.parametrize("packing", ["ordered", "bfd", "wrapped"])
def test_a_sample_of_rows_is_rendered_again(tmp_path: Path, packing: str) -> None:
    root = build_by_template(tmp_path, packing=packing)
    split = open_shards(root).split("train")
    docs = sample(split, 0)
    assert len(set(docs.tolist())) == SAMPLE  # each another row, first copies
    assert list(differing_documents(root)) == []
    assert verified(root) == {"root": str(root), "problems": [], "notice": None}


def test_a_mask_that_no_template_wrote_is_noticed_whatever_the_checksums_say(tmp_path: Path) -> None:
    root = build_by_template(tmp_path)
    names = sorted(path.name for path in root.glob("train-*.mask.npy"))
    for name in names:  # what trains is one token earlier, as often as before
        bits = np.unpackbits(np.load(root / name), axis=1, bitorder="little")
        rewrite(root, name, np.packbits(np.roll(bits, -1, axis=1), axis=1, bitorder="little"))
    assert not any("not the assistant" in line for line in problems(root))  # no rule knows a template's tokens
    lines = list(differing_documents(root))
    assert len(lines) == SAMPLE
    assert " is not what row " in lines[0]
    assert lines[0].endswith(" of chat gives")


def test_a_build_whose_rows_are_gone_is_sound_and_the_check_that_is_missing_is_said(tmp_path: Path) -> None:
    root = build_by_template(tmp_path)
    (tmp_path / "mine.jsonl").unlink()
    result = verified(root)
    assert result["problems"] == []
    assert result["notice"].startswith(
        "no conversation was rendered again, by which alone a template's mask is checked:"
    )
    write_lines(tmp_path / "mine.jsonl", [chat("Other?", "Rows.")])
    assert "chat has changed: its source has sha256" in verified(root)["notice"]
