"""
GSM8K: an answer is split at its calculator calls, row by row.

    answer   "He has 3*4=<<3*4=12>>12 apples.\\n#### 12"
    parts    text "He has 3*4="   python "3*4"   python_output "12"   text "12 apples.\\n#### 12"
"""

import re
from typing import Any

import pyarrow as pa

from prep.conversations.conversation import Conversations
from prep.conversations.read import of_objects
from prep.conversations.rows import rows_of
from prep.tasks.task import BuiltinTask

EXAMPLE = {
    "question": "Ann has 3 bags with 4 apples each. How many apples has she?",
    "answer": "She has 3*4=<<3*4=12>>12 apples.\n#### 12",
}
COLUMNS = pa.schema([("question", pa.large_string()), ("answer", pa.large_string())])
CALL = re.compile(r"<<([^>]+)>>")


def conversations(rows: pa.Table) -> Conversations:
    """C rows -> C conversations of a question and an answer in parts"""
    return of_objects([_conversation(row) for row in rows_of(rows.select(COLUMNS.names).cast(COLUMNS))])


def _conversation(row: Any) -> Any:
    """A row -> its messages; a str is the reason why there are none"""
    if isinstance(row, str):
        return row
    if row["question"] is None or row["answer"] is None:
        return "missing field"
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": parts_of(row["answer"])}]


def parts_of(answer: str) -> list[dict[str, str]]:
    """
    An answer, split at its calls

    >>> [part["text"] for part in parts_of("3*4=<<3*4=12>>12 apples.")]
    ['3*4=', '3*4', '12', '12 apples.']
    """
    first, *rest = CALL.split(answer)
    parts = [{"type": "text", "text": first}]
    for call, text in zip(rest[::2], rest[1::2], strict=True):
        expression, equals, result = call.rpartition("=")
        if not equals:
            expression, result = call, ""
        parts.append({"type": "python", "text": expression})
        parts.append({"type": "python_output", "text": result})
        parts.append({"type": "text", "text": text})
    return parts


GSM8K = BuiltinTask(
    "gsm8k",
    "GSM8K: grade-school problems whose answers hold calculator calls. A call becomes a `python` part, which SFT trains on, "
    "and a `python_output` part, which it does not: Python says it, not the model.",
    EXAMPLE,
    version=1,
    read=conversations,
    hub="openai/gsm8k",
    download=(8_792, 2_700_000),
    columns=("question", "answer"),
    defaults={"train": ("main", "train"), "val": ("main", "test")},
)
