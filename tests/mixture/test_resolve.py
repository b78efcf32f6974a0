"""A source that is not there is one line that says which directory is missing, and what to do."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prep.mixture.mixture import parse_mixture
from prep.mixture.resolve import Input, resolve


def inputs(data_root: Path, **entry: Any) -> list[Input]:
    mixture = parse_mixture({"train": [{"task": "gsm8k", **entry}]}, "m.toml", data_root, "m")
    return resolve(mixture, data_root, None)["train"]


def test_a_data_root_without_the_data_set_names_the_directory_that_is_missing(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    folder = root / "openai" / "gsm8k" / "main"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"question": ["2+2?"], "answer": ["#### 4"]}), folder / "train-00000-of-00001.parquet")
    assert [each.source.num_rows for each in inputs(root)] == [1]
    with pytest.raises(FileNotFoundError) as wrong:  # one level too high
        inputs(tmp_path)
    assert str(wrong.value) == (
        f"{tmp_path}/openai/gsm8k not found for gsm8k: --data-root is the directory that holds openai/gsm8k and the other "
        "data sets, each as OWNER/NAME. Correct it, copy openai/gsm8k from the Hub, or build with --without gsm8k."
    )
    with pytest.raises(FileNotFoundError, match=r"openai/gsm8k has no 'test' of 'main'.*wanted main/test-\*.parquet"):
        inputs(root, split="test")
