"""
Every task by name. A task is a module: an example row on top, the function that turns rows into conversations or makes
them, and at the end the record that says where its rows are (prep.tasks.task). chat and spelling hold several.
"""

from prep.tasks.arithmetic import ARITHMETIC
from prep.tasks.chat import CHAT, IDENTITY, TEXT
from prep.tasks.gsm8k import GSM8K
from prep.tasks.mmlu import MMLU
from prep.tasks.smoltalk import SMOLTALK
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
    "chat": CHAT,
    "text": TEXT,
}
