"""
Files of torch.save, read with suspicion.

    model_000050.pt        a zip archive: data.pkl, and one record per storage, each with its CRC-32
      check_records        each record has its CRC-32, and all are those that were written
      read_tensors         only tensors, numbers, strings and containers of them: nothing in the file can run
      check_tensor         dense, floating-point, on the CPU, no element stored under two positions
      fresh                a copy whose layout and dtype are ours, and not the file's

torch checks no CRC-32, so a flipped bit would be trained on. CRC-32 finds every single flipped bit, and other damage but for
one case in 4 billion; a person who means harm can forge it. sha256 of the whole file would add two thirds to the time of a
save (0.28 s -> 0.47 s for 235 MB), where this adds nothing, as torch computes the CRC-32s anyway. Checking takes 0.5 s per GB.
"""

import errno
import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
ADVICE = "nothing in it was run. Remove its meta_*.json to resume from the checkpoint before"


def records_sha256(path: Path) -> str:
    """sha256 over names, sizes and CRC-32s of the records of an archive: from its directory, without reading it"""
    with zipfile.ZipFile(path) as archive:
        records = [(record.filename, record.file_size, record.CRC) for record in archive.infolist()]
    return hashlib.sha256(json.dumps(records).encode()).hexdigest()


def check_records(path: Path, noted_sha256: str | None) -> None:
    """ValueError that names what is damaged, or says that the file is another than the one that was noted."""
    if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
        raise unreadable(path, "no regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            is_compressed = any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist())
            damaged = None if is_compressed else archive.testzip()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} not found: {ADVICE.partition('. ')[2]}") from None
    except Exception as error:  # zipfile has eight kinds of errors for a damaged archive
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # that of a place before the file
            raise unreadable(path, error.strerror) from None
        reason = " ".join(str(error).split())[:80] or "truncated"
        raise not_plain(path, f"{reason}; truncated, damaged, or not of torch.save") from None
    if damaged:
        raise ValueError(f"{path} is damaged: {named_record(path, damaged)} has another CRC-32: {ADVICE}")
    if is_compressed or len(set(names)) < len(names):
        raise not_plain(path, "a record is compressed" if is_compressed else "a record occurs twice")
    if noted_sha256 is not None and records_sha256(path) != noted_sha256:
        raise ValueError(f"{path} is not the file that its meta was written for: {ADVICE}")


def named_record(path: Path, record: str) -> str:
    """The tensors that a record holds, as `lm_head.weight`; the record's own name where they cannot be found"""
    names: dict[int, list[str]] = {}  # of each storage, in the order in which torch.save numbers them
    try:
        for name, value in tensors_in(torch.load(path, map_location="meta", weights_only=True)):
            names.setdefault(value.untyped_storage()._cdata, []).append(name)
        return " and ".join(list(names.values())[int(record.rpartition("/data/")[2])])
    except Exception:  # whatever a damaged file gives: it is refused in any case
        return f"record {record!r:.80}"


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of nested dicts and lists, names joined by dots"""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors_in(item, f"{name}.{key}" if name else str(key))


def read_tensors(path: Path, noted_sha256: str | None) -> Any:
    """The content of a checked file: a copy of a tensor, after which it is dropped, needs memory for one tensor more"""
    check_records(path, noted_sha256)
    content = read_plain(path, map_location="cpu")
    try:
        tensors = list(tensors_in(content))
    except RecursionError:
        raise not_plain(path, "it holds itself, or is nested too deep") from None
    for name, value in tensors:
        check_tensor(path, name, value)
    return content


def read_layout(path: Path) -> Any:
    """The content of a file with names and shapes, but no values: takes a millisecond, whatever the size of the file"""
    return read_plain(path, map_location="meta", mmap=True)


def read_plain(path: Path, **options: Any) -> Any:
    """ValueError if there is anything but tensors, numbers, strings and containers"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles it does not know, which are errors here
            return torch.load(path, weights_only=True, **options)
    except OSError as error:
        raise unreadable(path, error.strerror) from None
    except Exception as error:  # torch has more kinds of them for a damaged pickle than it names
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise unreadable(path, "not enough memory for its tensors") from None
        named = re.search(r"GLOBAL (\S+)|Unsupported \w+ (\S+)", str(error))
        reason = f"holds {named[1] or named[2]}" if named else re.split(r"[.:]\s|\n", str(error))[0] or "truncated"
        raise not_plain(path, reason) from None


def unreadable(path: Path, reason: str | None) -> OSError:
    return OSError(f"{path} cannot be read ({reason}): it may be whole, so mend that and run the same command again")


def not_plain(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is not a file of plain tensors ({reason}): {ADVICE}")


def check_tensor(path: Path, name: str, value: Tensor) -> None:
    """ValueError for a tensor that cannot be copied into a weight or moment as it stands"""
    problem = ""
    if type(value) not in (Tensor, nn.Parameter) or value.is_nested or value.layout != torch.strided:
        problem = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
    elif value.device.type != "cpu":
        problem = f"without data (device {value.device})"
    elif value.dtype not in DTYPES and (value.ndim or value.is_complex()):  # a number of steps may be whole
        problem = str(value.dtype).removeprefix("torch.")
    elif any(size > 1 and stride == 0 for size, stride in zip(value.shape, value.stride(), strict=True)):
        problem = "one element repeated (stride 0)"
    elif value.nbytes > value.untyped_storage().nbytes():
        problem = "larger than what is stored of it"
    if problem:
        raise ValueError(
            f"{path}: {name} is {problem}, wanted a dense float tensor: save it as tensor.float().contiguous()"
        )


@torch.no_grad()
def fresh(value: Tensor, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """A contiguous copy that shares memory with nothing, whatever strides and sharing the file has"""
    return torch.empty(value.shape, dtype=dtype, device=device).copy_(value)
