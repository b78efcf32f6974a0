"""What may know of what: the build needs no torch, and a finished build needs nothing but numpy."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules() -> dict[str, Path]:
    """{dotted name: file} of prep and train; a package is its __init__"""
    files = [path for package in ("prep", "train") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def test_packages_of_the_project_are_the_folders() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = [path.parent for package in ("prep", "train") for path in (ROOT / package).rglob("__init__.py")]
    assert sorted(listed) == sorted(".".join(path.relative_to(ROOT).parts) for path in found)


# ---- what is loaded ----


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after `code`, and had not before"""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.partition(".")[0] for name in out.stdout.split()}


def test_importing_prep_never_imports_torch() -> None:
    names = [name for name in modules() if name.startswith("prep.")]
    assert len(names) > 60
    assert "torch" not in loaded_by("\n".join(f"import {name}" for name in names))


def test_the_format_needs_numpy_and_the_standard_library_only() -> None:
    loaded = loaded_by("import prep.shard.batches, prep.shard.steps, prep.files, prep.signals, prep.text")
    assert {name for name in loaded if name not in sys.stdlib_module_names} == {"prep", "numpy"}
