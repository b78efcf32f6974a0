"""The identity conversations that ship with midprep are a valid data set with no two alike."""

import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "prep" / "data" / "identity.jsonl"


@pytest.fixture(scope="module")
def conversations() -> list[list[dict[str, str]]]:
    return [json.loads(line) for line in PATH.read_bytes().decode("utf-8", errors="strict").splitlines()]


def test_there_are_about_two_hundred_conversations(conversations):
    assert 180 <= len(conversations) <= 240


def test_roles_alternate_from_user_to_assistant(conversations):
    for messages in conversations:
        assert len(messages) in (2, 4, 6)
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert all(set(message) == {"role", "content"} for message in messages)


def test_no_text_is_empty_padded_or_unprintable(conversations):
    for text in (message["content"] for messages in conversations for message in messages):
        assert text
        assert text == text.strip()
        assert text.replace("\n", "").replace("\u00a0", "").isprintable()


def test_no_two_conversations_are_alike(conversations):
    openings = {messages[0]["content"].casefold().strip(" ?!.") for messages in conversations}
    answers = [
        message["content"] for messages in conversations for message in messages if message["role"] == "assistant"
    ]
    assert len(openings) == len(conversations)
    assert len(set(answers)) == len(answers)


def test_most_conversations_say_what_the_model_is_and_some_are_not_in_english(conversations):
    texts = [" ".join(message["content"] for message in messages) for messages in conversations]
    assert sum("midprep" in text for text in texts) > 0.7 * len(texts)
    assert sum(not messages[0]["content"].isascii() for messages in conversations) > 20


def test_spelled_words_are_spelled_right(conversations):
    """apple:a,p,p,l,e is the form in which the spelling tasks teach it"""
    spelled = [
        line.split(":")
        for messages in conversations
        for message in messages
        for line in message["content"].replace(" ", "\n").splitlines()
        if line.count(":") == 1 and line.count(",") > 2
    ]
    assert len(spelled) > 5
    for word, letters in spelled:
        assert letters.rstrip(".?").split(",") == list(word)
