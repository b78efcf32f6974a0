"""
Chat: conversations of one's own. JSON lines (an object with `messages` a line, or the bare array) or parquet with a
column `messages`. Contents are strings, or for assistants lists of parts, so that tool calls can be trained on and tool
output not.
"""

import pyarrow as pa

from prep.conversation import Conversations
from prep.tasks import messages

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


def conversations(rows: pa.Table) -> Conversations:
    """C rows, parquet's columns or lines of JSON in a column `line`, -> C conversations"""
    if "line" in rows.column_names and "messages" not in rows.column_names:
        return messages.of_lines(rows["line"])
    if "messages" not in rows.column_names:
        raise ValueError(f"columns are {rows.column_names}, wanted one named messages")
    return messages.of_arrow(rows["messages"])
