"""
The commands that look: show (what a build holds), plan (what a launch will do), report (a page), watch (a run).

They are plain functions that prep.cli.main registers. Each imports what it needs when it runs.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prep.cli.arguments import Build, Json, print_any_character, refuse, say
from prep.signals import Interrupted

if TYPE_CHECKING:
    from prep.inspect.show import ShownConversation, ShownRow

TotalBatch = Annotated[int | None, typer.Option(help="Tokens a step, as the trainer's; by default what it chooses.")]
DeviceBatch = Annotated[int | None, typer.Option(help="Rows of a micro-batch of one rank; by default as on a GPU.")]
Epochs = Annotated[float, typer.Option("--epochs", "--num-epochs", help="Times through the rows.")]
SplitName = Annotated[str, typer.Option("--split", help="Split of the build.")]


def show(
    context: typer.Context,
    root: Build,
    split_name: SplitName = "train",
    row: Annotated[int | None, typer.Option(help="A row of the split.")] = None,
    step: Annotated[int | None, typer.Option(help="What a training step trains, and which rank gets what.")] = None,
    conversation: Annotated[int | None, typer.Option(help="A conversation, by its number.")] = None,
    source: Annotated[str | None, typer.Option(help="Only conversations of this source.")] = None,
    random: Annotated[int | None, typer.Option(min=1, help="So many conversations at random.")] = None,
    seed: Annotated[int, typer.Option(help="Of --random.")] = 0,
    longest: Annotated[bool, typer.Option("--longest", help="The longest conversations.")] = False,
    find: Annotated[str | None, typer.Option(help="Conversations that hold this text.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most conversations to show; 1, with --find 10.")] = None,
    origin: Annotated[bool, typer.Option("--origin", help="Beside it, the source row as it came.")] = False,
    mixture: Annotated[str | None, typer.Option(help="With --origin: the mixture, if build.json does not say.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="With --origin: the local copy of the data sets.")] = None,
    identity: Annotated[Path | None, typer.Option(help="With --origin: the identity conversations.")] = None,
    total_batch_size: TotalBatch = None,
    device_batch_size: DeviceBatch = None,
    world_size: Annotated[int, typer.Option(help="With --step: number of ranks.")] = 1,
    rank: Annotated[int | None, typer.Option(min=0, help="With --step: only what this rank gets.")] = None,
    mode: Annotated[str, typer.Option(help="With --step: mid or sft.")] = "mid",
    epochs: Epochs = 1.0,
    run_seed: Annotated[int, typer.Option(help="With --step: the trainer's --seed, for epochs after the first.")] = 42,
    full: Annotated[bool, typer.Option("--full", help="With --step: the rows' text, too.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Brackets instead of colour.")] = False,
    as_json: Json = False,
) -> None:
    """Show conversations, a row or a step: what trains, what does not, where it is from."""
    from prep.inspect import search
    from prep.inspect import show as look
    from prep.inspect.origin import Origins, recorded_inputs
    from prep.inspect.terminal import Printer
    from prep.shard import open_shards
    from prep.shard.steps import plan_steps
    from prep.tokenizer.tokenizer import load_tokenizer
    from train.config import Config
    from train.schedule import LR_FRAC, lr_multiplier

    asked = {"--row": row, "--step": step, "--conversation": conversation, "--find": find, "--random": random}
    given = [name for name, value in {**asked, "--longest": longest or None}.items() if value is not None]
    _check_show(context, given, origin)
    split = open_shards(root).split(split_name)
    tokenizer = load_tokenizer(root)
    origins = Origins(split, recorded_inputs(root, mixture, data_root, identity)) if origin else None
    printer = _JsonPrinter() if as_json else Printer(plain)

    def with_origin(shown: "ShownConversation") -> "ShownConversation":
        return {**shown, "origin": origins.row(shown["conversation"])} if origins else shown

    def one_row(number: int) -> "ShownRow":
        shown = look.show_row(split, tokenizer, number)
        return {**shown, "documents": [with_origin(one) for one in shown["documents"]]}

    print_any_character()
    if step is not None:
        steps = plan_steps(split, mode, total_batch_size, epochs, run_seed)
        rate = lr_multiplier(step, steps.num_steps, Config().warmdown_ratio, LR_FRAC[mode])
        shown = look.show_step(split, steps, step, mode, world_size, device_batch_size, rate)
        if rank is not None and rank >= world_size:
            raise ValueError(f"--rank {rank} found, {world_size} ranks are 0 to {world_size - 1}: raise --world-size.")
        if rank is not None:
            shown["rows"] = [one for one in shown["rows"] if one["rank"] == rank]
        printer.step(shown)
        for one in shown["rows"] if full else ():
            if "num_tokens" in one:
                printer.row(one_row(one["row"]))
    elif row is not None or not (given or source):
        printer.row(one_row(row or 0))
    else:
        most = limit if limit is not None else random if random is not None else 10 if find is not None else 1
        if find is not None:
            docs: Iterable[int] = islice(search.find(split, tokenizer, find, source), most)
        elif conversation is not None:
            docs = [conversation]
        else:
            how = "random" if random is not None else "longest" if longest else "first"
            docs = search.select(split, source, how, most, seed)
        number = 0
        for doc in docs:
            number += 1
            printer.conversation(with_origin(look.show_conversation(split, tokenizer, doc)), find)
        if find is not None:
            more = f"; there may be more (--limit {2 * most})" if number == most else ""
            printer.say(f"{number} conversations of {split_name} hold {find!r}{more}")
        elif not number:
            printer.say(f"{split_name} has no conversation of {source!r}" if source else f"{split_name} is empty")
    if isinstance(printer, _JsonPrinter):
        printer.close()


class _JsonPrinter:
    """Prints the same as one JSON value: the row, the step, or {"conversations": [...]}"""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {"conversations": []}

    def conversation(self, shown: Any, found: str | None = None) -> None:
        self.value["conversations"].append(shown)

    def row(self, shown: Any) -> None:
        if "step" in self.value:
            self.value.setdefault("full_rows", []).append(shown)
        else:
            self.value = shown

    def step(self, shown: Any) -> None:
        self.value = shown

    def say(self, line: str) -> None:
        pass

    def close(self) -> None:
        print(json.dumps(self.value, ensure_ascii=False, indent=1))


def _check_show(context: typer.Context, given: list[str], origin: bool) -> None:
    """ValueError for options of `show` that do not go together; `given` are those that pick something"""
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} given, each picks something else: give one of them.")
    if not origin:
        refuse(context, "mixture data_root identity", "without --origin")
    if "--step" not in given:
        of_step = "total_batch_size device_batch_size world_size rank mode epochs run_seed full"
        refuse(context, of_step, "without --step")
    if "--random" not in given:
        refuse(context, "seed", "without --random")
    if {"--row", "--step", "--conversation"} & set(given):
        refuse(context, "source limit", f"with {given[0]}")


def plan(
    root: Build,
    split_name: SplitName = "train",
    total_batch_size: TotalBatch = None,
    device_batch_size: DeviceBatch = None,
    world_size: Annotated[str, typer.Option(help="Numbers of ranks to compare, as 1,2,4,8.")] = "1,2,4,8",
    epochs: Epochs = 1.0,
    depth: Annotated[int | None, typer.Option(help="Layers of the model; 12 by default.")] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(help="Of one rank, as measured; gives the hours of a run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a launch will do, before it: steps, targets, memory, checkpoints, hours, and the line to start it."""
    from train.launch import read_plan
    from train.launch_text import plan_lines

    try:
        world_sizes = [int(word) for word in world_size.split(",") if word.strip()]
    except ValueError:
        raise ValueError(f"--world-size {world_size!r} found, wanted whole numbers with commas, as 1,2,4,8.") from None
    planned = read_plan(
        root, split_name, total_batch_size, device_batch_size, world_sizes, epochs, depth, tokens_per_second
    )
    print(json.dumps(planned, indent=1) if as_json else "\n".join(plan_lines(planned)))


def report(
    root: Build,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("report.html"),
    run: Annotated[Path | None, typer.Option(help="Directory of a run on this build: its losses, too.")] = None,
    split_name: SplitName = "train",
    as_json: Annotated[bool, typer.Option("--json", help="Say what was written as JSON.")] = False,
) -> None:
    """One HTML page about a build, which opens from disk and needs nothing else."""
    from prep.files import write_atomically
    from prep.report.page import make_page, open_report
    from prep.text import size

    if output.is_dir():
        raise ValueError(f"-o {output} is a directory: give the file to write, as report.html.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"-o {output}: {output.parent} is no directory: make it, or give a file elsewhere.")
    page = make_page(open_report(root, split_name), run).encode("utf-8", "backslashreplace")
    write_atomically(output, lambda file: file.write(page))
    print(json.dumps({"page": str(output), "bytes": len(page)}) if as_json else f"{output}: {size(len(page))}")


def watch(
    run: Annotated[Path, typer.Argument(help="Directory of a run, or its metrics.jsonl.")],
    once: Annotated[bool, typer.Option("--once", help="A single look.")] = False,
    every: Annotated[float, typer.Option(min=0, help="Seconds between looks.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Watch a run: loss, bits per byte, speed, time left. Ends with the run, or with Ctrl-C."""
    from train import watch as watching

    tail = watching.Tail(watching.find_metrics(run))
    if tail.path not in (run, run / tail.path.name):
        say(f"the newest of {run}: {tail.path}")
    if not (once or as_json) and sys.stdout.isatty():
        watching.live(tail, every)
        return
    print_any_character()
    with suppress(Interrupted):
        for records in [tail.read()] if once or as_json else watching.follow(tail, every):
            found = watching.summary(tail.path, records)
            print(json.dumps(found, indent=1) if as_json else watching.line(found), flush=True)
