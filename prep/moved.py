"""
Names that moved: they keep working for one release, and say where they are now.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def moved(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """
    A `__getattr__` for a module whose public names moved, {name: "module:name now"}. AttributeError for any other name.

        __getattr__ = moved(__name__, {"Rows": "prep:PackedDataset"})
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new_module, _, new_name = names[name].partition(":")
        message = (
            f"{module}.{name} is {new_module}.{new_name} now, and goes with the next release: import it from there"
        )
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(new_module), new_name)

    return get
