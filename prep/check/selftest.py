"""
Is this installation exact? The checks of the test suite that depend on the machine, in seconds: `midprep selftest`.

    encoders     each engine that is installed against tiktoken, over strings made to tell them apart
    renderer     ids and mask of seven conversations that nanochat itself rendered (prep/data/selftest.jsonl)
    shards       a small build of each packing, written, read back and verified
    loss         the literal example of bits per byte, and the loss without logits against cross entropy
"""

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from prep.build.build import build, make_job
from prep.build.options import BuildOptions
from prep.check.verify import problems
from prep.conversations import messages
from prep.encode.encode import ENGINES, Encoder, why_not
from prep.mixture.mixture import parse_mixture
from prep.plan.rows import PACKINGS
from prep.render.render import render
from prep.tokenizer.load import load_tokenizer

NUM_STRINGS = 4000
PIECES = [
    "don't",
    " I'LL",
    "数学",
    "１２",
    "\u180e",
    "\u0301",
    "🙂🏽",
    " \n\n",
    "\r\n",
    "\t ",
    "1234567",
    "<|bos|>",
    "é",
    "\u017f",
    "\x00",
]


def run() -> Iterator[tuple[str, str, float]]:
    """(check, "" or what is wrong, seconds) of each check"""
    checks: dict[str, Callable[[], str]] = {
        "encoders": check_encoders,
        "renderer": check_renderer,
        "shards": check_shards,
        "loss": check_loss,
    }
    for name, check in checks.items():
        start = time.monotonic()
        try:
            wrong = check()
        except Exception as error:  # a check that cannot run has failed, and the others still have something to say
            wrong = f"{type(error).__name__}: {' '.join(str(error).split())}"
        yield name, wrong, time.monotonic() - start


def check_encoders() -> str:
    rng = random.Random(0)
    characters = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    texts = [
        "".join(rng.choice(PIECES) if rng.random() < 0.5 else rng.choice(characters) for _ in range(rng.randrange(12)))
        for _ in range(NUM_STRINGS)
    ]
    tokenizer = load_tokenizer()
    wanted = Encoder(tokenizer, "tiktoken")(texts)
    for engine in ENGINES:
        if why_not(tokenizer, engine):  # not installed here
            continue
        found = Encoder(tokenizer, engine)(texts)
        if not all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)):
            return f"{engine} and tiktoken differ"
    return ""


def check_renderer() -> str:
    tokenizer = load_tokenizer()
    lines = (Path(__file__).parents[1] / "data" / "selftest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    rendered = render(messages.of_objects(rows), Encoder(tokenizer), tokenizer)
    if rendered.tokens.tolist() != [token for row in rows for token in row["ids"]]:
        return "ids differ from nanochat's"
    if "".join(map(str, rendered.mask)) != "".join(row["mask"] for row in rows):
        return "the mask differs from nanochat's"
    return ""


def check_shards() -> str:
    data = {"train": [{"task": "arithmetic", "size": 300}, {"task": "spelling_bee", "size": 300}]}
    with tempfile.TemporaryDirectory(prefix="midprep-") as folder:
        for packing in PACKINGS:
            options = BuildOptions(max_seq_len=512, packing=packing, cache_dir=Path(folder) / "cache", quiet=True)
            root = Path(folder) / packing
            build(make_job(parse_mixture(data, "selftest", Path(), "selftest"), load_tokenizer(), options), root)
            for problem in problems(root):
                return problem
    return ""


def check_loss() -> str:
    import torch  # the trainer's, and only here

    from train.evaluate import bits_per_byte, sums_by_source
    from train.loss import Loss
    from train.model import SOFTCAP

    nats, labels = torch.tensor([2.1, 0.9, 0.4, 1.7, 5.0]), torch.tensor([0, 1, 2, 3, -1])
    sums = sums_by_source(nats, labels, torch.zeros(5, dtype=torch.long), torch.tensor([3, 2, 0, 2]), 1)
    whole, _ = bits_per_byte(sums[0], sums[1], ["all"])
    if abs(whole - 4.7 / np.log(2) / 7) > 1e-6:
        return f"bits per byte of the literal example are {whole}, wanted {4.7 / np.log(2) / 7}"
    torch.manual_seed(0)
    x, weight = torch.randn(300, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(-1, 50, (300,))
    logits = SOFTCAP * torch.tanh(x @ weight.T / SOFTCAP)
    plain = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    ours = Loss.apply(x, weight, labels)[0]  # type: ignore[no-untyped-call]
    for name, a, b in zip(
        ("loss", "gradient of x", "gradient of the weight"),
        (ours, *torch.autograd.grad(ours, (x, weight))),
        (plain, *torch.autograd.grad(plain, (x, weight))),
        strict=True,
    ):
        if not torch.allclose(a, b, rtol=1e-4, atol=1e-4):
            return f"{name} differs from cross entropy's"
    return ""
