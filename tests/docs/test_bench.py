"""What the build is compared with does the same work: equal tokens, equal mask."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.chat_formats import TEMPLATES
from bench.plain_build import MAX_SEQ_LEN, batches_of, plain_loop, to_messages
from bench.some_chats import write_chats
from prep.chat.tables import FORMATS
from prep.chat.template import ChatTemplate
from prep.conversations.read import of_objects
from prep.encode.encode import Encoder
from prep.render.reference import render_conversation
from prep.render.render import render
from prep.tokenizer.load import load_tokenizer
from tests.chat.toys import toy_for

ROOT = Path(__file__).parents[2]
MIXTURE = """
name = "small"
seed = 42
[[train]]
task = "spelling_bee"
size = 40
[[train]]
task = "arithmetic"
size = 40
[[train]]
task = "chat"
path = "chat.jsonl"
"""
CHAT = [
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4"},
    ],
    [{"role": "user", "content": "½ of <|bos|>?"}, {"role": "assistant", "content": "no"}],
    [{"role": "user", "content": "Again. " * 2 * MAX_SEQ_LEN}, {"role": "assistant", "content": "Cut off."}],
    [{"role": "assistant", "content": "out of turn"}],
]


def test_the_plain_loop_gives_the_tokens_and_the_mask_of_midprep(tmp_path):
    (tmp_path / "chat.jsonl").write_text(
        "".join(json.dumps({"messages": one}) + "\n" for one in CHAT), encoding="utf-8"
    )
    mixture = tmp_path / "small.toml"
    mixture.write_text(MIXTURE, encoding="utf-8")
    tokenizer = load_tokenizer()
    batches = list(batches_of(str(mixture), None, None))
    plain_tokens, plain_mask = plain_loop([one for batch in batches for one in to_messages(batch)], tokenizer)
    tokens, masks = [], []
    for batch in batches:
        ours = render(batch, Encoder(tokenizer), tokenizer)
        ends = np.cumsum(ours.lengths, dtype=np.int64)
        for start, end in zip(ends - ours.lengths, ends, strict=True):
            tokens.append(ours.tokens[start:end][:MAX_SEQ_LEN])
            masks.append(ours.mask[start:end][:MAX_SEQ_LEN])
    assert sum(len(one) > 0 for one in tokens) == 83
    assert np.array_equal(np.concatenate(tokens), plain_tokens)
    assert np.array_equal(np.concatenate(masks), plain_mask)


def test_the_measurements_run_and_say_what_they_found(tmp_path):
    command = [sys.executable, str(ROOT / "bench/plain_build.py"), "encode", "sample", "--encoder", "tiktoken"]
    done = subprocess.run([*command, "--part", "1", "--of", "3"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["tokens"] > 10_000
    assert found["seconds"] > 0


def test_every_number_of_the_raw_results_is_in_the_tables() -> None:
    page = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "bench" / "results").glob("*.json"))
    assert len(files) > 10
    for path in files:
        assert f"(results/{path.name})" in page
        section = page.split(f"(results/{path.name})")[1].split("\n## ")[0]
        section = page.split(f"(results/{path.name})")[0].rpartition("\n## ")[2] + section
        for result in (
            result for run in json.loads(path.read_text(encoding="utf-8"))["runs"] for result in run["results"]
        ):
            values = result["value"] if isinstance(result["value"], list) else [result["value"]]
            for value in values:
                pattern = rf"(?<![\d.,]){re.escape(f'{value:,}')}0?(?![\d])"
                assert re.search(pattern, section), f"{path.name}: {result['what']} {value} is not in its table"


def test_the_chats_that_formats_are_measured_with_are_distinct_and_valid():
    tokenizer = toy_for()
    for name in TEMPLATES:
        template = ChatTemplate(FORMATS[name])
        rows = write_chats(40, template.format.calls is not None, template.format.reasoning is not None)
        assert len({json.dumps(row["messages"]) for row in rows}) == 40
        rendered = render(of_objects(rows), Encoder(tokenizer, "tiktoken"), tokenizer, template=template)
        assert not rendered.reasons.any()
        both = [render_conversation(r["messages"], tokenizer, template=template, tools=r.get("tools")) for r in rows]
        assert rendered.tokens.tolist() == [id_ for ids, _ in both for id_ in ids]
        assert rendered.mask.tolist() == [flag for _, mask in both for flag in mask]
