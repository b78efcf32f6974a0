"""tokenizer.pkl and token_bytes.pt: read without running anything, written so that tiktoken and torch load them."""

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiktoken
import torch
from hypothesis import given
from hypothesis import strategies as st

from prep.tokenizer.load import load_tokenizer, make_tokenizer
from prep.tokenizer.nanochat import count_token_bytes, export_nanochat
from prep.tokenizer.spec import TokenizerSpec
from prep.tokenizer.tokenizer import PATTERN, Tokenizer

SHARED = Path(__file__).parents[3] / "shared"
NANO = load_tokenizer()
BYTES = {bytes([byte]): byte for byte in range(256)}


def toy(ranks: dict[bytes, int], special: dict[str, int] | None = None) -> Tokenizer:
    return make_tokenizer(TokenizerSpec("toy", BYTES | ranks, PATTERN, special or {}), "")


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def test_what_is_written_loads_in_plain_tiktoken_and_torch_with_equal_ids(tmp_path: Path) -> None:
    root = tmp_path / "new" / "tokenizer"
    pkl, pt = export_nanochat(NANO, root)
    assert (pkl, pt) == (root / "tokenizer.pkl", root / "token_bytes.pt")
    encoding = pickle.loads(pkl.read_bytes())
    assert isinstance(encoding, tiktoken.Encoding)
    text = "It's 2+2=4, größer 日本 🙂\n\n  x"
    assert encoding.encode_ordinary(text) == NANO.encoding.encode_ordinary(text)
    assert encoding.encode_single_token("<|output_end|>") == 32_767
    for mmap in (False, True):
        lengths = torch.load(pt, weights_only=True, mmap=mmap)
        assert (lengths.dtype, tuple(lengths.shape)) == (torch.int32, (32_768,))
        assert lengths.tolist() == NANO.token_bytes().tolist()
    assert load_tokenizer(root).sha256 == load_tokenizer(pkl).sha256 == NANO.sha256


def test_equal_tokenizers_give_equal_files_and_another_is_not_written_over(tmp_path: Path) -> None:
    base = toy({b"ab": 256})
    ranks, special_tokens = dict(reversed(base.ranks.items())), dict(reversed(base.special_tokens.items()))
    backwards = Tokenizer("other", ranks, PATTERN, special_tokens)
    files = [path.read_bytes() for path in export_nanochat(base, tmp_path / "base")]
    assert [path.read_bytes() for path in export_nanochat(backwards, tmp_path / "backwards")] == files
    assert [path.read_bytes() for path in export_nanochat(backwards, tmp_path / "base")] == files
    with pytest.raises(ValueError, match=r"tokenizer.pkl exists with other content: move it away"):
        export_nanochat(NANO, tmp_path / "base")
    assert load_tokenizer(tmp_path / "base").sha256 == base.sha256


def test_the_same_numbers_that_another_torch_wrote_are_left_as_they_are(tmp_path: Path) -> None:
    base = toy({b"ab": 256})
    _, path = export_nanochat(base, tmp_path)
    lengths = torch.load(path, weights_only=True)
    torch.save(lengths, path)  # into a file: the archive has another name
    before = path.read_bytes()
    export_nanochat(base, tmp_path)
    assert path.read_bytes() == before
    torch.save(lengths + 1, path)
    with pytest.raises(ValueError, match=r"token_bytes.pt exists with other content"):
        export_nanochat(base, tmp_path)


def test_unused_ids_between_special_tokens_survive_the_way_there_and_back(tmp_path: Path) -> None:
    tokenizer = toy({b"ab": 256}, {"<|bos|>": 300})
    export_nanochat(tokenizer, tmp_path)
    assert count_token_bytes(tmp_path / "token_bytes.pt") == tokenizer.vocab_size == 309
    assert load_tokenizer(tmp_path).sha256 == tokenizer.sha256


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_files_that_nanochat_wrote_are_read_and_written_alike(tmp_path: Path) -> None:
    fixtures = SHARED / "fixtures"
    assert count_token_bytes(fixtures / "nanochat_token_bytes.pt") == 32_768
    pkl, pt = export_nanochat(NANO, tmp_path)
    assert pkl.read_bytes() == (fixtures / "nanochat_tokenizer.pkl").read_bytes()
    assert torch.equal(torch.load(pt), torch.load(fixtures / "nanochat_token_bytes.pt"))


def test_reading_them_imports_no_torch(tmp_path: Path) -> None:
    export_nanochat(NANO, tmp_path)
    code = f"from prep.tokenizer.load import *; load_tokenizer({str(tmp_path)!r}); import sys; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536])
def test_any_int32_vector_of_torch_is_counted(size: int, tmp_path: Path) -> None:
    (tmp_path / "vector.pt").write_bytes(saved(torch.zeros(size, dtype=torch.int32)))
    assert count_token_bytes(tmp_path / "vector.pt") == size


class Call:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("open('canary', 'w').close()",)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


INT32 = saved(torch.zeros(4, dtype=torch.int32))
DATA = zipfile.ZipFile(io.BytesIO(INT32)).read("archive/data.pkl")
REFUSED = {
    "a call": saved(Call()),
    "a call in the archive": zipped({"x/data.pkl": pickle.dumps(Call()), "x/data/0": bytes(16)}),
    "int64": saved(torch.zeros(4, dtype=torch.int64)),
    "two tensors": saved({"a": torch.zeros(4, dtype=torch.int32), "b": torch.zeros(4, dtype=torch.int32)}),
    "the older format": pickle.dumps(Call(), protocol=2),
    "no data": zipped({"x/data.pkl": DATA}),
    "data of half a number": zipped({"x/data.pkl": DATA, "x/data/0": bytes(18)}),
    "a large pickle": zipped({"x/data.pkl": bytes(1 << 20), "x/data/0": bytes(16)}),
    "nothing": b"",
    "a pickle": pickle.dumps([0]),
}
OF_ANOTHER_LENGTH = {
    "a call that names int32": zipped({"x/data.pkl": pickle.dumps([Call(), "IntStorage"]), "x/data/0": bytes(16)}),
    "a matrix": saved(torch.zeros(2, 2, dtype=torch.int32)),
    "a dict of tensors": saved({"a": torch.zeros(4, dtype=torch.int32)}),
    "data of another length": zipped({"x/data.pkl": DATA, "x/data/0": bytes(20)}),
    "a zip bomb": zipped({"x/data.pkl": DATA, "x/data/0": bytes(1 << 24)}, zipfile.ZIP_DEFLATED),
    "of another tokenizer": saved(torch.zeros(32_768, dtype=torch.int32)),
}


@pytest.mark.parametrize("name", [*REFUSED, *OF_ANOTHER_LENGTH])
def test_a_token_bytes_file_that_is_anything_else_runs_nothing_and_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_nanochat(toy({b"ab": 256}), tmp_path)
    (tmp_path / "token_bytes.pt").write_bytes((REFUSED | OF_ANOTHER_LENGTH)[name])
    refused = r"token_bytes\.pt refused, nothing in it was run: wanted torch's file of one int32 vector"
    other = r"token_bytes\.pt is for [\d,]+ tokens, tokenizer.pkl has 266: copy both from nanochat"
    with pytest.raises(ValueError, match=refused if name in REFUSED else other) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token_bytes.pt", "tokenizer.pkl"]


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=5), st.integers(0, 2000))
def test_any_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(INT32)
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    for content in (bytes(data), bytes(data[:length])):
        path.write_bytes(content)
        try:
            assert count_token_bytes(path) >= 0
        except ValueError as error:
            assert "refused, nothing in it was run" in str(error)  # noqa: PT017
