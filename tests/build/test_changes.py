"""changes: what differs between two builds, whether both are finished or one is still to be made."""

from typing import Any

from prep.build.changes import changes

SHA = ("a" * 64, "b" * 64)


def described(tokenizer: Any, *sources: dict[str, Any], **keys: Any) -> dict[str, Any]:
    mixture = {"name": "m", "without": keys.pop("without", []), "train": list(sources)}
    return {"mixture": mixture, "seed": 42, "max_tokens": None, "tokenizer": tokenizer, **keys}


def test_settings_and_tokenizers_are_compared_whichever_side_is_a_manifest() -> None:
    manifest = described({"name": "toy", "sha256": SHA[0]})
    assert changes(manifest, described(SHA[0])) == []
    assert changes(manifest, described({"name": "same ids", "sha256": SHA[0]})) == []
    assert changes(manifest, described(SHA[1])) == ["tokenizer aaaaaaaaaaaa -> bbbbbbbbbbbb"]
    assert changes(manifest, described({"name": "mine", "sha256": SHA[1]})) == ["tokenizer toy -> mine"]
    assert changes(manifest, described(SHA[0], seed=7, max_tokens=2048, without=["mmlu", "gsm8k"])) == [
        "seed 42 -> 7", "max_tokens none -> 2,048", "without none -> mmlu, gsm8k",
    ]  # fmt: skip


def test_sources_are_compared_by_name_and_contents_follow_from_a_revision() -> None:
    chat, quiz = {"name": "chat", "sha256": SHA[0]}, {"name": "quiz", "revision": "1" * 40, "sha256": SHA[0]}
    before = described(SHA[0], chat, quiz)
    assert changes(before, described(SHA[0], quiz)) == ["train chat is gone"]
    assert changes(before, described(SHA[0], quiz, chat)) == ["train has its sources in another order"]
    assert changes(before, described(SHA[0], chat | {"sha256": SHA[1]}, quiz | {"revision": None, "sha256": SHA[1]})) == [
        "train chat sha256 aaaaaaaaaaaa -> bbbbbbbbbbbb", "train quiz revision 111111111111 -> none",
    ]  # fmt: skip
