"""
Spell a word (simple_spelling), and count a letter in a word (spelling_bee).

    Spell the word: apple                             apple:a,p,p,l,e
    How many of the letters in banana are n?          b:0 a:0 n:1 a:1 n:2 a:2, then 'banana'.count('n'), then #### 2

The first has nanochat's form. The second asks in many phrasings and twelve languages (data/phrasings.toml) and answers in
the language of the question, in GSM8K's form: text, a Python call, its output, text that ends in "#### N". One letter in
eight is drawn from the alphabet, the others from the word.
Conversation i is a pure function of (seed, split, i), and no word is in both train and test (words.py).
Everything is columns: 280,000 conversations take 0.1 s. A letter of the word is four bytes of the count (n:2 and a newline),
so the lines of a block are one array of numbers. Legend: C conversations, L letters of their words, Q questions.
"""

import functools
import itertools
import re
import tomllib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.arrays import Array
from prep.columns import index_array, text_array
from prep.conversations.conversation import OUTPUT, PYTHON, TEXT, Conversations
from prep.tasks.task import BuiltinTask
from prep.tasks.words import DATA, choose, join, letters_of, spelled, strings_of, words_of_rows

SIMPLE_EXAMPLE = {
    "messages": [
        {"role": "user", "content": "Spell the word: apple"},
        {"role": "assistant", "content": "apple:a,p,p,l,e"},
    ]
}
BEE_EXAMPLE = {
    "messages": [
        {"role": "user", "content": "Take the word lolly. How many of its letters are “l”?"},
        {
            "role": "assistant",
            "content": [
                {
                    "type": "text",
                    "text": "To count the letter l in lolly, I write the word out and keep a running count.\n\n"
                    "lolly:l,o,l,l,y\n\nl:1\no:1\nl:2\nl:3\ny:3\n\nThe count ends at 3. Python can confirm it:\n\n",
                },
                {"type": "python", "text": "'lolly'.count('l')"},
                {"type": "python_output", "text": "3"},
                {"type": "text", "text": "\n\nPython gets the same number.\n\n#### 3"},
            ],
        },
    ]
}


@dataclass(frozen=True)
class Language:
    """The text of one language; data/phrasings.toml says what goes where."""

    name: str
    quotes: list[str]
    intro: str
    total: str
    check: str
    questions: list[str]


def simple_spelling(start: int, stop: int, seed: int, split: str) -> Conversations:
    """Conversations start .. stop - 1 of the split, "train" or "test" """
    words = words_of_rows(np.arange(start, stop), split, f"simple_spelling/{seed}/{split}/word")
    return Conversations.of_turns([join("Spell the word: ", words), join(words, spelled(words))], [TEXT, TEXT], [1, 1])


def spelling_bee(start: int, stop: int, seed: int, split: str) -> Conversations:
    """Conversations start .. stop - 1 of the split, "train" or "test" """
    rows, stream = np.arange(start, stop), f"spelling_bee/{seed}/{split}"
    words = words_of_rows(rows, split, f"{stream}/word")
    letter_bytes = pick_letters(rows, words, stream)
    letters = each_byte(letter_bytes)
    lines, counts = running_count(words, letter_bytes)
    count = each_byte((counts + ord("0")).astype(np.uint8))

    question = index_array(choose(f"{stream}/question", rows, len(questions()[0])))
    before, between, after, word_first, language = (column.take(question) for column in questions())
    first = pc.if_else(word_first, words, letters)
    second = pc.if_else(word_first, letters, words)
    intro, in_intro, after_intro, total, after_total, check = (column.take(language) for column in answers())
    turns = [
        join(before, first, between, second, after),
        join(
            *(intro, letters, in_intro, words, after_intro, "\n\n"),
            *(words, spelled(words), "\n\n", lines, "\n", total, count, after_total, "\n\n"),
        ),
        join("'", words, "'.count('", letters, "')"),
        count,
        join("\n\n", check, "\n\n#### ", count),
    ]
    return Conversations.of_turns(turns, [TEXT, TEXT, PYTHON, OUTPUT, TEXT], [1, 4])


def pick_letters(rows: Array, words: pa.LargeStringArray, stream: str) -> Array:
    """(C,) uint8: a letter of the word, or in one row of eight a letter of the alphabet"""
    letters, bounds = letters_of(words)
    word_letter = letters[bounds[:-1] + choose(f"{stream}/place", rows, np.diff(bounds))]
    any_letter = ord("a") + choose(f"{stream}/letter", rows, 26)
    return np.where(choose(f"{stream}/any", rows, 8) == 0, any_letter, word_letter).astype(np.uint8)


def running_count(words: pa.LargeStringArray, letter: Array) -> tuple[pa.LargeStringArray, Array]:
    """banana, n -> "b:0\\na:0\\nn:1\\na:1\\nn:2\\na:2\\n" and 2, for C words"""
    letters, bounds = letters_of(words)
    lengths = np.diff(bounds)
    so_far = np.concatenate([[0], np.cumsum(letters == np.repeat(letter, lengths))])  # (L + 1,) over all words
    before = so_far[bounds[:-1]]
    lines = np.empty((len(letters), 4), dtype=np.uint8)
    lines[:, 0], lines[:, 1], lines[:, 3] = letters, ord(":"), ord("\n")
    lines[:, 2] = ord("0") + so_far[1:] - np.repeat(before, lengths)
    counts = so_far[bounds[1:]] - before
    assert counts.max(initial=0) < 10, "a line has room for one digit"
    return strings_of(lines.reshape(-1), bounds * 4), counts


def each_byte(letters: Array) -> pa.LargeStringArray:
    """(C,) uint8 ASCII -> C strings of one character"""
    return strings_of(letters, np.arange(len(letters) + 1))


@functools.cache
def languages() -> list[Language]:
    data = tomllib.loads((DATA / "phrasings.toml").read_text(encoding="utf-8"))
    return [Language(**language) for language in data["language"]]


@functools.cache
def questions() -> tuple[pa.Array, ...]:
    """
    Every phrasing in every style: (Q,) strings before, between and after letter and word, whether the word comes first,
    and the place of its language.
    """
    table = [
        (*re.split(r"\{letter\}|\{word\}", text), text.index("{word}") < text.index("{letter}"), place)
        for place, language in enumerate(languages())
        for phrasing in language.questions
        for text in styles(phrasing, language)
    ]
    before, between, after, word_first, place_of = zip(*table, strict=True)
    texts = [text_array(list(column)) for column in (before, between, after)]
    return (*texts, index_array(np.array(word_first)).cast(pa.bool_()), index_array(np.array(place_of)))


def styles(phrasing: str, language: Language) -> list[str]:
    """64 ways to write a question: quotes around letter and word, a mark at the end, lower case"""
    quotes = [("", ""), ("'", "'"), ('"', '"'), (language.quotes[0], language.quotes[1])]
    letter_quotes = [("", "")] * 4 if "{letter}'" in phrasing else quotes  # r's, but not 'r''s
    texts = []
    for (a, b), (c, d), mark, lower in itertools.product(letter_quotes, quotes, (True, False), (True, False)):
        text = phrasing if mark else phrasing.rstrip("?？.。। ").replace("¿", "")
        text = text.lower() if lower else text
        texts.append(text.replace("{letter}", a + "{letter}" + b).replace("{word}", c + "{word}" + d))
    return texts


@functools.cache
def answers() -> tuple[pa.LargeStringArray, ...]:
    """For each language: intro before, between, after letter and word; total before, after the number; check"""
    table = [
        (*re.split(r"\{letter\}|\{word\}", language.intro), *language.total.split("{num}"), language.check)
        for language in languages()
    ]
    return tuple(text_array(list(column)) for column in zip(*table, strict=True))


SIMPLE_SPELLING = BuiltinTask(
    "simple_spelling",
    "Spell a word: the smallest task there is, from which a model learns which letters are in its tokens.",
    SIMPLE_EXAMPLE,
    version=1,
    make=simple_spelling,
    size=200_000,
)
SPELLING_BEE = BuiltinTask(
    "spelling_bee",
    "How many of a letter are in a word: spelled out, counted, checked with Python.",
    BEE_EXAMPLE,
    version=1,
    make=spelling_bee,
    size=80_000,
)
