"""
Lines of JSON of every layout with anything in any field, read as columns where that can be and value by value.

    python tests/torture/fuzz_lines.py 10000 [--seed 0]

Both ways say the same, to the reason of every rejected row: prep.conversations.rows.columns_of has to give up where columns
would tell less.
"""

import argparse
import json
import random
from typing import Any

import numpy as np
import pyarrow as pa

from prep.arrange.arrange import normalize
from prep.columns import binary_array
from prep.conversations import read
from prep.conversations.layouts import LAYOUTS, Layout
from prep.conversations.rows import columns_of, parse

VALUES: tuple[Any, ...] = (
    *("a", "é", "", None, 1, 0, 1.5, -1, 10**20, 1e400, True, False, [], {}, ["x"], [1], {"k": 1}, "\x00", "😀"),
    *("2024-01-01T00:00:00Z", "12:00", {"type": "text", "text": "p"}, [{"type": "text", "text": "p"}], [{"text": "p"}]),
)
NAMES = (
    *("role", "content", "from", "value", "name", "weight", "train", "loss", "tool_calls", "tool_call_id", "parts"),
    *("reasoning_content", "messages", "id", "système"),
)
ROLES = ("user", "assistant", "system", "gpt", "human")
FIELDS = ("id", "tags", "meta", "tools", "label", "chosen", "images", "messages", "conversations", "text")
BYTES = (b"", b'"', b"}", b"{", b"]", b"[", b",", b"\\", b" ", b"\xff", b"1", b"\t")
PLAIN_LAYOUTS = ("messages", "sharegpt", "alpaca", "completion", "query")


def turn(random_: random.Random, shape: tuple[str, ...]) -> dict[str, Any]:
    made = {
        shape[0]: random_.choice(ROLES) if random_.random() < 0.95 else random_.choice(VALUES),
        shape[1]: random_.choice(("a", "bb", "é", "")) if random_.random() < 0.95 else random_.choice(VALUES),
    }
    if random_.random() < 0.15:
        made[random_.choice(NAMES)] = random_.choice(VALUES)
    if random_.random() < 0.03:
        del made[random_.choice(list(made))]
    return made


def row(random_: random.Random, layout: str) -> dict[str, Any]:
    table = LAYOUTS[layout]
    if table.shape:
        turns = [turn(random_, table.shape) for _ in range(random_.randint(0, 4))]
        made = {table.turns: turns if random_.random() < 0.97 else random_.choice(VALUES)}
    else:
        odd = (*VALUES, [turn(random_, ("role", "content"))])
        made = {
            name: random_.choice(("a", "b", "")) if random_.random() < 0.9 else random_.choice(odd)
            for name in table.needs
        }
    for name in (*table.also, *FIELDS):
        if random_.random() < 0.06:
            made.setdefault(name, random_.choice(VALUES))
    if random_.random() < 0.02:
        del made[random_.choice(list(made))]
    return made


def line(random_: random.Random, value: dict[str, Any]) -> bytes:
    """A row as JSON, now and then with a byte or two replaced"""
    separators = random_.choice(((", ", ": "), (",", ":")))
    text = json.dumps(value, ensure_ascii=random_.random() < 0.5, separators=separators)
    data = text.encode("utf-8", "surrogatepass")
    if random_.random() < 0.06:
        place = random_.randrange(len(data))
        data = data[:place] + random_.choice(BYTES) + data[place + random_.randint(0, 2) :]
    return data + random_.choice((b"", b"\r", b" ")) + random_.choice((b"\n", b"\r\n", b""))


def compare(lines: list[bytes], layout: Layout) -> bool:
    """AssertionError where the two ways differ. Returns whether the lines were read as columns."""
    rows = pa.table({"line": binary_array(lines)})
    short, long = read.conversations(rows, layout), read.of_objects([parse(data) for data in lines], layout)
    assert short.notes.left_aside == long.notes.left_aside, (lines, short.notes, long.notes)
    assert set(short.notes.refused) == set(long.notes.refused), lines
    short, long = normalize(short), normalize(long)
    for field in ("kinds", "parts", "roles", "messages", "reasons"):
        assert getattr(short, field).tolist() == getattr(long, field).tolist(), (field, lines)
    assert short.texts.to_pylist() == long.texts.to_pylist(), lines
    trained = [np.ones(len(batch.roles), bool) if batch.trained is None else batch.trained for batch in (short, long)]
    assert trained[0].tolist() == trained[1].tolist(), lines
    return columns_of(rows["line"].chunk(0)) is not None


def fuzz(num: int, seed: int) -> int:
    """Compare `num` batches of lines; returns how many of them were read as columns"""
    random_ = random.Random(seed)
    num_columns = 0
    for _ in range(num):
        layout = random_.choice(PLAIN_LAYOUTS)
        known = [row(random_, layout) for _ in range(random_.randint(1, 3))]  # rows are often alike
        rows = [
            random_.choice(known) if random_.random() < 0.6 else row(random_, layout)
            for _ in range(random_.randint(1, 5))
        ]
        lines = [data for value in rows if (data := line(random_, value)).strip()]
        renamed = ((random_.choice(("id", "name")), random_.choice(("unused", "system"))),)
        columns = renamed if random_.random() < 0.1 else ()
        num_columns += bool(lines) and compare(lines, Layout(layout, columns=columns))
    return num_columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num", type=int, help="batches of lines")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{args.num:,} batches alike, {fuzz(args.num, args.seed):,} of them read as columns")


if __name__ == "__main__":
    main()
