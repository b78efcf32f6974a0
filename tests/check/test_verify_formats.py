"""What verify takes for sound where only a part of the assistant's turns trains, and what cannot be compared."""

import json
from pathlib import Path
from typing import Any

import pytest

import prep
from prep.encode.decode import Decoder
from prep.jinja.format import JinjaFormat, JinjaTemplate
from prep.tokenizer.tokenizer import Tokenizer

CALL = [{"type": "text", "text": "a "}, {"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}]


@pytest.mark.parametrize("options", [{"mask": "sampled"}, {"train_on": ("text",)}, {"train_on": "last"}, {}])
@pytest.mark.parametrize("entry", ["", 'train_on = ["text", "end"]\n'])
def test_a_build_in_which_parts_of_turns_train_is_sound(tmp_path: Path, options: dict[str, Any], entry: str) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": CALL}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    (tmp_path / "m.toml").write_text('[[train]]\ntask = "chat"\npath = "a.jsonl"\n' + entry)
    prep.build_shards(tmp_path / "m.toml", tmp_path / "out", cache_dir=tmp_path / "cache", **options)
    assert prep.verify_shards(tmp_path / "out") == []


def test_what_the_user_says_is_not_looked_for_in_tokens_of_a_jinja_template(toy: Tokenizer) -> None:
    template = JinjaTemplate(JinjaFormat("mine", "{{ messages[0].content }}"))
    with pytest.raises(ValueError, match='drop_overlap = "exact"'):
        Decoder(toy, template)
