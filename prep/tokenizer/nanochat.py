"""
nanochat's own two files, read without running anything and written so that nanochat loads them.

    tokenizer.pkl      a pickled tiktoken.Encoding: pickle.load(f).encode_ordinary("2+2?")
    token_bytes.pt     torch.load(f) -> (V,) int32: bytes of each token, 0 for special tokens

A .pt file is a zip archive, uncompressed: a pickle that says "a tensor of 32,768 int32 lies in data/0", and data/0. The
pickle is the same 150 bytes for every such tensor but for its length, so it is written from a template and read by
comparing with it: no torch, and nothing that could be run.
"""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from prep import shard
from prep.tokenizer.safe_pickle import read_encoding
from prep.tokenizer.tokenizer import Tokenizer, TokenizerSpec, check_spec

ALIGNMENT: Final = 64  # of the data in the archive, so that torch can map it
MAX_PICKLE: Final = 1024  # bytes of the pickle in the archive


def read_nanochat(path: Path) -> TokenizerSpec:
    """nanochat's tokenizer.pkl, checked against the token_bytes.pt beside it. Nothing in either is run."""
    parts = read_pickle(path)
    check_spec(parts)
    beside = path.parent / "token_bytes.pt"
    if beside.is_file():
        num_ids = len(read_token_bytes(beside))
        num_tokens = max(*parts.ranks.values(), *parts.special_tokens.values()) + 1
        if num_ids != num_tokens:
            raise ValueError(
                f"{beside} is for {num_ids:,} tokens, {path.name} has {num_tokens:,}: copy both from nanochat."
            )
    return parts


def read_pickle(path: Path) -> TokenizerSpec:
    state = read_encoding(path)
    wanted = {"name": str, "pat_str": str, "mergeable_ranks": dict, "special_tokens": dict}
    if state.keys() != wanted.keys():
        found = ", ".join(f"{key!r:.40}" for key in list(state)[:8])
        raise ValueError(f"{path} holds {found}; a pickled tiktoken.Encoding holds {', '.join(wanted)}")
    for key, kind in wanted.items():
        if type(state[key]) is not kind:
            raise ValueError(f"{path}: {key} is {type(state[key]).__name__}, wanted {kind.__name__}")
    name = "nanochat" if state["name"] == "rustbpe" else state["name"]  # nanochat names each by what trained it
    return TokenizerSpec(name, state["mergeable_ranks"], state["pat_str"], state["special_tokens"])


def read_token_bytes(path: Path) -> npt.NDArray[np.int32]:
    """(V,) of a token_bytes.pt. ValueError if it is anything but one int32 vector."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            found, data = infos["data.pkl"], infos["data/0"]
            whole = all(info.compress_type == zipfile.ZIP_STORED for info in (found, data)) and data.file_size % 4 == 0
            if not whole or found.file_size > MAX_PICKLE or data.file_size > path.stat().st_size:
                raise ValueError
            if archive.read(found) != tensor_pickle(data.file_size // 4):
                raise ValueError
            return np.frombuffer(archive.read(data), "<i4")
    except Exception:  # zipfile has eight kinds of errors for a damaged archive
        raise ValueError(f"{path} refused, nothing in it was run: wanted torch's file of one int32 vector.") from None


def export_nanochat(tokenizer: Tokenizer, root: Path) -> list[Path]:
    """Write tokenizer.pkl and token_bytes.pt into `root`, equal files for equal tokenizers. Returns their paths."""
    import tiktoken

    encoding = tiktoken.Encoding(
        "rustbpe",  # as nanochat names it
        pat_str=tokenizer.pattern,
        mergeable_ranks=dict(sorted(tokenizer.ranks.items(), key=lambda item: item[1])),
        special_tokens=dict(sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])),
    )
    files = {
        root / "tokenizer.pkl": pickle.dumps(encoding, protocol=4),
        root / "token_bytes.pt": torch_bytes(tokenizer.token_bytes().astype("<i4")),
    }
    return write_files(files)


def write_files(files: dict[Path, bytes]) -> list[Path]:
    """Write all, or none where one of them is there with other content: models may depend on it"""
    for path, content in files.items():
        if path.exists() and path.read_bytes() != content:
            raise ValueError(f"{path} is there and holds something else: move it away, or export to another directory.")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shard.write_bytes(path, content)
    return list(files)


def torch_bytes(vector: npt.NDArray[np.int32]) -> bytes:
    """(V,) int32 -> the file that torch.save would write"""
    files = {
        "data.pkl": tensor_pickle(len(vector)),
        "byteorder": b"little",
        "data/0": vector.tobytes(),
        "version": b"3\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(f"token_bytes/{name}")  # its time is fixed: 1980
            start = buffer.tell() + 30 + len(info.filename) + 4
            padding = -start % ALIGNMENT
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            archive.writestr(info, content)
    return buffer.getvalue()


def tensor_pickle(num_items: int) -> bytes:
    """What torch pickles for a contiguous int32 vector on the CPU, as its instructions (protocol 2)"""
    count = int_push(num_items)
    storage = b"(X\x07\x00\x00\x00storageq\x01ctorch\nIntStorage\nq\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04"
    hooks = b"ccollections\nOrderedDict\nq\x08)Rq\t"
    shape = b"K\x00" + count + b"\x85q\x06K\x01\x85q\x07\x89"  # offset 0, (num_items,), stride (1,), no gradient
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\nq\x00(" + storage + count + b"tq\x05Q" + shape + hooks + b"tq\nRq\x0b."
    )
    return b"\x80\x02" + tensor


def int_push(value: int) -> bytes:
    """The instruction that pushes a whole number, the shortest as pickle chooses it"""
    if value < 1 << 8:
        return b"K" + struct.pack("<B", value)
    if value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    return b"J" + struct.pack("<i", value)
