"""
The renderer of spec/nanochat.md in plain words: one conversation, tiktoken, lists. What prep.render.render has to equal.
"""

from typing import Any

import tiktoken


def render_plainly(conversation: dict[str, Any], encoding: tiktoken.Encoding) -> tuple[list[int], list[int]]:
    """A valid conversation -> ids and mask"""
    ids: list[int] = []
    mask: list[int] = []

    def special(name: str, trained: int) -> None:
        ids.append(encoding.encode_single_token(name))
        mask.append(trained)

    def text(part: str, trained: int) -> None:
        found = encoding.encode_ordinary(part)
        ids.extend(found)
        mask.extend([trained] * len(found))

    messages = conversation["messages"]
    if messages[0]["role"] == "system":
        merged = messages[0]["content"] + "\n\n" + messages[1]["content"]
        messages = [{"role": "user", "content": merged}, *messages[2:]]
    special("<|bos|>", 0)
    for i, message in enumerate(messages):
        assert message["role"] == ("user", "assistant")[i % 2]
        if message["role"] == "user":
            special("<|user_start|>", 0)
            text(message["content"], 0)
            special("<|user_end|>", 0)
            continue
        content = message["content"]
        special("<|assistant_start|>", 0)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                text(part["text"], 1)
                continue
            name, trained = {"python": ("python", 1), "python_output": ("output", 0)}[part["type"]]
            special(f"<|{name}_start|>", trained)
            text(part["text"], trained)
            special(f"<|{name}_end|>", trained)
        special("<|assistant_end|>", 1)
    return ids, mask
