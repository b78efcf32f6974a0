"""
Batches of 32 x 2048 from the page cache, beside bare numpy.

    python bench/loader.py [--peers]        # Mtok/s of one process, ratios within one run

    numpy       rows of one array by fancy indexing, and one conversion, to int64 (or int32): no loader can do less
    mid, sft    inputs and targets int32 by `prep.shard.batches.read_batch`, -1 without a target
    batch       what the loop gets: also positions, labels and sources of the targets
    waiting     time that the loop waits for a batch if a step takes 100 ms
    memory      anonymous memory before and after a pass through everything
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from bench.peers import do_without_torchvision  # noqa: E402
from prep.shard import DOC, FORMAT, ROW, VERSION, Split, open_shards, write_array, write_manifest  # noqa: E402
from prep.shard.batches import read_batch  # noqa: E402
from train.loader import make_batch, prefetch  # noqa: E402

B, T = 32, 2048
PEER_ROWS = 4096
DOC_LEN = 293  # about seven conversations per row


def write_random_build(root: Path, num_rows: int, num_shards: int = 2) -> None:
    """A build of full rows with random tokens; the second half of each conversation is the target of sft"""
    rng, width = np.random.default_rng(0), T + 1
    cuts = [*range(0, width, DOC_LEN), width]
    lengths = np.diff(cuts).astype("<u4")
    mask = np.zeros(width, np.uint8)
    for cut in cuts[:-1]:
        mask[cut + DOC_LEN // 2 : cut + DOC_LEN] = 1
    rows, docs = np.zeros(num_rows, ROW), np.zeros(num_rows * len(lengths), DOC)
    rows["first_doc"], rows["num_tokens"] = np.arange(num_rows) * len(lengths), width
    rows["num_targets"], rows["num_trainable"] = T, mask[1:].sum()
    docs["length"], docs["source"] = np.tile(lengths, num_rows), np.arange(len(docs)) % 5
    split = {
        "rows": num_rows,
        "docs": len(docs),
        "sources": [{"name": f"source{number}"} for number in range(5)],
        "shards": [],
        "files": {f"train.{name}.npy": write_array(root / f"train.{name}.npy", array) for name, array in
                  (("rows", rows), ("docs", docs))},
    }  # fmt: skip
    for shard, ids in enumerate(np.array_split(np.arange(num_rows), num_shards)):
        name = f"train-{shard:05d}-of-{num_shards:05d}"
        tokens = rng.integers(0, 32768, (len(ids), width), dtype=np.uint16)
        bits = np.packbits(np.tile(mask, (len(ids), 1)), axis=1, bitorder="little")
        files = {f"{name}.tokens.npy": write_array(root / f"{name}.tokens.npy", tokens)}
        files[f"{name}.mask.npy"] = write_array(root / f"{name}.mask.npy", bits)
        split["shards"].append({"name": name, "rows": len(ids), "files": files})
    write_array(root / "token_bytes.npy", np.full(32768, 4, np.uint16))
    tokenizer = {"name": "random", "sha256": "0" * 64, "special_tokens": {"<|bos|>": 0}}
    write_manifest(root, {
        "format": FORMAT, "version": VERSION, "fingerprint": "0" * 64, "max_seq_len": T, "token_dtype": "uint16",
        "vocab_size": 32768, "bos_id": 0, "pad_id": 0, "tokenizer": tokenizer, "splits": {"train": split}, "files": {},
    })  # fmt: skip


def rates(readers: dict[str, Callable[[np.ndarray], object]], batches: list[np.ndarray]) -> dict[str, float]:
    """Mtok/s of each reader; they take turns, medians are compared"""
    times: dict[str, list[float]] = {name: [] for name in readers}
    for row_ids in batches:
        for name, read in readers.items():
            started = time.perf_counter()
            read(row_ids)
            times[name].append(time.perf_counter() - started)
    return {name: B * T / statistics.median(each) / 1e6 for name, each in times.items()}


def peers(tokens: np.ndarray, folder: Path) -> Iterator[tuple[str, Iterable[Any]]]:
    """Those that are installed: (name, batches of B rows of the same tokens, without a mask), each read once beforehand"""
    import pyarrow as pa
    from datasets import Dataset, load_from_disk

    flat = pa.FixedSizeListArray.from_arrays(pa.array(tokens.reshape(-1)), T + 1)
    Dataset(pa.table({"tokens": flat})).save_to_disk(str(folder / "arrow"))
    rows = load_from_disk(str(folder / "arrow")).with_format("torch")
    yield "datasets", (rows[at : at + B]["tokens"] for at in range(0, len(tokens), B))
    if importlib.util.find_spec("litdata"):
        import litdata

        loader = litdata.TokensLoader(block_size=T + 1)
        litdata.optimize(
            fn=PieceOf(tokens), inputs=list(range(0, len(tokens), 256)), output_dir=str(folder / "lit"),
            chunk_bytes="64MB", item_loader=loader, num_workers=1, start_method="fork",
        )  # fmt: skip
        stream = litdata.StreamingDataset(str(folder / "lit"), item_loader=litdata.TokensLoader(block_size=T + 1))
        yield "litdata", litdata.StreamingDataLoader(stream, batch_size=B)
    if importlib.util.find_spec("streaming"):
        do_without_torchvision()
        from streaming import MDSWriter, StreamingDataset
        from torch.utils.data import DataLoader

        with MDSWriter(out=str(folder / "mds"), columns={"tokens": f"ndarray:uint16:{T + 1}"}) as writer:
            for row in tokens:
                writer.write({"tokens": row})
        yield "MDS", DataLoader(StreamingDataset(local=str(folder / "mds"), batch_size=B), batch_size=B)


class PieceOf:
    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens

    def __call__(self, row: int) -> Iterator[torch.Tensor]:
        yield torch.from_numpy(self.tokens[row : row + 256].reshape(-1))


def stream_rate(batches: Iterable[Any], num_rows: int) -> float:
    """Mtok/s of a stream of batches"""
    started = time.perf_counter()
    for _ in batches:
        pass
    return num_rows * T / (time.perf_counter() - started) / 1e6


def anonymous_mb() -> float:
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.split("Anonymous:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="loader throughput beside bare numpy")
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--peers", action="store_true", help="datasets, and litdata and MDS where they are installed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_random_build(root, args.rows)
        split: Split = open_shards(root).split("train")
        single = np.concatenate(split.tokens)
        for name, order in (
            ("in order", np.arange(args.rows)),
            ("permuted", np.random.default_rng(1).permutation(args.rows)),
        ):
            batches = [order[at : at + B] for at in range(0, args.rows, B)]
            speeds = rates(
                {
                    "numpy": lambda ids: single[ids].astype(np.int64),
                    "numpy int32": lambda ids: single[ids].astype(np.int32),
                    "mid": lambda ids: read_batch(split, ids, "mid"),
                    "sft": lambda ids: read_batch(split, ids, "sft"),
                    "batch mid": lambda ids: make_batch(split, ids, "mid", False),
                    "batch sft": lambda ids: make_batch(split, ids, "sft", False),
                },
                batches,
            )
            print(
                f"{name}: "
                + ", ".join(f"{key} {rate:,.0f} Mtok/s ({rate / speeds['numpy']:.2f}x)" for key, rate in speeds.items())
            )
        if args.peers:
            few = single[:PEER_ROWS]
            print(f"peers, {PEER_ROWS:,} rows in order, in one process:")
            ours = prefetch(split, iter(np.arange(PEER_ROWS).reshape(-1, B)), "mid", False, torch.device("cpu"))
            for name, stream in (("midprep", ours), *peers(few, root)):
                print(f"    {name:<10} {stream_rate(stream, PEER_ROWS):10,.0f} Mtok/s", flush=True)
        before, waits = anonymous_mb(), []
        stream = prefetch(split, iter(batches[:40]), "sft", False, torch.device("cpu"))
        for _ in range(40):
            started = time.perf_counter()
            next(stream)
            waits.append(time.perf_counter() - started)
            time.sleep(0.1)
        print(f"waiting for a batch in a step of 100 ms: median {statistics.median(waits) * 1e6:.0f} us")
        for _ in prefetch(split, iter(batches), "sft", False, torch.device("cpu")):
            pass
        print(f"anonymous memory: {before:.0f} MB before, {anonymous_mb():.0f} MB after {args.rows * T / 1e6:.0f} Mtok")


if __name__ == "__main__":
    main()
