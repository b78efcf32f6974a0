"""
Every task by name. A task is a module: an example row, and a function that turns rows into conversations.

    conversations(rows: pa.Table) -> Conversations                          rows of the Hub or of a file
    generate(start: int, stop: int, seed: int, split: str) -> Conversations     rows that are made

VERSION is bumped when the same row gives another conversation. HUB names the data set, DEFAULTS its (subset, split) for
each split of a build.
"""

from types import ModuleType

from prep.tasks import arithmetic, chat, gsm8k, identity, mmlu, simple_spelling, smoltalk, spelling_bee

TASKS: dict[str, ModuleType] = {
    "smoltalk": smoltalk,
    "mmlu": mmlu,
    "gsm8k": gsm8k,
    "identity": identity,
    "simple_spelling": simple_spelling,
    "spelling_bee": spelling_bee,
    "arithmetic": arithmetic,
    "chat": chat,
}
