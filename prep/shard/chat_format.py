"""
Who can read the text of a build in nanochat's chat format, which may be made with the tokenizer of another family.

    nano32k, nanochat's own        special tokens: nanochat's nine                       made for each other
    one that got them on top       <|begin_of_text|>, <|eot_id|>, ... and the nine       a format that its models never saw

A build of the second kind is whole and can be trained on. A chat model of that family expects another format, and so do the
programs that talk to it; nothing in the files is wrong, so this is said wherever a build is handed out. A build in another chat
format names it in its manifest, and there is nothing to say.
"""

from typing import Any

NANOCHAT_TOKENS = frozenset(
    f"<|{name}|>"
    for name in (
        *("bos", "user_start", "user_end", "assistant_start", "assistant_end"),
        *("python_start", "python_end", "output_start", "output_end"),
    )
)


def format_notice(manifest: dict[str, Any]) -> str | None:
    """What to say of a build whose tokenizer has special tokens of another chat format; None where there is nothing to say"""
    tokenizer = manifest["tokenizer"]
    if "chat_template" in manifest:
        return None
    own = [name for name in tokenizer["special_tokens"] if name not in NANOCHAT_TOKENS]
    if not own:
        return None
    shown = ", ".join(own[:3]) + (f" and {len(own) - 3} more" if len(own) > 3 else "")
    return (
        f"tokenizer {tokenizer['name']} has special tokens of its own ({shown}); this build is in nanochat's chat format, "
        "which chat models of that tokenizer do not know: train a base model on it, or build in its own with --chat-template."
    )
