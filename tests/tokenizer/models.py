"""
Tokenizers like those of Qwen and Llama for tests: their patterns, added tokens, NFC and bos, with a vocabulary of our own.

    content("qwen3")         tokenizer.json as an object: 4,000 ranks of nano32k, 3 special tokens, 6 added ones
    judge(content("qwen3"))  `tokenizers` itself, for which text that spells a special token is text, as for midprep
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import tokenizers

from prep.tokenizer.huggingface import hf_content
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.spec import TokenizerSpec
from prep.tokenizer.tokenizer import Tokenizer

SHARED: Final = Path(__file__).parents[3] / "shared" / "fixtures" / "templates"
PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN: Final = PATTERN.replace("DIGITS", "")
LLAMA: Final = PATTERN.replace("DIGITS", "{1,3}")
QWEN_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CALLS: Final = ("<tool_call>", "</tool_call>")
THINK: Final = (*CALLS, "<tool_response>", "</tool_response>", "<think>", "</think>")
LLAMA_SPECIAL: Final = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
FAMILIES: Final = {
    "qwen2.5": (QWEN, QWEN_SPECIAL, CALLS, "NFC"),
    "qwen3": (QWEN, QWEN_SPECIAL, THINK, "NFC"),
    "llama3": (LLAMA, LLAMA_SPECIAL, (), None),
}
BOS: Final = "<|begin_of_text|>"


def content(family: str, num_ranks: int = 4000) -> dict[str, Any]:
    """tokenizer.json of a tokenizer of this family, as an object"""
    pattern, special, added, normalizer = FAMILIES[family]
    ranks = {token: rank for token, rank in load_tokenizer().ranks.items() if rank < num_ranks}
    ids = {text: len(ranks) + i for i, text in enumerate((*special, *added))}
    spec = TokenizerSpec(family, ranks, pattern, {text: ids[text] for text in special})
    out = hf_content(
        Tokenizer.of(replace(spec, added_tokens={text: ids[text] for text in added}, normalizer=normalizer))
    )
    if BOS in ids:
        bos = {"id": BOS, "ids": [ids[BOS]], "tokens": [BOS]}
        single = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
        template = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": {BOS: bos}}
        byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        out["post_processor"] = {"type": "Sequence", "processors": [byte_level, template]}
    return out


def judge(tokenizer_json: dict[str, Any]) -> Any:
    """`tokenizers` with this file"""
    hf = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json))
    hf.encode_special_tokens = True
    return hf


def ids_of(hf: Any, text: str) -> list[int]:
    ids: list[int] = hf.encode(text, add_special_tokens=False).ids
    return ids


def write_model(root: Path, family: str, **files: Any) -> Path:
    """A directory of a model: tokenizer.json and the files given, as `config_json={...}` or `chat_template_jinja="..."`"""
    root.mkdir(parents=True, exist_ok=True)
    for name, value in {"tokenizer_json": content(family), **files}.items():
        stem, _, suffix = name.rpartition("_")
        (root / f"{stem}.{suffix}").write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return root
