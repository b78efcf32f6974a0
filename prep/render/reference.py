"""
The rule of rendering, one conversation at a time: what prep.render.render does in columns, by the same tables.

    <|bos|> <|user_start|> 2+2? <|user_end|> <|assistant_start|> 4 <|assistant_end|>
       0          0          0       0              0            1        1

Slow, and meant to be read: parts as the format wants them, the scaffold between them, and all of it to tokens. Property tests
hold the columnar renderer against it. `make_prompt` is what a model is asked to go on from, with the tokens that end and divide
its answer: generation knows a format by this alone.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from prep.chat import rules
from prep.chat.choose import AnyTemplate
from prep.chat.encoding import Segment, cut_controls, encode_segments
from prep.chat.scaffold import Neighbour, conversation_gaps, part_trains
from prep.chat.template import TRAINED_KINDS, ChatTemplate
from prep.conversations.conversation import (
    ASSISTANT,
    CALL_ARGUMENTS,
    CALL_ID,
    CALL_NAME,
    KINDS,
    REASONING,
    ROLES,
    SYSTEM,
    TEXT,
    TOOL,
    USER,
)
from prep.conversations.layouts import FLAGS, REASONING_FIELDS
from prep.conversations.values import read_calls, to_json
from prep.jinja.format import JinjaTemplate, token_names
from prep.tokenizer.tokenizer import Tokenizer

NANOCHAT = ChatTemplate()
NO_TOKENS = (-1, -1)
ANSWER = "midprep asks where an answer ends"


class Prompt(NamedTuple):
    """A conversation up to where the assistant starts to speak, and the tokens with a meaning in what it will say"""

    ids: list[int]
    stop: int  # ends its turn
    python: tuple[int, int]  # before and after a call, -1 where the format has none
    output: tuple[int, int]  # before and after what Python answers


class Turn(NamedTuple):
    """A turn, its parts in the order of the format"""

    role: int
    trains: bool
    parts: list[tuple[int, str, bool]]  # kind, text, whether it said nothing before it was trimmed


def make_prompt(
    messages: Sequence[dict[str, Any]], tokenizer: Tokenizer, template: AnyTemplate = NANOCHAT, tools: Any = None
) -> Prompt:
    """Messages as `render_conversation` takes them, an answer at their end left off -> what a model goes on from"""
    if isinstance(template, JinjaTemplate):
        return _jinja_prompt(messages, tokenizer, template, tools)
    ids, _ = render_conversation(messages, tokenizer, for_completion=True, template=template, tools=tools)
    form = template.format
    around = {kind: (inner.before, inner.after) for kind, inner in form.inner.items()}
    python, output = (
        tuple(map(tokenizer.special_id, around[kind])) if kind in around else NO_TOKENS for kind in KINDS[1:3]
    )
    closes = cut_controls([Segment(form.turns["assistant"].closes, True)], form.controls, tokenizer)
    stop = next(segment.id for segment in closes if segment.id is not None)
    return Prompt(ids, stop, (python[0], python[1]), (output[0], output[1]))


def _jinja_prompt(
    messages: Sequence[dict[str, Any]], tokenizer: Tokenizer, template: JinjaTemplate, tools: Any
) -> Prompt:
    """What the template writes when it is asked to go on; its turn ends with the first control after an answer"""
    asked = list(messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages)
    names, controls = token_names(tokenizer), tuple(tokenizer.special_tokens)
    text = template.format.write(asked, tools, names, add_generation_prompt=True).text
    ids, _ = encode_segments(cut_controls([Segment(text, False)], controls, tokenizer), template.mask, tokenizer)
    answered = template.format.write([*asked, {"role": "assistant", "content": ANSWER}], tools, names).text
    _, found, after = answered.rpartition(ANSWER)
    closes = cut_controls([Segment(after, True)], controls, tokenizer)
    stop = next((segment.id for segment in closes if found and segment.id is not None), None)
    if stop is None:
        raise ValueError(f"chat template {template.name} ends an answer with no special token of the tokenizer.")
    return Prompt(ids, stop, NO_TOKENS, NO_TOKENS)


def render_conversation(
    messages: Sequence[dict[str, Any]],
    tokenizer: Tokenizer,
    for_completion: bool = False,
    template: ChatTemplate = NANOCHAT,
    tools: Any = None,
) -> tuple[list[int], list[int]]:
    """
    Messages {"role", "content"} -> ids, and the mask of equal length: 1 where SFT trains.

    An assistant's content is a string or a list of parts {"type": "text" | "python" | "python_output", "text"}. An
    assistant's message with "train": false, or 0 in another of prep.conversations.layouts.FLAGS, is context. Formats that
    have a place for them also take `reasoning_content`, `tool_calls`, messages of the role tool, and `tools`, a list of
    definitions. With `for_completion` an assistant's last message is left off and the ids end where the assistant starts to
    speak. ValueError for messages that are not a conversation.
    """
    form = template.format
    if for_completion and messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if form.alternates:
        messages = merge_system(messages)
        _check_roles(messages)
    turns = [_turn(message) for message in messages]
    if not form.alternates:
        turns = _arrange(turns, template, to_json(tools) if tools else "")
    segments = list(_segments(turns, template, tokenizer, for_completion))
    return encode_segments(segments, template.mask, tokenizer)


def _segments(
    turns: list[Turn], template: ChatTemplate, tokenizer: Tokenizer, for_completion: bool
) -> Iterator[Segment]:
    """The text of a conversation, controls with their ids"""
    form, texts = template.format, [text for turn in turns for _, text, _ in turn.parts]
    parts = [
        Neighbour(turn.role, kind, turn.trains, i == 0, is_empty)
        for turn in turns
        for i, (kind, _, is_empty) in enumerate(turn.parts)
    ]
    gaps = conversation_gaps(parts, template, TRAINED_KINDS)
    if for_completion:
        asked = Neighbour(ASSISTANT, TEXT, False, True, True)
        gaps = conversation_gaps([*parts, asked], template, TRAINED_KINDS)[:-1]
    for scaffold, part, text in zip(gaps, [*parts, None], [*texts, ""], strict=False):
        yield from cut_controls(scaffold, form.controls, tokenizer)
        if part is not None:
            yield Segment(text, part_trains(part, template, TRAINED_KINDS))
        if form.texts_apart:
            yield Segment("", False, -1)


# ---- messages ----


def _turn(message: dict[str, Any]) -> Turn:
    """A message as a turn"""
    role = ROLES.index(message["role"])
    flags = [message[name] for name in FLAGS if message.get(name) is not None]
    thought = next((message[name] for name in REASONING_FIELDS if message.get(name) is not None), None)
    parts = [] if thought is None else [(REASONING, thought)]
    content = message.get("content")
    if isinstance(content, str):
        parts.append((TEXT, content))
    for part in content if isinstance(content, list) else []:
        if part["type"] not in KINDS[:3]:
            raise ValueError(f"part of the type {part['type']!r}: wanted text, python or python_output")
        parts.append((KINDS.index(part["type"]), part["text"]))
    parts += [part for call in read_calls(message) for part in call if part[0] != CALL_ID]
    listed = [(kind, text, not text) for kind, text in parts] or [(TEXT, "", True)]
    return Turn(role, all(flags), listed)


def _check_roles(messages: Sequence[dict[str, Any]]) -> None:
    for number, message in enumerate(messages):
        role = message["role"]
        if role != ("user", "assistant")[number % 2]:
            raise ValueError(f"message {number} is of the role {role!r}: wanted user and assistant in turn")
        if role == "user":
            text_of(message)


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


# ---- turns as a format has them ----


def _arrange(turns: list[Turn], template: ChatTemplate, tools: str) -> list[Turn]:
    """Turns with one text each, and with the reasoning, calls, tools and system text that the format writes"""
    form = template.format
    unplaced = [ROLES[turn.role] for turn in turns if turn.role != TOOL and ROLES[turn.role] not in form.turns]
    if unplaced or (form.results is None and any(turn.role == TOOL for turn in turns)):
        raise ValueError(f"chat format {form.name} has no place for a message of the role {[*unplaced, 'tool'][0]}")
    roles = [ROLES[turn.role] for turn in turns]
    last = rules.last_query(roles, ["".join(text for kind, text, _ in turn.parts if kind == TEXT) for turn in turns])
    arranged = [_in_place(turn, i, i == len(turns) - 1, last, template) for i, turn in enumerate(turns)]
    told = rules.write_tools(tools, form.tools) if form.tools and tools else ""
    first = arranged[0] if arranged and arranged[0].role == SYSTEM else None
    said = first.parts[0][1] if first else form.default_system
    if form.tools and told and form.tools.into == "system":
        said = told if said is None else said + form.tools.between + told
    if form.system_prefix:
        announced = form.tools.announce if form.tools and told else ""
        said = announced + form.system_prefix.format(date=template.date or form.date) + (said or "")
    if said is not None:
        arranged = [Turn(SYSTEM, True, [(TEXT, said, False)]), *arranged[first is not None :]]
    if form.tools and told and form.tools.into == "user":
        place = next(i for i, turn in enumerate(arranged) if turn.role == USER)
        arranged[place] = Turn(USER, True, [(TEXT, told + arranged[place].parts[0][1], False)])
    return arranged


def _in_place(turn: Turn, place: int, is_last: bool, last_query: int, template: ChatTemplate) -> Turn:
    """Reasoning, one text, calls"""
    form = template.format
    table = form.turns.get(ROLES[turn.role])
    texts = [text for kind, text, _ in turn.parts if kind == TEXT]
    thoughts = [text for kind, text, _ in turn.parts if kind == REASONING]
    text, thought = "".join(texts), "".join(thoughts)
    if form.reasoning and turn.role == ASSISTANT and not thoughts and (found := rules.find_reasoning(text)):
        thought, text = found.reasoning, found.text
    is_empty, is_written = not text, False
    if form.reasoning and turn.role == ASSISTANT:
        keeps = form.reasoning.keep == "always" or place > last_query
        block = form.reasoning.when_empty == "always" or (form.reasoning.when_empty == "last" and is_last)
        is_written = keeps and (bool(thought) or (block and template.empty_think))
    if is_written:
        text = text.lstrip("\n")
    trim = rules.TRIMS[table.trim] if table else ""
    text = text.strip(trim) if trim else text
    parts = [(REASONING, thought.strip("\n"), not thought)] if is_written else []
    if turn.role == TOOL and form.results and form.results.as_json:
        text = rules.to_json(text)
    parts.append((TEXT, text, is_empty))
    for kind, said, _ in turn.parts:
        if kind in (CALL_NAME, CALL_ARGUMENTS):
            if form.calls is None:
                raise ValueError(f"chat format {form.name} has no place for calls of tools")
            is_text = kind == CALL_ARGUMENTS
            parts.append((kind, rules.write_arguments(said, form.calls.strings) if is_text else said, False))
    return Turn(turn.role, turn.trains, parts)
