r"""
GSM8K: grade-school problems whose answers hold calculator calls. A call becomes a `python` part, which is trained, and
a `python_output` part, which is not: Python says it, not the model.

    answer   "He has 3*4=<<3*4=12>>12 apples.\n#### 12"
    parts    text "He has 3*4="   python "3*4"   python_output "12"   text "12 apples.\n#### 12"

The answers of a batch are cut where their bytes say so, all at once: no string is made in Python.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array, offsets
from prep.columns import index_array
from prep.conversations.conversation import ASSISTANT, OUTPUT, PYTHON, TEXT, USER, Conversations, reject
from prep.tasks.task import BuiltinTask

EXAMPLE = {
    "question": "Ann has 3 bags with 4 apples each. How many apples has she?",
    "answer": "She has 3*4=<<3*4=12>>12 apples.\n#### 12",
}

COLUMNS = ("question", "answer")


def conversations(rows: pa.Table) -> Conversations:
    """C rows -> C conversations of a question and an answer in parts"""
    question, answer = (rows[name].combine_chunks().cast(pa.large_string()) for name in COLUMNS)
    missing = np.asarray(question.is_null()) | np.asarray(answer.is_null())
    texts, kinds, answer_parts = split_answers(pc.fill_null(answer, ""))
    num_parts = np.stack([np.ones(len(rows), np.int64), np.diff(answer_parts)], axis=1).reshape(-1)  # question, answer
    parts = offsets(num_parts)
    # part j of the conversations comes from the questions at the start of each user message, else from the answers
    source = np.empty(parts[-1], dtype=np.int64)
    is_question = np.zeros(parts[-1], dtype=bool)
    is_question[parts[:-1:2]] = True
    source[is_question] = np.arange(len(rows))
    source[~is_question] = len(rows) + np.arange(len(texts))
    all_kinds = np.full(parts[-1], TEXT, dtype=np.uint8)
    all_kinds[~is_question] = kinds
    batch = Conversations(
        texts=pa.concat_arrays([pc.fill_null(question, ""), texts]).take(index_array(source)),
        kinds=all_kinds,
        parts=parts,
        roles=np.tile(np.array([USER, ASSISTANT], dtype=np.uint8), len(rows)),
        messages=np.arange(len(rows) + 1, dtype=np.int64) * 2,
        reasons=np.zeros(len(rows), dtype=np.uint8),
    )
    return reject(batch, missing, "missing field")


def split_answers(answers: pa.LargeStringArray) -> tuple[pa.LargeStringArray, Array, Array]:
    """(C,) answers -> texts (P,), kinds (P,) and offsets (C + 1,) of their parts: text, python, output, text, ..."""
    answers = pa.concat_arrays([answers])  # offsets and bytes of its own, from 0
    starts = np.frombuffer(answers.buffers()[1], dtype=np.int64, count=len(answers) + 1)
    data = np.frombuffer(answers.buffers()[2] or b"", dtype=np.uint8)[: starts[-1]]
    opens, equals, closes = find_calls(data, starts)
    row = np.searchsorted(starts, opens, side="right") - 1  # (calls,)
    # every answer is cut into segments, the delimiters are segments too: text << python = output >> text
    cuts = np.stack([opens, opens + 2, equals, np.minimum(equals + 1, closes), closes, closes + 2], axis=1)
    bounds = np.insert(starts, np.repeat(row + 1, 6), cuts.reshape(-1))
    pieces = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), answers.buffers()[2])
    num_calls = np.bincount(row, minlength=len(answers))
    first_text = offsets(6 * num_calls + 1)[:-1]  # (C,) segment of each answer's first text
    call_of = np.arange(len(row)) - offsets(num_calls)[row]
    first_call = np.repeat(first_text, num_calls) + 6 * call_of  # the text before the call; then << p = o >> text
    keep = np.sort(np.concatenate([first_text, first_call + 2, first_call + 4, first_call + 6]))
    kinds = np.full(len(bounds) - 1, TEXT, dtype=np.uint8)
    kinds[first_call + 2], kinds[first_call + 4] = PYTHON, OUTPUT
    return pieces.take(index_array(keep)), kinds[keep], offsets(3 * num_calls + 1)


def find_calls(data: Array, starts: Array) -> tuple[Array, Array, Array]:
    """
    Places of the matches of `<<[^>]+>>` in the bytes of texts that begin at `starts`: of the `<<`, of the last `=` in it
    (where the `>>` is if there is none), and of the `>>`. Leftmost matches that do not overlap, as re.split takes them.
    """
    left, right = np.flatnonzero(data == ord("<")), np.flatnonzero(data == ord(">"))
    opens = left[:-1][np.diff(left) == 1]  # also the second of "<<<": the first one wins below
    place = np.searchsorted(right, opens + 2)
    opens, place = opens[place < len(right) - 1], place[place < len(right) - 1]
    closes = right[place]
    row_end = starts[np.searchsorted(starts, opens, side="right")]
    found = (closes > opens + 2) & (right[place + 1] == closes + 1) & (closes + 1 < row_end)
    opens, closes = opens[found], closes[found]
    closes, first = np.unique(closes, return_index=True)
    opens = opens[first]
    signs = np.flatnonzero(data == ord("="))
    last = np.searchsorted(signs, closes) - 1
    equals = signs[np.maximum(last, 0)] if len(signs) else np.zeros_like(closes)
    return opens, np.where((last >= 0) & (equals > opens + 1), equals, closes), closes


GSM8K = BuiltinTask(
    "gsm8k",
    "GSM8K: grade-school problems whose answers hold calculator calls. A call becomes a `python` part, which is trained, "
    "and a `python_output` part, which is not: Python says it, not the model.",
    EXAMPLE,
    version=1,
    read=conversations,
    hub="openai/gsm8k",
    columns=COLUMNS,
    defaults={"train": ("main", "train"), "val": ("main", "test")},
)
