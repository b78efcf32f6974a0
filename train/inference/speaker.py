"""
A checkpoint and its tokenizer, checked against each other: who speaks in chat, and is examined.

    runs/mid, d12, a directory     ->  the last checkpoint there, sft before mid before base
    --tokenizer NAME               ->  else that of the shards that its meta names, else nanochat's, beside it or at home

What the meta notes of the tokenizer is compared by content; a nanochat checkpoint notes nothing, and is said to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prep.chat.choose import AnyTemplate, choose_template, formats_for, read_template
from prep.files import nanochat_home
from prep.render.reference import NANOCHAT, Prompt
from prep.shard import Shards, open_shards, read_manifest
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer
from train.base import tokenizers_around
from train.checkpoint import BASES, STAGES, find_checkpoint, load_model
from train.distributed import choose_device
from train.inference.calculator import calculate
from train.inference.generate import Sampling, Token, generate
from train.meta import Meta, read_meta
from train.model import GPT

PLACES = (STAGES["sft"], *BASES["sft"])
Say = Callable[[str], None]


@dataclass(frozen=True)
class Speaker:
    """A model with what it needs to speak."""

    root: Path
    step: int
    model: GPT
    tokenizer: Tokenizer
    template: AnyTemplate = NANOCHAT

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer together"""
        return self.model.config.sequence_len

    def answer(self, prompts: Sequence[Prompt], max_tokens: int, sampling: Sampling) -> Iterator[Token]:
        """What `generate` gives, with the calculator"""
        return generate(self.model, prompts, max_tokens, sampling, self.calculate)

    def calculate(self, call: list[int]) -> list[int]:
        """The ids of a call -> the ids of its answer; none where there is no answer, or where it is no text"""
        special = set(self.tokenizer.special_tokens.values())
        answer = None if special.intersection(call) else calculate(self.tokenizer.decode(call))
        return [] if answer is None else self.tokenizer.encoding.encode_ordinary(answer)

    def open_shards(self, root: Path) -> Shards:
        """A build whose tokens this model reads. ValueError for one with another tokenizer."""
        shards = open_shards(root)
        tokenizer = shards.manifest["tokenizer"]
        if tokenizer["sha256"] != self.tokenizer.sha256:
            problem = f"the shards of {root} have tokenizer {tokenizer['name']}, {self.root} another"
            raise ValueError(f"{problem}: give shards that were built with the checkpoint's")
        return shards


def open_speaker(name: str, step: int | None, tokenizer: str | None, device: str, say: Say) -> Speaker:
    """
    The model of a checkpoint, which `name` gives as --base does, on a device: auto, cpu or cuda. ValueError or
    FileNotFoundError, in one line, for one that is broken, has no tokenizer, or was trained with another.
    """
    place = choose_device(device)
    root, step = find_checkpoint(name, step, PLACES)
    meta = read_meta(root, step)
    loaded, template = find_tokenizer(meta, root, tokenizer)
    check(meta, loaded, root, say)
    model, _ = load_model(root, step, place)
    if place.type == "cuda":
        model.set_dtype(torch.bfloat16)
    return Speaker(root, step, model, loaded, template)


def find_tokenizer(meta: Meta, root: Path, name: str | None) -> tuple[Tokenizer, AnyTemplate]:
    """The tokenizer, and the chat format of the build that it lies in; elsewhere the first that it has the controls of"""
    if name is not None:
        return _with_template(load_tokenizer(name), Path(name).expanduser())
    config: Any = meta.get("user_config")
    shards: Any = config.get("shards") if isinstance(config, dict) else None
    home = nanochat_home() / "tokenizer"
    places = [Path(shards).absolute()] if isinstance(shards, str) and "\0" not in shards else []
    files = [*(place / "tokenizer.json" for place in places), *tokenizers_around(root), home / "tokenizer.pkl"]
    found = next((path for path in files if path.is_file()), None)
    if found is None:
        named = f"the shards of its meta ({places[0]})" if places else "its meta, which names no shards"
        looked = f"{named}, nor in nanochat's directory ({home})"
        raise FileNotFoundError(f"{root} has no tokenizer in {looked}: give --tokenizer NAME, a file or a build")
    return _with_template(load_tokenizer(found), found.parent)


def _with_template(tokenizer: Tokenizer, folder: Path) -> tuple[Tokenizer, AnyTemplate]:
    if (folder / "manifest.json").is_file():
        return tokenizer, read_template(read_manifest(folder), folder)
    fitting = formats_for(tokenizer)
    return tokenizer, choose_template({"chat_template": fitting[0]} if fitting else {}, tokenizer)


def check(meta: Meta, tokenizer: Tokenizer, root: Path, say: Say) -> None:
    """ValueError where the model was trained with another tokenizer, or has another number of ids"""
    noted = meta.get("midprep", {}).get("tokenizer_sha256")
    shown = f"{tokenizer.name} ({tokenizer.source})"
    advice = "give its own with --tokenizer NAME, a file or a build"
    if noted not in (None, tokenizer.sha256):
        problem = f"{root} was trained with tokenizer {noted[:12]}, {shown} is {tokenizer.sha256[:12]}"
        raise ValueError(f"{problem}: {advice}")
    num_ids = meta["model_config"].get("vocab_size")
    if num_ids not in (None, tokenizer.vocab_size):
        problem = f"{root} has a vocabulary of {num_ids:,}, tokenizer {shown} has {tokenizer.vocab_size:,}"
        raise ValueError(f"{problem}: {advice}")
    if noted is None:
        say(f"{root} does not note its tokenizer, so it could not be checked: using {shown}")
