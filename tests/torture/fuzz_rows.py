"""
Rows of rubbish, and what a build must make of them: rejected or rendered, counted, never a traceback.

    python tests/torture/fuzz_rows.py 10000 [--seed 0]

A fuzzed row is a sound conversation with something wrong (or odd) in it, or nothing like one. Every text of a row that
cannot be sound carries POISON, which must be in no shard.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.check.verify import problems
from prep.mixture.mixture import parse_mixture
from prep.shard import open_shards
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer

POISON = "POISON" * 2
ODD = ("\x00", "\ufeff", "\u2028\u2029\x85", "\U0010ffff", "e\u0301" * 300, " " * 5000, "9" * 3000, "<|assistant_end|>",
       "\r\n\r", "🏳️‍🌈" * 50, "\x7f\x1b[31m", "ﷺ" * 400, "\u202e", "a" * 20000, "\ud7ff\ue000", "")  # fmt: skip
WRONG: tuple[Any, ...] = (
    None,
    True,
    0,
    -1.5,
    1e308,
    [],
    {},
    [[]],
    "",
    [None],
    {"a": {"b": [1]}},
    [POISON],
    {"text": POISON},
)


def deep(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


def sound(random_: random.Random) -> list[dict[str, Any]]:
    """Messages that are fine, with odd characters in them"""
    messages: list[dict[str, Any]] = []
    if random_.random() < 0.2:
        messages.append({"role": "system", "content": "Be brief." + random_.choice(ODD)})
    for _ in range(random_.randint(1, 3)):
        messages.append({"role": "user", "content": "ask " + random_.choice(ODD)})
        answer: Any = "say " + random_.choice(ODD)
        if random_.random() < 0.3:
            kinds = ["text", "python", "python_output"]
            answer = [
                {"type": random_.choice(kinds), "text": random_.choice(ODD)} for _ in range(random_.randint(1, 4))
            ]
        messages.append({"role": "assistant", "content": answer})
    return messages


def spoiled(random_: random.Random) -> list[Any]:
    """Messages with one thing wrong, and POISON in every text"""
    messages: list[Any] = [{"role": role, "content": POISON} for role in ("user", "assistant", "user", "assistant")]
    place = random_.randrange(len(messages))
    how = random_.randrange(8)
    if how == 0:
        messages[place] = random_.choice(WRONG)
    elif how == 1:
        messages[place]["content"] = random_.choice([value for value in WRONG if value not in ("", [])])
    elif how == 2:
        messages[place]["role"] = random_.choice((*WRONG, "Users", "bot", "tool", "user ", "\x00"))
    elif how == 3:
        del messages[place][random_.choice(("role", "content"))]
    elif how == 4:
        messages.insert(place, {"role": messages[place]["role"], "content": POISON})
    elif how == 5:
        messages[1]["content"] = [{"type": random_.choice((None, 1, "image", "Text")), "text": POISON}]
    elif how == 6:
        messages[1]["content"] = [{"type": "text", "text": random_.choice((None, 1, [POISON], {}))}]
    else:
        messages[place]["content"] = POISON + random_.choice(("\ud83d", "\udc00\ud800", "\udfff"))
    return messages


RAW: tuple[Callable[[random.Random], str], ...] = (
    lambda r: deep(100_000),
    lambda r: deep(50_000, '{"messages":', "}"),
    lambda r: '{"messages": [' + deep(2000) + f', "{POISON}"]}}',
    lambda r: "9" * 5000,
    lambda r: f'{{"messages": {"9" * 4400}, "x": "{POISON}"}}',
    lambda r: f'{{"messages": [{{"role": "user", "content": NaN}}, "{POISON}"]}}',
    lambda r: "NaN",
    lambda r: "-Infinity",
    lambda r: '"just a string"',
    lambda r: '"invalid JSON"',
    lambda r: "null",
    lambda r: f'["{POISON}"]',
    lambda r: f'{{"messages": [{{"role": "user", "content": "{POISON}"',
    lambda r: "\x00",
    lambda r: f'{{"messages": "{POISON}"}}',
    lambda r: '{"messages": {"role": "user"}}',
    lambda r: f"\ufeff{json.dumps([{'role': 'user', 'content': POISON}])}x",
    lambda r: json.dumps({"messages": spoiled(r)})[: r.randint(1, 60)] + "\\",
    lambda r: bytes(r.randrange(256) for _ in range(40)).decode("latin-1").replace("\n", "").replace("\r", "") or "x",
)


def bad_line(random_: random.Random) -> bytes:
    """A line that is no conversation"""
    if random_.random() < 0.4:
        return random_.choice(RAW)(random_).encode("utf-8", "surrogatepass")
    messages = spoiled(random_)
    row: Any = messages if random_.random() < 0.3 else {"messages": messages}
    text = json.dumps(row, ensure_ascii=random_.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")  # lone surrogates as bytes: no UTF-8


def good_line(random_: random.Random) -> bytes:
    """A line that is a conversation, oddly written"""
    messages = sound(random_)
    row: Any = messages if random_.random() < 0.3 else {"id": 1e400, "messages": messages, "x": [None, {}], "n": 10**30}
    text = json.dumps(row, ensure_ascii=random_.random() < 0.5)
    if isinstance(row, dict) and random_.random() < 0.2:  # of keys that stand twice the last counts
        text = '{"messages": [{"role": "nobody"}], ' + text[1:]
    return (random_.choice(("", " ", "\t")) + text + random_.choice(("", "\r", "  "))).encode("utf-8")


def write_rows(path: Path, num_rows: int, seed: int, huge: bool) -> int:
    """JSON lines of rubbish, a third of it sound; how many are sound"""
    random_ = random.Random(seed)
    num_good = 0
    with open(path, "wb") as file:
        for i in range(num_rows):
            good = i == 0 or random_.random() < 0.33
            num_good += good
            file.write((good_line if good else bad_line)(random_) + b"\n" + (b" \n\n" if i % 97 == 3 else b""))
        for text in (" " * 1_000_000, "x" * 10_000_000, "\n" * 300_000, "ab " * 3_000_000) if huge else ():
            file.write(json.dumps([{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]).encode())
            file.write(b"\n")
            file.write(json.dumps([{"role": "user", "content": POISON + text}, {"role": "user"}]).encode() + b"\n")
    return num_good


def write_columns(path: Path, num_rows: int, seed: int) -> int:
    """The same as parquet: nulls in every place, invalid UTF-8, wrong roles; how many are sound"""
    random_ = random.Random(seed)
    rows: list[Any] = []
    for i in range(num_rows):
        good = i == 0 or random_.random() < 0.33
        messages: Any = [{"role": role, "content": "fine" if good else POISON} for role in ("user", "assistant")]
        if not good:
            how, place = random_.randrange(6), random_.randrange(2)
            if how < 2:
                messages[place]["role" if how else "content"] = None
            elif how == 2:
                messages[place] = None
            elif how == 3:
                messages = random_.choice((None, []))
            elif how == 4:
                messages[place]["role"] = random_.choice(("", "USERS", "tool", "\x00"))
            else:
                messages[place]["content"] = POISON + "\udfff"
        rows.append(messages)
    message = pa.struct([("role", pa.binary()), ("content", pa.binary())])
    packed = [row and [one and {k: v and v.encode("utf-8", "surrogatepass") for k, v in one.items()} for one in row]
              for row in rows]  # fmt: skip
    column = pa.array([row if row is None else list(row) for row in packed], pa.list_(message))
    text = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    pq.write_table(pa.table({"messages": _as_text(column, text)}), path, row_group_size=1000)
    return sum(row is not None and all(m and m["content"] == "fine" for m in row) and bool(row) for row in rows)


def _as_text(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same buffers under the name of strings: bytes that are no UTF-8 stay as they are"""
    fields = [column.values.field(i) for i in range(2)]
    strings = [pa.Array.from_buffers(pa.string(), len(one), one.buffers(), one.null_count) for one in fields]
    validity = pa.array([value is None for value in column.values.to_pylist()])
    values = pa.StructArray.from_arrays(strings, fields=list(kind.value_type), mask=validity)
    return pa.ListArray.from_arrays(column.offsets, values, mask=pa.array([row is None for row in column.to_pylist()]))


def check_file(
    path: Path, num_good: int, num_rows: int, tokenizer: Tokenizer, folder: Path, workers: int = 1
) -> dict[str, int]:
    """Build the file and check that in = out + rejected, that the sound rows are in, and that no poison is; reasons."""
    mixture = parse_mixture({"train": [{"task": "chat", "path": path.name}]}, "fuzz", folder, "fuzz")
    options = BuildOptions(max_seq_len=512, cache_dir=folder / "cache", max_rejected=1.0, quiet=True, workers=workers)
    root = folder / f"{path.name}.out"
    manifest, _ = build(make_job(mixture, tokenizer, options), root)
    source = manifest["splits"]["train"]["sources"][0]
    rejected: dict[str, int] = source["rejected"]
    assert source["rows"] == num_rows, (source["rows"], num_rows)
    assert source["conversations"] + sum(rejected.values()) == num_rows, source
    split = open_shards(root).split("train")
    assert source["conversations"] == num_good, (source["conversations"], num_good, rejected)
    for row in range(split.num_rows):
        assert POISON.encode() not in tokenizer.encoding.decode_bytes(split.read_tokens(np.array([row]))[0].tolist())
    assert len((root / "rejected.jsonl").read_bytes().splitlines()) == sum(rejected.values())
    assert list(problems(root)) == []
    return rejected


def toy() -> Tokenizer:
    return Tokenizer(
        "toy", {bytes([i]): i for i in range(256)}, PATTERN, {n: 256 + i for i, n in enumerate(SPECIAL_TOKENS)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("num_rows", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = []
        for path, tokenizer in ((folder / "rows.jsonl", load_tokenizer(None)), (folder / "rows.parquet", toy())):
            lines = path.suffix == ".jsonl"
            # of the four huge ones that are sound the million spaces make tiktoken panic: rejected, as a row
            num_good = (write_rows(path, asked.num_rows, asked.seed, True) + 3) if lines else (
                write_columns(path, asked.num_rows, asked.seed))  # fmt: skip
            found.append(check_file(path, num_good, asked.num_rows + 8 * lines, tokenizer, folder))
            print(path.name, num_good, found[-1])
    print(f"{2 * asked.num_rows:,} rows, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
