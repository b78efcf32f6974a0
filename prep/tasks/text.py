"""
Plain text: documents that nobody says, as base training has them. Every token is a target in mid, none in SFT.

    {"text": "Oslo is the capital of Norway."}     ->     <|bos|>Oslo is the capital of Norway.
"""

from prep.conversations import read
from prep.tasks.task import BuiltinTask

EXAMPLE = {"text": "Oslo is the capital of Norway."}

TEXT = BuiltinTask(
    "text",
    "Text: documents, as JSON lines, parquet or Arrow with a column `text`. Mid trains every token, SFT none (unless the "
    'entry says train_on = "all"). One that is longer than a row is cut into rows, each of which begins with bos.',
    EXAMPLE,
    version=1,
    read=read.conversations,
)
