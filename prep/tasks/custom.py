"""
Tasks of your own: a function in a file, or one that an installed package offers as an entry point of "midprep.tasks".

    task = "tasks/jokes.py:joke"          task = "jokes"   with   [project.entry-points."midprep.tasks"] jokes = "pkg:joke"

    def joke(row)                                a row as a dict -> a list of messages, or None to leave it out
    def jokes(rows)                              a table of C rows -> C conversations, or a list of C
    def sums(start, stop, seed, split)           made, not read: conversations start .. stop - 1

The sha256 of the file is part of the cache keys, so an edited task renders again. Each worker loads the file itself; what
the file imports has to be installed, and is not part of the keys.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from prep.conversations.conversation import Conversations
from prep.conversations.layouts import Layout
from prep.conversations.read import of_objects
from prep.conversations.rows import rows_of

GROUP = "midprep.tasks"
SIGNATURES = {("row",): "row", ("rows",): "rows", ("start", "stop", "seed", "split"): "generate"}


@dataclass(frozen=True)
class CustomTask:
    """A function of yours ; workers load it by its reference."""

    reference: str  # /.../jokes.py:joke, or the name of an entry point
    label: str  # the same without its directory
    version: str  # sha256 of the file
    takes: str  # row, rows or generate
    layout: ClassVar[Layout | None] = None
    is_custom: ClassVar[bool] = True

    @property
    def generates(self) -> bool:
        return self.takes == "generate"

    def conversations(self, rows: pa.Table) -> Conversations:
        if self.takes == "rows":
            return self._checked(self._call(rows), len(rows))
        # a str is the reason why a row cannot be read
        results = [row if isinstance(row, str) else self._call(row) for row in rows_of(rows)]
        return self._checked(["left out by its task" if value is None else value for value in results], len(rows))

    def generate(self, start: int, stop: int, seed: int, split: str) -> Conversations:
        return self._checked(self._call(start, stop, seed, split), stop - start)

    def _call(self, *arguments: Any) -> Any:
        function, path = load(self.reference, self.version)
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:  # raised in this file or in what it calls
            raise _task_error(error, path) from error

    def _checked(self, result: Any, num_rows: int) -> Conversations:
        batch = of_objects(result) if isinstance(result, list) else result
        if not isinstance(batch, Conversations):
            raise ValueError(
                f"{self.reference} returns {type(result).__name__}, wanted Conversations or a list of conversations."
            )
        if len(batch) != num_rows:
            raise ValueError(
                f"{self.reference} returns {len(batch)} conversations for {num_rows} rows, wanted one per row."
            )
        return batch


def is_custom(name: str) -> bool:
    """Whether a task's name is a function in a file or an entry point"""
    return ".py:" in name or name in entry_points()


def entry_points() -> list[str]:
    """Names of the tasks of installed packages"""
    return sorted(point.name for point in importlib.metadata.entry_points(group=GROUP))


def find(name: str, folder: Path) -> CustomTask:
    """A task by its name in a mixture; files are looked for from the mixture's directory, else from the current one."""
    reference = name
    if ".py:" in name:
        file, _, function_name = name.rpartition(":")
        candidates = [folder / Path(file).expanduser(), Path(file).expanduser()]
        source = next((path.absolute() for path in candidates if path.is_file()), None)
        if source is None:
            raise FileNotFoundError(
                f"task {name!r}: {candidates[0]} not found, nor {file} from here: correct its path."
            )
        reference = f"{source}:{function_name}"
    path, sha256 = _file_of(reference)
    function, _ = load(reference, sha256)
    parameters = tuple(inspect.signature(function).parameters)
    if parameters not in SIGNATURES:
        signatures = ", ".join(f"({', '.join(names)})" for names in SIGNATURES)
        raise ValueError(
            f"{reference} takes ({', '.join(parameters)}), wanted one of {signatures}: the names say what it is."
        )
    label = f"{path.name}:{reference.rpartition(':')[2]}" if ".py:" in name else name
    return CustomTask(reference, label, sha256, SIGNATURES[parameters])


@functools.lru_cache(maxsize=64)
def load(reference: str, sha256: str) -> tuple[Callable[..., Any], Path]:
    """The function of a reference, and its file, which must have this sha256. Cached: a process runs a file once."""
    path, sha256_now = _file_of(reference)
    if sha256_now != sha256:
        raise ValueError(f"{path} was changed while the build ran: build again.")
    function = _from_file(path, reference, sha256) if ".py:" in reference else _entry_point(reference).load()
    if not callable(function):
        raise ValueError(f"{reference} is {type(function).__name__}, wanted a function.")
    return function, path


def _from_file(path: Path, reference: str, sha256: str) -> Any:
    """Run a file as a module and take a function from it"""
    module_name = f"midprep_task_{sha256[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _task_error(error, path) from error
    name = reference.rpartition(":")[2]
    if not hasattr(module, name):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise ValueError(f"{path} has no {name!r}, it has: {', '.join(functions)}.")
    return getattr(module, name)


def _file_of(reference: str) -> tuple[Path, str]:
    """The file of a reference and its sha256"""
    if ".py:" in reference:
        path = Path(reference.rpartition(":")[0])
    else:
        module = _entry_point(reference).module
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise ValueError(f"task {reference!r} is of {module}, which is not installed: install it again.")
        path = Path(spec.origin)
    try:
        return path, hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ValueError(f"{path} was deleted while the build ran: build again.") from None


def _entry_point(name: str) -> importlib.metadata.EntryPoint:
    return next(iter(importlib.metadata.entry_points(group=GROUP, name=name)))


def _task_error(error: BaseException, path: Path) -> ValueError:
    """The error of a task in one line, with file and line where it was raised"""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    place = f"{path}, line {line}" if line else str(path)
    return ValueError(f"{place}: {type(error).__name__}: {error}. Fix the task.")
