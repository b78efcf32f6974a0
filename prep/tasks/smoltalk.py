"""
SmolTalk: the conversations are taken as they are.
"""

import pyarrow as pa

from prep.conversations import messages
from prep.conversations.conversation import Conversations
from prep.tasks.task import BuiltinTask

EXAMPLE = {
    "messages": [
        {"role": "user", "content": "Name three primary colours."},
        {"role": "assistant", "content": "Red, yellow and blue."},
    ],
    "source": "everyday-conversations",
}


def conversations(rows: pa.Table) -> Conversations:
    """C rows -> C conversations"""
    return messages.of_arrow(rows["messages"])


SMOLTALK = BuiltinTask(
    "smoltalk",
    "SmolTalk: general chat of many kinds, the bulk of a mid-training mixture. The conversations are taken as they are; the "
    "renderer merges a leading system message into the first user message.",
    EXAMPLE,
    version=1,
    read=conversations,
    hub="HuggingFaceTB/smol-smoltalk",
    download=(484_570, 970_000_000),
    columns=("messages",),
    defaults={"train": ("default", "train"), "val": ("default", "test")},
)
