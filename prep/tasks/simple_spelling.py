"""
Spell a word: the smallest task there is, from which a model learns which letters are in its tokens.

The form is nanochat's. Row i is a pure function of (seed, split, i), and no word is in train and in test (words.py).
"""

import numpy as np

from prep.conversations.conversation import TEXT, Conversations
from prep.tasks.words import join, spelled, words_of_rows

EXAMPLE = {
    "messages": [
        {"role": "user", "content": "Spell the word: apple"},
        {"role": "assistant", "content": "apple:a,p,p,l,e"},
    ]
}
VERSION = 1  # another output, another version: it is part of the key of cached runs
SIZE = 200_000


def generate(start: int, stop: int, seed: int, split: str) -> Conversations:
    """conversations start .. stop - 1 of the split, "train" or "test" """
    words = words_of_rows(np.arange(start, stop), split, f"simple_spelling/{seed}/{split}/word")
    return Conversations.of_turns([join("Spell the word: ", words), join(words, spelled(words))], [TEXT, TEXT], [1, 1])
