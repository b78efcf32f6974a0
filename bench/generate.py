"""
Tokens per second of generation: a batch of 16 against one prompt after the other, and what the cache saves.

    python bench/generate.py            # depth 4, width 256, prompts of 10 to 40 tokens, 48 tokens each

Greedy, random weights, no row ends early. One thread and processor seconds, which depend least on what else the machine does;
rounds take turns, and the fastest of each is reported. Both generations of the model.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from prep.render.reference import Prompt  # noqa: E402
from train.inference.generate import generate  # noqa: E402
from train.model import GPT  # noqa: E402
from train.sizes import config_of_depth  # noqa: E402

DEPTH, VOCABS, T, B = 4, (32_768, 512), 2048, 16  # nanochat's vocabulary, and a small one
NEVER = -1  # no token: a row that never ends


def make_model(generation: str, vocab_size: int) -> GPT:
    model = GPT(config_of_depth(DEPTH, T, vocab_size, generation))
    model.init_weights(0)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    return model


def make_prompts(vocab_size: int) -> list[Prompt]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(10, 40, B).int().tolist()
    return [
        Prompt(torch.randint(vocab_size, (n,), generator=generator).tolist(), NEVER, (NEVER, NEVER), (NEVER, NEVER))
        for n in lengths
    ]


def seconds(model: GPT, batches: list[list[Prompt]], num_tokens: int) -> float:
    started = time.process_time()
    num = sum(1 for prompts in batches for _ in generate(model, prompts, num_tokens))
    assert num == B * num_tokens
    return time.process_time() - started


@torch.inference_mode()
def seconds_without_cache(model: GPT, prompt: Prompt, num_tokens: int) -> float:
    """The whole row again for each token"""
    started, ids = time.process_time(), list(prompt.ids)
    for _ in range(num_tokens):
        ids.append(int(model.lm_head(model.hidden(torch.tensor([ids]))[:, -1]).argmax()))
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for generation, vocab_size in itertools.product(("2025-12", "2026-07"), VOCABS):
        print(json.dumps(measure(generation, vocab_size, args.rounds, args.tokens)), flush=True)


def measure(generation: str, vocab_size: int, num_rounds: int, num_tokens: int) -> dict[str, Any]:
    model, prompts = make_model(generation, vocab_size), make_prompts(vocab_size)
    times: dict[str, list[float]] = {"batch": [], "alone": []}
    for _ in range(num_rounds):
        times["batch"].append(seconds(model, [prompts], num_tokens))
        times["alone"].append(seconds(model, [[prompt] for prompt in prompts], num_tokens))
    speed = {name: B * num_tokens / min(values) for name, values in times.items()}
    return {
        "generation": generation,
        "vocab_size": vocab_size,
        "batch_tokens_per_second": round(speed["batch"]),
        "alone_tokens_per_second": round(speed["alone"]),
        "ratio": round(speed["batch"] / speed["alone"], 1),
        "ratio_of_rounds": [round(a / b, 1) for a, b in zip(times["alone"], times["batch"], strict=True)],
        "without_cache_tokens_per_second": round(num_tokens / seconds_without_cache(model, prompts[-1], num_tokens)),
    }


if __name__ == "__main__":
    main()
