"""
Every task by name. A task is a module: an example row on top, the function that turns rows into conversations or makes
them, and at the end the record that says where its rows are (prep.tasks.task). `chat` and `spelling` hold several.
"""

from prep.tasks.arithmetic import ARITHMETIC
from prep.tasks.chat import CHAT, IDENTITY, SMOLTALK, TEXT
from prep.tasks.facts import FACTS
from prep.tasks.gsm8k import GSM8K
from prep.tasks.mmlu import MMLU
from prep.tasks.spelling import SIMPLE_SPELLING, SPELLING_BEE
from prep.tasks.task import BuiltinTask

TASKS: dict[str, BuiltinTask] = {
    "smoltalk": SMOLTALK,
    "mmlu": MMLU,
    "gsm8k": GSM8K,
    "identity": IDENTITY,
    "simple_spelling": SIMPLE_SPELLING,
    "spelling_bee": SPELLING_BEE,
    "arithmetic": ARITHMETIC,
    "facts": FACTS,
    "chat": CHAT,
    "text": TEXT,
}
