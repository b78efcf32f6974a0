"""Every command and snippet of docs/ and examples/ runs, in the order of its page, as typed into a fresh clone."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import pytest

import prep
from tests.conftest import midprep_command

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md")])
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, rest of the opening line, content) of the fenced blocks of a page"""
    return [(kind, rest.strip(), body) for kind, rest, body in BLOCK.findall(page.read_text(encoding="utf-8"))]


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has of this checkout, without what lies beside it"""
    folder = tmp_path_factory.mktemp("clone") / "midprep"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    return folder


def run(command: list[str], folder: Path, what: str, clone: Path, seconds: int = 300) -> None:
    env = os.environ | {
        "PYTHONPATH": str(clone),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{what}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, clone: Path) -> None:
    """
    ```sh and ```python run, with "needs X" where X is installed; ```toml NAME, ```jsonl NAME and the like are written;
    "not-run: why" is passed over.
    """
    for kind, rest, body in blocks(clone / page.relative_to(ROOT)):
        if rest.startswith("not-run"):
            assert ":" in rest, f"{page.name}: say why: {rest}"
        elif kind == "sh":
            run(["bash", "-euo", "pipefail", "-c", body], tmp_path, f"{page.name}: {body}", clone)
        elif rest.startswith("needs ") and not all(find_spec(name.strip()) for name in rest[6:].split(",")):
            print(f"{page.name}: {rest}, which is not here: passed over")
        elif kind == "python" and (not rest or rest.startswith("needs ")):  # else the rest is the name of a file
            run([sys.executable, "-c", body], tmp_path, f"{page.name}: {body}", clone)
        elif rest:
            (tmp_path / rest).write_text(body, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset to leave one core")
@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_readmes_commands_hold_with_one_core(target: str, clone: Path) -> None:
    core = str(min(os.sched_getaffinity(0)))
    ready = f"{sys.prefix}/.ready"  # the environment is there: not to be made again
    run(
        ["taskset", "-c", core, "make", "-o", ready, f"VENV={sys.prefix}", target], clone, f"make {target}", clone, 1800
    )


def test_every_command_of_midprep_is_documented() -> None:
    pages = [ROOT / "README.md", *(page for page in PAGES if page.name != "commands.md")]  # which lists what there is
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    shown = subprocess.run(midprep_command("--help"), capture_output=True, text=True, timeout=60).stdout
    commands = re.findall(r"^  ([a-z]+) +[A-Z]", shown.split("Commands:")[1], re.MULTILINE)
    assert "build" in commands
    assert not [command for command in commands if f"midprep {command}" not in text]


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_public_names_are_documented_and_typed() -> None:
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.+?) \| ", text, re.MULTILINE)
    assert sorted(name for cell in cells for name in re.findall(r"`(\w+)", cell)) == sorted(prep.__all__)
    for dotted in re.findall(r"`((?:prep|train)\.\w[\w.]*)[`(]", text.split("## Names that moved")[0]):
        resolve_name(dotted)
    assert all((ROOT / package / "py.typed").is_file() for package in ("prep", "train"))
