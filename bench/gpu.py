"""
Prove on this machine that training on its GPU gives what training on its CPU gives.

    make gpu                              all proofs, in about five minutes; exit code 1 if one does not hold
    make gpu DEVICE=cpu SIZE=tiny         the same code on the CPU, in under a minute: the logic, not the GPU
    python bench/gpu.py --only losses     one of them; --help names them

Needs Python 3.11, torch 2.9 and numpy, and no network: it makes its own shards. Each line says what was compared, held or not,
the largest difference and its bound. What cannot run here says why. A proof that ends in an error has not held.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]
# before torch: what cuBLAS needs to be deterministic
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from bench.gpu_needs import check_needs  # noqa: E402

check_needs()

import torch  # noqa: E402

from bench import gpu_models, gpu_runs  # noqa: E402
from bench.gpu_place import SIZES, Check, Place, Result, machine  # noqa: E402
from train.distributed import choose_device  # noqa: E402

PROOFS: dict[str, Callable[[Place], Iterator[Result]]] = {
    "logits": gpu_models.logits,
    "compiled": gpu_models.compiled,
    "loss": gpu_models.loss,
    "isolated": gpu_models.isolated,
    "losses": gpu_runs.losses,
    "resume": gpu_runs.resume,
    "repeatable": gpu_runs.repeatable,
    "accumulation": gpu_runs.accumulation,
    "ranks": gpu_runs.ranks,
    "full": gpu_runs.full,
    "cpu_build": gpu_runs.cpu_build,
    "memory": gpu_runs.memory,
}


def prove(place: Place, names: list[str]) -> list[str]:
    """Names of the proofs that do not hold"""
    failed = []
    for name in names:
        started = time.perf_counter()
        holds = True
        try:
            for result in PROOFS[name](place):
                print(result.line(), flush=True)
                holds = holds and (not isinstance(result, Check) or result.held)
        except Exception:
            traceback.print_exc()
            print(f"{'FAILED':<9} {name}: ended in the error above", flush=True)
            holds = False
        print(f"          {name}: {time.perf_counter() - started:.1f} s", flush=True)
        failed += [] if holds else [name]
    return failed


def find_device(name: str) -> torch.device:
    """ValueError if there is none. float32 is float32: in a run on CUDA its products are TF32."""
    device = choose_device(name)
    torch.set_float32_matmul_precision("highest")
    return device


def main() -> None:
    parser = argparse.ArgumentParser(description="prove that the GPU gives what the CPU gives")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="tiny: to test the command itself")
    parser.add_argument("--only", action="append", choices=tuple(PROOFS), help="may be given several times")
    args = parser.parse_args()
    try:
        device = find_device(args.device)
    except ValueError as error:
        sys.exit(f"error: {error}; make gpu DEVICE=cpu SIZE=tiny tests the command alone")
    if args.size == "tiny":  # threads would only wait for each other
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"
    print(machine(device), flush=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="midprep-gpu-") as folder:
        failed = prove(Place(device, SIZES[args.size], Path(folder)), args.only or list(PROOFS))
    seconds = f"{time.perf_counter() - started:.0f} s"
    if failed:
        sys.exit(f"{len(failed)} of {len(args.only or PROOFS)} proofs do not hold: {', '.join(failed)} ({seconds})")
    print(f"all {len(args.only or PROOFS)} proofs hold, {args.size} on {device.type} ({seconds})")


if __name__ == "__main__":
    main()
