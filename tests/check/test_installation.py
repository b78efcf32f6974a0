"""The self-test passes here, and fails where something is not exact."""

import numpy as np
import pytest

from prep.check import installation
from tests.cli.test_cli import midprep


def test_this_installation_is_exact() -> None:
    done = midprep("selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [name, "exact"] for name in ("encoders", "renderer", "formats", "shards", "loss")
    ]


def test_an_engine_that_differs_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = installation.Encoder

    class Wrong(real):  # type: ignore[misc, valid-type]
        def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
            ids, lengths = super().__call__(texts)
            return (ids + (self.engine == "fastokens"), lengths)

    monkeypatch.setattr(installation, "Encoder", Wrong)
    results = {name: wrong for name, wrong, _ in installation.run_checks()}
    assert results["encoders"] == "fastokens and tiktoken differ"
    assert results["shards"] == results["loss"] == ""
