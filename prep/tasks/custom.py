"""
Tasks of one's own: a function in a file, or one that an installed package names as an entry point of "midprep.tasks".

    task = "tasks/jokes.py:joke"          task = "jokes"   with   [project.entry-points."midprep.tasks"] jokes = "pkg:joke"

    def joke(row)                                a row as a dict -> a list of messages, or None to leave it out
    def jokes(rows)                              a table of C rows -> C conversations, or a list of C
    def sums(start, stop, seed, split)           made, not read: conversations start .. stop - 1

The sha256 of the file is part of the identity of what it gives, so an edited task renders again. Workers load the file for
themselves; what else it imports has to be installed, and is not in the identity.
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
from typing import Any

import pyarrow as pa

from prep.conversations import messages
from prep.conversations.conversation import Conversations
from prep.conversations.layouts import rows_of

GROUP = "midprep.tasks"
SIGNATURES = {("row",): "row", ("rows",): "rows", ("start", "stop", "seed", "split"): "generate"}


@dataclass(frozen=True)
class OwnTask:
    """A function that is found: workers load it by its reference"""

    reference: str  # /.../jokes.py:joke, or the name of an entry point
    label: str  # the same without where it lies
    sha256: str  # of the file
    takes: str  # row, rows or generate

    def conversations(self, rows: pa.Table) -> Conversations:
        """C rows -> C conversations"""
        if self.takes == "rows":
            return self._checked(self._call(rows), len(rows))
        objects = rows_of(rows)
        return self._checked([row if isinstance(row, str) else self._of_row(row) for row in objects], len(objects))

    def generate(self, start: int, stop: int, seed: int, split: str) -> Conversations:
        """Conversations start .. stop - 1"""
        return self._checked(self._call(start, stop, seed, split), stop - start)

    def _of_row(self, row: Any) -> Any:
        found = self._call(row)
        return "left out by its task" if found is None else found

    def _call(self, *arguments: Any) -> Any:
        function, path = load(self.reference, self.sha256)
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:  # whatever it is, it is in this file or called from it
            raise ValueError(f"{_place(error, path)}: {type(error).__name__}: {error}. Mend the task.") from error

    def _checked(self, found: Any, num_rows: int) -> Conversations:
        batch = messages.of_objects(found, flags=True) if isinstance(found, list) else found
        if not isinstance(batch, Conversations):
            raise ValueError(
                f"{self.reference} gives {type(found).__name__}, wanted Conversations or a list of conversations."
            )
        if len(batch) != num_rows:
            raise ValueError(
                f"{self.reference} gives {len(batch)} conversations for {num_rows} rows, wanted one a row."
            )
        return batch


def is_own(name: str) -> bool:
    """Whether a task's name is a file's function or an entry point"""
    return ".py:" in name or name in entry_points()


def entry_points() -> list[str]:
    """Names of the tasks of installed packages"""
    return sorted(point.name for point in importlib.metadata.entry_points(group=GROUP))


def find(name: str, folder: Path) -> OwnTask:
    """A task by its name in a mixture; files are looked for from the mixture's folder, else from the current one."""
    reference = name
    if ".py:" in name:
        file, _, function = name.rpartition(":")
        places = [folder / Path(file).expanduser(), Path(file).expanduser()]
        path = next((place.absolute() for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"task {name!r}: {places[0]} not found, nor {file} from here: correct its path.")
        reference = f"{path}:{function}"
    path, sha256 = _file_of(reference)
    function_found, _ = load(reference, sha256)
    parameters = tuple(inspect.signature(function_found).parameters)
    if parameters not in SIGNATURES:
        wanted = ", ".join(f"({', '.join(names)})" for names in SIGNATURES)
        raise ValueError(
            f"{reference} takes ({', '.join(parameters)}), wanted one of {wanted}: the names say what it is."
        )
    label = f"{path.name}:{reference.rpartition(':')[2]}" if ".py:" in name else name
    return OwnTask(reference, label, sha256, SIGNATURES[parameters])


@functools.lru_cache(maxsize=64)
def load(reference: str, sha256: str) -> tuple[Callable[..., Any], Path]:
    """The function of a reference, and its file, which must have these contents. Cached: a file is run once a process."""
    path, found = _file_of(reference)
    if found != sha256:
        raise ValueError(f"{path} was changed while the build ran: build again.")
    function = _entry_point(reference).load() if ".py:" not in reference else _run(path, reference, sha256)
    if not callable(function):
        raise ValueError(f"{reference} is {type(function).__name__}, wanted a function.")
    return function, path


def _run(path: Path, reference: str, sha256: str) -> Any:
    """Run a file as a module and take a function from it"""
    name = f"midprep_task_{sha256[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{_place(error, path)}: {type(error).__name__}: {error}. Mend the task.") from error
    wanted = reference.rpartition(":")[2]
    if not hasattr(module, wanted):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise ValueError(f"{path} has no {wanted!r}, it has: {', '.join(there)}.")
    return getattr(module, wanted)


def _file_of(reference: str) -> tuple[Path, str]:
    """The file of a reference and its sha256"""
    if ".py:" in reference:
        path = Path(reference.rpartition(":")[0])
    else:
        module = _entry_point(reference).value.partition(":")[0]
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise ValueError(f"task {reference!r} is of {module}, which is not installed: install it again.")
        path = Path(spec.origin)
    try:
        return path, hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ValueError(f"{path} was there a moment ago and is gone: build again.") from None


def _entry_point(name: str) -> importlib.metadata.EntryPoint:
    return next(iter(importlib.metadata.entry_points(group=GROUP, name=name)))


def _place(error: BaseException, path: Path) -> str:
    """File and line of the task that an error came from"""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {frames[-1].lineno}" if frames else str(path)
