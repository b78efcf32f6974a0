"""
Identity: who the model is. JSON lines, an array of messages a line, user and assistant in turn. Usually few and
repeated; what the model says of itself comes from here and from nowhere else.
"""

import pyarrow as pa

from prep.conversations.conversation import Conversations
from prep.tasks import chat

EXAMPLE = [
    {"role": "user", "content": "Hi, who are you?"},
    {"role": "assistant", "content": "Hello! I am a small language model trained with midprep."},
]

VERSION = 1
FILE = "identity_conversations.jsonl"  # its name in nanochat's cache and beside a data root


def conversations(rows: pa.Table) -> Conversations:
    """C lines -> C conversations"""
    return chat.conversations(rows)
