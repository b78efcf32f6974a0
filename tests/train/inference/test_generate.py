"""Generation: the prompt is what training saw, the cache changes nothing, a batch answers as each row would alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prep.render.reference import Prompt, make_prompt, render_conversation
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import toy_tokenizer
from tests.train.inference.speakers import KNOWN, question, random_model
from train.cache import Cache
from train.checkpoint import load_model
from train.inference.generate import Reader, Row, Sampling, Token, choose, fit_history, generate
from train.model import GPT

ROOT = Path(__file__).parents[3]
TOY = toy_tokenizer()
PARTS = st.lists(
    st.tuples(st.sampled_from(["text", "python", "python_output"]), st.text(min_size=1, max_size=8)), max_size=5
)


def said(tokens: list[Token], row: int) -> list[int]:
    return [token.id for token in tokens if token.row == row]


def read(ids: list[int]) -> Reader:
    reader = Reader(make_prompt(question("?"), TOY), TOY)
    for id_ in ids:
        reader.read(id_)
    reader.finish()
    return reader


# ---- the prompt ----


@given(texts=st.lists(st.text(max_size=9), min_size=1, max_size=5), system=st.booleans())
def test_a_prompt_is_the_beginning_of_the_conversation_that_training_sees(texts: list[str], system: bool) -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    messages = [{"role": "system", "content": "Be brief."}, *messages] if system else messages
    if messages[-1]["role"] == "user":
        messages.append({"role": "assistant", "content": "Yes."})
    ids, mask = render_conversation(messages, TOY)
    prompt = make_prompt(messages, TOY)
    assert prompt == make_prompt(messages[:-1], TOY)
    assert ids[: len(prompt.ids)] == prompt.ids
    assert mask[len(prompt.ids) - 1] == 0
    assert all(mask[len(prompt.ids) :])
    assert ids[-1] == prompt.stop


# ---- the cache ----


@pytest.mark.parametrize("pattern", [None, "L", "SL", "SSL"])
def test_cached_logits_of_rows_of_unequal_length_are_those_of_each_row_alone(pattern: str | None) -> None:
    model = random_model(window_pattern=pattern, sequence_len=150)  # windows of 128 (S) and 150 (L), rows of 200
    rows = [torch.randint(265, (length,), generator=torch.Generator().manual_seed(length)) for length in (200, 131, 7)]
    with torch.inference_mode():
        whole = [model(row[None])[0] for row in rows]
        starts = torch.tensor([190, 121, 1])
        padded = torch.zeros(3, 190, dtype=torch.int64)
        for i, row in enumerate(rows):
            padded[i, : starts[i]] = row[: starts[i]]
        cache = model.new_cache(3, 200)
        first = model(padded, cache)
        cache.shorten(190 - starts)
        largest = max(float(logits.abs().max()) for logits in whole)
        for i in range(3):
            assert (first[i, : starts[i]] - whole[i][: starts[i]]).abs().max() < 1e-5 * largest
        places = [0, 1, 2]
        for step in range(10):
            going_on = [place for place in places if starts[place] + step < len(rows[place])]
            if going_on != places:
                cache.keep([places.index(place) for place in going_on])
                places = going_on
            idx = torch.stack([rows[place][starts[place] + step] for place in places])[:, None]
            for logits, place in zip(model(idx, cache)[:, 0], places, strict=True):
                assert (logits - whole[place][starts[place] + step]).abs().max() < 1e-5 * largest
    assert places == [0, 1]


@pytest.mark.parametrize("name", ["ckpt_2025-12", "ckpt_2026-07"])
def test_a_checkpoint_of_nanochats_says_what_it_says_without_a_cache(name: str) -> None:
    model, _ = load_model(ROOT / "tests" / "fixtures" / name)
    asked = [[5, 77, 300], list(range(100, 130)), [1]]
    tokens = list(generate(model, [Prompt(ids, -1, (-1, -1), (-1, -1)) for ids in asked], 30))
    with torch.inference_mode():
        for row, ids in enumerate(asked):
            for _ in range(30):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            assert said(tokens, row) == ids[-30:]


def test_a_cache_is_allocated_once_and_rows_that_ended_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made, sizes = random_model(), list[Cache](), list[tuple[int, ...]]()
    new_cache, hidden = model.new_cache, model.hidden

    def note_cache(*size: int) -> Cache:
        made.append(new_cache(*size))
        return made[-1]

    def note_size(idx: torch.Tensor, **others: Any) -> torch.Tensor:
        sizes.append(tuple(idx.shape))
        return hidden(idx, **others)

    monkeypatch.setattr(model, "new_cache", note_cache)
    monkeypatch.setattr(model, "hidden", note_size)
    prompts = [make_prompt(question("?" * n), TOY) for n in (40, 55, 3)]  # context 64: room for 20, 5 and 57 tokens
    tokens = generate(model, prompts, 30)
    next(tokens)
    place = made[0].keys.data_ptr()
    rest = list(tokens)
    assert [len(said(rest, row)) for row in (1, 2)] == [5, 30]
    assert sizes == [(3, 59)] + [(3, 1)] * 4 + [(2, 1)] * 15 + [(1, 1)] * 10
    assert len(made) == 1
    assert made[0].keys.data_ptr() == place
    assert made[0].keys.shape == (3, 3, 64, 2, 16)


# ---- a batch ----


@pytest.mark.parametrize("pattern", [None, "SL"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, 20, 3), Sampling(1.3, None, 4)])
def test_a_batch_says_what_each_row_says_alone(pattern: str | None, sampling: Sampling) -> None:
    model = random_model(window_pattern=pattern)
    prompts = [make_prompt(question(text), TOY) for text in ("a", "What is it?", "Tell me a short story", "bc")]
    together = list(generate(model, prompts, 25, sampling))
    assert list(generate(model, prompts, 25, sampling)) == together
    assert said(list(generate(model, prompts[:1], 25, sampling)), 0) == said(together, 0)
    first_two = list(generate(model, prompts[:2], 25, sampling))
    assert [said(first_two, row) for row in (0, 1)] == [said(together, row) for row in (0, 1)]
    if sampling.temperature == 0:
        assert [said(list(generate(model, [prompt], 25)), 0) for prompt in prompts] == [
            said(together, row) for row in range(4)
        ]


@pytest.mark.parametrize("pattern", [None, "SL"])
def test_a_batch_in_bfloat16_says_something_too(pattern: str | None) -> None:
    model = random_model(window_pattern=pattern)
    model.set_dtype(torch.bfloat16)
    prompts = [make_prompt(question(text), TOY) for text in ("a", "What is it?")]
    assert len(list(generate(model, prompts, 9, Sampling(0.7, 20, 3)))) <= 18
    assert model.new_cache(1, 1).keys.dtype == torch.bfloat16


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_are_not_finite_are_one_error(value: float, temperature: float) -> None:
    model = random_model()
    with torch.no_grad():
        model.lm_head.weight[7] = value
    with pytest.raises(ValueError, match="logits are not finite: its weights are damaged, take another checkpoint"):
        list(generate(model, [make_prompt(question("a"), TOY)], 9, Sampling(temperature)))


def test_another_seed_says_something_else_and_the_likeliest_of_one_is_greedy() -> None:
    model, prompts = random_model(), [make_prompt(question("a"), TOY)]
    by_seed = [[token.id for token in generate(model, prompts, 25, Sampling(1.0, None, seed))] for seed in (1, 2, 1)]
    assert by_seed[0] == by_seed[2] != by_seed[1]
    assert list(generate(model, prompts, 25, Sampling(1.0, 1, 5))) == list(generate(model, prompts, 25))
    assert list(generate(model, prompts, 25, Sampling(1e-9, None, 5))) == list(generate(model, prompts, 25))


def test_chances_are_those_of_the_softmax_among_the_likeliest() -> None:
    model = random_model(vocab_size=5)
    z = torch.tensor([[0.0, 1.0, 2.0, -1.0, -30.0]])
    prompt = Prompt([0], 1, (2, 3), (4, 5))
    for top_k, temperature in ((None, 1.0), (2, 0.5), (9, 2.0)):
        rows = [Row(0, prompt, 1, np.random.default_rng((0, number))) for number in range(20_000)]
        drawn = choose(z.expand(len(rows), -1), model, rows, Sampling(temperature, top_k))
        expected = torch.softmax(15 * torch.tanh(z[0, :5].double() / 15) / temperature, dim=0)
        expected[z[0].argsort(descending=True)[top_k or 5 :]] = 0
        share = np.bincount(drawn, minlength=5) / len(rows)
        assert np.abs(share - (expected / expected.sum()).numpy()).max() < 0.015


# ---- how an answer ends ----


def test_what_was_learned_by_heart_is_said_to_the_letter_and_ends(parrot: GPT, toy: Tokenizer) -> None:
    prompts = [make_prompt(question(asked), toy) for asked, _ in KNOWN]
    tokens = list(generate(parrot, prompts, 60))
    for row, (asked, answer) in enumerate(KNOWN):
        whole, _ = render_conversation([*question(asked), {"role": "assistant", "content": answer}], toy)
        assert said(tokens, row) == whole[len(prompts[row].ids) :]


def test_an_answer_ends_at_the_limit_or_where_the_context_is_full(parrot: GPT, toy: Tokenizer) -> None:
    prompt = make_prompt(question("Hi"), toy)
    assert bytes(token.id for token in generate(parrot, [prompt], 4)) == b"Hell"
    long = make_prompt(question("Hi" * 60), toy)  # 124 of 128
    assert len(list(generate(parrot, [long], 60))) <= 4
    with pytest.raises(ValueError, match="the prompt has 128 tokens, the model's context is 128: ask in fewer words"):
        list(generate(parrot, [make_prompt(question("Hi" * 62), toy)], 60))
    assert list(generate(parrot, [], 60)) == []


def test_the_answer_of_a_call_is_forced_into_the_stream(parrot: GPT, toy: Tokenizer) -> None:
    calls = []

    def calculate(ids: list[int]) -> list[int]:
        calls.append(bytes(ids))
        return list(b"77")

    tokens = list(generate(parrot, [make_prompt(question("2+3?"), toy)], 60, calculate=calculate))
    special = toy.special_tokens
    assert calls == [b"2+3"]
    assert [token.id for token in tokens if token.forced] == [
        special["<|output_start|>"], *b"77", special["<|output_end|>"]
    ]  # fmt: skip
    reader = read([token.id for token in tokens])
    assert [part["text"] for part in reader.parts[:3]] == ["That is ", "2+3", "77"]


def test_a_call_without_an_answer_leaves_the_model_to_go_on(parrot: GPT, toy: Tokenizer) -> None:
    tokens = list(generate(parrot, [make_prompt(question("2+3?"), toy)], 60, calculate=lambda ids: []))
    assert not any(token.forced for token in tokens)
    assert read([token.id for token in tokens]).parts == KNOWN[1][1]


# ---- ids as parts ----


@given(parts=PARTS)
def test_ids_are_read_back_as_the_parts_that_were_rendered(parts: list[tuple[str, str]]) -> None:
    content = [{"type": kind, "text": text} for kind, text in parts]
    merged: list[dict[str, str]] = []
    for part in content:
        if part["type"] == "text" and merged and merged[-1]["type"] == "text":
            merged[-1]["text"] += part["text"]
        else:
            merged.append(dict(part))
    messages = [*question("?"), {"role": "assistant", "content": content}]
    start = len(make_prompt(messages, TOY).ids)
    reader = read(render_conversation(messages, TOY)[0][start:])
    assert reader.parts == merged
    assert reader.ended
    assert reader.problems == []


def test_a_character_of_several_tokens_comes_when_it_is_complete() -> None:
    reader = Reader(make_prompt(question("?"), TOY), TOY)
    pieces = [reader.read(byte) for byte in "a☺".encode()]
    assert pieces == [[("text", "a")], [], [], [("text", "☺")]]
    assert reader.read(0xE2) == []
    assert reader.finish() == [("text", "�")]


@pytest.mark.parametrize(
    ("names", "problems"),
    [
        ("python_start assistant_end", ["unbalanced parts"]),
        ("python_end assistant_end", ["unbalanced parts"]),
        ("python_start output_end python_end assistant_end", ["unbalanced parts"]),
        ("output_start python_start output_end assistant_end", ["unbalanced parts"]),
        ("user_start assistant_end", ["wrong tokens"]),
        ("bos assistant_start python_end", ["wrong tokens", "unbalanced parts"]),
    ],
)
def test_tokens_that_training_never_has_there_are_problems(names: str, problems: list[str]) -> None:
    reader = read([TOY.special_tokens[f"<|{name}|>"] for name in names.split()])
    assert reader.problems == problems
    assert reader.ended == names.endswith("assistant_end")


# ---- a history ----


def test_a_history_longer_than_the_context_loses_its_oldest_turns_and_keeps_its_system_message() -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i}"} for i in range(9)]
    messages = [{"role": "system", "content": "Be brief."}, *turns]
    whole, num_dropped = fit_history(messages, TOY, 400, 100)
    assert (whole, num_dropped) == (make_prompt(messages, TOY), 0)
    prompt, num_dropped = fit_history(messages, TOY, 90, 40)
    assert num_dropped == 3
    assert prompt == make_prompt([messages[0], *turns[6:]], TOY)
    with pytest.raises(ValueError, match=r"the question has 94 tokens, .* 80 has room for 60 .*: ask in fewer words"):
        fit_history([*turns[:8], {"role": "user", "content": "?" * 90}], TOY, 80, 20)
