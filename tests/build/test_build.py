"""A build: the right tokens in the right rows, the same bytes whatever the way, nothing lost without a word."""

import fcntl
import json
import os
import platform
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prep.build import job as building
from prep.build.options import BuildOptions
from prep.build.output import Output
from prep.inspect.build_text import built_lines
from prep.mixture.mixture import parse_mixture
from prep.plan import rows as plan
from prep.plan.order import mixture_order
from prep.plan.rows import EXCESS, VERSIONS
from prep.render.reference import render_conversation
from prep.shard import Split, check_files, open_shards
from prep.sources import source as sources
from prep.tokenizer.load import load_tokenizer
from prep.tokenizer.tokenizer import Tokenizer
from tests.conftest import SHARED, build_mixture, chat, check_shards, needs_shared, toy_tokenizer, write_lines

WORDS = "the quick brown fox jumps over a lazy dog and 42 others"


def some_chats(num: int, long_every: int = 0) -> list[dict[str, Any]]:
    """Conversations of many lengths, some with Python calls, every so many too long for a row"""
    rows = []
    for i in range(num):
        answer: Any = f"{i}: " + WORDS[: i * 7 % 50] * (20 if long_every and i % long_every == 0 else 1)
        if i % 3 == 0:
            answer = [{"type": "text", "text": answer}, {"type": "python", "text": "1+1"},
                      {"type": "python_output", "text": "2"}]  # fmt: skip
        rows.append(chat(WORDS[: i * 5 % 40], answer))
        rows[-1]["messages"] += chat("more?", "no.")["messages"]
    return rows


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks and shards from little data"""
    monkeypatch.setattr(sources, "BLOCK_ROWS", 16)
    monkeypatch.setattr(plan, "SHARD_TOKENS", 3000)


def tree(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.iterdir()) if path.name != "build.json"}


def documents(split: Split) -> list[tuple[int, int, int, list[int], list[int]]]:
    """(source, repeat, index, tokens, mask) of every document, in row order"""
    out = []
    for row in range(split.num_rows):
        tokens, mask, place = split.read_tokens(np.array([row]))[0], split.read_mask(np.array([row]))[0], 0
        for doc in split.docs[slice(*split.doc_range(row))]:
            end = place + int(doc["length"])
            out.append(
                (
                    int(doc["source"]),
                    int(doc["repeat"]),
                    int(doc["index"]),
                    tokens[place:end].tolist(),
                    mask[place:end].tolist(),
                )
            )
            place = end
        assert place == split.rows["num_tokens"][row]
    return out


MIXTURE = {
    "name": "m",
    "train": [
        {"task": "chat", "path": "a.jsonl", "repeat": 2},
        {"task": "chat", "path": "b.jsonl", "start": 3, "stop": 40},
    ],
    "val": [{"task": "chat", "path": "b.jsonl", "stop": 9}],
}


def write_sources(folder: Path, long_every: int = 0) -> dict[str, list[dict[str, Any]]]:
    rows = {"a": some_chats(50, long_every), "b": some_chats(60)[10:]}
    for name, some in rows.items():
        write_lines(folder / f"{name}.jsonl", some)
    return rows


def test_every_document_is_its_conversation_rendered(tmp_path: Path, toy: Tokenizer, small: None) -> None:
    rows = write_sources(tmp_path)
    root, manifest, _ = build_mixture(tmp_path, MIXTURE, toy, max_seq_len=256)
    found = documents(open_shards(root).split("train"))
    wanted = {
        (source, repeat, index, *map(tuple, render_conversation(rows[name][index]["messages"], toy)))
        for source, name, repeats, some in ((0, "a", 2, range(50)), (1, "b", 1, range(3, 40)))
        for repeat in range(repeats)
        for index in some
    }
    assert {(s, r, i, tuple(t), tuple(m)) for s, r, i, t, m in found} == wanted
    assert len(found) == len(wanted) == 137
    assert [s["conversations"] for s in manifest["splits"]["train"]["sources"]] == [100, 37]
    assert manifest["splits"]["val"]["conversations"] == 9
    check_shards(root)


def test_wrapped_rows_are_the_mixtures_order_as_one_stream(tmp_path: Path, toy: Tokenizer, small: None) -> None:
    rows = write_sources(tmp_path)
    root, _, _ = build_mixture(tmp_path, MIXTURE, toy, packing="wrapped", max_seq_len=64)
    order = mixture_order([50, 37], [2, 1], 42)[:]
    stream: list[tuple[int, int]] = []
    for entry, position in zip(order.entry.tolist(), order.position.tolist(), strict=True):
        row = rows["a"][position] if entry == 0 else rows["b"][position + 3]
        stream += zip(*render_conversation(row["messages"], toy), strict=True)
    split = open_shards(root).split("train")
    assert len(split.entry["shards"]) > 1
    for i in range(split.num_rows):
        wanted = stream[i * 64 : i * 64 + 65]
        tokens, mask = split.read_tokens(np.array([i]))[0], split.read_mask(np.array([i]))[0]
        assert list(zip(tokens.tolist(), mask.tolist(), strict=True))[: len(wanted)] == wanted
    assert (split.num_rows - 1) * 64 < len(stream) - 1 <= split.num_rows * 64
    check_shards(root)


@pytest.mark.parametrize("packing", VERSIONS)
@pytest.mark.parametrize("excess", EXCESS)
def test_every_packing_and_excess_strategy_gives_a_sound_build(
    tmp_path: Path, toy: Tokenizer, small: None, packing: str, excess: str
) -> None:
    write_sources(tmp_path, long_every=11)
    options = {"packing": packing, "excess_length_strategy": excess, "max_seq_len": 96}
    if packing == "wrapped" and excess != "truncate":
        with pytest.raises(ValueError, match=f"strategy {excess} has no effect with --packing wrapped"):
            build_mixture(tmp_path, MIXTURE, toy, **options)
        return
    if excess == "raise":
        with pytest.raises(ValueError, match=r"row \d+ of chat has [\d,]+ tokens, max_seq_len is 96"):
            build_mixture(tmp_path, MIXTURE, toy, **options)
        return
    root, manifest, _ = build_mixture(tmp_path, MIXTURE, toy, **options)
    check_shards(root)
    assert not list(check_files(root, manifest))
    for split in manifest["splits"].values():
        for source in split["sources"]:
            inside = source["conversations"] - source["extra_pieces"]
            assert source["rows"] == inside + sum(source["rejected"].values())
    first = manifest["splits"]["train"]["sources"][0]
    assert (first["truncated"] > 0) == (packing != "wrapped" and excess == "truncate")
    assert (first["extra_pieces"] > 0) == (excess == "split")
    assert ("too long" in first["rejected"]) == (excess == "drop")
    said = built_lines(root, manifest, built=True)[1]
    assert (" truncated" in said, " further pieces" in said, " rejected" in said) == (
        first["truncated"] > 0, first["extra_pieces"] > 0, bool(first["rejected"])
    )  # fmt: skip


def test_a_split_conversation_comes_back_when_its_pieces_are_joined(tmp_path: Path, toy: Tokenizer) -> None:
    rows = write_lines(tmp_path / "a.jsonl", [chat("q" * 30, "a" * 90), chat("x", "y")])
    mixture = {"train": [{"task": "chat", "path": rows.name}]}
    root, manifest, _ = build_mixture(tmp_path, mixture, toy, max_seq_len=50, excess_length_strategy="split")
    pieces = [tokens for _, _, index, tokens, _ in documents(open_shards(root).split("train")) if index == 0]
    assert all(piece[0] == toy.bos_id and len(piece) <= 50 for piece in pieces)
    whole, _ = render_conversation(chat("q" * 30, "a" * 90)["messages"], toy)
    rest = sorted((piece[1:] for piece in pieces), key=lambda piece: bytes_of(whole, piece))
    assert [token for piece in rest for token in piece] == whole[1:]
    assert manifest["splits"]["train"]["sources"][0]["extra_pieces"] == len(pieces) - 1


def bytes_of(whole: list[int], piece: list[int]) -> int:
    """Where a piece lies in the whole: user text first, then the answer; equal runs of "a" are told apart by their end"""
    ends_turn = 257 + 3 in piece
    return (257 not in piece) + (ends_turn and 259 not in piece) * 2


# ---- the same bytes ----


def test_workers_cache_blocks_and_place_do_not_change_a_byte(
    tmp_path: Path, toy: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHARD_TOKENS", 3000)
    monkeypatch.setattr(building, "SMALL_BUILD", 0)  # as if it were worth starting workers
    write_sources(tmp_path, long_every=11)
    first = tree(build_mixture(tmp_path, MIXTURE, toy, "one", max_seq_len=128)[0])
    warm = tree(build_mixture(tmp_path, MIXTURE, toy, "warm", max_seq_len=128)[0])
    monkeypatch.setattr(sources, "BLOCK_ROWS", 7)
    blocks = tree(build_mixture(tmp_path, MIXTURE, toy, "blocks", max_seq_len=128, cache_dir=tmp_path / "c2")[0])
    elsewhere = tmp_path / "ein Ordner – 目录"
    write_sources(elsewhere, long_every=11)
    other = tree(build_mixture(elsewhere, MIXTURE, toy, max_seq_len=128, workers=2)[0])
    assert first == warm == blocks == other


def test_a_source_that_changes_after_it_was_hashed_is_never_kept_as_what_it_was(
    tmp_path: Path, toy: Tokenizer, small: None
) -> None:
    write_sources(tmp_path)
    right = (tmp_path / "a.jsonl").read_text()
    mixture, options = (
        parse_mixture(MIXTURE, "test.toml", tmp_path, "test"),
        BuildOptions(cache_dir=tmp_path / "cache", quiet=True),
    )
    job = building.make_job(mixture, toy, options)
    (tmp_path / "a.jsonl").write_text(right.replace("more?", "less?"))
    with pytest.raises(ValueError, match=r"a\.jsonl changed while it was being read, and nothing of it was kept"):
        building.build(job, tmp_path / "out")
    (tmp_path / "a.jsonl").write_text(right)
    restored = tree(build_mixture(tmp_path, MIXTURE, toy, max_seq_len=128)[0])
    assert restored == tree(build_mixture(tmp_path, MIXTURE, toy, "new", max_seq_len=128, cache_dir=tmp_path / "c2")[0])


def test_a_half_deleted_and_a_damaged_cache_are_mended(tmp_path: Path, toy: Tokenizer, small: None) -> None:
    write_sources(tmp_path)
    first = tree(build_mixture(tmp_path, MIXTURE, toy, "one", max_seq_len=128)[0])
    runs = sorted((tmp_path / "cache" / "runs").glob("*/*.run"))
    assert len(runs) > 4
    runs[0].unlink()
    for run, place in ((runs[1], 700), (runs[2], 20), (runs[3], -1)):
        data = bytearray(run.read_bytes())
        data[place] ^= 1
        run.write_bytes(data)
    runs[4].write_bytes(b"short")
    again = build_mixture(tmp_path, MIXTURE, toy, "two", max_seq_len=128)[0]
    assert tree(again) == first
    blocks = json.loads((again / "build.json").read_text())["passes"]["render"]["blocks"]
    assert blocks["damaged"] == 4
    assert blocks["rendered"] == 1
    assert all(run.stat().st_size > 100 for run in runs)


def test_what_a_killed_process_left_half_written_goes_and_what_is_being_written_stays(
    tmp_path: Path, toy: Tokenizer, small: None
) -> None:
    write_sources(tmp_path)
    build_mixture(tmp_path, MIXTURE, toy)
    run = next((tmp_path / "cache" / "runs").glob("*/*.run"))
    killed, writing = (run.with_suffix(f".{platform.node()}-{number}.tmp") for number in ("00", "01"))
    killed.write_bytes(b"half")
    run.unlink()
    with open(writing, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b"half")
        file.flush()
        build_mixture(tmp_path, MIXTURE, toy, "again")
        assert not killed.exists()
        assert writing.exists()


def test_a_build_may_open_more_files_than_the_shell_allows(
    tmp_path: Path, toy: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK_ROWS", 1)
    write_sources(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, limits[1]))
    try:
        root, _, _ = build_mixture(tmp_path, MIXTURE, toy, max_seq_len=128)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(list((tmp_path / "cache" / "runs").glob("*/*.run"))) > 60
    assert open_shards(root).split("train").num_rows


def test_only_what_changed_is_rendered_again(tmp_path: Path, toy: Tokenizer, small: None) -> None:
    write_sources(tmp_path)

    def blocks(output: str, mixture: dict[str, Any], tokenizer: Tokenizer = toy, **options: Any) -> dict[str, int]:
        root = build_mixture(tmp_path, mixture, tokenizer, output, **{"max_seq_len": 128} | options)[0]
        found: dict[str, int] = json.loads((root / "build.json").read_text())["passes"]["render"]["blocks"]
        return found

    assert blocks("one", MIXTURE) == {"rendered": 8}
    assert blocks("seed", MIXTURE | {"seed": 7}) == {"cached": 8}
    assert blocks("pack", MIXTURE, packing="wrapped") == {"cached": 8}
    assert blocks("long", MIXTURE, max_seq_len=64, excess_length_strategy="split") == {"cached": 8}
    assert blocks("slice", MIXTURE | {"train": [{"task": "chat", "path": "a.jsonl", "stop": 5}]}) == {"cached": 8}
    write_lines(tmp_path / "c.jsonl", some_chats(20))
    more = MIXTURE | {"train": [*MIXTURE["train"], {"task": "chat", "path": "c.jsonl"}]}
    assert blocks("more", more) == {"cached": 8, "rendered": 2}
    other = Tokenizer("other", toy.ranks, toy.pattern, {k: v + 1 for k, v in toy.special_tokens.items()})
    assert blocks("tokenizer", MIXTURE, other) == {"rendered": 8}
    write_lines(tmp_path / "b.jsonl", [chat("new", "row"), *some_chats(59)[10:]])
    assert blocks("content", MIXTURE) == {"cached": 4, "rendered": 4}


# ---- the output ----


def test_an_output_that_is_up_to_date_is_left_alone(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    root, _, built = build_mixture(tmp_path, MIXTURE, toy)
    assert built
    stamp = (root / "manifest.json").stat().st_mtime_ns
    _, _, built = build_mixture(tmp_path, MIXTURE, toy, workers=2, encoder="tiktoken", cache_dir=tmp_path / "other")
    assert not built
    assert (root / "manifest.json").stat().st_mtime_ns == stamp


def test_an_output_that_differs_is_replaced_only_when_asked(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    root, first, _ = build_mixture(tmp_path, MIXTURE, toy)
    with pytest.raises(ValueError, match=r"holds another build \(mixture m, seed 42.*--overwrite"):
        build_mixture(tmp_path, MIXTURE | {"seed": 1}, toy)
    assert open_shards(root).manifest == first
    _, second, built = build_mixture(tmp_path, MIXTURE | {"seed": 1}, toy, overwrite=True)
    assert built
    assert second["seed"] == open_shards(root).manifest["seed"] == 1
    (root / "train.docs.npy").unlink()
    with pytest.raises(ValueError, match=r"train.docs.npy is missing or cut short.*--overwrite"):
        build_mixture(tmp_path, MIXTURE | {"seed": 1}, toy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "cache", "out"]


def test_a_build_packed_by_the_old_default_says_which_option_keeps_it(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    build_mixture(tmp_path, MIXTURE, toy, packing="bfd")
    with pytest.raises(ValueError, match=r"packing_strategy bfd -> ordered.*: --packing bfd keeps this build\.$"):
        build_mixture(tmp_path, MIXTURE, toy)
    assert not build_mixture(tmp_path, MIXTURE, toy, packing="bfd")[2]
    with pytest.raises(ValueError, match=r"another -o DIR\.$"):  # that option alone would not keep it
        build_mixture(tmp_path, MIXTURE | {"seed": 1}, toy)


def test_a_directory_that_is_no_build_is_never_replaced(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not a build of midprep: give another -o"):
        build_mixture(tmp_path, MIXTURE, toy, overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_a_second_build_of_the_same_output_is_kept_out(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    with Output(tmp_path / "out"), pytest.raises(ValueError, match=r"another build of .* is running"):
        build_mixture(tmp_path, MIXTURE, toy)
    assert build_mixture(tmp_path, MIXTURE, toy)[2]


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    root, _, _ = build_mixture(tmp_path, MIXTURE, toy)
    wanted = tree(root)
    shutil.copytree(root, tmp_path / ".out.building")
    os.replace(root, tmp_path / ".out.old")  # killed between the two renames
    (tmp_path / ".out.lock").write_text("")
    assert tree(build_mixture(tmp_path, MIXTURE, toy)[0]) == wanted
    assert not list(tmp_path.glob(".out.*"))


def test_what_a_killed_build_had_replaced_goes_though_the_output_is_up_to_date(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    root, _, _ = build_mixture(tmp_path, MIXTURE, toy)
    shutil.copytree(root, tmp_path / ".out.old")  # killed after both renames
    assert not build_mixture(tmp_path, MIXTURE, toy)[2]
    assert not list(tmp_path.glob(".out.*"))


def test_an_output_that_is_a_link_stays_one(tmp_path: Path, toy: Tokenizer) -> None:
    write_sources(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    for changes in ({}, {"max_seq_len": 64, "overwrite": True}):
        root, manifest, _ = build_mixture(tmp_path, MIXTURE, toy, **changes)
        assert root.is_symlink()
        assert manifest["max_seq_len"] == open_shards(tmp_path / "disk" / "real").manifest["max_seq_len"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["real"]


# ---- rows that are no conversations ----

BAD = [
    chat("a", "b"),
    '{"messages": [{"role": "user"',
    {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
    {"messages": []},
    {"messages": [{"role": "user", "content": 7}]},
    '{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    {"text": "no messages"},
    chat("c", "d"),
]


def test_bad_rows_are_counted_kept_and_never_in_a_shard(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "bad.jsonl", BAD)
    mixture = {"train": [{"task": "chat", "path": "bad.jsonl", "name": "mine"}]}
    root, manifest, _ = build_mixture(tmp_path, mixture, toy, max_rejected=1.0)
    source = manifest["splits"]["train"]["sources"][0]
    assert source["rejected"] == {
        "invalid JSON": 1, "missing field": 1, "no messages": 1, "roles out of turn": 1, "content is not text": 1,
        "not valid Unicode": 1,
    }  # fmt: skip
    assert (source["rows"], source["conversations"]) == (8, 2)
    rejected = [json.loads(line) for line in (root / "rejected.jsonl").read_text().splitlines()]
    assert [(row["source"], row["row"], row["reason"]) for row in rejected] == [
        ("mine", 1, "invalid JSON"), ("mine", 2, "roles out of turn"), ("mine", 3, "no messages"),
        ("mine", 4, "content is not text"), ("mine", 5, "not valid Unicode"), ("mine", 6, "missing field"),
    ]  # fmt: skip
    assert rejected[0]["content"] == '{"messages": [{"role": "user"'
    assert {index for _, _, index, _, _ in documents(open_shards(root).split("train"))} == {0, 7}
    check_shards(root)


def test_too_many_bad_rows_stop_the_build_and_three_are_shown(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "bad.jsonl", BAD)
    with pytest.raises(ValueError, match=r"6 of 8 rows of chat .* allowed are 5%") as found:
        build_mixture(tmp_path, {"train": [{"task": "chat", "path": "bad.jsonl"}]}, toy)
    assert str(found.value).count("row ") == 3
    assert "row 1 (invalid JSON)" in str(found.value)
    assert not (tmp_path / "out").exists()


def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path: Path, toy: Tokenizer) -> None:
    write_lines(tmp_path / "bad.jsonl", [{"messages": []}])
    with pytest.raises(ValueError, match=r"no conversation of the train split is left \(chat: no messages 1\)"):
        build_mixture(tmp_path, {"train": [{"task": "chat", "path": "bad.jsonl"}]}, toy, max_rejected=1.0)
    spelling = {"train": [{"task": "simple_spelling", "size": 9}]}
    with pytest.raises(ValueError, match=r"no conversation of the train split is left \(simple_spelling: too long 9\)"):
        build_mixture(tmp_path, spelling, toy, max_seq_len=8, excess_length_strategy="drop")


def test_own_conversations_come_from_parquet_as_from_json_lines(tmp_path: Path, toy: Tokenizer) -> None:
    rows = some_chats(30)
    for row in rows:
        for message in row["messages"]:
            if not isinstance(message["content"], str):
                message["content"] = message["content"][0]["text"]
    write_lines(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    builds = [
        build_mixture(tmp_path, {"train": [{"task": "chat", "path": f"a.{kind}"}]}, toy, kind)[0]
        for kind in ("jsonl", "parquet")
    ]
    one, other = (tree(root) for root in builds)
    assert {name for name in one if one[name] != other[name]} == {"manifest.json"}  # which names another source


# ---- vocabularies at the edges of 16 bits ----


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(32_768, "uint16"), (65_535, "uint16"), (65_536, "uint16"), (65_537, "uint32")]
)
def test_ids_up_to_65535_are_two_bytes(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    toy = toy_tokenizer()
    special = {name: vocab_size - 9 + i for i, name in enumerate(toy.special_tokens)}
    tokenizer = Tokenizer("edge", toy.ranks, toy.pattern, special)
    write_sources(tmp_path)
    root, manifest, _ = build_mixture(tmp_path, MIXTURE, tokenizer, max_seq_len=128)
    assert (manifest["vocab_size"], manifest["token_dtype"]) == (vocab_size, dtype)
    tokens = open_shards(root).split("train").read_tokens(np.array([0]))
    assert tokens[0, 0] == vocab_size - 9
    assert load_tokenizer(str(root)).sha256 == tokenizer.sha256
    check_shards(root)


# ---- nanochat's order, through the whole build ----


@needs_shared
def test_a_build_of_nanochats_mixture_is_its_stream_to_the_hash(tmp_path: Path) -> None:
    import hashlib

    wanted = json.loads((SHARED / "fixtures" / "nanochat_order.json").read_text())
    mixture = {"train": [{"task": "smoltalk"}, {"task": "mmlu"}, {"task": "gsm8k"}, {"task": "identity", "repeat": 2}]}
    options = {"packing": "wrapped", "max_seq_len": wanted["wrapped"]["max_seq_len"], "workers": 2}
    root, manifest, _ = build_mixture(tmp_path, mixture, load_tokenizer(), data_root=SHARED / "data" / "hub", **options)
    split = open_shards(root).split("train")
    rows = split.read_tokens(np.arange(split.num_rows))
    assert hashlib.sha256(rows.astype("<u2").tobytes()).hexdigest() == wanted["wrapped"]["rows_sha256_u16le"]
    mask = split.read_mask(np.arange(split.num_rows))
    for array, dtype, name in ((rows, "<u2", "tokens_sha256_u16le"), (mask, "u1", "mask_sha256_u8")):
        stream = np.append(array[:, :-1].reshape(-1), array[-1, -1])[: wanted["tokens"]]
        assert hashlib.sha256(stream.astype(dtype).tobytes()).hexdigest() == wanted[name]
    entry = manifest["splits"]["train"]
    assert (entry["conversations"], entry["total_tokens"]) == (wanted["conversations"], wanted["tokens"])
    assert entry["trainable_tokens"] == wanted["supervised_tokens"]
