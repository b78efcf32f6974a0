r"""
Which of a conversation's text the assistant says, where a Jinja template wrote it: the spans that train.

    messages[:1], asked to speak    <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n
    messages[:2]                    <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n
                                                                                            |4<|im_end|>\n|

Generation blocks say it. Without them a turn of the assistant's is what its message adds to the text of those before it, when
the template was asked for the beginning of a turn. Texts are compared, never ids. A template that writes a message otherwise
when more follows is refused: no span of its text is sure.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from prep.jinja.format import JinjaFormat, Messages, Span, Written

SHOWN: Final = 40  # characters of a text


def write_chat(
    form: JinjaFormat, messages: Messages, tools: Any, tokens: Mapping[str, str], trained: Sequence[bool] | None = None
) -> Written:
    """A conversation as text, with the spans that train; `trained` says of which messages of the assistant, None: of all"""
    if form.has_generation:
        written = form.write(messages, tools, tokens)
        spans = _of_trained(form, written.spans, messages, tools, tokens, trained)
    else:
        written, spans = _compare(form, messages, tools, tokens, trained)
    return Written(written.text, sorted(span for span in spans if span[0] < span[1]))


def _of_trained(
    form: JinjaFormat,
    spans: list[Span],
    messages: Messages,
    tools: Any,
    tokens: Mapping[str, str],
    trained: Sequence[bool] | None,
) -> list[Span]:
    """The spans of generation blocks that are of messages that train"""
    speaks = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if trained is None or all(trained[i] for i in speaks):
        return spans
    bounds = [0]
    for i in speaks[:-1]:  # those that come with each message are its own
        before = form.write(messages[: i + 1], tools, tokens).spans
        if before != spans[: len(before)]:
            raise ValueError(
                "template raised", "its generation blocks are others when more follows: none can be left out"
            )
        bounds.append(len(before))
    bounds.append(len(spans))
    owners = [i for i, (start, stop) in zip(speaks, pairwise(bounds), strict=True) for _ in range(start, stop)]
    return [span for span, i in zip(spans, owners, strict=True) if trained[i]]


def _compare(
    form: JinjaFormat, messages: Messages, tools: Any, tokens: Mapping[str, str], trained: Sequence[bool] | None
) -> tuple[Written, list[Span]]:
    """The text, and what each message of the assistant adds to that of the messages before it"""
    whole = form.write(messages, tools, tokens)
    spans: list[Span] = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or not (trained is None or trained[i]):
            continue
        is_last = i + 1 == len(messages)
        told = whole.text if is_last else form.write(messages[: i + 1], tools, tokens).text
        asked = form.write(messages[:i], tools, tokens, add_generation_prompt=True).text
        end, eos = len(told), tokens.get("eos_token", "")
        if not whole.text.startswith(told) and eos and told.endswith(eos):
            end -= len(eos)  # of the conversation, not of the turn
        if not whole.text.startswith(told[:end]):
            _refuse(form, i, told, whole.text)
        start = len(asked) if told.startswith(asked) else _begin(form, i, messages, tools, tokens, asked, told)
        spans.append((start, end))
    return whole, spans


def _begin(
    form: JinjaFormat, i: int, messages: Messages, tools: Any, tokens: Mapping[str, str], asked: str, told: str
) -> int:
    """Where message i begins to speak, for a template that asks for more than the turn begins with (`<think>`)"""
    before = form.write(messages[:i], tools, tokens).text
    if not told.startswith(before):
        _refuse(form, i - 1, before, told)
    probes = [
        form.write([*messages[:i], {"role": "assistant", "content": text}], tools, tokens).text for text in ("x", "y")
    ]
    return min(len(shared_start(pair)) for pair in ([asked, told], probes, [probes[0], told]))


def shared_start(texts: Sequence[str]) -> str:
    """
    >>> shared_start(["<think>", "<b>"])
    '<'
    """
    first, last = min(texts), max(texts)
    return next((first[:i] for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), first)


def _refuse(form: JinjaFormat, i: int, alone: str, followed: str) -> None:
    place = len(shared_start([alone, followed]))
    raise ValueError(
        f"chat template {form.name} writes message {i + 1} of a conversation otherwise when more follows "
        f"({followed[place : place + SHOWN]!r} where it wrote {alone[place : place + SHOWN]!r}), so that no mask can be "
        "found: put {% generation %} and {% endgeneration %} around what it writes for the assistant."
    )
