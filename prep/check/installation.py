"""
Is this installation exact, and what will be fast on this machine? `midprep selftest` and `midprep doctor`.

    encoders     each engine that is installed against tiktoken, over strings made to tell them apart
    renderer     ids and mask of seven conversations that nanochat itself rendered (prep/data/selftest.jsonl)
    formats      one chat of each format: in columns, and by the plain rule
    shards       a small build of each packing, written, read back and verified
    loss         the literal example of bits per byte, and the loss without logits against cross entropy
"""

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from prep import __version__
from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.build.record import package_version
from prep.chat.tables import FORMATS
from prep.chat.template import ChatTemplate
from prep.check.verify import problems
from prep.conversations.read import of_objects
from prep.cpu import has_amx
from prep.encode.encode import ENGINES, Encoder, choose_engine, why_not
from prep.files import default_cache_dir, scratch_folder
from prep.mixture.mixture import parse_mixture
from prep.plan.rows import VERSIONS
from prep.render.block_cache import list_blocks
from prep.render.reference import render_conversation
from prep.render.render import render
from prep.sources.hub import is_offline
from prep.text import size
from prep.tokenizer.load import load_tokenizer, notice_of_nanochat
from prep.tokenizer.spec import BYTE_RANKS
from prep.tokenizer.tokenizer import PATTERN, Tokenizer

EXAMPLES = Path(__file__).parents[1] / "data" / "selftest.jsonl"
NUM_STRINGS = 4000
SAID = (("system", "Be brief."), ("user", "\n2+2?"), ("assistant", "\n4."), ("user", "Why?\n"), ("assistant", ""))
CHAT = [{"role": role, "content": text} for role, text in SAID]
PIECES = [
    *("don't", " I'LL", "数学", "１２", "\u180e", "\u0301", "🙂🏽", " \n\n", "\r\n", "\t ", "1234567", "<|bos|>", "é"),
    *("\u017f", "\x00"),
]
PACKAGES = ("numpy", "pyarrow", "polars", "datasets", "tiktoken", "fastokens", "gigatoken", "rustbpe", "torch", "ray")


# ---- selftest ----


def run_checks() -> Iterator[tuple[str, str, float]]:
    """(check, "" or what is wrong, seconds) of each check"""
    checks: dict[str, Callable[[], str]] = {
        "encoders": check_encoders,
        "renderer": check_renderer,
        "formats": check_formats,
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
    expected = Encoder(tokenizer, "tiktoken")(texts)
    for engine in ENGINES:
        if why_not(tokenizer, engine):  # not installed here
            continue
        encoded = Encoder(tokenizer, engine)(texts)
        if not all(np.array_equal(a, b) for a, b in zip(encoded, expected, strict=True)):
            return f"{engine} and tiktoken differ"
    return ""


def check_renderer() -> str:
    tokenizer = load_tokenizer()
    examples = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    rendered = render(of_objects(examples), Encoder(tokenizer), tokenizer)
    if rendered.tokens.tolist() != [token for example in examples for token in example["ids"]]:
        return "ids differ from nanochat's"
    if "".join(map(str, rendered.mask)) != "".join(example["mask"] for example in examples):
        return "the mask differs from nanochat's"
    return ""


def check_formats() -> str:
    for form in FORMATS.values():
        special_tokens = {name: len(BYTE_RANKS) + number for number, name in enumerate(form.controls)}
        tokenizer = Tokenizer("selftest", BYTE_RANKS, PATTERN, special_tokens)
        template = ChatTemplate(form)
        rendered = render(
            of_objects([{"messages": CHAT}]), Encoder(tokenizer, "tiktoken"), tokenizer, template=template
        )
        if (rendered.tokens.tolist(), rendered.mask.tolist()) != render_conversation(
            CHAT, tokenizer, template=template
        ):
            return f"{form.name} in columns differs from the plain rule"
    return ""


def check_shards() -> str:
    data = {"train": [{"task": "arithmetic", "size": 300}, {"task": "spelling_bee", "size": 300}]}
    mixture = parse_mixture(data, "selftest", Path(), "selftest")
    with scratch_folder(default_cache_dir()) as folder:
        for packing in VERSIONS:
            options = BuildOptions(max_seq_len=512, packing=packing, cache_dir=folder / "cache", quiet=True)
            root = folder / packing
            build(make_job(mixture, load_tokenizer(), options), root)
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
    measured, _ = bits_per_byte(sums[0], sums[1], ["all"])
    expected = 4.7 / np.log(2) / 7
    if abs(measured - expected) > 1e-6:
        return f"bits per byte of the literal example are {measured}, wanted {expected}"
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


# ---- doctor ----


def examine(num_cores: int) -> Iterator[tuple[str, str, str]]:
    """(what, what is there, advice or "") of everything that matters"""
    yield "midprep", f"{__version__} on Python {sys.version.split()[0]}", ""
    versions = {name: number for name in PACKAGES if (number := package_version(name))}
    yield "packages", ", ".join(f"{name} {number}" for name, number in versions.items()), ""
    engine = choose_engine(load_tokenizer(), "auto")
    advice = {
        "tiktoken": "builds take three times as long as with fastokens: pip install fastokens, where there are wheels",
        "fastokens": "gigatoken is faster still: pip install 'midprep[fast]'",
    }
    yield "encoder", f"{engine} {versions.get(engine)}", advice.get(engine, "")
    yield "cores", str(num_cores), "" if num_cores > 1 else "builds and data loading share one core"
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    yield "compiler", compiler or "none", "" if compiler else "the trainer runs eager on a CPU; a C++ compiler helps"
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):  # importing torch takes seconds
        yield "accelerator", "an NVIDIA driver is there", ""
    else:
        yield "accelerator", "none", "training runs on the CPU: for looking, not for models"
        amx = has_amx()
        yield (
            "bfloat16",
            f"CPU {'with' if amx else 'without'} AMX",
            "" if amx else "slower than float32: train without --dtype",
        )
    cache = default_cache_dir()
    blocks = list(list_blocks(cache))
    num_bytes = sum(block.stat().st_size for block in blocks)
    writable = os.access(_existing(cache), os.W_OK)
    advice_on_cache = "" if writable else "cannot be written: give --cache-dir, or set XDG_CACHE_HOME"
    yield "cache", f"{cache}: {len(blocks):,} blocks, {size(num_bytes)}", advice_on_cache
    free = shutil.disk_usage(_existing(Path.cwd())).free
    enough = free > 5 << 30
    yield "disk", f"{size(free)} free here", "" if enough else "the default mixture needs about 3 GiB with its cache"
    hub = os.environ.get("HF_ENDPOINT", "the Hub's own address")
    yield "hub", f"{hub}{', offline' if is_offline() else ''}", "only what is in its cache" if is_offline() else ""
    yield "nanochat", (notice_of_nanochat() or "no tokenizer of an installation found").split(",")[0].rstrip("."), ""


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists"""
    return folder if folder.exists() else _existing(folder.parent)
