"""Builds, losses, options and the keys of --json are what they were: see tests/golden.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import golden

WANTED: dict[str, Any] = json.loads(golden.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return golden.make(tmp_path_factory.mktemp("golden"))


def test_every_file_of_every_build_has_the_bytes_it_had(made: dict[str, Any]) -> None:
    assert made["builds"] == WANTED["builds"]


def test_blocks_that_an_older_checkout_has_cached_are_found_again(made: dict[str, Any]) -> None:
    assert made["blocks"] == WANTED["blocks"]


def test_losses_of_mid_and_sft_are_what_they_were(made: dict[str, Any]) -> None:
    for mode, losses in WANTED["losses"].items():
        assert len(losses) == 20
        assert made["losses"][mode] == pytest.approx(losses, abs=1e-5)


def test_options_keep_their_names_defaults_and_choices(made: dict[str, Any]) -> None:
    assert made["options"] == WANTED["options"]
    assert made["choices"] == WANTED["choices"]


def test_json_keeps_its_keys(made: dict[str, Any]) -> None:
    assert made["keys"] == WANTED["keys"]


def test_the_fixtures_are_read_from_here() -> None:
    assert (Path(golden.FIXTURES) / "own_data.toml").is_file()
