"""What a build is about to fetch is said before it does, and no longer once it is in the cache."""

from pathlib import Path

import pytest

from prep.mixture.downloads import download_lines, find_downloads
from prep.mixture.mixture import load_mixture, parse_mixture
from prep.sources import hub
from prep.sources.hub import HubSplit


def test_every_data_set_stands_there_once_with_rows_and_bytes(tmp_path: Path) -> None:
    downloads = find_downloads(load_mixture("default"), tmp_path)
    assert [line.split() for line in download_lines(downloads)] == [
        ["smoltalk", "HuggingFaceTB/smol-smoltalk", "484,570", "rows,", "about", "970", "MB"],
        ["mmlu", "cais/mmlu", "113,884", "rows,", "about", "51", "MB"],
        ["gsm8k", "openai/gsm8k", "8,792", "rows,", "about", "3", "MB"],
    ]
    assert find_downloads(load_mixture("sample"), tmp_path) == []


def test_of_your_own_data_set_the_size_is_not_known(tmp_path: Path) -> None:
    own = {"task": "chat", "hub": "o/mine"}
    other = {"task": "gsm8k", "subset": "socratic"}
    lines = download_lines(find_downloads(parse_mixture({"train": [own, other]}, "m", tmp_path, "m"), tmp_path))
    assert [line.split()[:2] for line in lines] == [["chat", "o/mine"], ["gsm8k", "openai/gsm8k"]]
    assert all(line.endswith("size not known before it is there") for line in lines)


def test_what_is_in_the_cache_or_cannot_be_fetched_is_not_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    mixture = parse_mixture({"train": [{"task": "gsm8k"}], "val": [{"task": "gsm8k"}]}, "m", tmp_path, "m")
    file = tmp_path / "train.parquet"
    file.write_bytes(b"x")
    for split in ("train", "test"):
        assert len(find_downloads(mixture, tmp_path)) == 1
        hub.write_note(tmp_path / "hub", HubSplit("openai/gsm8k", "main", split, None), [file], "c" * 40)
    assert find_downloads(mixture, tmp_path) == []
    file.unlink()
    assert len(find_downloads(mixture, tmp_path)) == 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_downloads(mixture, tmp_path) == []
