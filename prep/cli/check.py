"""
The commands that check a build or this machine, and the one that lists the tasks: verify, doctor, selftest, tasks.
"""

from typing import Annotated

import typer
from typer import Option

from prep.cli.arguments import Build, DataRoot, Identity, Json, Mixture, cores, print_json, refuse, say

REBUILD = "Build again from the sources, with an empty cache, and compare every byte."


def verify(
    context: typer.Context,
    root: Build,
    rebuild: Annotated[bool, Option("--rebuild", help=REBUILD)] = False,
    mixture: Mixture = None,
    data_root: DataRoot = None,
    identity: Identity = None,
    workers: Annotated[int | None, Option(help="With --rebuild: processes; by default one per core.")] = None,
    as_json: Json = False,
) -> None:
    """Check a build: checksums, counts, the rules of the mask. --rebuild proves its bytes."""
    from prep.check import verify as verifying
    from prep.shard import read_manifest
    from prep.shard.chat_format import format_notice

    problems, notice = list(verifying.problems(root)), ""
    by_template = not problems and verifying.of_a_template(root)
    if not rebuild:
        refuse(context, "workers" if by_template else "mixture data_root identity workers", "without --rebuild")
    if not problems:
        notice = format_notice(read_manifest(root)) or ""
    if by_template and not rebuild:
        from prep.check.again import render_again

        again = render_again(root, mixture, data_root, identity)
        problems = again.differing
        if again.missing:
            notice = f"not rendered again, by which alone the mask of a template is checked: {'; '.join(again.missing)}"
    if rebuild and not problems:
        from prep.build.record import find_inputs
        from prep.check.rebuild import differences

        inputs = find_inputs(root, mixture, data_root, identity)
        num = cores() if workers is None else workers
        problems = list(differences(root, inputs, num, say))
    if as_json:
        print_json({"root": str(root), "problems": problems, "notice": None if problems else notice or None})
    elif not problems:
        print(f"{root} is sound" + (", and a rebuild has the same bytes." if rebuild else "."))
        if notice:
            print(f"But: {notice}")
    for line in () if as_json else problems[:20]:
        say(f"midprep: {line}")
    if problems:
        raise typer.Exit(1)


def doctor(as_json: Json = False) -> None:
    """Look at this machine: what will be fast, and what will not. Versions, encoder, compiler, cores, disk, caches."""
    from prep.check.installation import examine

    facts = list(examine(cores()))
    if as_json:
        print_json({subject: {"found": state, "advice": advice} for subject, state, advice in facts})
        return
    for subject, state, advice in facts:
        print(f"{subject:<12} {state}" + (f"\n{'':<12} -> {advice}" if advice else ""))


def selftest(as_json: Json = False) -> None:
    """Check that encoders, renderer, shards and loss are exact."""
    from prep.check.installation import run_checks

    results = []
    for name, failure, seconds in run_checks():
        results.append({"check": name, "exact": not failure, "failure": failure, "seconds": round(seconds, 3)})
        if not as_json:
            print(f"{name:<10} {f'FAILED: {failure}' if failure else 'exact':<8} {seconds:6.1f} s", flush=True)
    if as_json:
        print_json({"checks": results})
    if not all(result["exact"] for result in results):
        raise typer.Exit(1)


def tasks(as_json: Json = False) -> None:
    """List the tasks, and what each is made of. Those of installed packages come last."""
    from prep.tasks import TASKS
    from prep.tasks.custom import entry_points

    listed = [
        {"name": name, "from": task.hub or ("generated" if task.generates else "a file"), "about": task.about}
        for name, task in TASKS.items()
    ]
    listed += [{"name": name, "from": "an installed package", "about": ""} for name in entry_points()]
    if as_json:
        print_json(listed)
        return
    for task in listed:
        first_sentence = task["about"].partition(". ")[0].rstrip(".")
        print(f"{task['name']:<16} {task['from']:<28} {first_sentence}".rstrip())
