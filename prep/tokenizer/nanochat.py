"""
nanochat's own two files: read without running anything in them, and written so that nanochat loads them.

    tokenizer.pkl      a pickled tiktoken.Encoding: pickle.load(f).encode_ordinary("2+2?")
    token_bytes.pt     torch.load(f) -> (V,) int32: bytes of each token, 0 for special tokens

A pickle is a program, and pickle.load runs it. An Encoding needs 27 of its 68 instructions: those that push text, bytes and
whole numbers, fill dicts, and make one object of one class. Here Python's own unpickler has these alone, and a stand-in for
that class: a file can name no other, and call none. Time and memory are linear in its size: 0.04 s for 32,768 tokens.
"""

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from prep import shard
from prep.tokenizer.tokenizer import Tokenizer, TokenizerSpec, by_id, check_spec

MAX_BYTES: Final = 256 << 20  # the pickle of a vocabulary of a million tokens has 20 MB
# what protocols 3, 4 and 5 use for an Encoding, optimized by pickletools or not
ADMITTED: Final = (
    *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "EMPTY_TUPLE", "SETITEM", "SETITEMS"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "NEWOBJ", "BUILD"),
)
PythonUnpickler: Any = pickle._Unpickler  # the one in C allocates as much memory for a memo as a file says


def read_nanochat(path: Path) -> TokenizerSpec:
    """nanochat's tokenizer.pkl, checked against the token_bytes.pt beside it. ValueError in one line."""
    state = read_pickle(path)
    keys = ("name", "mergeable_ranks", "pat_str", "special_tokens")
    if state.keys() != set(keys):
        shown = ", ".join(f"{key!r:.40}" for key in list(state)[:8])
        raise ValueError(f"{path} holds {shown}; a pickled tiktoken.Encoding holds {', '.join(keys)}")
    spec = TokenizerSpec(*(state[key] for key in keys))
    if spec.name == "rustbpe":  # nanochat names every tokenizer after the program that trained it
        spec = spec._replace(name="nanochat")
    check_spec(spec)
    lengths_path = path.with_name("token_bytes.pt")
    if lengths_path.is_file():
        num_lengths = count_token_bytes(lengths_path)
        num_tokens = max(*spec.ranks.values(), *spec.special_tokens.values()) + 1
        if num_lengths != num_tokens:
            raise ValueError(
                f"{lengths_path} is for {num_lengths:,} tokens, {path.name} has {num_tokens:,}: copy both from nanochat."
            )
    return spec


# ---- tokenizer.pkl; up to token_bytes.pt this needs the standard library alone ----


class Encoding:
    """Stands for tiktoken.core.Encoding: keeps the state that the file gives it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class EncodingUnpickler(PythonUnpickler):  # type: ignore[misc]
    """KeyError, of its code, for an instruction that is not admitted"""

    dispatch: ClassVar = {
        getattr(pickle, name)[0]: PythonUnpickler.dispatch[getattr(pickle, name)[0]] for name in ADMITTED
    }

    def find_class(self, module: str, name: str) -> type[Encoding]:
        if (module, name) != ("tiktoken.core", "Encoding"):
            raise ValueError(f"it names {module}.{name}, only tiktoken.core.Encoding is admitted")
        return Encoding

    def load_setitem(self) -> None:
        check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        check_keys(self.stack[::2])
        super().load_setitems()

    dispatch |= {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}


def check_keys(keys: list[Any]) -> None:
    """Numbers can be chosen so that all of them collide in a dict, which would then take hours to fill"""
    if not {type(key) for key in keys} <= {str, bytes}:
        raise ValueError("it has a key that is neither str nor bytes")


def read_pickle(path: Path) -> dict[str, Any]:
    """The state of the one tiktoken.Encoding that the file must hold. ValueError for anything else."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, a tokenizer has at most {MAX_BYTES:,}: is it a tokenizer.pkl?")
    try:
        return unpickle(path.read_bytes())
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} refused, nothing in it was run: {reason}; give nanochat's tokenizer.pkl") from None


def unpickle(data: bytes) -> dict[str, Any]:
    unpickler = EncodingUnpickler(io.BytesIO(data))
    try:
        encoding = unpickler.load()
    except ValueError:
        raise
    except KeyError as error:
        code = bytes(error.args)
        instruction = next((name for name in pickle.__all__ if getattr(pickle, name) == code), repr(code))
        named = "".join([f"it names {name}, and " for name in names_in(data)][:1])
        raise ValueError(f"{named}instruction {instruction} is not admitted") from None
    except Exception as error:
        raise ValueError(f"it is damaged ({error!r})") from None
    if not isinstance(encoding, Encoding) or unpickler.stack or unpickler.metastack:
        raise ValueError(f"{type(encoding).__name__} found, wanted one tiktoken.Encoding and nothing else")
    if isinstance(encoding.state, str):  # tiktoken pickles its own encodings by name, and loading would download
        name = encoding.state[:50]
        raise ValueError(f"it holds no tokens, only the name of tiktoken's {name!r}: use --tokenizer {name}")
    if not isinstance(encoding.state, dict):
        raise ValueError("its tiktoken.Encoding has no state")
    return encoding.state


def names_in(data: bytes) -> Iterator[str]:
    """The classes and functions that a pickle names, as far as it can be read, to say what it would have called"""
    texts: list[str] = []
    with suppress(ValueError), warnings.catch_warnings(action="ignore"):  # it warns of odd escapes
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            elif isinstance(argument, str):
                texts.append(argument)


# ---- token_bytes.pt ----


def count_token_bytes(path: Path) -> int:
    """
    The number of int32 in a file of torch's, from the directory of the zip archive that it is: a build needs no more, and
    torch takes 1 s to import. ValueError if it is not such an archive of one int32 tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (storage,) = [entry for entry in archive.infolist() if "/data/" in entry.filename]
            (pickled,) = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
            with archive.open(pickled) as file:
                is_int32 = b"IntStorage" in file.read(1024)
    except Exception:  # zipfile has eight kinds of errors for a damaged archive
        is_int32 = False
    if not is_int32 or storage.file_size % 4:
        raise ValueError(f"{path} refused, nothing in it was run: wanted torch's file of one int32 vector.")
    return storage.file_size // 4


# ---- writing ----


def export_nanochat(tokenizer: Tokenizer, root: Path) -> list[Path]:
    """Write tokenizer.pkl and token_bytes.pt into `root`, equal files for equal tokenizers. Returns their paths."""
    import tiktoken
    import torch

    encoding = tiktoken.Encoding(
        "rustbpe",  # as nanochat names it
        pat_str=tokenizer.pattern,
        mergeable_ranks=dict(by_id(tokenizer.ranks)),
        special_tokens=dict(by_id(tokenizer.special_tokens)),
    )
    pickle_path, lengths_path = root / "tokenizer.pkl", root / "token_bytes.pt"
    lengths, buffer = torch.from_numpy(tokenizer.token_bytes().astype("int32")), io.BytesIO()
    torch.save(lengths, buffer)
    with suppress(Exception):  # another version of torch may have written the same numbers in other bytes
        if torch.equal(torch.load(lengths_path, weights_only=True), lengths):
            buffer = io.BytesIO(lengths_path.read_bytes())
    return write_files({pickle_path: pickle.dumps(encoding, protocol=4), lengths_path: buffer.getvalue()})


def write_files(files: dict[Path, bytes]) -> list[Path]:
    """Write all, or none where a file of other content is in the way: models may depend on it"""
    for path, content in files.items():
        if path.exists() and path.read_bytes() != content:
            raise ValueError(f"{path} exists with other content: move it away, or export to another directory.")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shard.write_bytes(path, content)
    return list(files)
