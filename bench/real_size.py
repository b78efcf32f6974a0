"""
A data root of the real data sets' size, made of a small one: the rows there are, again and again.

    python bench/real_size.py ../shared/data/hub real/ --share 0.25

SmolTalk has 460,341 rows on the Hub and MMLU's auxiliary split 99,842: on stand-ins of a hundredth of that, starting
Python and the generated tasks weigh as much as encoding does. Words repeat, which helps an encoder that remembers words; the
plain loop and encoding alone get the same rows.
"""

import argparse
import shutil
from pathlib import Path

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
