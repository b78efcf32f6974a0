"""
Chat: conversations of one's own, as JSON lines, parquet or Arrow, in any of the layouts of prep.conversations.layouts.
Contents are strings or, for the assistant, lists of parts: text and Python calls are trained, what Python answered is not.
"""

import pyarrow as pa

from prep.conversations import layouts, turns
from prep.conversations.conversation import Conversations
from prep.conversations.layouts import Layout

EXAMPLE = {
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

VERSION = 1
PLAIN = Layout()


def conversations(rows: pa.Table, layout: Layout = PLAIN) -> Conversations:
    """C rows, columns or lines of JSON in a column `line`, -> C conversations"""
    batch = layouts.conversations(rows, layout)
    if layout.consecutive == "merge":
        batch = turns.merge(batch)
    return turns.train_on(batch, layout.train_on)
