"""Renderers that are wrong in one thing are found by forty hard chats: plain ones would let most of them pass."""

import itertools

import pytest

from tests.chat.chats import expected, hard_chats, render_chats, template_of, tokenizer_of
from tests.chat.mutations import MUTATIONS

QWENS = ("qwen2.5", "qwen3", "qwen3-instruct-2507")
FOUND_BY = {
    "head_apart": QWENS,
    "tail_apart": QWENS,
    "border_context": ("qwen3-instruct-2507",),
    "nfc_before_cutting": QWENS[1:],
    "no_nfc": QWENS,
    "added_tokens_ordinary": QWENS,
    "strings_written_again": QWENS,
    "trim_by_rust": ("llama3",),
    "between_by_trimmed": ("qwen3",),
    "think_by_regex": ("qwen3",),
    "only_reasoning_content": ("qwen3",),
    "empty_think_left_out": ("qwen3",),
    "keys_sorted": QWENS,
    "ensure_ascii": QWENS,
    "results_not_merged": QWENS,
}


@pytest.mark.parametrize(("name", "family"), [(n, f) for n, families in FOUND_BY.items() for f in families])
def test_a_wrong_renderer_is_found(name: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chats, tokenizer = hard_chats(family), tokenizer_of(family)
    template = MUTATIONS[name](monkeypatch, template_of(family))
    wrong = render_chats(chats, tokenizer, template)
    assert all(ids for ids, _ in wrong), "a rejected row is no wrong rendering"
    different = sum(a != b for a, b in itertools.zip_longest(wrong, expected(chats)))
    assert different >= 3


def test_every_wrong_renderer_is_asked_for() -> None:
    assert FOUND_BY.keys() == MUTATIONS.keys()
