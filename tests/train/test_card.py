"""What is said of a card that is full, and of one that torch does not use."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, run_here

from train import card
from train.card import advice, full_message, is_full, unused_card
from train.distributed import choose_device
from train.loss import BatchLoss

CUDA_SAYS = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 18.06 MiB is free. "
    "Process 1 has 79.09 GiB memory in use. Of the allocated memory 77.40 GiB is allocated by PyTorch."
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA_SAYS),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"),
    ],
)
def test_full_memory_is_one_line_whoever_says_it(error: Exception) -> None:
    assert is_full(error)
    message = full_message(error, 32)
    assert "\n" not in message
    assert message.endswith("): give --device-batch-size 16 or less, this run has 32")
    assert len(message) < 340


def test_what_is_said_of_a_card_has_its_size() -> None:
    said = full_message(torch.OutOfMemoryError(CUDA_SAYS), 8)
    assert "Tried to allocate 20.00 MiB; GPU 0 has a total capacity of 79.11 GiB of which 18.06 MiB is free" in said


def test_other_errors_stay_what_they_are() -> None:
    assert not is_full(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_full(ValueError("out of memory"))


@pytest.mark.parametrize(("rows", "smaller"), [(32, 16), (12, 6), (9, 3), (7, 1), (2, 1)])
def test_the_batch_that_is_advised_divides_a_step_too(rows: int, smaller: int) -> None:
    assert advice(rows) == f"give --device-batch-size {smaller} or less, this run has {rows}"


def test_where_no_smaller_batch_is_left_a_smaller_model_is_advised() -> None:
    assert "is 1 already; take a smaller model" in advice(1)
    assert "the model does not fit" in advice(None)


@pytest.mark.parametrize("where", ["step", "set-up"])
def test_a_run_that_fills_the_card_ends_in_one_line(
    build: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(*arguments: object) -> None:
        raise torch.OutOfMemoryError(CUDA_SAYS)

    if where == "step":
        monkeypatch.setattr(BatchLoss, "forward", fill)
    else:
        monkeypatch.setattr("train.setup.build_optimizers", fill)
    with pytest.raises(SystemExit) as stop:
        run_here("--shards", build, "--out", tmp_path, *TINY, "--device-batch-size", 4)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: memory is full (CUDA out of memory; Tried to allocate 20.00 MiB; ")
    assert ("give --device-batch-size 2 or less, this run has 4" in line) == (where == "step")


# ---- a card that torch does not use ----


@pytest.fixture
def no_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose torch finds no CUDA; nodes of cards go into the folder"""
    monkeypatch.setattr(card, "NODES", str(tmp_path / "nvidia[0-9]*"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    return tmp_path


def test_no_card_is_nothing_to_tell(no_cuda: Path) -> None:
    (no_cuda / "nvidiactl").touch()  # of the driver, not of a card
    assert unused_card() is None
    with pytest.raises(ValueError, match="--device cuda: no CUDA device was found; use --device cpu"):
        choose_device("cuda")


def test_a_build_of_torch_without_cuda_is_named(no_cuda: Path) -> None:
    (no_cuda / "nvidia0").touch()
    with pytest.raises(
        ValueError, match=r"--device cuda: there is an NVIDIA GPU, but torch .* was built without CUDA: inst"
    ):
        choose_device("cuda")
    assert choose_device("cpu") == choose_device("auto") == torch.device("cpu")


def test_a_driver_that_shows_no_card_is_named(no_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_cuda / "nvidia0").touch()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "(CUDA 13.0) does not see it: look at what nvidia-smi says" in str(unused_card())


def test_a_run_that_chooses_the_cpu_beside_a_card_says_why(
    build: Path, tmp_path: Path, no_cuda: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--shards", build, "--out", tmp_path / "out", *TINY[:-2], "--num-iterations", 1]
    run_here(*flags)
    assert "NVIDIA" not in capsys.readouterr().out
    (no_cuda / "nvidia0").touch()
    run_here(*flags, "--resume", "never")
    assert "training on the CPU: there is an NVIDIA GPU, but torch" in capsys.readouterr().out
    run_here(*flags, "--resume", "never", "--device", "cpu")
    assert "NVIDIA" not in capsys.readouterr().out
