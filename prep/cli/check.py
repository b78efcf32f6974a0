"""
The commands that tell what there is, and whether it is right: verify, doctor, selftest, tasks, mixtures.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from prep.cli.arguments import Build, Json, cores, refuse, say


def verify(
    context: typer.Context,
    root: Build,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Build again from the sources, with an empty cache, and compare every byte."),
    ] = False,
    mixture: Annotated[
        str | None, typer.Option(help="For --rebuild: as the build was given it, if it has moved.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="For --rebuild: where the sources are now.")] = None,
    identity: Annotated[Path | None, typer.Option(help="For --rebuild: where the identity file is now.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of --rebuild; by default one a core.")] = None,
    as_json: Json = False,
) -> None:
    """Check a build: checksums, every count, every rule of the mask; --rebuild proves its bytes."""
    from prep.check import verify as verifying

    if not rebuild:
        refuse(context, "mixture data_root identity workers", "without --rebuild")
    found = list(verifying.problems(root))
    if rebuild and not found:
        from prep.inspect.origin import recorded_inputs

        inputs = recorded_inputs(root, mixture, data_root, identity)
        num = cores() if workers is None else workers
        found = list(verifying.rebuild(root, inputs.mixture, inputs.data_root, inputs.identity, num, say))
    if as_json:
        print(json.dumps({"root": str(root), "problems": found}, ensure_ascii=False))
    elif not found:
        print(f"{root} is sound" + (", and a rebuild has the same bytes." if rebuild else "."))
    for line in () if as_json else found[:20]:
        say(f"midprep: {line}")
    if found:
        raise typer.Exit(1)


def doctor(as_json: Json = False) -> None:
    """Look at this machine: versions, encoder, compiler, cores, disk, caches; what will be fast and what not."""
    from prep.check.doctor import findings

    if as_json:
        found_all = {what: {"found": found, "advice": advice} for what, found, advice in findings(cores())}
        print(json.dumps(found_all, ensure_ascii=False))
        return
    for what, found, advice in findings(cores()):
        print(f"{what:<12} {found}" + (f"\n{'':<12} -> {advice}" if advice else ""))


def selftest() -> None:
    """Check that this installation is exact: encoders, renderer, shards, loss."""
    from prep.check import selftest as checks

    failed = False
    for name, wrong, seconds in checks.run():
        print(f"{name:<10} {f'FAILED: {wrong}' if wrong else 'exact':<8} {seconds:6.1f} s")
        failed = failed or bool(wrong)
    if failed:
        raise typer.Exit(1)


def tasks(as_json: Json = False) -> None:
    """List the tasks, each with what it is made of; those of installed packages last."""
    from prep.tasks import TASKS
    from prep.tasks.custom import entry_points

    found = [
        {
            "name": name,
            "from": getattr(task, "HUB", "generated" if hasattr(task, "generate") else "a file"),
            "about": (task.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
        }
        for name, task in TASKS.items()
    ]
    found += [{"name": name, "from": "an installed package", "about": ""} for name in entry_points()]
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for one in found:
        first, _, _ = one["about"].partition(". ")
        print(f"{one['name']:<16} {one['from']:<28} {first.rstrip('.')}".rstrip())


def mixtures(as_json: Json = False) -> None:
    """List the mixtures that ship with midprep."""
    from prep.mixture.mixture import load_mixture, mixture_names

    found = {name: load_mixture(name) for name in mixture_names()}
    if as_json:
        about = {
            name: {"name": mixture.name, **{k: [e.label for e in v] for k, v in mixture.splits.items()}}
            for name, mixture in found.items()
        }
        print(json.dumps(about, ensure_ascii=False))
        return
    for name, mixture in found.items():
        parts = [
            f"{split}: {', '.join(e.label + (f' x{e.repeat}' if e.repeat > 1 else '') for e in entries)}"
            for split, entries in mixture.splits.items()
        ]
        print(f"{name:<10} -> shards/{mixture.name:<8} {'; '.join(parts)}")
