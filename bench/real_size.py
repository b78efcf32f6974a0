"""
A data root of the real data sets' size, made of a small one: the rows there are, again and again. And as many chats as one
likes in files of one's own, with other words.

    python bench/real_size.py ../shared/data/hub real/ --share 0.25

SmolTalk has 460,341 rows on the Hub and MMLU's auxiliary split 99,842: on stand-ins of a hundredth of that, starting
Python and the generated tasks weigh as much as encoding does. Words repeat, which helps an encoder that remembers words; the
plain loop and encoding alone get the same rows.
"""

import argparse
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.json
import pyarrow.parquet as pq

REAL_ROWS = {
    "HuggingFaceTB/smol-smoltalk/data/train-00000-of-00001.parquet": 460_341,
    "cais/mmlu/all/auxiliary_train-00000-of-00001.parquet": 99_842,
    "cais/mmlu/auxiliary_train/train-00000-of-00001.parquet": 99_842,
}
GENERATED = {"size = 200_000": 200_000, "size = 80_000": 80_000}  # as default.toml has them


def make_data_root(source: Path, target: Path, share: float = 1.0) -> None:
    """Copy `source`, with as many rows as the real data sets have, or a share of them"""
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    for name, real in REAL_ROWS.items():
        table, left = pq.read_table(source / name), round(real * share)
        (target / name).chmod(0o644)
        with pq.ParquetWriter(target / name, table.schema) as writer:
            while left:
                rows = table.slice(0, left)
                writer.write_table(rows, row_group_size=1000)
                left -= len(rows)


def write_chats(data_root: Path, folder: Path, copies: int) -> dict[str, Path]:
    """
    The chats and problems of a data root, `copies` times, as {kind: file}. In the later copies a word in three is another
    word of them, so that no encoder has seen a text before.
    """
    chats = [row["messages"] for row in rows_of(data_root / "HuggingFaceTB/smol-smoltalk/data")]
    for row in rows_of(data_root / "openai/gsm8k/main"):
        chats.append([{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}])
    word, rng = re.compile("[A-Za-z]{3,}"), random.Random(0)
    words = sorted({found for chat in chats[::7] for message in chat for found in word.findall(message["content"])})
    paths = {"JSON lines": folder / "own.jsonl", "Parquet": folder / "own.parquet"}
    with open(paths["JSON lines"], "w", encoding="utf-8") as file:
        for share in [0, *[0.33] * (copies - 1)]:

            def other(found: re.Match[str], share: float = share) -> str:
                return rng.choice(words) if rng.random() < share else found[0]

            for chat in chats:
                said = [{"role": each["role"], "content": word.sub(other, each["content"])} for each in chat]
                file.write(json.dumps({"messages": said}, ensure_ascii=False) + "\n")
    pq.write_table(pyarrow.json.read_json(paths["JSON lines"]), paths["Parquet"])
    return paths


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("train-*.parquet")) for row in pq.read_table(path).to_pylist()]


def scaled_mixture(text: str, share: float) -> str:
    """The default mixture with as large a share of the generated tasks"""
    for words, size in GENERATED.items():
        assert words in text, words
        text = text.replace(words, f"size = {round(size * share)}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    args = parser.parse_args()
    make_data_root(args.source, args.target, args.share)


if __name__ == "__main__":
    main()
