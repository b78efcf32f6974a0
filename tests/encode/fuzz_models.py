"""
Compare every engine with Hugging Face's `tokenizers` on tokenizers of models: `python tests/encode/fuzz_models.py 1000000`.

    strings of fuzz_encode, with added tokens whole and broken, marks, jamo, and characters newer than Unicode 9 between
    ->  ids of `tokenizers` and of each engine, text by text

For each family of tests/tokenizer/models.py, with nano32k's vocabulary, and for the small tokenizers of ../shared where they
are there (merges of newlines). Text i of a seed is the same on every machine.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2])]

from prep.encode.encode import Encoder  # noqa: E402
from prep.tokenizer.added import may_change, newer  # noqa: E402
from prep.tokenizer.load import load_tokenizer  # noqa: E402
from tests.encode.fuzz_encode import BATCH, make_encoders, make_texts  # noqa: E402
from tests.tokenizer.models import FAMILIES, SHARED, THINK, content, judge  # noqa: E402

MAY_CHANGE, NEWER = sorted(may_change()), sorted(newer())
BROKEN = [
    "<",
    "</",
    "<think",
    "<tool_call",
    "/think>",
    "<<think>",
    "<think>>",
    "\n</think>\n",
    "<think>\n\n</think>\n\n",
]
STARTERS = "aeiouAEOU<>=;가각\u1100\u1112\u0915\u0b47\u09c7\u30ab\u05d0\u0226"


def model_texts(seed: int, num: int) -> list[str]:
    """The strings of fuzz_encode, half of them with pieces that decide on cutting and on NFC"""
    random, out = Random(seed), []
    for text in make_texts(seed, num):
        parts = [text]
        for _ in range(random.choice([0, 0, 1, 2, 4])):
            kind = random.randrange(5)
            if kind == 0:
                piece = random.choice(THINK)
            elif kind == 1:
                piece = random.choice(BROKEN)
            else:
                marks = [chr(random.choice(NEWER if random.randrange(8) == 0 else MAY_CHANGE)) for _ in range(kind)]
                piece = random.choice(STARTERS) + "".join(marks)
            place = random.randint(0, len(parts[0]))
            parts = [parts[0][:place] + piece + parts[0][place:]]
        out += parts
    return out


def families() -> dict[str, dict[str, Any]]:
    """{name: tokenizer.json}"""
    found = {family: content(family, 1 << 15) for family in FAMILIES}
    for path in sorted(SHARED.glob("*.tokenizer.json")):
        found[path.name.removesuffix(".json")] = json.loads(path.read_text(encoding="utf-8"))
    return found


def encoders_of(tokenizer_json: dict[str, Any]) -> dict[str, Encoder]:
    """An encoder for each engine that may be chosen for this file"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        path.write_text(json.dumps(tokenizer_json), encoding="utf-8")
        return make_encoders(load_tokenizer(path))


def differing(encoders: dict[str, Encoder], hf: Any, texts: list[str]) -> list[tuple[str, str]]:
    """(engine, text) where the ids are not those of `tokenizers`"""
    wanted = [encoding.ids for encoding in hf.encode_batch(texts, add_special_tokens=False)]
    bad = []
    for name, encoder in encoders.items():
        ids, lengths = encoder(texts)
        if lengths.tolist() == [len(each) for each in wanted] and np.array_equal(ids, np.concatenate(wanted)):
            continue
        found = np.split(ids, np.cumsum(np.maximum(lengths, 0))[:-1])
        bad += [(name, text) for text, a, b in zip(texts, found, wanted, strict=True) if a.tolist() != b]
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num", type=int, nargs="?", default=1_000_000, help="strings for each tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names that hold this")
    args = parser.parse_args()
    all_bad = 0
    for name, tokenizer_json in families().items():
        if args.only not in name:
            continue
        encoders, hf = encoders_of(tokenizer_json), judge(tokenizer_json)
        start, num_bad, num_chars = time.monotonic(), 0, 0
        for done in range(0, args.num, BATCH):
            texts = model_texts(args.seed + done, min(BATCH, args.num - done))
            num_chars += sum(map(len, texts))
            for engine, text in differing(encoders, hf, texts):
                num_bad += 1
                if num_bad <= 20:
                    print(f"{name}: {engine} differs from `tokenizers`: {text!a}")
        print(
            f"{name}: {args.num:,} strings, {num_chars / 1e6:.0f} M characters, {', '.join(encoders)} against `tokenizers`: "
            f"{num_bad} differences in {time.monotonic() - start:.0f} s",
            flush=True,
        )
        all_bad += num_bad
    return 1 if all_bad else 0


if __name__ == "__main__":
    sys.exit(main())
