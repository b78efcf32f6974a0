"""Who may import whom, in one table: folders in the order of the data, arrows in one direction, no circle of files."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]

# folder: what it may import besides itself and the ground floor (modules of prep/ itself); lazy imports count
TABLE = {
    "ground": "",
    "shard": "",
    "sources": "shard",
    "conversations": "",
    "tasks": "conversations",
    "jinja": "conversations tokenizer",
    "chat": "conversations tokenizer jinja",
    "arrange": "conversations chat",
    "tokenizer": "shard sources conversations",
    "encode": "shard conversations tokenizer chat jinja",
    "mixture": "sources conversations tasks chat",
    "render": "shard sources conversations tasks tokenizer encode chat arrange jinja",
    "plan": "shard conversations tokenizer encode mixture render chat",
    "workers": "",
    "build": "shard sources conversations tokenizer encode mixture render plan workers chat arrange jinja",
    "inspect": "shard sources conversations tasks tokenizer encode mixture render plan build chat arrange",
    "check": "shard conversations sources tokenizer encode mixture render plan build inspect train chat jinja",
    "report": "shard tokenizer build inspect train",
    "cli": "shard chat conversations tasks tokenizer encode mixture workers build inspect check report train inference",
    "train": "shard",
    "inference": "shard tokenizer mixture render build train chat",  # the only part of train with more of prep
}
# with --eval-tasks-every the trainer asks its model questions: one import, in a function, that no run without the flag makes
SEAMS = {("train/setup.py", "train.inference.exam")}
DOORS = {"prep/__init__.py", "prep/__main__.py"}  # the public names and the command, which lead everywhere, lazily
MOST_MODULES = 9


def modules() -> dict[str, Path]:
    """{dotted name: file} of prep and train; a package is its __init__"""
    files = [path for package in ("prep", "train") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported_by(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that a file imports anywhere in it, in functions and for types too"""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield from [module for module in (whole if whole in known else node.module,) if module in known]
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)


def folder_of(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "train":
        return "inference" if parts[1:2] == ["inference"] else "train"
    return parts[1] if (ROOT / "prep" / parts[1]).is_dir() else "ground"


def test_every_folder_imports_only_from_those_of_the_table() -> None:
    known = modules()
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in known.values()
        if str(path.relative_to(ROOT)) not in DOORS
        for here in [folder_of(next(name for name, file in known.items() if file == path))]
        for module in imported_by(path, known)
        if module != "prep" and folder_of(module) not in (here, "ground", *TABLE[here].split())
        if (str(path.relative_to(ROOT)), module) not in SEAMS
    ]
    assert wrong == []


def test_no_file_imports_itself_round_a_corner() -> None:
    known = modules()
    graph = {
        name: [module for module in imported_by(path, known) if module not in (name, "prep")]
        for name, path in known.items()
        if str(path.relative_to(ROOT)) not in DOORS
    }
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_the_table_itself_has_no_circle_and_names_every_folder() -> None:
    TopologicalSorter({folder: below.split() for folder, below in TABLE.items()}).prepare()
    folders = {path.parent.name for path in (ROOT / "prep").glob("*/__init__.py")}
    assert set(TABLE) == folders | {"ground", "train", "inference"}
    crowded = {name: len(list((ROOT / "prep" / name).glob("*.py"))) - 1 for name in folders}
    assert {name: number for name, number in crowded.items() if number > MOST_MODULES} == {}


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


def test_a_seam_is_there_and_opens_in_a_function_only() -> None:
    known = modules()
    for path, module in SEAMS:
        assert module in imported_by(ROOT / path, known)
        top = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        assert not [node for node in top if isinstance(node, ast.ImportFrom) and node.module == module]
    inference = "[name for name in sys.modules if name.startswith('train.inference')]"
    assert loaded_by(f"import train.mid; assert not {inference}")


def test_importing_prep_never_imports_torch() -> None:
    names = [name for name in modules() if name.startswith("prep.")]
    assert len(names) > 60
    assert "torch" not in loaded_by("\n".join(f"import {name}" for name in names))


def test_the_format_needs_numpy_and_the_standard_library_only() -> None:
    loaded = loaded_by(
        "import prep.shard.batches, prep.shard.steps, prep.files, prep.same_tokenizer, prep.signals, prep.text"
    )
    assert {name for name in loaded if name not in sys.stdlib_module_names} == {"prep", "numpy"}


def test_training_needs_torch_and_numpy_only() -> None:
    """tests/train/test_gpu.py trains with everything else blocked"""
    names = [name for name in modules() if name.startswith("train.") and not name.startswith("train.inference")]
    assert len(names) > 20
    loaded = loaded_by(
        "import numpy, torch; before = set(sys.modules)\n" + "\n".join(f"import {name}" for name in names)
    )
    assert {name for name in loaded if name not in sys.stdlib_module_names} <= {"prep", "train", "torch", "numpy"}
