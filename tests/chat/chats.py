"""
Chats of four families with the ids and the mask that transformers 5.24.0 gives them by TRL 1.16.0's training templates.

    {"messages": [...], "tools": [...], "ids": [151644, 8948, ...], "mask": "0000111..."}

Forty hard ones of each family are in fixtures/, with their tokenizers; all 1,600 are in ../shared, where that is there.
"""

import itertools
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from prep.arrays import offsets
from prep.chat.tables import FORMATS
from prep.chat.template import ChatTemplate
from prep.conversations.read import of_objects
from prep.encode.encode import ENGINES, Encoder, why_not
from prep.render.render import Rendered, render
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
FAMILIES = ("qwen2.5", "qwen3", "qwen3-instruct-2507", "llama3")
INSTALLED = [name for name in ENGINES if not why_not(load_tokenizer("nano32k"), name)]

Chat = dict[str, Any]


def read_lines(path: Path) -> list[Any]:
    """JSON lines, compressed by zstd or plain"""
    with pa.input_stream(path, compression="zstd" if path.suffix == ".zst" else None) as file:
        return [json.loads(line) for line in file.read().split(b"\n") if line]


@cache
def hard_chats(family: str) -> list[Chat]:
    """Forty of them"""
    return read_lines(FIXTURES / f"{family}.jsonl.zst")


@cache
def tokenizer_of(family: str) -> Tokenizer:
    """A small one with the rules of the family's; the four files are one, as their vocabularies are nearly"""
    (content,) = (line["content"] for line in read_lines(FIXTURES / "tokenizers.jsonl.zst") if line["name"] == family)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{family}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return load_tokenizer(str(path))


def row_of(chat: Chat) -> Chat:
    """What a source has of a chat"""
    return {name: chat[name] for name in ("messages", "tools") if name in chat}


def results_of(rendered: Rendered) -> list[tuple[list[int], str]]:
    """Ids and mask of each conversation, none where it was rejected"""
    bounds = offsets(rendered.lengths).tolist()
    return [
        (rendered.tokens[start:stop].tolist(), "".join(map(str, rendered.mask[start:stop].tolist())))
        for start, stop in itertools.pairwise(bounds)
    ]


def render_chats(
    chats: list[Chat], tokenizer: Tokenizer, template: ChatTemplate, engine: str = "tiktoken"
) -> list[tuple[list[int], str]]:
    """By the columnar renderer"""
    return results_of(render(of_objects(map(row_of, chats)), Encoder(tokenizer, engine), tokenizer, template=template))


def expected(chats: list[Chat]) -> list[tuple[list[int], str]]:
    return [(chat["ids"], chat["mask"]) for chat in chats]


def template_of(family: str) -> ChatTemplate:
    return ChatTemplate(FORMATS[family])
