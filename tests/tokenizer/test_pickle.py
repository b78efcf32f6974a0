"""nanochat's pickle is read; any other runs nothing, and is refused in one line that names what it asked for."""

import contextlib
import copyreg
import io
import os
import pickle
import pickletools
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.safe_pickle import read_encoding, run
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS

SHARED = Path(__file__).parents[3] / "shared"
RANKS = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
SPECIAL = {text: 257 + i for i, text in enumerate(SPECIAL_TOKENS)}
STATE: dict[str, Any] = {"name": "rustbpe", "pat_str": PATTERN, "mergeable_ranks": RANKS, "special_tokens": SPECIAL}
CANARY = "canary_of_the_tokenizer_tests"  # a file that exists only if something ran


def encoding() -> tiktoken.Encoding:
    return tiktoken.Encoding("rustbpe", pat_str=PATTERN, mergeable_ranks=RANKS, special_tokens=SPECIAL)


class Stated:
    """Pickles as an Encoding would whose state is this one"""

    __class__ = property(lambda self: tiktoken.Encoding)  # type: ignore[assignment]

    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return copyreg.__newobj__, (tiktoken.Encoding,), self.state  # type: ignore[attr-defined]


def with_state(state: object) -> bytes:
    return pickle.dumps(Stated(state), protocol=4)


# ---- what is admitted ----


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("dumps", [pickle.dumps, pickle._dumps])  # type: ignore[attr-defined]
def test_what_tiktoken_pickles_is_read_whatever_wrote_it(
    dumps: Callable[..., bytes], protocol: int, optimize: bool
) -> None:
    data = dumps(encoding(), protocol=protocol)
    assert run(pickletools.optimize(data) if optimize else data) == STATE


@given(st.dictionaries(st.binary(max_size=9), st.integers(-(2**31), 2**63), max_size=9), st.text(max_size=9))
@example({b"a" * 70_000: 1 << 31, b"b" * 256: 65_536}, "x" * 70_000)
def test_every_state_of_bytes_text_and_numbers_comes_back(ranks: dict[bytes, int], name: str) -> None:
    state = {"name": name, "mergeable_ranks": ranks, "special_tokens": dict(enumerate_text(ranks))}
    assert run(with_state(state)) == state


def enumerate_text(ranks: dict[bytes, int]) -> list[tuple[str, int]]:
    return [(token.hex(), rank) for token, rank in ranks.items()]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_file_that_nanochat_wrote_is_read() -> None:
    path = SHARED / "fixtures" / "nanochat_tokenizer.pkl"
    with open(path, "rb") as file:
        written = pickle.load(file)
    state = read_encoding(path)
    assert state["mergeable_ranks"] == written._mergeable_ranks
    assert state["special_tokens"] == written._special_tokens
    assert state["pat_str"] == written._pat_str
    assert load_tokenizer(path).sha256 == load_tokenizer("nano32k").sha256


# ---- what is refused ----


class Call:
    """Pickles as a call of `function`"""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.function, self.arguments


class Subclass(tiktoken.Encoding):
    pass


class Persistent(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return CANARY if isinstance(obj, tiktoken.Encoding) else None


def persistent() -> bytes:
    out = io.BytesIO()
    Persistent(out, protocol=4).dump(encoding())
    return out.getvalue()


def subclass() -> bytes:
    made = object.__new__(Subclass)
    made.__dict__.update(encoding().__dict__)
    return pickle.dumps(made)


def extension(code: int) -> bytes:
    """os.system by its number in copyreg: EXT1, EXT2 or EXT4, no name in the file"""
    copyreg.add_extension(os.system.__module__, "system", code)
    try:
        return pickle.dumps(os.system, protocol=2)[:-1] + short(f"touch {CANARY}") + b"\x85R."
    finally:
        copyreg.remove_extension(os.system.__module__, "system", code)


def short(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def billion_laughs(push: bytes, pair: bytes, levels: int = 200) -> bytes:
    """A value of 2**200 leaves in 1 KB, by recalling each level twice; a reader that walks or hashes it never ends"""
    body = push + b"\x94"
    for level in range(levels):
        body += b"h" + bytes([level]) + b"h" + bytes([level]) + pair + b"\x94"
    return b"\x80\x04}" + body + b"K\x01s."


ENCODING = b"\x80\x04\x8c\x0dtiktoken.core\x8c\x08Encoding\x93"
TOUCH = f"open({CANARY!r}, 'w').close()"
SYSTEM = short(f"touch {CANARY}")
MALICIOUS: dict[str, tuple[bytes, str]] = {
    "os.system": (pickle.dumps(Call(os.system, f"touch {CANARY}")), "posix.system"),
    "os.system, protocol 0": (pickle.dumps(Call(os.system, f"touch {CANARY}"), protocol=0), "posix.system"),
    "builtins.eval": (pickle.dumps(Call(eval, TOUCH)), "builtins.eval"),
    "builtins.exec": (pickle.dumps(Call(exec, TOUCH)), "builtins.exec"),
    "a nested reduce, inside the state": (with_state(STATE | {"name": Call(eval, TOUCH)}), "builtins.eval"),
    "a reduce as a rank": (with_state(STATE | {"mergeable_ranks": {b"a": Call(eval, TOUCH)}}), "builtins.eval"),
    "a subclass": (subclass(), f"{Subclass.__module__}.Subclass"),
    "another class of tiktoken": (
        b"\x80\x04ctiktoken.load\nread_file\n" + SYSTEM + b"\x85R.",
        "tiktoken.load.read_file",
    ),
    "the class by another way": (b"\x80\x04ctiktoken\ncore.Encoding\n)\x81.", "tiktoken.core.Encoding"),
    "a dotted name": (b"\x80\x04\x8c\x0dtiktoken.core\x8c\x14Encoding.__init__.__\x93.", "Encoding.__init__.__"),
    "functools.partial": (b"\x80\x04cfunctools\npartial\ncposix\nsystem\n\x85R.", "functools.partial"),
    "a getattr chain": (
        b"\x80\x04cbuiltins\ngetattr\ncbuiltins\n__import__\n" + short("os") + b"\x85R" + short("system") + b"\x86R.",
        "builtins.getattr",
    ),
    "importlib": (b"\x80\x04cimportlib\nimport_module\n" + short("antigravity") + b"\x85R.", "importlib.import_module"),
    "copyreg's constructor": (b"\x80\x04ccopyreg\n_reconstructor\n.", "copyreg._reconstructor"),
    "EXT1": (extension(0x7F), "EXT1"),
    "EXT2": (extension(0x7F7F), "EXT2"),
    "EXT4": (extension(0x7F7F7F7F), "EXT4"),
    "INST": (b"(S'touch " + CANARY.encode() + b"'\nios\nsystem\n.", "it names os.system, and instruction STRING"),
    "OBJ": (b"(cos\nsystem\n" + SYSTEM + b"o.", "os.system"),
    "OBJ of the admitted class": (b"\x80\x04(ctiktoken.core\nEncoding\no.", "OBJ"),
    "REDUCE of the admitted class": (ENCODING + b")R.", "REDUCE"),
    "NEWOBJ_EX": (ENCODING + b")}\x92.", "NEWOBJ_EX"),
    "NEWOBJ with arguments": (ENCODING + SYSTEM + b"\x85\x81.", "TUPLE1"),
    "a persistent id": (persistent(), "BINPERSID"),
    "a persistent id, protocol 0": (b"Pposix.system\n.", "PERSID"),
    "tuples of a billion laughs": (billion_laughs(b")", b"\x86"), "TUPLE2"),
    "lists of a billion laughs": (billion_laughs(b"]", b"ee"), "EMPTY_LIST"),
    "dicts in themselves": (b"\x80\x04}\x94" + b"h\x00" * 3 + b"ss.", "dict as a key"),
    "a frozenset": (b"\x80\x04(K\x01\x91.", "FROZENSET"),
    "a list of calls": (pickle.dumps([Call(os.system, f"touch {CANARY}")]), "it names posix.system"),
    "a call named by memory": (
        b"\x80\x04]\x94\x8c\x02os\x94\x8c\x06system\x94000h\x01h\x02\x93" + SYSTEM + b"\x85R.",
        "it names os.system",
    ),
    "a buffer out of band": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "BINBYTES8 of 8 exabytes": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "only 1 remain"),
    "BINBYTES of 4 GB": (b"\x80\x04B" + b"\xff" * 4 + b".", ""),
    "BINUNICODE8 of 8 exabytes": (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.", ""),
    "LONG4 of 2 GB": (b"\x80\x04\x8b\xff\xff\xff\x7f.", ""),
    "LONG1 cut short": (b"\x80\x04\x8a\xff\x01.", ""),
    "a decimal number of a million digits": (b"L" + b"9" * 1_000_000 + b"L\n.", "digits"),
    "a memo place of 4 billion": (b"\x80\x04}r\xff\xff\xff\xff.", "found where the pickle"),
    "a memo place never made": (b"\x80\x04h\x05.", "recalls value 5"),
    "memory of nothing": (b"\x80\x04\x94.", "remembers a value where there is none"),
    "BUILD before there is an object": (b"\x80\x04}}b.", "dict found"),
    "BUILD of the class": (ENCODING + b"}b.", "class found"),
    "BUILD with slots": (ENCODING + b")\x81N}\x86b.", "NONE"),
    "BUILD with a number": (ENCODING + b")\x81K\x01b.", "int found"),
    "BUILD twice": (ENCODING + b")\x81}b}b.", "state twice"),
    "a __setstate__ in the state": (with_state({"__setstate__": "os.system"}), "__setstate__"),
    "a __class__ in the state": (with_state(STATE | {"__class__": "x"}), "__class__"),
    "an empty encoding": (ENCODING + b")\x81.", "is empty"),
    "the class alone": (ENCODING + b".", "class found"),
    "a name of tiktoken's": (with_state("cl100k_base"), "only the name of tiktoken's 'cl100k_base': use --tokenizer"),
    "two encodings": (ENCODING + b")\x81" + with_state(STATE)[2:], "1 more values"),
    "a dict": (pickle.dumps(STATE), "dict found"),
    "a mark alone": (b"\x80\x04(.", "a mark found"),
    "SETITEMS without a mark": (b"\x80\x04}u.", "nothing found"),
    "a key without a value": (b"\x80\x04}(K\x01u.", "a key without a value"),
    "a key twice": (b"\x80\x04}(C\x01aK\x01C\x01aK\x02u.", "b'a' twice"),
    "a number as a key": (b"\x80\x04}K\x01K\x01s.", "int as a key"),
    "GLOBAL of one word": (b"\x80\x04cos\n\n.", "os."),
    "STACK_GLOBAL of a number": (b"\x80\x04K\x01K\x02\x93.", "int found"),
    "no pickle": (b"PK\x03\x04 a zip", ""),
    "nothing": (b"", ""),
    "a byte that is no instruction": (b"\x80\x04\xff", ""),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_pickle_runs_nothing_and_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, words = MALICIOUS[name]
    monkeypatch.chdir(tmp_path)
    Path("tokenizer.pkl").write_bytes(data)
    start = time.monotonic()
    with pytest.raises(ValueError) as error:
        load_tokenizer("./tokenizer.pkl")
    assert time.monotonic() - start < 2
    assert words in str(error.value)
    assert "tokenizer.pkl" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert os.listdir() == ["tokenizer.pkl"]


def test_the_canary_would_sing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("os.system", "builtins.exec", "OBJ", "INST"):
        pickle.loads(MALICIOUS[name][0])
        assert Path(CANARY).exists()
        Path(CANARY).unlink()


@pytest.mark.parametrize("name", [name for name in MALICIOUS if "laughs" in name or " of " in name])
def test_a_bomb_costs_no_memory(name: str) -> None:
    data, _ = MALICIOUS[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            run(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", [*STATE, "explicit_n_vocab"])
@pytest.mark.parametrize("value", [None, 7, "text", b"bytes", {}, {"a": "b"}, {b"a": b"b"}])
def test_a_state_of_wrong_types_is_refused_in_one_line(key: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(with_state(STATE | {key: value}))
    if key == "name" and value == "text":
        assert load_tokenizer(path).name == "text"
    elif key == "special_tokens" and value == {}:  # gets the nine
        assert load_tokenizer(path).special_tokens == SPECIAL
    else:
        with pytest.raises(ValueError) as error:
            load_tokenizer(path)
        assert "\n" not in str(error.value)


BAD_RANKS = [
    (RANKS | {b"abc": 256}, "id 256 is taken twice"),
    (RANKS | {b"abc": 300}, "no token has id 266"),
    (RANKS | {b"abc": "300"}, "has id '300'"),
    (RANKS | {"abc": 300}, "'abc'"),
    (RANKS | {b"abc": 1 << 200}, "wanted bytes and 0"),
    (RANKS | {b"abc": 258}, "id 258 is taken twice"),
    ({b"ab": 0}, "byte 0x00 is not a token"),
]


@pytest.mark.parametrize(("ranks", "words"), BAD_RANKS)
def test_ranks_with_holes_duplicates_or_of_wrong_types_are_refused(ranks: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(with_state(STATE | {"mergeable_ranks": ranks}))
    with pytest.raises(ValueError) as error:
        load_tokenizer(path)
    assert words in str(error.value)


def test_every_truncation_is_refused() -> None:
    data = pickle.dumps(encoding(), protocol=4)
    for length in range(len(data)):
        with pytest.raises(ValueError):
            run(data[:length])


GOOD = pickle.dumps(encoding(), protocol=4)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4), st.binary(max_size=20))
@example([], b"S'\\p'\nV\\ud800\n" + b"P")
def test_any_damage_is_read_or_refused_and_never_anything_else(changes: list[tuple[int, int]], tail: bytes) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    for candidate in (bytes(data), tail + bytes(data), bytes(data[: len(data) // 2]) + tail, tail + b"."):
        with contextlib.suppress(ValueError):
            assert isinstance(run(candidate), dict)
