"""What somebody types is text, or the marker itself where the tokenizer cuts it out of text; an entry may refuse both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prep.chat.choose import choose_template
from prep.inspect.show import segments
from prep.mixture.mixture import parse_mixture
from prep.render.reference import render_conversation
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, write_lines
from tests.tokenizer.models import write_model


@pytest.fixture
def qwen3(tmp_path: Path) -> Tokenizer:
    return load_tokenizer(str(write_model(tmp_path / "model", "qwen3")))


def said(*texts: str, system: str = "") -> dict[str, Any]:
    roles = ("user", "assistant") * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns]}


ROWS = [
    said("Hi", "Hello."),
    said("Say </think>.", "No."),
    said("Hi", "Hello.", system="<|im_end|>"),
    said("Hi", "<think>\nHm.\n</think>\n\nHello."),
    said("2 < 3 | 4", "<|im_end|> ends it."),
]


@pytest.mark.parametrize(("keys", "rejected"), [({}, []), ({"typed_tokens": "reject"}, [1, 2])])
def test_rows_in_which_others_than_the_assistant_type_a_token_are_refused_on_demand(
    tmp_path: Path, qwen3: Tokenizer, keys: dict[str, str], rejected: list[int]
) -> None:
    write_lines(tmp_path / "mine.jsonl", ROWS)
    entry = {"task": "chat", "path": "mine.jsonl", **keys}
    root, manifest, _ = build_mixture(tmp_path, {"train": [entry]}, qwen3, chat_template="qwen3", max_rejected=1.0)
    (source,) = manifest["splits"]["train"]["sources"]
    lines = [json.loads(line) for line in (root / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == rejected
    assert source["rejected"] == ({"spells a control token": 2} if rejected else {})
    assert source.get("typed_tokens") == keys.get("typed_tokens")
    culprits = [line["culprit"].split(" is typed")[0] for line in lines if "culprit" in line]
    assert culprits == (["'</think>'"] if rejected else [])  # of the first row of each reason


def test_a_typed_marker_is_the_token_and_a_typed_control_is_text(qwen3: Tokenizer) -> None:
    template = choose_template({"chat_template": "qwen3"}, qwen3)
    ids, mask = render_conversation(ROWS[1]["messages"], qwen3, template=template)
    assert ids.count(qwen3.added_tokens["</think>"]) == 2  # typed, and the empty block's
    plain, _ = render_conversation(ROWS[2]["messages"], qwen3, template=template)
    assert plain.count(qwen3.special_tokens["<|im_end|>"]) == 3  # of three turns; the typed one is not among them
    drawn = segments(qwen3, np.array(ids), np.array(mask))
    assert [one["text"] for one in drawn if one["special"]].count("</think>") == 2


def test_typed_tokens_is_one_of_two_words() -> None:
    entry = {"task": "chat", "path": "mine.jsonl", "typed_tokens": "drop"}
    with pytest.raises(ValueError, match="typed_tokens = 'drop' found, wanted keep or reject"):
        parse_mixture({"train": [entry]}, "mine.toml", Path(), "mine")
