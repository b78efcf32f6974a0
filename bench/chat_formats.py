"""
Chats in the formats of other models, to tokens and mask: our renderer against transformers' apply_chat_template.

    python bench/chat_formats.py [--chats 4000] [--repeats 3] [--templates DIR]

One core, processor seconds, medians of repetitions in turns. Ours: conversations in columns, as every reader makes them, in
batches as a build has them, with all of our own checks; each repetition with an encoder of its own, whose words are not known
yet. transformers: the same chats as messages, 500 at a time, with the mask of TRL's training templates, which are read from an
installed TRL, or from --templates. Ids and mask are compared, all of them. The vocabularies are small, those of tests/chat.

The same templates also go by our way for any Jinja template, row by row, with their {% generation %}; and the stock ones, whose
mask is found message by message (Qwen 3 is refused there: its template takes back what it wrote).
"""

import argparse
import importlib.util
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402

from bench.harness import Bench  # noqa: E402
from bench.some_chats import BATCH, Chat, write_chats  # noqa: E402
from prep.arrays import Array  # noqa: E402
from prep.chat.choose import AnyTemplate  # noqa: E402
from prep.chat.tables import FORMATS, NANOCHAT  # noqa: E402
from prep.chat.template import ChatTemplate  # noqa: E402
from prep.conversations.conversation import Conversations, part_of, slices  # noqa: E402
from prep.conversations.read import of_objects  # noqa: E402
from prep.encode.encode import ENGINES, Encoder, why_not  # noqa: E402
from prep.jinja.format import JinjaFormat, JinjaTemplate  # noqa: E402
from prep.render.render import render  # noqa: E402
from prep.sources.tables import BATCH_BYTES  # noqa: E402
from prep.tokenizer.load import load_tokenizer  # noqa: E402
from prep.tokenizer.tokenizer import Tokenizer  # noqa: E402

TEMPLATES = {
    "qwen2.5": "qwen2_5_training.jinja",
    "qwen3": "qwen3_training.jinja",
    "qwen3-instruct-2507": "qwen3_instruct_2507_training.jinja",
    "llama3": "llama3_training.jinja",
}
AIMS = {"gigatoken": "at least 9x", "fastokens": "at least 6x", "tiktoken": "at least 2.5x"}
TOKENIZERS = ROOT / "tests/chat/fixtures/tokenizers.jsonl.zst"
Result = tuple[Array, Array, Array]  # tokens, mask, lengths


@dataclass
class Replay:
    """An encoder that gives back what another gave for the same batch, for nothing: what is left is the renderer"""

    encoder: Encoder
    known: dict[int, tuple[Array, Array]]

    def __call__(self, texts: pa.LargeStringArray) -> tuple[Array, Array]:
        if texts.nbytes not in self.known:
            self.known[texts.nbytes] = self.encoder(texts)
        ids, lengths = self.known[texts.nbytes]
        return ids, lengths.copy()

    def is_changed(self, texts: pa.LargeStringArray) -> Array:
        return self.encoder.is_changed(texts)


def ours(batches: list[Conversations], encoder: Any, tokenizer: Tokenizer, template: AnyTemplate) -> Result:
    """Every batch rendered"""
    rendered = [render(batch, encoder, tokenizer, template=template) for batch in batches]
    tokens, mask, lengths = ([getattr(each, name) for each in rendered] for name in ("tokens", "mask", "lengths"))
    return np.concatenate(tokens), np.concatenate(mask), np.concatenate(lengths)


def theirs(rows: list[Chat], tokenizer: Any) -> Result:
    """The same by transformers"""
    ids, masks = list[list[int]](), list[list[int]]()
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        out = tokenizer.apply_chat_template(
            [row["messages"] for row in batch],
            tools=batch[0].get("tools"),
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids += out["input_ids"]
        masks += out["assistant_masks"]
    lengths = np.array([len(each) for each in ids])
    return np.array([*itertools.chain(*ids)]), np.array([*itertools.chain(*masks)]), lengths


def template_folder() -> Path | None:
    """Where an installed TRL has its templates"""
    spec = importlib.util.find_spec("trl")
    return (
        Path(spec.submodule_search_locations[0]) / "chat_templates"
        if spec and spec.submodule_search_locations
        else None
    )


def transformers_tokenizer(path: Path, template: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    text = template.read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(tokenizer_file=str(path), chat_template=text, bos_token="<|begin_of_text|>")


def write_tokenizers(folder: Path) -> dict[str, Path]:
    """tokenizer.json of each family, as tests/chat has them"""
    import json

    paths = {}
    with pa.input_stream(TOKENIZERS, compression="zstd") as file:
        for line in map(json.loads, file.read().splitlines()):
            paths[line["name"]] = folder / f"{line['name']}.json"
            paths[line["name"]].write_text(json.dumps(line["content"]), encoding="utf-8")
    return paths


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def in_batches(rows: list[Chat]) -> list[Conversations]:
    batch = of_objects(rows)
    return [part_of(batch, start, stop) for start, stop in slices(batch, BATCH_BYTES)]


def compare(bench: Bench, family: str, num: int, path: Path, templates: Path | None) -> None:
    """One family, by each engine and by transformers, in turns"""
    template = ChatTemplate(FORMATS[family])
    rows = write_chats(num, template.format.calls is not None, template.format.reasoning is not None)
    batches, tokenizer = in_batches(rows), load_tokenizer(str(path))
    engines = [engine for engine in ENGINES if not why_not(tokenizer, engine)]
    seconds = defaultdict[str, list[float]](list)
    other = transformers_tokenizer(path, templates / TEMPLATES[family]) if templates else None
    results = dict[str, Result]()
    for _ in range(bench.repeats):
        if other is not None:
            spent, results["transformers"] = timed(lambda: theirs(rows, other))
            seconds["transformers"].append(spent)
        for engine in engines:
            encoder = Encoder(tokenizer, engine)
            spent, results[engine] = timed(lambda: ours(batches, encoder, tokenizer, template))  # noqa: B023
            seconds[engine].append(spent)
    for name, result in results.items():
        if not all(map(np.array_equal, result, results[engines[-1]])):
            raise ValueError(f"{name} and {engines[-1]} give other ids or another mask in {family}")
    num_tokens = int(results[engines[-1]][2].sum())
    bench.add(
        f"{family}: tokens a chat",
        f"{num_tokens / num:.0f}",
        f"{num:,} chats, equal by {', '.join(results)}",
    )
    for name, values in seconds.items():
        spent = statistics.median(values)
        bench.add(f"{family}: {name}, µs a chat", f"{spent / num * 1e6:.0f}", f"{num_tokens / spent / 1e6:.2f} Mtok/s")
        if other is not None and name in AIMS:
            ratios = [a / b for a, b in zip(seconds["transformers"], values, strict=True)]
            spread = f"{AIMS[name]}; single runs {min(ratios):.1f} to {max(ratios):.1f}"
            bench.add(f"{family}: {name} over transformers", f"{statistics.median(ratios):.1f}x", spread)
    bench.add(f"{family}: without the encoder, µs a chat", f"{alone(bench, batches, tokenizer, template):.1f}")
    if templates is not None:
        by_jinja(bench, family, rows, tokenizer, templates, results["transformers"], seconds["transformers"])


def by_jinja(
    bench: Bench, family: str, rows: list[Chat], tokenizer: Tokenizer, folder: Path, wanted: Result, spent: list[float]
) -> None:
    """The template of a family as any Jinja template, with marks and without"""
    marked = JinjaTemplate(JinjaFormat.read(folder / TEMPLATES[family]))
    stock = JinjaTemplate(JinjaFormat.read(folder / TEMPLATES[family].replace("_training", "")))
    num_messages = sum(len(row["messages"]) for row in rows)
    batches = in_batches(rows)
    ways = {"marked": marked} if family == "qwen3" else {"marked": marked, "found": stock}
    for engine in (engine for engine in ENGINES if not why_not(tokenizer, engine)):
        seconds = defaultdict[str, list[float]](list)
        for _ in range(bench.repeats):
            for name, template in ways.items():
                encoder = Encoder(tokenizer, engine)
                took, result = timed(lambda: ours(batches, encoder, tokenizer, template))  # noqa: B023
                seconds[name].append(took)
                if name == "marked" and not all(map(np.array_equal, result, wanted)):
                    raise ValueError(
                        f"{family} by Jinja and {engine} gives other ids or another mask than transformers"
                    )
        ratio = statistics.median(spent) / statistics.median(seconds["marked"])
        about = {"marked": f"{ratio:.1f}x of transformers; at least 1x", "found": "the stock template"}
        for name, values in seconds.items():
            each = statistics.median(values) / num_messages * 1e6
            bench.add(f"{family}: Jinja, mask {name}, {engine}, µs a message", f"{each:.0f}", about[name])


def alone(bench: Bench, batches: list[Conversations], tokenizer: Tokenizer, template: ChatTemplate) -> float:
    """Microseconds a chat of everything but the encoder"""
    replay = Replay(Encoder(tokenizer), {})
    ours(batches, replay, tokenizer, template)
    seconds = [timed(lambda: ours(batches, replay, tokenizer, template))[0] for _ in range(2 * bench.repeats + 1)]
    return statistics.median(seconds) / sum(map(len, batches)) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chats", type=int, default=4_000, help="of each family (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--templates", type=Path, help="a folder of TRL's training templates")
    args = parser.parse_args()
    templates = args.templates or template_folder()
    if importlib.util.find_spec("transformers") is None or templates is None:
        print("transformers and TRL are not installed (pip install 'midprep[bench]'): ours alone")
        templates = None
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), None, "", args.repeats)
        paths = write_tokenizers(Path(folder))
        for family in TEMPLATES:
            compare(bench, family, args.chats, paths[family], templates)
        nano = load_tokenizer("nano32k")
        batches = in_batches(write_chats(args.chats, False, False))
        bench.add(
            "nanochat: without the encoder, µs a chat", f"{alone(bench, batches, nano, ChatTemplate(NANOCHAT)):.1f}"
        )


if __name__ == "__main__":
    main()
