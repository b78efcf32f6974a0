"""The format on disk: what is read is what was written, and what is not complete is an error that says so."""

import itertools
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists

from prep.plan import rows as plan
from prep.shard import open_shards, to_tokens, token_dtype, write_array
from prep.shard.format import map_file
from tests.build.test_build import MIXTURE, write_sources
from tests.conftest import build_mixture, toy_tokenizer


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shard")
    write_sources(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SHARD_TOKENS", 2000)
        return build_mixture(folder, MIXTURE, toy_tokenizer(), max_seq_len=128)[0]


def test_ids_take_two_bytes_up_to_65536_of_them() -> None:
    assert [token_dtype(size).name for size in (32_768, 65_535, 65_536, 65_537)] == [
        "uint16",
        "uint16",
        "uint16",
        "uint32",
    ]


@pytest.mark.parametrize("bad", [65_536, 70_000, -1])
def test_an_id_outside_the_vocabulary_cannot_be_written(bad: int) -> None:
    with pytest.raises(ValueError, match="the vocabulary has 65536 ids"):
        to_tokens(np.array([0, bad, 65_535]), 65_536)
    assert to_tokens(np.array([0, 65_535]), 65_536).tolist() == [0, 65_535]


def test_any_flipped_bit_of_a_header_is_named_or_harmless(tmp_path: Path) -> None:
    array = np.arange(12, dtype="<u2").reshape(3, 4)
    path = tmp_path / "a.npy"
    files = {"a.npy": write_array(path, array)}
    data = path.read_bytes()
    for place in range(8 * (len(data) - array.nbytes)):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with suppress(ValueError):
            assert np.array_equal(map_file(tmp_path, "a.npy", files, array.dtype, array.shape), array)


def test_files_are_plain_npy(tmp_path: Path) -> None:
    for array in (np.arange(6, dtype=np.uint16).reshape(2, 3), np.zeros((0, 5), dtype=np.uint8)):
        entry = write_array(tmp_path / "a.npy", array)
        assert entry["bytes"] == (tmp_path / "a.npy").stat().st_size
        assert np.array_equal(np.load(tmp_path / "a.npy"), array)


def test_rows_are_gathered_across_shards_in_the_order_asked_for(build: Path) -> None:
    split = open_shards(build).split("train")
    assert len(split.tokens) > 2
    whole = np.concatenate(split.tokens)
    order = np.random.default_rng(0).permutation(split.num_rows)
    assert np.array_equal(split.read_tokens(order), whole[order])
    bits = np.unpackbits(np.concatenate(split.masks), axis=1, count=129, bitorder="little")
    assert np.array_equal(split.read_mask(order), bits[order])
    with pytest.raises(IndexError, match="it has"):
        split.read_tokens(np.array([split.num_rows]))


@settings(max_examples=50)
@given(bits=lists(integers(0, 1), min_size=1, max_size=70))
def test_a_mask_survives_its_bits(bits: list[int]) -> None:
    packed = np.packbits(np.array([bits], dtype=np.uint8), axis=1, bitorder="little")
    assert packed.shape == (1, -(-len(bits) // 8))
    assert all((packed[0, k // 8] >> (k % 8)) & 1 == bit for k, bit in enumerate(bits))


def test_documents_tile_their_rows(build: Path) -> None:
    split = open_shards(build).split("train")
    ranges = [split.doc_range(row) for row in range(split.num_rows)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(split.docs)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    assert [int(split.docs["length"][a:b].sum()) for a, b in ranges] == split.rows["num_tokens"].tolist()


def test_what_is_no_build_says_what_it_is(tmp_path: Path, build: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is .* a finished build"):
        open_shards(tmp_path)
    for text, words in (
        ("{", "no valid|not readable JSON"),
        ("[" * 50_000, r"manifest\.json is not readable JSON"),
        ("[]", "not a midprep manifest"),
        ('{"format": "x"}', "not a midprep"),
    ):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            open_shards(tmp_path)
    manifest = json.loads((build / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
    with pytest.raises(ValueError, match="has version 2, this midprep reads 1"):
        open_shards(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="no split 'test', it has: train, val"):
        open_shards(tmp_path).split("test")
    with pytest.raises(FileNotFoundError, match=r"train.rows.npy not found: the build is not complete"):
        _ = open_shards(tmp_path).split("train").rows
    with pytest.raises(FileNotFoundError, match=r"token_bytes.npy not found: the build is not complete"):
        _ = open_shards(tmp_path).token_bytes
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"seed": 43}))
    with pytest.raises(ValueError, match="differs from its own checksum, a value was changed"):
        open_shards(tmp_path)


def test_a_file_of_another_size_or_shape_is_refused(tmp_path: Path) -> None:
    write_sources(tmp_path)
    root, _, _ = build_mixture(tmp_path, MIXTURE, toy_tokenizer(), max_seq_len=128)
    mask = next(root.glob("val-*.mask.npy"))
    data = mask.read_bytes()
    mask.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="bytes, the manifest says"):
        _ = open_shards(root).split("val").masks
    mask.write_bytes(data.replace(b"'|u1'", b"'|i1'"))
    with pytest.raises(ValueError, match=r"is int8 .* the manifest says uint8"):
        _ = open_shards(root).split("val").masks
    assert open_shards(root).split("val").read_tokens(np.array([0])).shape == (1, 129)  # mid needs no mask
