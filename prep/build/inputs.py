"""
What a build was made from: the mixture as data, and where its sources lay. A manifest holds no path, so build.json has it.

    "inputs": {"mixture": {"name": "mid", "train": [{"task": "gsm8k", ...}]}, "folder": "/home/ann",
               "data_root": "/data/hub", "identity": null}

By it `verify --rebuild` and `show --origin` find the sources again, of builds from the command line and from Python alike.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from prep.build.timings import read_record
from prep.mixture.mixture import Entry, Mixture, load_mixture, parse_mixture


@dataclass(frozen=True)
class BuildInputs:
    """A mixture, and where the sources are that it does not name by path."""

    mixture: Mixture
    data_root: Path | None = None
    identity: Path | None = None

    def to_record(self) -> dict[str, Any]:
        """As build.json has it"""
        return {
            "mixture": mixture_data(self.mixture),
            "folder": str(self.mixture.folder.absolute()),
            "data_root": str(self.data_root.absolute()) if self.data_root else None,
            "identity": str(self.identity.absolute()) if self.identity else None,
        }


def mixture_data(mixture: Mixture) -> dict[str, Any]:
    """A mixture as `parse_mixture` reads it: what its TOML file would hold, defaults left out"""
    plain, mix = Entry(""), mixture.mix.describe()
    return {
        "name": mixture.name,
        "seed": mixture.seed,
        **({"mix": mix} if mix else {}),
        **{
            split: [
                {key.name: value for key in fields(Entry) if (value := getattr(entry, key.name)) != getattr(plain, key.name)}
                for entry in entries
            ]
            for split, entries in mixture.splits.items()
        },
    }  # fmt: skip


def find_inputs(root: Path, mixture: str | None, data_root: Path | None, identity: Path | None) -> BuildInputs:
    """
    The inputs of a finished build: what is given, else what its build.json says. FileNotFoundError where nobody says it.
    """
    record = read_record(root) or {}
    recorded = record.get("inputs", {})
    if mixture is None and not recorded:
        raise FileNotFoundError(
            f"{root / 'build.json'} does not say what {root} was built from: give --mixture, and --data-root or --identity "
            "where they are needed."
        )
    if mixture is not None:
        chosen = load_mixture(mixture)
    else:
        context = f"the mixture in {root / 'build.json'}"
        chosen = parse_mixture(recorded["mixture"], context, Path(recorded["folder"]), "recorded")
    return BuildInputs(
        chosen,
        data_root or (Path(recorded["data_root"]) if recorded.get("data_root") else None),
        identity or (Path(recorded["identity"]) if recorded.get("identity") else None),
    )
