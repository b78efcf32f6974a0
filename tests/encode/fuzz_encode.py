"""
Compare the engines with tiktoken on generated strings: `python tests/encode/fuzz_encode.py 1000000` (make fuzz).

    all code points, long runs, combining marks, digits, controls, typed special tokens, mixed scripts, code, emoji
    sequences, line ends, contractions in all cases  ->  joined at random  ->  ids of both, text by text

Every string is compared, for every pattern of PATTERNS; the sample that a build compares is not relied on. Text i of a
seed is the same on every machine.
"""

import argparse
import sys
import time
from pathlib import Path
from random import Random

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2])]

from prep.encode.encode import ENGINES, Encoder, why_not  # noqa: E402
from prep.encode.gigatoken import SCHEMES  # noqa: E402
from prep.tokenizer.load import load_tokenizer  # noqa: E402
from prep.tokenizer.tokenizer import Tokenizer  # noqa: E402

BATCH = 2000
WORDS = (  # noqa: SIM905
    "the of and a in that is was he for it with as his on be at by I this had not are but from or have an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its about "
    "than into them can only other time new some could these two may first then do any like my now over such our man me "
    "even most made after also did many off before must well back through years much where your way down should because "
    "Größe zählt ¿Qué hora es? Привет мир Ελλάδα İstanbul ıĲǆǅ ﬁne naïve café 今日は天気がいいですね 你好 世界 한국어 עברית "
    "مرحبا بالعالم हिन्दी नमस्ते বাংলা ไทย ខ្មែរ မြန်မာ አማርኛ ქართული Հայերեն"
).split(" ")
CODE = [
    "def f(x):\n    return x ** 2\n", "for (int i = 0; i < n; ++i) {\n\t", "}\r\n", "#include <stdio.h>", "</div>\n\n", "&&",
    "$x->y['z']", "!=", "...", "//", "/*", "*/", "https://example.org/a?b=c#d", "\\n", "```python\n", "```\n\n", "a_b",
    "camelCaseWord", "HTTPServer", "x1y2", "0x1F", "1e-9", "-->", "|---|", "\\frac{1}{2}", "<<2*3=6>>", "####",
]  # fmt: skip
CONTRACTIONS = [
    q + t
    for q in ("'", "’", "ʼ")
    for t in (
        "s",
        "S",
        "ſ",
        "t",
        "T",
        "d",
        "D",
        "m",
        "M",
        "ll",
        "LL",
        "lL",
        "ve",
        "VE",
        "vE",
        "re",
        "RE",
        "Re",
        "k",
        "\u212a",
        "n",
    )
]
SPACES = [
    " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\n ", " \n", "\r\n\r\n", "\n\r", "\v", "\f", "\x85", "\xa0",
    "\u1680", "\u180e", "\u2003", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", " " * 40, "\n" * 17,
]  # fmt: skip
SPECIAL = [f"<|{name}|>" for name in ("bos", "user_start", "user_end", "assistant_start", "assistant_end", "endoftext")]
EMOJI = ["🙂", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "1️⃣", "☺︎", "🧑🏿‍🚀", "\u200d", "\ufe0f"]
MARKS = [
    chr(c) for c in (*range(0x300, 0x370), 0x483, 0x5B0, 0x64B, 0x93C, 0x94D, 0xE31, 0x20D0, 0x20E3, 0xFE20, 0x1E000)
]
DIGITS = ["٣", "४", "½", "²", "Ⅷ", "①", "３", "𝟜", "一", "〇", "௰", "𐄇", "१२३", "٠١"]
UNASSIGNED = [0x378, 0x88F, 0x11DB0, 0x1E6E6, 0x323B0, 0xE0001, 0xF0000, 0xFFFF, 0x10FFFF, 0xFFFE, 0xFFFD]
PIECES = [WORDS, WORDS, CODE, CONTRACTIONS, SPACES, SPACES, SPECIAL, EMOJI, MARKS, DIGITS]


def piece(random: Random) -> str:
    """One piece of a string: from the lists, a number, a code point of any kind, or a run of something"""
    kind = random.randrange(len(PIECES) + 6)
    if kind < len(PIECES):
        return random.choice(PIECES[kind])
    if kind == len(PIECES):
        return str(random.randrange(10 ** random.randint(1, 12)))
    if kind == len(PIECES) + 1:
        return chr(random.randrange(0x80))
    if kind == len(PIECES) + 2:
        return chr(random.randrange(0x3000))
    if kind == len(PIECES) + 3:
        return chr(
            random.choice([random.randrange(0x110000), random.choice(UNASSIGNED), random.randrange(0x1E000, 0x20000)])
        )
    if kind == len(PIECES) + 4:
        return "".join(chr(random.randrange(0x21, 0x7F)) for _ in range(random.randint(1, 12)))
    repeats = random.choice([2, 3, 5, 17, 100]) if random.random() < 0.99 else random.choice([1000, 5000])
    return random.choice(random.choice(PIECES)) * repeats


def make_texts(seed: int, num: int) -> list[str]:
    """`num` strings of 0 to 12 pieces"""
    random = Random(seed)
    texts = ["".join(piece(random) for _ in range(random.randint(0, 12))) for _ in range(num)]
    return [text.encode("utf-8", "replace").decode() for text in texts]  # no surrogates


def differing(encoders: dict[str, Encoder], texts: list[str]) -> list[tuple[str, str]]:
    """(engine, text) where the ids or the lengths are not those of tiktoken"""
    wanted_ids, wanted_lengths = encoders["tiktoken"](texts)
    bad = []
    for name, encoder in encoders.items():
        ids, lengths = encoder(texts)
        if np.array_equal(ids, wanted_ids) and np.array_equal(lengths, wanted_lengths):
            continue
        for text in texts:
            pairs = zip(encoder([text]), encoders["tiktoken"]([text]), strict=True)
            if not all(np.array_equal(found, wanted) for found, wanted in pairs):
                bad.append((name, text))
    return bad


def with_pattern(tokenizer: Tokenizer, pattern: str) -> Tokenizer:
    return Tokenizer(tokenizer.name, tokenizer.ranks, pattern, tokenizer.special_tokens)


def make_encoders(tokenizer: Tokenizer) -> dict[str, Encoder]:
    """An encoder for each engine that can be had; without the sample, so that a difference is counted, not raised"""
    encoders = {name: Encoder(tokenizer, name) for name in ENGINES if not why_not(tokenizer, name)}
    for encoder in encoders.values():
        encoder._compare = lambda *_: None  # type: ignore[method-assign]
    return encoders


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num", type=int, nargs="?", default=1_000_000, help="strings, over all patterns")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokenizers = [load_tokenizer()] + [with_pattern(load_tokenizer(), pattern) for pattern in list(SCHEMES)[1:]]
    encoders = [make_encoders(tokenizer) for tokenizer in tokenizers]
    done = num_bytes = num_bad = 0
    start = time.monotonic()
    while done < args.num:
        texts = make_texts(args.seed + done, min(BATCH, args.num - done))
        # half of the strings with nanochat's pattern, the others with one of the others
        turn = done // BATCH
        number = 0 if turn % 2 == 0 else 1 + turn // 2 % (len(encoders) - 1)
        for name, text in differing(encoders[number], texts):
            num_bad += 1
            print(f"{name} differs with {tokenizers[number].pattern[:30]!r}: {text!r}")
        done += len(texts)
        num_bytes += sum(len(text) for text in texts)
        if turn % 25 == 24:
            print(f"{done:,} strings, {num_bytes / 1e6:.0f} M characters, {num_bad} differences", flush=True)
    engines = ", ".join(name for name in encoders[0] if name != "tiktoken")
    print(
        f"{done:,} strings, {num_bytes / 1e6:.0f} M characters, {len(encoders)} patterns, {engines} against tiktoken: "
        f"{num_bad} differences in {time.monotonic() - start:.0f} s"
    )
    return 1 if num_bad else 0


if __name__ == "__main__":
    sys.exit(main())
