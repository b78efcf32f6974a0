"""
Conversations as they are: SmolTalk's (smoltalk), your own (chat), those that teach the model who it is (identity); and plain
text (text).

    {"text": "Oslo is the capital of Norway."}     ->     <|bos|>Oslo is the capital of Norway.
"""

from dataclasses import replace

import pyarrow as pa

from prep.conversations import messages, read
from prep.conversations.conversation import Conversations, Notes
from prep.conversations.layouts import Layout
from prep.tasks.task import BuiltinTask

SMOLTALK_EXAMPLE = {
    "messages": [
        {"role": "user", "content": "Name three primary colours."},
        {"role": "assistant", "content": "Red, yellow and blue."},
    ],
    "source": "everyday-conversations",
}
CHAT_EXAMPLE = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 12 * 12?"},
        {
            "role": "assistant",
            "content": [
                {"type": "python", "text": "12*12"},
                {"type": "python_output", "text": "144"},
                {"type": "text", "text": "144"},
            ],
        },
    ]
}
IDENTITY_EXAMPLE = [
    {"role": "user", "content": "Hi, who are you?"},
    {"role": "assistant", "content": "Hello! I am a small language model trained with midprep."},
]


def conversations(rows: pa.Table, layout: Layout = Layout()) -> Conversations:
    """C rows, columns or lines of JSON in a column `line`, -> C conversations"""
    return read.conversations(rows, layout)


def smoltalk(rows: pa.Table) -> Conversations:
    """C rows of SmolTalk -> C conversations"""
    column, layout = rows["messages"], Layout()
    batch = messages.of_arrow(column, layout)
    return replace(batch, notes=Notes(messages.left_aside(column, layout, batch.reasons == 0)))


SMOLTALK = BuiltinTask(
    "smoltalk",
    "SmolTalk: general chat of many kinds, the bulk of a mid-training mixture. The conversations are taken as they are; the "
    "renderer merges a leading system message into the first user message.",
    SMOLTALK_EXAMPLE,
    version=1,
    read=smoltalk,
    hub="HuggingFaceTB/smol-smoltalk",
    download=(484_570, 970_000_000),
    columns=("messages",),
    defaults={"train": ("default", "train"), "val": ("default", "test")},
)
CHAT = BuiltinTask(
    "chat",
    "Chat: your own conversations, as JSON lines, parquet or Arrow, in any of the layouts of prep.conversations.layouts. "
    "Contents are strings or, for the assistant, lists of parts: SFT trains on text and Python calls, not on what Python "
    "answered.",
    CHAT_EXAMPLE,
    version=3,
    read=conversations,
)
IDENTITY = BuiltinTask(
    "identity",
    "Identity: who the model is. JSON lines, an array of messages per line, user and assistant in turn. Usually few and "
    "repeated; what the model says of itself comes from here and from nowhere else.",
    IDENTITY_EXAMPLE,
    version=2,
    read=conversations,
    file="identity_conversations.jsonl",
    columns=("messages",),
)
TEXT = BuiltinTask(
    "text",
    "Text: documents, as JSON lines, parquet or Arrow with a column `text`. Mid trains every token, SFT none (unless the "
    'entry says train_on = "all"). One that is longer than a row is cut into rows, each of which begins with bos.',
    {"text": "Oslo is the capital of Norway."},
    version=1,
    read=conversations,
)
