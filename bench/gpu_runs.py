"""
Proofs about whole runs of the trainer: small ones, started as `train/mid.py` starts them, on the CPU and on the device.

    losses        20 losses of mid and of sft, and bits per byte on val: the device against the CPU, float32
    resume        stopped on the device and gone on with on the CPU, and the other way round
    repeatable    two runs with one seed, and one that was stopped: the same to the bit where torch promises it
    accumulation  a step of four rows in 1, 2 and 4 micro-batches
    ranks         torchrun: a process group of one rank (NCCL on CUDA), and as many ranks as there are cards
    full          a card that is too small ends in one line that names --device-batch-size
    cpu_build     a card, but a build of torch without CUDA: one line
    memory        what the backward keeps, and the peak on CUDA, against what `midprep plan` says
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor

from bench.gpu_place import CPU, Check, NotRun, Place, Result
from bench.gpu_trainer import HALF, flags_of, furthest, last_line, run_command, stopped_run, torchrun_run, train_run
from train import card
from train.distributed import choose_device
from train.launch import memory_bytes
from train.model import GPT

NUM_STEPS, FIRST = 20, 5
EXACT, LATER, UNEVEN = 1e-4, 1e-2, 1e-3  # of a loss: the first steps, where rounding has grown, without determinism
# where memory runs out: on CUDA what a process may have is limited, elsewhere the loss asks for more than there can be
SMALL_CARD = {
    "cuda": "import torch; torch.cuda.set_per_process_memory_fraction({fraction})",
    "cpu": "import torch, train.loss; train.loss.BatchLoss.forward = lambda *_: torch.empty(1 << 60)",
}


def losses(place: Place) -> Iterator[Result]:
    for mode in ("mid", "sft"):
        # on CUDA compiled, as it is without a flag
        flags = ["--mode", mode, "--num-iterations", NUM_STEPS, "--eval-every", 10, "--init-lr-frac", 1]
        wanted = train_run(place, CPU, "wanted", *flags, "--no-compile")
        got = train_run(place, place.device, "got", *flags, *([] if place.is_cuda else ["--no-compile"]))
        against = f"{place.name} against cpu, float32"
        yield Check(f"first {FIRST} losses of {mode}: {against}", EXACT, furthest(got[:FIRST], wanted[:FIRST]))
        yield Check(f"{NUM_STEPS} losses of {mode}: {against}", LATER, furthest(got, wanted))
        yield Check(f"bits per byte on val, {mode}: {against}", LATER, furthest(got, wanted, "val_bpb"))


def resume(place: Place) -> Iterator[Result]:
    flags = ["--num-iterations", 2 * HALF, "--no-compile"]
    whole = train_run(place, CPU, "whole", *flags)
    for first, second in ((place.device, CPU), (CPU, place.device)):
        gone_on = stopped_run(place, first, second, *flags)
        what = f"stopped on {first.type}, gone on with on {second.type}, against cpu alone"
        yield Check(what, LATER, furthest(gone_on, whole))


def repeatable(place: Place) -> Iterator[Result]:
    """In the dtype, and compiled or not, as a run is on the device without flags"""
    flags = ["--num-iterations", 2 * HALF, "--dtype", "auto"]
    for exact in (True, False):
        with deterministic(exact):
            once = train_run(place, place.device, "once", *flags)
            again = train_run(place, place.device, "again", *flags)
            stopped = stopped_run(place, place.device, place.device, *flags)
        how = f"{place.name}, {'torch.use_deterministic_algorithms' if exact else 'as it is'}"
        bound = 0.0 if exact else UNEVEN
        yield Check(f"two runs with one seed: {how}", bound, furthest(again, once))
        yield Check(f"stopped and gone on with: {how}", bound, furthest(stopped, once))


def accumulation(place: Place) -> Iterator[Result]:
    tokens = 4 * place.size.max_seq_len
    flags = [
        "--num-iterations",
        FIRST,
        "--mode",
        "sft",
        "--init-lr-frac",
        1,
        "--total-batch-size",
        tokens,
        "--no-compile",
    ]
    runs = [train_run(place, place.device, "run", *flags, "--device-batch-size", rows) for rows in (4, 2, 1)]
    for number, run in zip((2, 4), runs[1:], strict=True):
        yield Check(f"{number} micro-batches against 1: {place.name}, float32", EXACT, furthest(run, runs[0]))


def ranks(place: Place) -> Iterator[Result]:
    num_cards = torch.cuda.device_count() if place.is_cuda else 2
    rows = max(4, num_cards)
    flags = ["--num-iterations", FIRST, "--total-batch-size", rows * place.size.max_seq_len, "--no-compile"]
    flags += ["--device-batch-size", rows // num_cards]
    alone = train_run(place, place.device, "alone", *flags)
    backend = "NCCL" if place.is_cuda else "gloo"
    group = torchrun_run(place, 1, "bench/gpu_group.py", *flags)
    yield Check(f"a process group of one rank, {backend}, against none", EXACT, furthest(group, alone))
    if num_cards == 1:
        yield NotRun(f"ranks on several cards, {backend}", "this machine has one")
    else:
        several = torchrun_run(place, num_cards, "train/mid.py", *flags)
        yield Check(f"{num_cards} ranks, {backend}, against 1", EXACT, furthest(several, alone))


def full(place: Place) -> Iterator[Result]:
    size = place.size
    rows = 64
    code = SMALL_CARD[place.name]
    if place.is_cuda:  # room for a batch of one row, not for 64
        needed = memory_bytes(place.model("2025-12").config, 1, size.max_seq_len)
        fraction = min(1.0, 1.5 * needed / torch.cuda.get_device_properties(place.device).total_memory)
        code = code.format(fraction=fraction)
    flags = ["--num-iterations", 1, "--total-batch-size", rows * size.max_seq_len, "--device-batch-size", rows]
    words = flags_of(place, place.device, "full", *flags, "--no-compile")
    main = f"{code}\nimport sys, train.mid\ntrain.mid.main(sys.argv[1:])"
    done = run_command([sys.executable, "-c", main, *words])
    wanted = f"give --device-batch-size {rows // 2} or less, this run has {rows}"
    is_said = done.returncode == 1 and len(done.stderr.splitlines()) == 1 and wanted in done.stderr
    yield Check("a full card ends in one line that names --device-batch-size", 0.0, float(not is_said), last_line(done))


def cpu_build(place: Place) -> Iterator[Result]:
    said = ""
    with (
        patch.object(card, "NODES", str(place.folder / "nvidia[0-9]*")),
        patch.object(torch.cuda, "is_available", lambda: False),
        patch.object(torch.version, "cuda", None),
    ):
        (place.folder / "nvidia0").touch()
        try:
            choose_device("cuda")
        except ValueError as error:
            said = str(error)
    is_said = "was built without CUDA: install a CUDA build" in said and "\n" not in said
    yield Check("a card, but a build of torch without CUDA: one line", 0.0, float(not is_said), said)


def memory(place: Place) -> Iterator[Result]:
    """On CUDA the peak is at most what `midprep plan` says, which is at most 15 % more; elsewhere what autograd keeps"""
    size = place.size
    what = "peak memory against what midprep plan says"
    if not place.is_cuda:
        yield NotRun(what, "only CUDA's allocator counts it")
        for depth in size.depths:
            model = place.model("2025-12", depth)
            model.set_dtype(torch.bfloat16)
            inputs = place.batch().inputs
            copies = 2 * model.config.weights().matrices  # of the matrices, in bfloat16
            foretold = copies + model.config.activation_bytes(inputs.numel(), 2, compiled=False)
            difference = abs(kept_bytes(model, inputs) / foretold - 1)
            yield Check(f"kept for the backward, not compiled, depth {depth}: against what plan says", 0.15, difference)
        return
    num_positions = size.memory_rows * size.max_seq_len
    for depth in size.depths:
        config = place.model("2025-12", depth).config
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        # later flags win: as a run is without flags, compiled and in bfloat16
        flags = ["--depth", depth, "--dtype", "auto", "--num-iterations", 3, "--device-batch-size", size.memory_rows]
        train_run(place, place.device, "memory", *flags, "--total-batch-size", num_positions)
        peak = torch.cuda.max_memory_allocated() - before
        foretold = memory_bytes(config, size.memory_rows, size.max_seq_len)
        activations = config.activation_bytes(num_positions, 2, compiled=True)
        measured = (peak - foretold + activations) / (2 * num_positions * config.n_embd * config.n_layer)
        note = f"COMPILED_ACTIVATIONS_PER_POSITION would be {measured:.1f} (train/sizes.py)"
        yield Check(f"{what}, depth {depth}: peak over plan", 1.0, peak / foretold, note)
        yield Check(f"{what}, depth {depth}: plan over peak", 1.15, foretold / peak)


def kept_bytes(model: GPT, inputs: Tensor) -> int:
    """What autograd keeps of a forward, weights aside"""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model.hidden(inputs)
    assert states.requires_grad
    return sum(kept.values())


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    torch.use_deterministic_algorithms(on)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
