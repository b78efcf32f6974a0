"""Rubbish for rows and rubbish for files: rejected rows that are counted, or one line; never a traceback."""

import gzip
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import build_mixture, chat, write_lines
from tests.torture.fuzz_rows import check_file, write_columns, write_rows


def test_lines_of_rubbish_are_rejected_and_the_sound_ones_are_in(tmp_path: Path, toy: Tokenizer) -> None:
    num_good = write_rows(tmp_path / "rows.jsonl", 300, seed=1, huge=False)
    reasons = check_file(tmp_path / "rows.jsonl", num_good, 300, toy, tmp_path)
    assert len(reasons) >= 6


def test_columns_of_rubbish_are_rejected_and_the_sound_ones_are_in(tmp_path: Path, toy: Tokenizer) -> None:
    num_good = write_columns(tmp_path / "rows.parquet", 300, seed=2)
    reasons = check_file(tmp_path / "rows.parquet", num_good, 300, toy, tmp_path)
    assert len(reasons) >= 5


@pytest.mark.torture
def test_ten_thousand_rows_of_rubbish_in_bounded_memory() -> None:
    command = [sys.executable, str(Path(__file__).parent / "fuzz_rows.py"), "10000", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    peak = re.search(r"peak (\d+) MiB", done.stdout)
    assert peak is not None
    assert int(peak[1]) < 1500  # with texts of 10 MB among them


# ---- whole files ----

SOUND = [chat(f"q{i}", f"answer {i}") for i in range(20)]


def parquet(column: Any, **more: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"messages": column, **more}), out)
    return out.getvalue()


def lines(rows: list[Any], end: str = "\n") -> bytes:
    return "".join(json.dumps(row) + end for row in rows).encode()


STRUCTS = [row["messages"] for row in SOUND]
FILES = {
    "numbers.parquet": parquet(list(range(20))),
    "strings.parquet": parquet([json.dumps(row) for row in STRUCTS]),
    "nulls.parquet": parquet(pa.nulls(20)),
    "lists.parquet": parquet([[1, 2]] * 20),
    "other_fields.parquet": parquet([[{"who": "user", "says": "a"}]] * 20),
    "number_roles.parquet": parquet([[{"role": 1, "content": "a"}, {"role": 2, "content": "b"}]] * 20),
    "number_contents.parquet": parquet([[{"role": "user", "content": 1}, {"role": "assistant", "content": 2}]] * 20),
    "nested.parquet": parquet([[{"role": "user", "content": {"a": {"b": ["c"]}}}]] * 20),
    "dictionary.parquet": parquet(pa.array(["a", "b"] * 10).dictionary_encode()),
    "struct.parquet": parquet([{"role": "user", "content": "a"}] * 20),
    "empty.parquet": parquet(pa.array([], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))),
    "cut.parquet": parquet(STRUCTS)[:-200],
    "half.parquet": parquet(STRUCTS)[: len(parquet(STRUCTS)) // 2],
    "magic.parquet": b"PAR1",
    "cut.gz.jsonl": gzip.compress(lines(SOUND))[:-30],
    "magic.gz.jsonl": b"\x1f\x8b\x08",
    "zip.jsonl": b"PK\x03\x04" + bytes(100),
    "zeros.jsonl": bytes(100_000),
    "cr_only.jsonl": lines(SOUND, "\r"),
    "utf16.jsonl": lines(SOUND).decode().encode("utf-16"),
    "utf32.jsonl": lines(SOUND).decode().encode("utf-32"),
    "blank.jsonl": b" \n\n\r\n\t\n",
    "nothing.jsonl": b"",
    "html.jsonl": b"<!doctype html><html><body>404</body></html>\n" * 5,
    "noise.jsonl": random.Random(0).randbytes(20_000),
    "noise.parquet": b"PAR1" + random.Random(0).randbytes(20_000) + b"PAR1",
    "nan.jsonl": b"NaN\nInfinity\n-Infinity\n",
    "deep.jsonl": b"[" * 1_000_000 + b"\n",
    "numbers.jsonl": b"1\n" * 20,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_nothing_usable_is_one_line_that_names_it(tmp_path: Path, toy: Tokenizer, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    with pytest.raises((ValueError, FileNotFoundError, OSError)) as error:
        build_mixture(tmp_path, {"train": [{"task": "chat", "path": name, "name": name}]}, toy)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 1500
    assert name in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["strings.parquet", "cut.parquet", "noise.jsonl"])
def test_so_it_is_for_the_tasks_of_the_hub(tmp_path: Path, toy: Tokenizer, name: str) -> None:
    for task, place in (
        ("gsm8k", "openai/gsm8k/main"),
        ("mmlu", "cais/mmlu/all"),
        ("smoltalk", "HuggingFaceTB/smol-smoltalk/data"),
    ):
        path = tmp_path / "data" / place / f"{'train' if task != 'mmlu' else 'test'}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
        mixture = {"train": [{"task": task, **({"subset": "all", "split": "test"} if task == "mmlu" else {})}]}
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            build_mixture(tmp_path, mixture, toy, data_root=tmp_path / "data")
        assert "\n" not in str(error.value)


WRONG_COLUMNS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": [1, 2], "answer": [[1], [2]]},
    "mmlu": {"question": ["a", None], "choices": ["abcd", "efgh"], "answer": ["A", "B"]},
    "smoltalk": {"messages": [[1, 2], [3]]},
}


@pytest.mark.parametrize("task", WRONG_COLUMNS)
def test_columns_of_other_types_are_one_line(tmp_path: Path, toy: Tokenizer, task: str) -> None:
    place = {
        "gsm8k": "openai/gsm8k/main/train",
        "mmlu": "cais/mmlu/auxiliary_train/train",
        "smoltalk": "HuggingFaceTB/smol-smoltalk/data/train",
    }
    path = tmp_path / f"{place[task]}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(WRONG_COLUMNS[task]), path)
    with pytest.raises(ValueError) as error:
        build_mixture(tmp_path, {"train": [{"task": task}]}, toy, data_root=tmp_path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_sound_files_in_odd_wrappings_are_read(tmp_path: Path, toy: Tokenizer) -> None:
    wanted = build_mixture(
        tmp_path, {"train": [{"task": "chat", "path": write_lines(tmp_path / "a.jsonl", SOUND).name}]}, toy
    )
    for name, data in {
        "gzip.jsonl": gzip.compress(lines(SOUND)),
        "crlf.jsonl": lines(SOUND, "\r\n"),
        "bom.jsonl": b"\xef\xbb\xbf" + lines(SOUND),
        "no_end.jsonl": lines(SOUND)[:-1],
        "spaced.jsonl": lines(SOUND, "   \n\n \t\n"),
        "rows.parquet": parquet(STRUCTS, other=list(range(20))),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
        found = build_mixture(tmp_path, {"train": [{"task": "chat", "path": name}]}, toy, f"{name}.out")
        assert found[1]["splits"]["train"]["conversations"] == 20, name
        for shard in found[1]["splits"]["train"]["shards"]:
            assert {f: e["sha256"] for f, e in shard["files"].items()} == {
                f: e["sha256"] for f, e in wanted[1]["splits"]["train"]["shards"][0]["files"].items()
            }
