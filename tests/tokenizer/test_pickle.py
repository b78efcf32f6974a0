"""nanochat's pickle is read; any other runs nothing, and is refused in one line that names what it would have called."""

import contextlib
import copyreg
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

from prep.same_tokenizer import read_pickle, unpickle
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS

SHARED = Path(__file__).parents[3] / "shared"
RANKS = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
SPECIAL = {text: 257 + i for i, text in enumerate(SPECIAL_TOKENS)}
STATE: dict[str, Any] = {"name": "rustbpe", "pat_str": PATTERN, "mergeable_ranks": RANKS, "special_tokens": SPECIAL}
ENCODING = tiktoken.Encoding("rustbpe", pat_str=PATTERN, mergeable_ranks=RANKS, special_tokens=SPECIAL)
CANARY = "canary_of_the_tokenizer_tests"  # a file that exists only if something ran


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
@pytest.mark.parametrize("dumps", [pickle.dumps, pickle._dumps])  # type: ignore[attr-defined]
def test_what_tiktoken_pickles_is_read_whatever_wrote_it(dumps: Callable[..., bytes], protocol: int) -> None:
    data = dumps(ENCODING, protocol=protocol)
    assert unpickle(data) == unpickle(pickletools.optimize(data)) == STATE


@given(st.dictionaries(st.binary(max_size=9), st.integers(-(2**31), 2**63), max_size=9), st.text(max_size=9))
@example({b"a" * 70_000: 1 << 31, b"b" * 256: 65_536}, "x" * 70_000)
@example({b"%d" % i: i for i in range(1001)}, "")  # 1,000 items at once, and one alone
def test_every_state_of_bytes_text_and_numbers_comes_back(ranks: dict[bytes, int], name: str) -> None:
    state = {"name": name, "mergeable_ranks": ranks, "special_tokens": {token.hex(): 0 for token in ranks}}
    assert unpickle(with_state(state)) == state


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_file_that_nanochat_wrote_is_read() -> None:
    path = SHARED / "fixtures" / "nanochat_tokenizer.pkl"
    assert read_pickle(path) == pickle.loads(path.read_bytes()).__getstate__()
    assert load_tokenizer(path).sha256 == load_tokenizer("nano32k").sha256


# ---- what is refused ----


class Call:
    """Pickles as a call of `function`"""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.reduced


def extension(code: int) -> bytes:
    """os.system by its number in copyreg: EXT1, EXT2 or EXT4, no name in the file"""
    copyreg.add_extension(os.system.__module__, "system", code)
    try:
        return pickle.dumps(os.system, protocol=2)[:-1] + SYSTEM + b"\x85R."
    finally:
        copyreg.remove_extension(os.system.__module__, "system", code)


def short(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def billion_laughs(push: bytes, join: bytes, end: bytes) -> bytes:
    """A value of 2**200 leaves in 1 KB, by recalling each level twice; a reader that walks or hashes it never ends"""
    levels = [b"h%ch%c%b\x94" % (level, level, join) for level in range(200)]
    return b"\x80\x04" + push + b"\x94" + b"".join(levels) + end


def colliding_numbers() -> bytes:
    """40,000 keys of one hash: a dict of them takes a minute"""
    numbers = [pickle.dumps(i * (2**61 - 1), protocol=2)[2:-1] for i in range(40_000)]
    return b"\x80\x04}(" + b"".join(number + b"K\x00" for number in numbers) + b"u."


SYSTEM = short(f"touch {CANARY}")
CLASS = b"\x80\x04\x8c\x0dtiktoken.core\x8c\x08Encoding\x93"
TOUCH = f"open({CANARY!r}, 'w').close()"
HASHED = b"}h\xc8K\x01s."  # as a key of a dict
MALICIOUS: dict[str, tuple[bytes, str]] = {
    "os.system": (pickle.dumps(Call(os.system, f"touch {CANARY}")), "it names posix.system"),
    "os.system, protocol 0": (pickle.dumps(Call(os.system, f"touch {CANARY}"), protocol=0), "it names posix.system"),
    "builtins.eval": (pickle.dumps(Call(eval, TOUCH)), "builtins.eval"),
    "builtins.exec": (pickle.dumps(Call(exec, TOUCH)), "builtins.exec"),
    "a nested reduce, inside the state": (with_state(STATE | {"name": Call(eval, TOUCH)}), "builtins.eval"),
    "a reduce as a rank": (with_state(STATE | {"mergeable_ranks": {b"a": Call(eval, TOUCH)}}), "builtins.eval"),
    "a subclass": (CLASS.replace(b"\x08Encoding", b"\x08Subclass") + b")\x81}b.", "tiktoken.core.Subclass"),
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
    "REDUCE of the admitted class": (CLASS + b")R.", "REDUCE"),
    "NEWOBJ_EX": (CLASS + b")}\x92.", "NEWOBJ_EX"),
    "NEWOBJ with arguments": (CLASS + SYSTEM + b"\x85\x81.", "TUPLE1"),
    "NEWOBJ with text as arguments": (CLASS + SYSTEM + b"\x81.", "damaged"),
    "NEWOBJ of text": (SYSTEM + b")\x81.", "damaged"),
    "a persistent id": (b"\x80\x04" + SYSTEM + b"Q.", "BINPERSID"),
    "a persistent id, protocol 0": (b"Pposix.system\n.", "PERSID"),
    "tuples of a billion laughs": (billion_laughs(b")", b"\x86", HASHED), "TUPLE2"),
    "lists of a billion laughs": (billion_laughs(b"]", b"ee", HASHED), "EMPTY_LIST"),
    "numbers that collide": (colliding_numbers(), "neither str nor bytes"),
    "dicts in themselves": (b"\x80\x04}\x94" + b"h\x00" * 3 + b"ss.", "neither str nor bytes"),
    "a frozenset": (b"\x80\x04(K\x01\x91.", "FROZENSET"),
    "a list of calls": (pickle.dumps([Call(os.system, f"touch {CANARY}")]), "it names posix.system"),
    "a call named by memory": (
        b"\x80\x04]\x94\x8c\x02os\x94\x8c\x06system\x94000h\x01h\x02\x93" + SYSTEM + b"\x85R.",
        "it names os.system",
    ),
    "a buffer out of band": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "a frame of 8 exabytes": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f}.", "dict found"),
    "BINBYTES8 of 8 exabytes": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "damaged"),
    "BINBYTES of 4 GB": (b"\x80\x04B" + b"\xff" * 4 + b".", "damaged"),
    "BINUNICODE8 of 8 exabytes": (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.", "damaged"),
    "LONG4 of 2 GB": (b"\x80\x04\x8b\xff\xff\xff\x7f.", "LONG4"),
    "LONG1 cut short": (b"\x80\x04\x8a\xff\x01.", "damaged"),
    "a decimal number of a million digits": (b"L" + b"9" * 1_000_000 + b"L\n.", "LONG"),
    "a memo place of 4 billion": (b"\x80\x04}r\xff\xff\xff\xff.", "dict found"),
    "a memo place never made": (b"\x80\x04h\x05.", "index 5"),
    "memory of nothing": (b"\x80\x04\x94.", "damaged"),
    "BUILD before there is an object": (b"\x80\x04}}b.", "dict found"),
    "BUILD of the class": (CLASS + b"}b.", "damaged"),
    "BUILD with slots": (CLASS + b")\x81N}\x86b.", "NONE"),
    "BUILD with a number": (CLASS + b")\x81K\x01b.", "has no state"),
    "BUILD twice": (CLASS + b")\x81}b}b.", "tokenizer.pkl holds ;"),
    "a __setstate__ in the state": (with_state({"__setstate__": "os.system"}), "__setstate__"),
    "a __class__ in the state": (with_state(STATE | {"__class__": "x"}), "__class__"),
    "an empty encoding": (CLASS + b")\x81.", "has no state"),
    "the class alone": (CLASS + b".", "type found"),
    "a name of tiktoken's": (with_state("cl100k_base"), "only the name of tiktoken's 'cl100k_base': use --tokenizer"),
    "two encodings": (CLASS + b")\x81" + with_state(STATE)[2:], "one tiktoken.Encoding and nothing else"),
    "a dict": (pickle.dumps(STATE), "dict found"),
    "a mark alone": (b"\x80\x04(.", "damaged"),
    "a mark below": (b"\x80\x04(" + with_state(STATE)[2:], "nothing else"),
    "SETITEMS without a mark": (b"\x80\x04}u.", "neither str nor bytes"),
    "a key without a value": (b"\x80\x04}(C\x01au.", "damaged"),
    "a key twice": (b"\x80\x04}(C\x01aK\x01C\x01aK\x02u.", "dict found"),
    "a number as a key": (b"\x80\x04}K\x01K\x01s.", "neither str nor bytes"),
    "GLOBAL of one word": (b"\x80\x04cos\n\n.", "os."),
    "STACK_GLOBAL of a number": (b"\x80\x04K\x01K\x02\x93.", "damaged"),
    "no pickle": (b"PK\x03\x04 a zip", "instruction"),
    "nothing": (b"", "damaged"),
    "a byte that is no instruction": (b"\x80\x04\xff", "instruction b'\\xff'"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_pickle_runs_nothing_and_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, words = MALICIOUS[name]
    monkeypatch.chdir(tmp_path)
    Path("tokenizer.pkl").write_bytes(data)
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(ValueError) as error:
            load_tokenizer("./tokenizer.pkl")
        assert tracemalloc.get_traced_memory()[1] < 40 * len(data) + (1 << 21)
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 2
    message = str(error.value)
    assert words in message
    assert "tokenizer.pkl" in message
    assert "\n" not in message
    assert len(message) < 400
    assert os.listdir() == ["tokenizer.pkl"]


def test_the_canary_would_sing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("os.system", "builtins.exec", "OBJ", "INST"):
        pickle.loads(MALICIOUS[name][0])
        assert Path(CANARY).exists()
        Path(CANARY).unlink()


BOMB: dict[str, Any] = {}
for _ in range(200):  # 2**200 leaves if it is walked, also to show it
    BOMB = {"a": BOMB, "b": BOMB}


@pytest.mark.parametrize("key", [*STATE, "explicit_n_vocab"])
@pytest.mark.parametrize("value", [None, 7, "text", b"bytes", {}, {"a": "b"}, {b"a": b"b"}, BOMB, {b"a": BOMB}])
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
        assert len(str(error.value)) < 400


GOOD = pickle.dumps(ENCODING, protocol=4)


def test_every_truncation_is_refused() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(ValueError):
            unpickle(GOOD[:length])


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4), st.binary(max_size=20))
@example([], b"S'\\p'\nV\\ud800\n" + b"P")
def test_any_damage_is_read_or_refused_and_never_anything_else(changes: list[tuple[int, int]], tail: bytes) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    for candidate in (bytes(data), tail + bytes(data), bytes(data[: len(data) // 2]) + tail, tail + b"."):
        with contextlib.suppress(ValueError):
            assert isinstance(unpickle(candidate), dict)
