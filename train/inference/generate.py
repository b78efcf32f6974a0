"""
Answers of a model, token by token: prompts of unequal length in one batch, each row until its turn ends.

    prefill   <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|>            row 0
              <|bos|> <|user_start|> Hi there <|user_end|> <|assistant_start|>        row 1, longer: row 0 is padded
    step 0    "4"                 "Hel"          one token a row, from one pass of the model over both
    step 1    <|assistant_end|>   "lo"           row 0 has ended and leaves the batch
    step 2                        "!"

What a row says depends on its prompt, the seed and its number, not on the rows beside it, up to rounding: sums over another
number of rows may end in another last bit. Keys and values of the whole batch are allocated at once: n_layer * 2 * B * (longest
prompt + max_tokens) * kv_width values.

While the assistant speaks Python, its call is collected; what `calculate` answers is put into the stream as an output part.

Legend: B rows of a batch, V vocabulary.
"""

import codecs
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prep.chat.choose import AnyTemplate
from prep.render.reference import NANOCHAT as NANOCHAT_TEMPLATE
from prep.render.reference import Prompt, make_prompt
from prep.tokenizer.tokenizer import Tokenizer
from train.cache import Cache
from train.model import GPT, SOFTCAP

Calculate = Callable[[list[int]], list[int]]  # ids of a call -> ids of its answer, none where there is no answer


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: the likeliest (temperature 0), or by chance among the `top_k` likeliest (None: all)."""

    temperature: float = 0.0
    top_k: int | None = None
    seed: int = 0


class Token(NamedTuple):
    """What was added to a row: chosen by the model, or forced (the answer of a call)"""

    row: int
    id: int
    forced: bool


@dataclass
class Row:
    """A prompt that is being answered."""

    number: int
    prompt: Prompt
    num_left: int  # tokens that it may still say
    chance: np.random.Generator
    forced: deque[int] = field(default_factory=deque)
    call: list[int] | None = None  # ids since the call began

    def take(self, chosen: int, calculate: Calculate | None) -> Token:
        """The next token: a forced one where there is one, else the `chosen` one, which may end a call"""
        if self.forced:
            token = Token(self.number, self.forced.popleft(), True)
        else:
            token = Token(self.number, chosen, False)
            self._follow_call(chosen, calculate)
        self.num_left = 0 if token.id == self.prompt.stop and not token.forced else self.num_left - 1
        return token

    def _follow_call(self, id_: int, calculate: Calculate | None) -> None:
        start, end = self.prompt.python
        if id_ == start:
            self.call = []
        elif id_ == end and self.call is not None:
            answer = calculate(self.call) if calculate else []
            self.forced.extend([self.prompt.output[0], *answer, self.prompt.output[1]] if answer else [])
            self.call = None
        elif self.call is not None:
            self.call.append(id_)


@torch.inference_mode()
def generate(
    model: GPT,
    prompts: Sequence[Prompt],
    max_tokens: int,
    sampling: Sampling = Sampling(),
    calculate: Calculate | None = None,
) -> Iterator[Token]:
    """
    The tokens of all answers, step by step, in each step row by row. A row ends with its prompt's `stop`, after `max_tokens`
    tokens, or where the model's context (`sequence_len`) is full. ValueError for a prompt that leaves no room in it.
    """
    assert max_tokens > 0
    rows = [
        Row(number, prompt, room_for(prompt, model, max_tokens), np.random.default_rng((sampling.seed, number)))
        for number, prompt in enumerate(prompts)
    ]
    if not rows:
        return
    cache = model.new_cache(len(rows), max(len(row.prompt.ids) + row.num_left for row in rows))
    x = prefill(model, prompts, cache)  # (B, d)
    while True:
        chosen = choose(model.lm_head(x), model, rows, sampling)
        tokens = [row.take(id_, calculate) for row, id_ in zip(rows, chosen, strict=True)]
        yield from tokens
        going_on = [place for place, row in enumerate(rows) if row.num_left > 0]
        if not going_on:
            return
        if len(going_on) < len(rows):
            rows = [rows[place] for place in going_on]
            cache.keep(going_on)
        idx = torch.tensor([[tokens[place].id] for place in going_on], device=x.device)
        x = model.hidden(idx, cache=cache)[:, 0]


def prefill(model: GPT, prompts: Sequence[Prompt], cache: Cache) -> Tensor:
    """The hidden state (B, d) after the last token of each prompt; the cache gets all tokens of the prompts"""
    device = model.transformer.wte.weight.device
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
    longest = int(lengths.max())
    idx = torch.tensor([prompt.ids + [0] * (longest - len(prompt.ids)) for prompt in prompts], device=device)
    x = model.hidden(idx, cache=cache)[torch.arange(len(prompts)), lengths - 1]  # (B, longest, d) -> (B, d)
    cache.shorten((longest - lengths).to(device))
    return x


def room_for(prompt: Prompt, model: GPT, max_tokens: int) -> int:
    """How many tokens an answer may have. ValueError where the prompt fills the context."""
    context = model.config.sequence_len
    if len(prompt.ids) >= context:
        problem = f"the prompt has {len(prompt.ids):,} tokens, the model's context is {context:,}"
        raise ValueError(f"{problem}: ask in fewer words")
    return min(max_tokens, context - len(prompt.ids))


def choose(z: Tensor, model: GPT, rows: list[Row], sampling: Sampling) -> list[int]:
    """
    z (B, V), what lm_head gives -> B ids. The softcap keeps the order of z: only chances need it. ValueError where z is not
    finite.
    """
    z = z[:, : model.config.vocab_size]
    largest, likeliest = z.max(dim=-1)
    if not largest.isfinite().all():
        raise ValueError("the model's logits are not finite: its weights are damaged, take another checkpoint")
    if sampling.temperature == 0:
        return list(map(int, likeliest.tolist()))
    ids = None
    if sampling.top_k is not None:
        z, ids = z.topk(min(sampling.top_k, z.size(1)))
    logits, most = (SOFTCAP * torch.tanh(values.double() / SOFTCAP) for values in (z, largest[:, None]))
    sums = torch.exp((logits - most) / sampling.temperature).cumsum(dim=-1)
    drawn = sums.new_tensor([[row.chance.random()] for row in rows])  # (B, 1) in [0, 1)
    places = torch.searchsorted(sums, drawn * sums[:, -1:], right=True).clamp(max=sums.size(1) - 1)
    return list(map(int, (places if ids is None else ids.gather(1, places))[:, 0].tolist()))


# ---- before and after: a history as a prompt, ids as parts ----


def fit_history(
    messages: list[dict[str, Any]],
    tokenizer: Tokenizer,
    context: int,
    room: int,
    template: AnyTemplate = NANOCHAT_TEMPLATE,
) -> tuple[Prompt, int]:
    """
    The prompt of a conversation that leaves `room` tokens of the context for the answer, and how many of its oldest turns
    (a question and its answer) were left out for that; a system message stays. ValueError where the last question alone is
    too long.
    """
    system = [message for message in messages[:1] if message["role"] == "system"]
    rest, num_dropped = messages[len(system) :], 0
    while True:
        prompt = make_prompt([*system, *rest[2 * num_dropped :]], tokenizer, template)
        if len(prompt.ids) + room <= context:
            return prompt, num_dropped
        if len(rest) - 2 * num_dropped <= 2:
            problem = f"the question has {len(prompt.ids):,} tokens, the model's context of {context:,} has room for"
            raise ValueError(f"{problem} {max(0, context - room):,} beside the answer: ask in fewer words")
        num_dropped += 1


class Reader:
    """
    Ids of an answer to pieces of text, as they come: ("text" | "python" | "python_output" | "special", text). `parts` is what
    was said so far as the content of a message; `problems` names what no conversation in training looks like.
    """

    def __init__(self, prompt: Prompt, tokenizer: Tokenizer) -> None:
        self.prompt = prompt
        self.encoding = tokenizer.encoding
        self.special = {id_: name for name, id_ in tokenizer.special_tokens.items()}
        self.opens = {prompt.python[0]: "python", prompt.output[0]: "python_output"}
        self.closes = {"python": prompt.python[1], "python_output": prompt.output[1]}
        self.kind = "text"
        self.parts: list[dict[str, str]] = []
        self.problems: list[str] = []
        self.ended = False
        self._restart()

    def _restart(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be several tokens

    def read(self, id_: int) -> list[tuple[str, str]]:
        """The pieces that a token completes: none while a character is incomplete, and none for a token of the format"""
        if id_ not in self.special:
            return self._add(self.decoder.decode(self.encoding.decode_single_token_bytes(id_)))
        pieces = self.finish()
        if id_ == self.prompt.stop:
            self.ended = True
            self._note("unbalanced parts", self.kind != "text")
        elif self.kind == "text" and id_ in self.opens:
            self.kind = self.opens[id_]
            self.parts.append({"type": self.kind, "text": ""})
        elif id_ == self.closes.get(self.kind):
            self.kind = "text"
        else:
            is_part = id_ in self.opens or id_ in self.closes.values()
            self._note("unbalanced parts" if is_part else "wrong tokens", True)
            pieces.append(("special", self.special[id_]))
        return pieces

    def finish(self) -> list[tuple[str, str]]:
        """What is left of a character that was never completed"""
        pieces = self._add(self.decoder.decode(b"", final=True))
        self._restart()
        return pieces

    def _add(self, text: str) -> list[tuple[str, str]]:
        if not text:
            return []
        if not self.parts or self.parts[-1]["type"] != self.kind:
            self.parts.append({"type": self.kind, "text": ""})
        self.parts[-1]["text"] += text
        return [(self.kind, text)]

    def _note(self, problem: str, is_there: bool) -> None:
        if is_there and problem not in self.problems:
            self.problems.append(problem)
