"""
This, the plain loop, encoding alone, and what a user would pick instead, on the same rows and in the same run.

    python bench/peers.py [--data-root DIR] [--python OTHER/bin/python]

    datasets.map    Hugging Face fast tokenizer, chat template with {% generation %}, assistant mask
    TRL             pack_dataset (bfd) of what datasets.map made
    litdata         optimize with a TokensLoader: one stream of tokens, no mask
    MDSWriter       a sample of tokens and mask for each conversation
    datatrove       DocumentTokenizer: one stream of tokens, no mask
    plain loop      tiktoken, a list of ids and one of the mask for every conversation; nothing is written
    encoding alone  one engine over all texts; nothing is written
    midprep         tokens, mask, packed rows, with an empty cache

Rows: SmolTalk (or, without data, generated ones) as messages in memory or in a JSON lines file, one process each, whose
start is not counted, nor midprep's.
litdata and MDS come without a renderer: they get the plain loop of plain_build.py. Peers are taken where they are
installed (`midprep[bench]`), if need be in another environment; what is not is skipped and said so.
"""

import argparse
import importlib
import importlib.machinery
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from bench.harness import HUB, IDENTITY, Bench, plain  # noqa: E402
from bench.plain_build import MAX_SEQ_LEN, PlainRenderer, batches_of, to_messages  # noqa: E402
from prep.encode.encode import choose_engine  # noqa: E402
from prep.tokenizer.huggingface import export_hf  # noqa: E402
from prep.tokenizer.load import load_tokenizer  # noqa: E402

WIDTH = MAX_SEQ_LEN + 1
NUM_GENERATED = 20_000
TEMPLATE = (
    "{{ '<|bos|>' }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|user_start|>' + m.content + '<|user_end|>' }}"
    "{% else %}{{ '<|assistant_start|>' }}{% generation %}{{ m.content + '<|assistant_end|>' }}{% endgeneration %}"
    "{% endif %}{% endfor %}"
)
Result = dict[str, Any]


def folder_bytes(root: Path, pattern: str = "*") -> int:
    return sum(path.stat().st_size for path in root.rglob(pattern) if path.is_file())


def rows_of(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# ---- the peers: rows (JSON lines), a folder to work in -> seconds, tokens, bytes, fill ----


def hf_tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    export_hf(load_tokenizer(), folder / "hf")
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "hf/tokenizer.json"), bos_token="<|bos|>", chat_template=TEMPLATE
    )


def mapped(rows: Path, folder: Path) -> tuple[Any, float]:
    """A data set of input_ids and assistant_masks, and the seconds it took"""
    import datasets

    tokenizer = hf_tokenizer(folder)
    data = datasets.Dataset.from_list(rows_of(rows))

    def render(batch: dict[str, Any]) -> dict[str, Any]:
        out = tokenizer.apply_chat_template(
            batch["messages"],
            return_dict=True,
            return_assistant_tokens_mask=True,
            truncation=True,
            max_length=MAX_SEQ_LEN,
        )
        return {"input_ids": out["input_ids"], "assistant_masks": out["assistant_masks"]}

    start = time.perf_counter()
    done = data.map(render, batched=True, remove_columns=data.column_names, cache_file_name=str(folder / "map.arrow"))
    return done, time.perf_counter() - start


def run_map(rows: Path, folder: Path) -> Result:
    done, seconds = mapped(rows, folder)
    return {
        "seconds": seconds,
        "tokens": sum(map(len, done["input_ids"])),
        "bytes": folder_bytes(folder, "*.arrow"),
        "gives": "tokens, mask",
    }


def run_trl(rows: Path, folder: Path) -> Result:
    from trl.data_utils import pack_dataset

    done, seconds = mapped(rows, folder)
    tokens = sum(map(len, done["input_ids"]))
    start = time.perf_counter()
    packed = pack_dataset(done, WIDTH, "bfd", {"cache_file_name": str(folder / "packed.arrow")})
    return {
        "seconds": seconds + time.perf_counter() - start,
        "tokens": tokens,
        "bytes": folder_bytes(folder, "packed*.arrow"),
        "fill": tokens / (len(packed) * WIDTH),
        "gives": "tokens, mask, packed rows",
    }


def run_litdata(rows: Path, folder: Path) -> Result:
    import litdata
    import torch

    conversations, render = rows_of(rows), PlainRenderer(load_tokenizer())

    def tokenize(number: int) -> Iterator[Any]:
        yield torch.tensor(render(conversations[number]["messages"])[0], dtype=torch.uint16)

    start = time.perf_counter()
    litdata.optimize(
        fn=tokenize,
        inputs=list(range(len(conversations))),
        output_dir=str(folder / "lit"),
        chunk_bytes="64MB",
        item_loader=litdata.TokensLoader(block_size=WIDTH),
        num_workers=1,
        start_method="fork",
    )
    seconds = time.perf_counter() - start
    tokens = sum(len(render(row["messages"])[0]) for row in conversations)
    return {"seconds": seconds, "tokens": tokens, "bytes": folder_bytes(folder / "lit"), "gives": "tokens"}


def do_without_torchvision() -> None:
    """`streaming` imports it, and needs it for pictures only"""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # not there, or not of this torch; writing does without, importing does not
        for name in (
            "torchvision",
            "torchvision.datasets",
            "torchvision.transforms",
            "torchvision.transforms.functional",
        ):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
        sys.modules["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]


def run_mds(rows: Path, folder: Path) -> Result:
    do_without_torchvision()
    from streaming import MDSWriter

    conversations, render = rows_of(rows), PlainRenderer(load_tokenizer())
    tokens, start = 0, time.perf_counter()
    with MDSWriter(out=str(folder / "mds"), columns={"tokens": "ndarray:uint16", "mask": "ndarray:uint8"}) as writer:
        for row in conversations:
            ids, mask = render(row["messages"])
            writer.write({"tokens": np.array(ids, dtype=np.uint16), "mask": np.array(mask, dtype=np.uint8)})
            tokens += len(ids)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens": tokens, "bytes": folder_bytes(folder / "mds"), "gives": "tokens, mask"}


def run_datatrove(rows: Path, folder: Path) -> Result:
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer

    export_hf(load_tokenizer(), folder / "hf")
    template = {"user": "<|user_start|>{}<|user_end|>", "assistant": "<|assistant_start|>{}<|assistant_end|>"}

    def documents() -> Iterator[Document]:
        for number, row in enumerate(rows_of(rows)):
            text = "".join(template[m["role"]].format(m["content"]) for m in row["messages"])
            yield Document(text="<|bos|>" + text, id=str(number))

    step = DocumentTokenizer(str(folder / "dt"), str(folder / "hf/tokenizer.json"), shuffle_documents=False)
    start = time.perf_counter()
    step.run(documents(), 0, 1)
    seconds = time.perf_counter() - start
    num_bytes = folder_bytes(folder / "dt")
    tokens = folder_bytes(folder / "dt", "*.ds") // 2
    return {"seconds": seconds, "tokens": tokens, "bytes": num_bytes, "gives": "tokens"}


PEERS: dict[str, tuple[Callable[[Path, Path], Result], list[str]]] = {
    "datasets.map": (run_map, ["datasets", "transformers"]),
    "TRL pack_dataset": (run_trl, ["trl", "datasets", "transformers"]),
    "litdata optimize": (run_litdata, ["litdata"]),
    "MDSWriter": (run_mds, ["mosaicml-streaming"]),
    "datatrove": (run_datatrove, ["datatrove", "tokenizers"]),
}


def run_midprep(bench: Bench, encoder: str) -> Result:
    result = bench.build(bench.mixture, "--encoder", encoder, "--workers", "1")
    manifest = json.loads((bench.folder / "out/manifest.json").read_text())["splits"]["train"]
    num_bytes = sum(file["bytes"] for shard in manifest["shards"] for file in shard["files"].values())
    num_bytes += sum(file["bytes"] for file in manifest["files"].values())
    return {
        "seconds": result["inside"],
        "tokens": manifest["total_tokens"],
        "bytes": num_bytes,
        "fill": manifest["packing_efficiency"],
        "gives": "tokens, mask, packed rows",
    }


def run_plain(bench: Bench, what: str, encoder: str) -> Result:
    result = plain(bench, what, "--encoder", encoder)
    return {**result, "gives": "tokens, mask in memory" if what == "plain" else "ids of texts in memory"}


def line(name: str, versions: str, result: Result) -> str:
    fill = f"{result['fill']:.2%}" if "fill" in result else "-"
    speed = result["tokens"] / result["seconds"] / 1e6
    per_token = f"{result['bytes'] / result['tokens']:.2f}" if "bytes" in result else "-"
    return f"{name:<26} {speed:>7.2f} {fill:>8} {per_token:>8}   {result['gives']:<28} {versions}"


def run_peer(python: str, name: str, rows: Path, folder: Path) -> str:
    """A peer in a process of its own: its line of the table, or why there is none"""
    command = [python, __file__, "--run", name, "--rows", str(rows), "--folder", str(folder)]
    environment = os.environ | {
        "PYTHONWARNINGS": "ignore",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"{name:<26} skipped: {reason:.140}"
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return line(name, result["versions"], result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that has the peers")
    parser.add_argument("--run", choices=list(PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        function, packages = PEERS[args.run]
        try:
            versions = ", ".join(f"{package} {version(package)}" for package in packages)
        except PackageNotFoundError as error:
            sys.exit(f"{error.name} is not installed (midprep[bench])")
        importlib.import_module("torch")
        print(json.dumps({**function(args.rows, args.folder), "versions": versions}))
        return
    data_root = args.data_root or (HUB if HUB.is_dir() else None)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), data_root, "", 1)
        task = 'task = "smoltalk"' if data_root else f'task = "simple_spelling"\nsize = {NUM_GENERATED}'
        bench.mixture = bench.mixture_file("peers", f'name = "peers"\nseed = 42\n[[train]]\n{task}\n')
        rows = bench.folder / "rows.jsonl"
        with open(rows, "w", encoding="utf-8") as file:
            for batch in batches_of(bench.mixture, data_root, IDENTITY):
                file.writelines(json.dumps({"messages": messages}) + "\n" for messages in to_messages(batch))
        print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}; one process each")
        print(f"{'':<26} {'Mtok/s':>7} {'fill':>8} {'B/token':>8}   {'gives':<28} versions")
        for number, name in enumerate(PEERS):
            work = bench.folder / f"peer-{number}"
            work.mkdir()
            print(run_peer(args.python, name, rows, work), flush=True)
        best = choose_engine(load_tokenizer(), "auto")
        versions = {name: f"{name} {version(name)}" for name in ("tiktoken", best)}
        print(line("plain loop", versions["tiktoken"], run_plain(bench, "plain", "tiktoken")), flush=True)
        for name, about in versions.items():
            print(line(f"encoding alone, {name}", about, run_plain(bench, "encode", name)), flush=True)
        for name, about in versions.items():
            midprep = f"midprep {version('midprep')}, {about}"
            print(line(f"midprep, {name}", midprep, run_midprep(bench, name)), flush=True)


if __name__ == "__main__":
    main()
