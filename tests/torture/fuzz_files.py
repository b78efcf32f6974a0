"""
Files with one flipped bit, and what `try` and a build must make of them: never a signal, never a traceback.

    python tests/torture/fuzz_files.py 1000 [--seed 0] [--folder DIR]      DIR keeps the files that did what none may do

    refused    one line
    rejected   built, with rows that are counted as rejected
    other      built from other contents: the file is still a valid one. Formats without checksums cannot tell
    same       built as if nothing had happened: the bit is one that means nothing, or of what is not read

A file is damaged, then both commands run in a process of their own, forked from one that has everything imported.
"""

import argparse
import contextlib
import gzip
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

TURNS = ("What is {n} + {n}?", "It is {m}, and é is a letter.", "Thanks!" * 9, "You are welcome, number {n}. 数字")
NUM_ROWS = 200
OUTCOMES = ("refused", "rejected", "other", "same")


def rows() -> list[dict[str, Any]]:
    """Conversations of two and four messages, some without a system prompt, which is a field beside them"""
    out = []
    for n in range(NUM_ROWS):
        texts = [text.format(n=n, m=2 * n) for text in TURNS[: 2 + 2 * (n % 2)]]
        messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        out.append({"messages": messages, "id": f"row {n % 7}", "number": n if n % 3 else None})
    return out


def write_sound(folder: Path) -> list[Path]:
    """The same rows in every kind of file that is read"""
    table, lines = pa.Table.from_pylist(rows()), "".join(json.dumps(row) + "\n" for row in rows()).encode()
    as_dictionary = table.set_column(1, "id", table["id"].dictionary_encode())
    for name, contents in (("plain", table), ("dictionary", as_dictionary)):
        with pa.ipc.new_file(folder / f"{name}.arrow", contents.schema) as writer:
            writer.write_table(contents, max_chunksize=64)
        with pa.ipc.new_stream(folder / f"{name}-stream.arrow", contents.schema) as writer:
            writer.write_table(contents, max_chunksize=64)
    feather.write_feather(table, str(folder / "lz4.feather"), compression="lz4")
    feather.write_feather(table, str(folder / "zstd.feather"), compression="zstd")
    for codec in ("none", "snappy", "zstd", "gzip"):
        pq.write_table(table, folder / f"{codec}.parquet", compression=codec, row_group_size=64)
    (folder / "lines.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    (folder / "lines.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    return sorted(folder.iterdir())


def flip(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def run(place: Path, *arguments: str) -> tuple[int, str]:
    """A command in a forked process -> its exit code, negative for a signal, and what it wrote"""
    output = place / "output"
    pid = os.fork()
    if not pid:
        code = 70  # a traceback
        with open(output, "wb") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        try:
            from prep.cli.main import main

            sys.argv = ["midprep", *arguments]
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), output.read_text(encoding="utf-8", errors="replace")


def outcome(path: Path, place: Path, wanted: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """What `try` and a build make of a file: one of OUTCOMES, or what went wrong; and the train split of its manifest"""
    mixture, root = place / "m.toml", place / "out"
    mixture.write_text(f'[[train]]\ntask = "chat"\nname = "c"\npath = {json.dumps(str(path))}\n')
    shutil.rmtree(root, ignore_errors=True)
    built = False
    options = [
        "--workers",
        "1",
        "--cache-dir",
        str(place / "cache"),
        "--max-seq-len",
        "128",
        "--max-rejected",
        "1",
        "-q",
    ]
    for command in (
        ["try", str(path), "-n", str(NUM_ROWS)],
        ["build", "--mixture", str(mixture), "-o", str(root), *options],
    ):
        code, said = run(place, *command)
        if code < 0 or code not in (0, 1) or "Traceback" in said:
            return f"{command[0]}: exit code {code}", {"said": said}
        if code == 1 and not (said.startswith("midprep: ") and said.count("\n") == 1):
            return f"{command[0]}: not one line", {"said": said}
        built = code == 0
    shutil.rmtree(place / "cache", ignore_errors=True)
    if not built:
        return "refused", {}
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    split: dict[str, Any] = manifest["splits"]["train"]
    found = {"rejected": split["sources"][0]["rejected"], "files": [shard["files"] for shard in split["shards"]]}
    if found["rejected"]:
        return "rejected", found
    return ("same" if wanted is None or found == wanted else "other"), found


def damaged_files(folder: Path, num: int, seed: int) -> Iterator[tuple[Path, int]]:
    """(sound file, bit): every file in turn, a random bit of it"""
    draw, files = random.Random(seed), write_sound(folder)
    for number in range(num):
        path = files[number % len(files)]
        yield path, draw.randrange(8 * path.stat().st_size)


def fuzz(num: int, seed: int, keep: Path | None = None) -> tuple[dict[str, Counter[str]], list[str]]:
    """{file: {outcome: how often}}, and a line for each of what must not be"""
    import prep.build.job
    import prep.inspect.preview  # noqa: F401

    counts: dict[str, Counter[str]] = {}
    wrong, wanted = list[str](), dict[str, dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name:
        place, sound = Path(name), Path(name, "sound")
        sound.mkdir()
        for path, bit in damaged_files(sound, num, seed):
            if path.name not in wanted:
                first, wanted[path.name] = outcome(path, place, None)
                assert first == "same", (path, first, wanted[path.name])
            target = place / path.name
            target.write_bytes(flip(path.read_bytes(), bit))
            found, about = outcome(target, place, wanted[path.name])
            counts.setdefault(path.name, Counter())[found] += 1
            if found not in OUTCOMES:
                wrong.append(f"{path.name}, bit {bit}: {found}\n{about['said'][-600:]}")
                if keep:
                    shutil.copy(target, keep / f"{bit}-{path.name}")
    return counts, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    counts, wrong = fuzz(args.num, args.seed, args.folder)
    kinds = [*OUTCOMES, *sorted({kind for each in counts.values() for kind in each} - set(OUTCOMES))]
    print(f"{'':<26}" + "".join(f"{kind:>10}" for kind in kinds))
    for name, each in [*sorted(counts.items()), ("all", sum(counts.values(), Counter[str]()))]:
        print(f"{name:<26}" + "".join(f"{each[kind]:>10,}" for kind in kinds))
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
