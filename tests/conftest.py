"""
What many tests need: a byte-level toy tokenizer, builds of small mixtures, and the shared data where it is there.
"""

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.mixture.mixture import parse_mixture
from prep.shard import Manifest
from prep.tokenizer.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer

SHARED = Path(__file__).parent.parent.parent / "shared"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
BROWSER_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not there")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser without a window, for pages that midprep makes"""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to test the page in a browser")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def toy() -> Tokenizer:
    """Every byte is a token, then the nine special ones: "A" is 65, <|bos|> is 256"""
    return toy_tokenizer()


def toy_tokenizer() -> Tokenizer:
    ranks = {bytes([i]): i for i in range(256)}
    return Tokenizer("toy", ranks, PATTERN, {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)})


def write_lines(path: Path, rows: list[Any]) -> Path:
    """JSON lines; a str stands for itself"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def chat(user: str, assistant: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def build_mixture(
    folder: Path,
    mixture: dict[str, Any],
    tokenizer: Tokenizer,
    output: str = "out",
    data_root: Path | None = None,
    **options: Any,
) -> tuple[Path, Manifest, bool]:
    """Build a mixture given as parsed TOML, with files and cache in `folder`; (root, manifest, whether it was built)"""
    options = {"cache_dir": folder / "cache", "quiet": True} | options
    job = make_job(parse_mixture(mixture, "test.toml", folder, "test"), tokenizer, BuildOptions(**options), data_root)
    root = folder / output
    manifest, built = build(job, root)
    return root, manifest, built


def midprep_command(*arguments: object) -> list[str]:
    """`midprep ...` of this checkout, as a list"""
    return [sys.executable, "-m", "prep", *map(str, arguments)]


def check_shards(root: Path) -> None:
    """Run the independent reader of ../shared over a build, where it is there"""
    path = SHARED / "tools" / "check_shards.py"
    if not path.is_file():
        return
    spec = importlib.util.spec_from_file_location("check_shards", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    module.check_files(root, manifest)
    for name in manifest["splits"]:
        module.check_split(root, manifest, name)
