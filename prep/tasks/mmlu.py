"""
MMLU: multiple choice. The whole block is joined column by column: no string is made in Python.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.columns import index_array, text_array
from prep.conversations.conversation import TEXT, Conversations, reject
from prep.tasks.task import BuiltinTask
from prep.tasks.words import join

EXAMPLE = {
    "question": "Which gas do plants take in?",
    "subject": "elementary_science",
    "choices": ["Oxygen", "Carbon dioxide", "Helium", "Neon"],
    "answer": 1,
}

LETTERS = text_array(["A", "B", "C", "D"])


def conversations(rows: pa.Table) -> Conversations:
    """C rows -> C conversations of a question and a letter"""
    if rows.column_names == ["train"]:  # the subset auxiliary_train nests each row in one struct column
        rows = rows.flatten().rename_columns([name.removeprefix("train.") for name in rows.flatten().column_names])
    question, choices, answer = (rows[name].combine_chunks() for name in ("question", "choices", "answer"))
    num_choices = pc.fill_null(pc.list_value_length(choices), 0).to_numpy(zero_copy_only=False)
    malformed = num_choices != len(LETTERS)
    first = np.concatenate([[0], np.cumsum(num_choices)[:-1]])
    # rows with another number of choices are rejected below; until then they get the empty choice at the end
    flat = pa.concat_arrays([choices.flatten().cast(pa.large_string()), text_array([""])])
    options = [flat.take(index_array(np.where(malformed, len(flat) - 1, first + i))) for i in range(len(LETTERS))]
    letter = pc.cast(answer, pa.int64())
    in_range = pc.fill_null(pc.and_(pc.greater_equal(letter, 0), pc.less(letter, 4)), False)
    pieces: list[Any] = ["Multiple Choice question: ", question.cast(pa.large_string()), "\n"]
    for option, name in zip(options, LETTERS.to_pylist(), strict=True):
        # the letter follows the choice, without a space before it, so it is the same token as in the answer
        pieces += ["- ", option, f"={name}\n"]
    prompt = join(*pieces, "\nRespond only with the letter of the correct answer.")
    missing = np.asarray(prompt.is_null()) | np.asarray(answer.is_null()) | np.asarray(choices.is_null())
    reply = LETTERS.take(pc.if_else(in_range, letter, 0))
    batch = Conversations.of_turns([pc.fill_null(prompt, ""), reply], [TEXT, TEXT], [1, 1])
    batch = reject(batch, malformed & ~np.asarray(choices.is_null()), "not four choices")
    batch = reject(batch, missing, "missing field")
    return reject(batch, ~in_range.to_numpy(zero_copy_only=False), "answer out of range")


MMLU = BuiltinTask(
    "mmlu",
    "MMLU: multiple choice over 57 subjects. The model learns the form (answer with the letter alone) more than the facts: "
    "a conversation has two loss tokens, the letter and the end of the turn.",
    EXAMPLE,
    version=1,
    read=conversations,
    hub="cais/mmlu",
    download=(113_884, 51_000_000),
    columns=("question", "choices", "answer"),
    defaults={"train": ("auxiliary_train", "train"), "val": ("all", "test")},
    aliases={
        ("auxiliary_train", "train"): [("all", "auxiliary_train")],
        ("all", "auxiliary_train"): [("auxiliary_train", "train")],
    },
)
