"""What may know of what: the build needs no torch, and a finished build needs nothing but numpy."""

import ast
import subprocess
import sys
from pathlib import Path

import prep.shard

PREP = Path(prep.__file__).parent
ROOT = PREP.parent


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after `code`, and had not before"""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.partition(".")[0] for name in out.stdout.split()}


def modules_named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return named | {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}


def test_prep_never_imports_torch() -> None:
    paths = [
        path.relative_to(ROOT).with_suffix("")
        for path in PREP.rglob("*.py")
        if path.stem not in ("__init__", "selftest")
    ]
    names = [".".join(path.parts) for path in paths if path.stem != "engines_ray"]  # Ray need not be installed
    assert len(names) > 80
    assert "torch" not in loaded_by("\n".join(f"import {name}" for name in names))


def test_the_trainer_takes_the_format_and_nothing_else_of_prep() -> None:
    named = set().union(*(modules_named_in(path) for path in (ROOT / "train").glob("*.py")))
    of_prep = {name for name in named if name.partition(".")[0] == "prep"}
    shard = {"prep.shard", "prep.shard.batches", "prep.shard.metrics", "prep.shard.steps"}
    assert of_prep == shard | {"prep.arrays", "prep.files"}


def test_the_format_needs_numpy_and_the_standard_library_only() -> None:
    loaded = loaded_by("import prep.shard.batches, prep.files, prep.shard.metrics, prep.shard.steps")
    assert {name for name in loaded if name not in sys.stdlib_module_names} == {"prep", "numpy"}
