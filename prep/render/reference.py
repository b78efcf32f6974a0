"""
The rule of rendering, one conversation at a time: what prep.render.render does in columns, in the words of nanochat's format.

    <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|>
       0          0          0       0              0            1        1

Slow, and meant to be read. Property tests hold the columnar renderer against it. `make_prompt` is what a model is asked to go
on from, with the tokens that end and divide its answer: generation knows the format by this alone.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from prep.conversations.layouts import FLAGS
from prep.tokenizer.tokenizer import Tokenizer


class Prompt(NamedTuple):
    """A conversation up to where the assistant starts to speak, and the tokens with a meaning in what it will say"""

    ids: list[int]
    stop: int  # ends its turn
    python: tuple[int, int]  # before and after a call
    output: tuple[int, int]  # before and after what Python answers


def make_prompt(messages: Sequence[dict[str, Any]], tokenizer: Tokenizer) -> Prompt:
    """Messages as `render_conversation` takes them, an answer at their end left off -> what a model goes on from"""
    special = tokenizer.special_tokens
    ids, _ = render_conversation(messages, tokenizer, for_completion=True)
    python = special["<|python_start|>"], special["<|python_end|>"]
    output = special["<|output_start|>"], special["<|output_end|>"]
    return Prompt(ids, special["<|assistant_end|>"], python, output)


def render_conversation(
    messages: Sequence[dict[str, Any]], tokenizer: Tokenizer, for_completion: bool = False
) -> tuple[list[int], list[int]]:
    """
    Messages {"role", "content"} -> ids, and the mask of equal length: 1 where SFT trains.

    An assistant's content is a string or a list of parts {"type": "text" | "python" | "python_output", "text"}. An
    assistant's message with "train": false, or 0 in another of prep.conversations.layouts.FLAGS, is context. With
    `for_completion` an assistant's last message is left off and the ids end where the assistant starts to speak. ValueError
    for messages that are not a conversation.
    """
    ids: list[int] = []
    mask: list[int] = []

    def add_special(name: str, trains: int) -> None:
        ids.append(tokenizer.special_tokens[name])
        mask.append(trains)

    def add_text(text: str, trains: int) -> None:
        encoded = tokenizer.encoding.encode(text, disallowed_special=())  # whoever types <|bos|> gets its characters
        ids.extend(encoded)
        mask.extend([trains] * len(encoded))

    messages = merge_system(messages)
    if for_completion and len(messages) % 2 == 0:
        messages = messages[:-1]
    add_special("<|bos|>", 0)
    for number, message in enumerate(messages):
        role = message["role"]
        if role != ("user", "assistant")[number % 2]:
            raise ValueError(f"message {number} is of the role {role!r}: wanted user and assistant in turn")
        if role == "user":
            add_special("<|user_start|>", 0)
            add_text(text_of(message), 0)
            add_special("<|user_end|>", 0)
            continue
        flags = [message[name] for name in FLAGS if message.get(name) is not None]
        trains, content = int(all(flags)), message["content"]
        add_special("<|assistant_start|>", 0)
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                add_text(part["text"], trains)
            elif part["type"] == "python":
                add_special("<|python_start|>", trains)
                add_text(part["text"], trains)
                add_special("<|python_end|>", trains)
            elif part["type"] == "python_output":  # Python says it, not the model
                add_special("<|output_start|>", 0)
                add_text(part["text"], 0)
                add_special("<|output_end|>", 0)
            else:
                raise ValueError(f"part of the type {part['type']!r}: wanted text, python or python_output")
        add_special("<|assistant_end|>", trains)
    if for_completion:
        add_special("<|assistant_start|>", 0)
    return ids, mask


def merge_system(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A leading system message becomes the beginning of the user message after it"""
    if not messages or (messages[0]["role"] == "system" and len(messages) < 2):
        raise ValueError(f"{len(messages)} messages are not a conversation: wanted a user message first")
    first, *rest = messages
    if first["role"] != "system":
        return [first, *rest]
    return [{**rest[0], "content": f"{text_of(first)}\n\n{text_of(rest[0])}"}, *rest[1:]]


def text_of(message: dict[str, Any]) -> str:
    """The content of a user's or system's message: a string, or a list of one text part"""
    content = message["content"]
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0]["type"] == "text":
        return str(content[0]["text"])
    raise ValueError(f"the content of a {message['role']} message is {content!r:.60}: wanted text")
