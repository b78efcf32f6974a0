"""
What `gpu_bench.py` measures, each as ratios within one run and as medians of steps that take turns.

    step        a whole training step against the plain compiled one: tokens per second, mfu, peak memory; sft against mid
    loss        the loss alone, forward and backward
    isolated    isolated against causal, a step; and attention alone: flex_attention, varlen_attn where torch has it
    optimizers  share of a step of Muon and of AdamW; AdamW fused, as it is, against foreach
    data        share of the steps in which the device waits for a batch
    compile     the first step with compilation
    evaluate    tokens per second of an evaluation
    save        seconds of a checkpoint
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._inductor import config as inductor_config
from torch.nn.attention.flex_attention import flex_attention
from torch.optim import AdamW

from bench.gpu_models import document_starts, plain_losses, varlen
from bench.gpu_place import Place
from bench.gpu_steps import Figure, Steps, free, largest_steps, peak_of, seconds_of, seconds_once
from train.checkpoint import save_checkpoint
from train.evaluate import sums_of_rows
from train.loader import Batch, prefetch
from train.loss import Kernel, Loss, slope, slope_in_blocks
from train.model import visible

NUM_BATCHES = 30  # of which is measured how long the device waits
HEADS, HEAD_DIM = 10, 128  # of depth 20


def step(place: Place) -> Iterator[Figure]:
    for depth in place.size.bench_depths:
        seconds = {}
        for mode in ("mid", "sft"):
            free(place.device)
            steps, rows = largest_steps(place, depth, mode)
            times = seconds_of({"ours": steps.ours, "plain": steps.plain}, place.device)
            peaks = {name: peak_of(getattr(steps, name), place.device) for name in times}
            what = f"d{depth} {mode}, {rows} rows"
            is_aim = depth == 20 and mode == "mid"
            for name, each in times.items():
                mfu_aim = "45.7, better 50" if is_aim and name == "ours" else ""
                yield Figure(f"{what}: {name}", steps.num_tokens / each, "tokens/s")
                if mfu := steps.mfu(each):
                    yield Figure(f"{what}: {name}", mfu, "% mfu", mfu_aim)
                if peaks[name]:
                    yield Figure(f"{what}: {name}", peaks[name] / 2**30, "GiB at the peak")
            yield Figure(f"{what}: speed over the plain step", times["plain"] / times["ours"], "x")
            if peaks["plain"]:
                peak_aim = "0.75 at most" if is_aim else ""
                yield Figure(f"{what}: memory over the plain step", peaks["ours"] / peaks["plain"], "x", peak_aim)
            seconds[mode] = times["ours"] / steps.num_tokens
            del steps
        yield Figure(f"d{depth}: speed of sft over mid", seconds["mid"] / seconds["sft"], "x", "1 at least")


def loss(place: Place) -> Iterator[Figure]:
    size = place.size
    kernels = (torch.compile(slope), torch.compile(Tensor.add_)) if place.is_cuda else (slope_in_blocks, Tensor.add_)
    plain = torch.compile(plain_losses, dynamic=False) if place.is_cuda else plain_losses
    weight = torch.randn(size.vocab_size, size.bench_depths[-1] * 64, device=place.device).requires_grad_()
    for mode in ("mid", "sft"):
        batch = place.batch(mode, rows=size.bench_rows).to(place.device)
        labels = torch.full((batch.inputs.numel(),), -1, device=place.device)
        labels[batch.positions.long()] = batch.labels.long()
        hidden = torch.randn(len(labels), weight.size(1), device=place.device).to(torch.bfloat16).requires_grad_()
        ours = partial(our_loss, hidden, weight, batch, kernels)
        times = seconds_of({"ours": ours, "plain": partial(plain_loss, plain, hidden, weight, labels)}, place.device)
        aim = "0.6 at most" if mode == "sft" else ""
        yield Figure(f"{mode}: time of the loss over the plain one", times["ours"] / times["plain"], "x", aim)


def our_loss(hidden: Tensor, weight: Tensor, batch: Batch, kernels: tuple[Kernel, Kernel]) -> None:
    x = hidden.index_select(0, batch.positions)
    total, _ = Loss.apply(x, weight, batch.labels.long(), *kernels)  # type: ignore[no-untyped-call]
    torch.autograd.grad(total, (hidden, weight))


def plain_loss(losses: Callable[..., tuple[Tensor, Tensor]], hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    total, _ = losses(hidden, weight.to(hidden.dtype), labels)
    torch.autograd.grad(total, (hidden, weight))


def isolated(place: Place) -> Iterator[Figure]:
    depth, rows = place.size.bench_depths[0], place.size.bench_rows
    steps = {name: Steps(place, depth, "mid", rows, name == "isolated") for name in ("causal", "isolated")}
    times = seconds_of({name: each.ours for name, each in steps.items()}, place.device)
    yield Figure(f"d{depth}: time of an isolated step over a causal one", times["isolated"] / times["causal"], "x")
    docs = steps["isolated"].batch.docs
    assert docs is not None
    attentions = attention_functions(place, docs)
    seconds = seconds_of(attentions, place.device)
    for name in seconds.keys() - {"causal"}:
        yield Figure(f"attention alone: {name} over causal", seconds[name] / seconds["causal"], "x")


def attention_functions(place: Place, docs: Tensor) -> dict[str, Callable[[], None]]:
    """Forward and backward of each kind of attention over the same q, k, v of depth 20"""
    B, T = docs.shape
    q, k, v = (
        torch.randn(B, HEADS, T, HEAD_DIM, device=place.device).to(torch.bfloat16).requires_grad_() for _ in range(3)
    )
    seen = visible(T, T, docs, place.device)
    starts = document_starts(docs)
    packed = varlen(place.device)

    def by_blocks() -> Tensor:
        out: Tensor = compiled_flex(q, k, v, block_mask=seen)
        return out

    def by_varlen() -> Tensor:
        assert not isinstance(packed, str)
        return packed(*(each.transpose(1, 2).reshape(B * T, HEADS, HEAD_DIM) for each in (q, k, v)), starts, T)

    compiled_flex = torch.compile(flex_attention, dynamic=False)
    forwards: dict[str, Callable[[], Tensor]] = {
        "causal": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    }
    if place.is_cuda:
        forwards["flex_attention, as in a run"] = by_blocks
    else:
        forwards["mask, as in a run"] = lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    if not isinstance(packed, str):
        forwards["varlen_attn"] = by_varlen

    def both(forward: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: torch.autograd.backward(forward().sum(), inputs=(q, k, v))

    return {name: both(forward) for name, forward in forwards.items()}


def optimizers(place: Place) -> Iterator[Figure]:
    for depth in place.size.bench_depths:
        free(place.device)
        steps = Steps(place, depth, "mid", place.size.bench_rows)
        whole = seconds_of({"step": steps.ours}, place.device)["step"]
        for weight in steps.model.parameters():
            weight.grad = torch.ones_like(weight) / 1000
        adamw, muon = steps.optimizers
        groups = [{key: group[key] for key in ("params", "lr", "betas")} for group in adamw.param_groups]
        foreach = AdamW(groups, eps=1e-10, weight_decay=0.0, foreach=True)
        times = seconds_of({"AdamW": adamw.step, "Muon": muon.step, "foreach": foreach.step}, place.device)
        for name in ("AdamW", "Muon"):
            yield Figure(f"d{depth}, {steps.num_tokens:,} tokens: {name}", 100 * times[name] / whole, "% of a step")
        yield Figure(f"d{depth}: time of AdamW fused over foreach", times["AdamW"] / times["foreach"], "x")
        del steps


def data(place: Place) -> Iterator[Figure]:
    """On CUDA between an event that ends all work given so far and one recorded when the next batch is there"""
    depth, rows = place.size.bench_depths[0], place.size.bench_rows
    for mode in ("mid", "sft"):
        free(place.device)
        share = 100 * share_of_waiting(place, Steps(place, depth, mode, rows), mode, rows)
        yield Figure(f"d{depth} {mode}, {rows} rows: the device waits", share, "% of the time", "0.5 at most")


def share_of_waiting(place: Place, steps: Steps, mode: str, rows: int) -> float:
    order = np.random.default_rng(0).integers(place.split.num_rows, size=(NUM_BATCHES, rows))
    batches = prefetch(place.split, iter(order), mode, False, place.device)
    waits: list[Callable[[], float]] = []

    def train() -> None:
        for _ in range(NUM_BATCHES // 2):
            steps.ours()
            wait, steps.batch = waited(lambda: next(batches), place.device)
            waits.append(wait)

    train()  # compiles, and fills the queue
    waits.clear()
    seconds = seconds_once(train, place.device)
    return sum(wait() for wait in waits) / seconds


def waited(get: Callable[[], Batch], device: torch.device) -> tuple[Callable[[], float], Batch]:
    """A batch, and a function that gives the seconds that the device waited for it once all is done"""
    if device.type != "cuda":
        started = time.perf_counter()
        batch = get()
        seconds = time.perf_counter() - started
        return lambda: seconds, batch
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    batch = get()
    after.record()
    return lambda: float(before.elapsed_time(after)) / 1000, batch


def compile_(place: Place) -> Iterator[Figure]:
    for depth in place.size.bench_depths:
        free(place.device)
        steps = Steps(place, depth, "mid", place.size.bench_rows)
        with inductor_config.patch(force_disable_caches=True):  # as on a machine that has compiled nothing yet
            first = seconds_once(steps.ours, place.device)
        later = seconds_of({"step": steps.ours}, place.device)["step"]
        yield Figure(f"d{depth}: the first step", first, "s")
        yield Figure(f"d{depth}: a later step", later, "s")
        del steps


def evaluate(place: Place) -> Iterator[Figure]:
    depth, rows = place.size.bench_depths[0], place.size.bench_rows
    free(place.device)
    steps = Steps(place, depth, "mid", rows)
    row_ids = np.arange(place.split.num_rows // rows * rows).reshape(-1, rows)
    token_bytes = torch.ones(place.size.vocab_size, dtype=torch.int64, device=place.device)

    def whole() -> Tensor:
        return sums_of_rows(steps.net, place.split, row_ids, token_bytes, "mid", False)

    times = seconds_of({"evaluate": whole, "step": steps.ours}, place.device, repeats=3)
    speed = row_ids.size * place.size.max_seq_len / times["evaluate"]
    yield Figure(f"d{depth}, {rows} rows: evaluation", speed, "tokens/s")
    yield Figure(f"d{depth}: speed over training", speed * times["step"] / steps.num_tokens, "x")


def save(place: Place) -> Iterator[Figure]:
    for depth in place.size.bench_depths:
        free(place.device)
        steps = Steps(place, depth, "mid", 1)
        steps.ours()
        root = place.folder / f"save{depth}"
        write = partial(save_checkpoint, root, 1, steps.model, steps.optimizers, {})
        seconds = seconds_of({"save": write}, place.device, repeats=3)["save"]
        size = steps.model.config.weights().checkpoint_bytes(2)
        yield Figure(f"d{depth}: a checkpoint of {size / 1e9:.2f} GB", seconds, "s")
        for path in root.iterdir():
            path.unlink()
        del steps
