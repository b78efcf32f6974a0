"""
Which tokenizer it is, with the standard library alone: the hash that tells tokenizers apart, and nanochat's pickle of one.

    tokenizer_sha256(ranks, pattern, special_tokens) -> "9f2c...", which manifests and checkpoints note
    read_pickle(Path("tokenizer.pkl"))               -> {"pat_str", "mergeable_ranks", "special_tokens", "name"}

A pickle is a program, and pickle.load runs it. An Encoding needs 27 of its 68 instructions: those that push text, bytes and
whole numbers, fill dicts, and make one object of one class. Here Python's own unpickler has these alone, and a stand-in for
that class: a file can name no other, and call none. Time and memory are linear in its size: 0.04 s for 32,768 tokens.
"""

import binascii
import hashlib
import io
import json
import pickle
import pickletools
import warnings
from collections.abc import Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

MAX_BYTES: Final = 256 << 20  # the pickle of a vocabulary of a million tokens has 20 MB
# what protocols 3, 4 and 5 use for an Encoding, optimized by pickletools or not
ADMITTED: Final = (
    *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "EMPTY_TUPLE", "SETITEM", "SETITEMS"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "NEWOBJ", "BUILD"),
)
PythonUnpickler: Any = pickle._Unpickler  # the one in C allocates as much memory for a memo as a file says


Token = TypeVar("Token", str, bytes)


def by_id(tokens: dict[Token, int]) -> list[tuple[Token, int]]:
    """(token, id) of each token in the order of ids"""
    return sorted(tokens.items(), key=itemgetter(1))


def ranks_file(ranks: dict[bytes, int]) -> bytes:
    """The .tiktoken file of ranks; equal ranks give equal bytes."""
    base64 = binascii.b2a_base64
    return b"".join([b"%s %d\n" % (base64(token, newline=False), rank) for token, rank in by_id(ranks)])


def tokenizer_sha256(
    ranks: dict[bytes, int],
    pattern: str,
    special_tokens: dict[str, int],
    added_tokens: dict[str, int] | None = None,
    normalizer: str | None = None,
) -> str:
    """Equal for tokenizers that give every text the same ids, whatever their name and file."""
    content: list[Any] = [hashlib.sha256(ranks_file(ranks)).hexdigest(), pattern, by_id(special_tokens)]
    if added_tokens or normalizer:
        content += [by_id(added_tokens or {}), normalizer]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def is_same_tokenizer(state: dict[str, Any], sha256: str, special_tokens: dict[str, int]) -> bool:
    """
    Whether a pickled Encoding is the tokenizer of this hash, which may have gained special tokens after its last id (those
    of the nine that it lacked). ValueError where the state is none of an Encoding.
    """
    parts = {"mergeable_ranks": bytes, "special_tokens": str}
    for name, kind in parts.items():
        tokens = state.get(name)
        if not isinstance(tokens, dict) or not all(type(t) is kind and type(i) is int for t, i in tokens.items()):
            raise ValueError(f"its {name} are no ids of {kind.__name__}")
    if not isinstance(state.get("pat_str"), str):
        raise ValueError("it has no pat_str")
    if not state["special_tokens"].items() <= special_tokens.items():
        return False
    return tokenizer_sha256(state["mergeable_ranks"], state["pat_str"], special_tokens) == sha256


# ---- tokenizer.pkl ----


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
