"""
From nothing to the first batch of a build of a billion tokens.

    python bench/startup.py         # seconds: importing torch, and everything else until the first batch is there

Once as `python`, once under torchrun, whose agent imports torch for itself before it starts the rank; that is taken off too.

The build is made of empty (sparse) files with a real table of rows, so it costs no disk; the trainer maps them and reads
the table of rows, the first rows and their documents, whatever the size of the rest.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from bench.loader import T  # noqa: E402
from prep.shard import DOC, FORMAT, ROW, VERSION, write_manifest  # noqa: E402

NUM_TOKENS, DOCS_PER_ROW = 1_000_000_000, 7

CHILD = """
import sys, time
started = time.perf_counter()
import torch
imported = time.perf_counter()
from train.config import parse_args
from train.distributed import start_ranks
from train.loader import prefetch
from train.mid import rows_to_train
from train.setup import set_up
config = parse_args(sys.argv[1:])
with start_ranks("cpu") as ranks:
    run = set_up(config, ranks)
    next(prefetch(run.split, rows_to_train(run, ranks), config.mode, False, ranks.device))
print("seconds", imported - started, time.perf_counter() - imported, time.time())
"""


def write_sparse_build(root: Path, num_rows: int) -> None:
    entry = {}
    shapes = {
        "train-00000-of-00001.tokens.npy": ("<u2", (num_rows, T + 1)),
        "train-00000-of-00001.mask.npy": ("u1", (num_rows, -(-(T + 1) // 8))),
        "train.rows.npy": (ROW, (num_rows,)),
        "train.docs.npy": (DOC, (num_rows * DOCS_PER_ROW,)),
    }
    for name, (dtype, shape) in shapes.items():
        array = np.lib.format.open_memmap(root / name, "w+", np.dtype(dtype), shape)
        if name == "train.rows.npy":
            array["first_doc"], array["num_tokens"] = np.arange(num_rows) * DOCS_PER_ROW, T + 1
            array["num_targets"], array["num_trainable"] = T, T // 2
        elif name == "train.docs.npy":
            array["length"] = np.tile([*[(T + 1) // DOCS_PER_ROW] * 6, (T + 1) - (T + 1) // DOCS_PER_ROW * 6], num_rows)
        array.flush()
        entry[name] = {"bytes": (root / name).stat().st_size, "sha256": "0" * 64}
    names = list(shapes)
    shard = {"name": "train-00000-of-00001", "rows": num_rows, "files": {name: entry[name] for name in names[:2]}}
    split = {"rows": num_rows, "docs": num_rows * DOCS_PER_ROW, "sources": [{"name": "all"}], "shards": [shard]}
    split["files"] = {name: entry[name] for name in names[2:]}
    tokenizer = {"name": "none", "sha256": "0" * 64, "special_tokens": {}}
    write_manifest(root, {
        "format": FORMAT, "version": VERSION, "fingerprint": "0" * 64, "max_seq_len": T, "token_dtype": "uint16",
        "vocab_size": 32768, "bos_id": 0, "pad_id": 0, "tokenizer": tokenizer, "splits": {"train": split}, "files": {},
    })  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_sparse_build(Path(folder), NUM_TOKENS // T)
        script = Path(folder) / "first_batch.py"
        script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{CHILD}")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
        for name, launcher in (("python", [sys.executable]), ("torchrun", torchrun)):
            over_torch = []
            for mode in ("mid", "sft", "mid", "sft"):
                flags = [
                    "--shards",
                    folder,
                    "--out",
                    f"{folder}/out",
                    *f"--mode {mode} --eval-every 0 --depth 2".split(),
                ]
                started = time.time()
                out = subprocess.run(
                    [*launcher, str(script), *flags], capture_output=True, text=True, check=True
                ).stdout
                torch_seconds, rest, ended = map(float, out.splitlines()[-1].split()[1:])
                imports = torch_seconds * (2 if launcher == torchrun else 1)
                over_torch.append(ended - started - imports)
                print(
                    f"{name}, {mode}: {ended - started:.2f} s to the first batch: importing torch {imports:.2f} s, "
                    f"from there in the rank {rest:.2f} s",
                    flush=True,
                )
            print(f"{name}: over importing torch {min(over_torch):.2f} s at best, {max(over_torch):.2f} s at worst")


if __name__ == "__main__":
    main()
