"""
Why a row is no conversation: the culprit and the way on, for people. Asked of one row at a time, after it was rejected.

    unknown role 'Bot': roles = { Bot = "assistant" }
"""

import pyarrow as pa

from prep.arrange.arrange import explain
from prep.arrange.typed import explain_typed
from prep.chat.choose import AnyTemplate
from prep.conversations import read
from prep.conversations.conversation import REASONS, Conversations
from prep.jinja.format import JinjaTemplate
from prep.render.jinja import explain as explain_jinja
from prep.render.render import NANOCHAT_TEMPLATE
from prep.tasks.task import Task
from prep.tokenizer.tokenizer import Tokenizer

# what rows are rejected for as they are read and put into turns; other reasons say it all
EXPLAINED = {
    "not an object",
    "missing field",
    "unknown role",
    "roles out of turn",
    "content is not text",
    "unknown part type",
    "tool calls",
    "trained in part of a turn",
    "train or weight is not true or false",
    "messages are no list",
    "train flags disagree",
    "another layout",
    "call is not Python",
    "template raised",
    "spells a control token",
}


def why(
    task: Task,
    row: pa.Table,
    code: int,
    template: AnyTemplate = NANOCHAT_TEMPLATE,
    tokenizer: Tokenizer | None = None,
) -> str:
    """
    The culprit in a table of one row that was rejected for REASONS[code]; "" where there is no more to say. What a Jinja
    template does to a row, and what is a token in it, depends on the tokenizer.
    """
    if REASONS[code] not in EXPLAINED:
        return ""
    if task.layout and (culprit := read.explain(row, task.layout)):
        return culprit
    return why_of(task.conversations(row), code, template, tokenizer)


def why_of(batch: Conversations, code: int, template: AnyTemplate, tokenizer: Tokenizer | None) -> str:
    """The same of a batch of one conversation, read or made by a task"""
    if REASONS[code] not in EXPLAINED:
        return ""
    if tokenizer and (culprit := explain_typed(batch, (*tokenizer.special_tokens, *tokenizer.added_tokens))):
        return culprit
    if isinstance(template, JinjaTemplate):
        return explain_jinja(batch, template, tokenizer) if tokenizer else ""
    return explain(batch, REASONS[code], template)
