"""Runs: what a build takes from its cache is what was written there, or it is called damaged."""

import platform
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prep.files import new_file, remove_abandoned, scratch_folder
from prep.render.block_cache import HEADER_BYTES, read_block, write_block
from prep.render.render import Rendered


def a_run(path: Path) -> Rendered:
    lengths = np.array([3, 0, 2], dtype=np.uint32)
    tokens, mask = np.arange(256, 261, dtype=np.uint16), np.array([0, 1, 1, 0, 1], dtype=np.uint8)
    reasons, asked = np.array([0, 2, 0], dtype=np.uint8), np.array([7, 0, 1 << 63], dtype=np.uint64)
    write_block(path, [Rendered(tokens, mask, lengths, np.array([2, 0, 1], dtype=np.uint32), asked, reasons)])
    return read_block(path, verify=True)


def test_no_flipped_bit_of_a_run_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "one.run"
    wanted = {field.name: getattr(a_run(path), field.name).copy() for field in fields(Rendered)}
    data = path.read_bytes()
    noticed = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_block(path, verify=True)
        except ValueError:
            noticed += 1
            continue
        assert bit < 8 * HEADER_BYTES  # one kind of white space for another
        assert all(getattr(found, name).tobytes() == array.tobytes() for name, array in wanted.items())
    assert noticed > 8 * len(data) * 0.9


def test_a_run_that_was_cut_or_has_other_things_in_its_header_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "one.run"
    a_run(path)
    data = path.read_bytes()
    headers = [b"[]", b"null", b'{"conversations": "a", "tokens": 5, "dtype": "<u2", "xxh3": ""}']
    contents = [header.ljust(HEADER_BYTES) + data[HEADER_BYTES:] for header in headers]
    for content in [*contents, *(data[:stop] for stop in range(0, len(data), 7))]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged: "):
            read_block(path, verify=True)


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "ab"
    with new_file(folder, "x.run") as (file, keep):
        for name in (f"empty.run.{platform.node()}-0.tmp", "empty.run.another-machine-0.tmp"):
            (folder / name).touch()
        remove_abandoned(tmp_path)
        assert len(list(folder.glob("x.run.*.tmp"))) == 1
        assert [path.name for path in folder.glob("empty*")] == ["empty.run.another-machine-0.tmp"]
        file.write(b"whole")
        keep(folder / "x.run")
    assert (folder / "x.run").read_bytes() == b"whole"
    assert list(folder.glob("x.run.*")) == []


def test_a_scratch_folder_goes_with_its_block_and_that_of_a_killed_process_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / f"{platform.node()}-0"
    left.mkdir(parents=True)
    (left / "tokens.npy").touch()
    left.with_suffix(".lock").touch()
    with scratch_folder(tmp_path) as folder:
        assert not left.exists()
        (folder / "tokens.npy").touch()
        remove_abandoned(tmp_path)
        assert (folder / "tokens.npy").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_file_that_is_taken_for_abandoned_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = list[int]()

    def lock(file: Any, how: int) -> None:
        locked.append(how)
        if len(locked) == 1:
            Path(file.name).unlink()

    monkeypatch.setattr("prep.files.fcntl.flock", lock)
    with new_file(tmp_path, "x.run") as (file, keep):
        file.write(b"whole")
        keep(tmp_path / "x.run")
    assert (len(locked), [path.name for path in tmp_path.iterdir()]) == (2, ["x.run"])
