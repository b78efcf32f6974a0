"""
SmolTalk: general chat of many kinds, the bulk of a mid-training mixture. The conversations are taken as they are; a
leading system message is merged into the first user message by the renderer.
"""

import pyarrow as pa

from prep.conversations import messages
from prep.conversations.conversation import Conversations

EXAMPLE = {
    "messages": [
        {"role": "user", "content": "Name three primary colours."},
        {"role": "assistant", "content": "Red, yellow and blue."},
    ],
    "source": "everyday-conversations",
}

VERSION = 1
HUB = "HuggingFaceTB/smol-smoltalk"
COLUMNS = ["messages"]
DEFAULTS = {"train": ("default", "train"), "val": ("default", "test")}  # (subset, split) by split of the build


def conversations(rows: pa.Table) -> Conversations:
    """C rows -> C conversations"""
    return messages.of_arrow(rows["messages"])
