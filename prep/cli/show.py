"""
The command `midprep show`: conversations, a row or a training step.
"""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from prep.cli import arguments as arg
from prep.cli.arguments import print_json, refuse

if TYPE_CHECKING:
    from prep.inspect.show import ShownConversation, ShownRow
    from prep.inspect.terminal import Printer
    from prep.shard import Split

OF_STEP = "total_batch_size device_batch_size world_size rank mode epochs run_seed full"


def show(
    context: typer.Context,
    root: arg.Build,
    split_name: arg.SplitName = "train",
    row: Annotated[int | None, Option(help="A row of the split.")] = None,
    step: Annotated[int | None, Option(help="What a training step trains, and which rank gets what.")] = None,
    conversation: Annotated[int | None, Option(help="A conversation, by its number.")] = None,
    source: Annotated[str | None, Option(help="Only conversations of this source.")] = None,
    random: Annotated[int | None, Option(min=1, help="Number of random conversations.")] = None,
    seed: Annotated[int, Option(help="With --random: the seed.")] = 0,
    longest: Annotated[bool, Option("--longest", help="The longest conversations.")] = False,
    find: Annotated[str | None, Option(help="Conversations that contain this text.")] = None,
    limit: Annotated[
        int | None, Option(min=1, help="Most conversations to show; by default 1, with --find 10.")
    ] = None,
    origin: Annotated[bool, Option("--origin", help="Also show the source row, unchanged.")] = False,
    mixture: arg.Mixture = None,
    data_root: arg.DataRoot = None,
    identity: arg.Identity = None,
    total_batch_size: arg.TotalBatch = None,
    device_batch_size: arg.DeviceBatch = None,
    world_size: Annotated[int, Option(help="With --step: number of ranks.")] = 1,
    rank: Annotated[int | None, Option(min=0, help="With --step: only the rows of this rank.")] = None,
    mode: Annotated[str, Option(help="With --step: mid or sft.")] = "mid",
    epochs: arg.Epochs = 1.0,
    run_seed: Annotated[int, Option(help="With --step: the trainer's --seed, for epochs after the first.")] = 42,
    full: Annotated[bool, Option("--full", help="With --step: also the text of its rows.")] = False,
    plain: arg.Plain = False,
    as_json: arg.Json = False,
) -> None:
    """Show conversations, a row or a step, with their loss tokens."""
    from prep.build.record import find_inputs
    from prep.inspect import search
    from prep.inspect.origin import Origins
    from prep.inspect.show import show_conversation, show_row
    from prep.inspect.terminal import Printer
    from prep.shard import open_shards
    from prep.tokenizer.load import load_tokenizer

    selected = {"--row": row, "--step": step, "--conversation": conversation, "--find": find, "--random": random}
    given = [name for name, value in {**selected, "--longest": longest or None}.items() if value is not None]
    check_options(context, given, origin)
    split, tokenizer = open_shards(root).split(split_name), load_tokenizer(root)
    origins = Origins(split, find_inputs(root, mixture, data_root, identity)) if origin else None
    printer = Printer(plain)

    def with_origin(shown: "ShownConversation") -> "ShownConversation":
        return {**shown, "origin": origins.row(shown["conversation"])} if origins else shown

    def whole_row(number: int) -> "ShownRow":
        shown = show_row(split, tokenizer, number)
        return {**shown, "documents": [with_origin(document) for document in shown["documents"]]}

    if step is not None:
        shown = planned_step(split, step, mode, total_batch_size, epochs, run_seed, world_size, device_batch_size, rank)
        rows = [whole_row(place["row"]) for place in shown["rows"] if full and "num_tokens" in place]
        if as_json:
            print_json(shown | ({"full_rows": rows} if rows else {}))
            return
        printer.step(shown)
        for full_row in rows:
            printer.row(full_row)
    elif row is not None or not (given or source):
        (print_json if as_json else printer.row)(whole_row(row or 0))
    else:
        most = limit or random or (10 if find is not None else 1)
        docs: Iterable[int] = [] if conversation is None else [conversation]
        if find is not None:
            docs = islice(search.find(split, tokenizer, find, source), most)
        elif conversation is None:
            how = "random" if random is not None else "longest" if longest else "first"
            docs = search.select(split, source, how, most, seed)
        conversations = (with_origin(show_conversation(split, tokenizer, doc)) for doc in docs)
        if as_json:
            print_json({"conversations": list(conversations)})
            return
        number = print_conversations(printer, conversations, find)
        if find is not None:
            more = f"; there may be more (--limit {2 * most})" if number == most else ""
            printer.say(f"{number} conversations of {split_name} contain {find!r}{more}")
        elif not number:
            printer.say(f"{split_name} has no conversation" + (f" of {source!r}" if source else ""))


def print_conversations(printer: "Printer", shown: Iterable["ShownConversation"], highlight: str | None) -> int:
    """Print them as they come; returns how many there were"""
    number = 0
    for conversation in shown:
        printer.conversation(conversation, highlight)
        number += 1
    return number


def check_options(context: typer.Context, given: list[str], origin: bool) -> None:
    """ValueError for options that do not go together; `given` are those that select something"""
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} given, each selects something else: give one of them.")
    if not origin:
        refuse(context, "mixture data_root identity", "without --origin")
    if "--step" not in given:
        refuse(context, OF_STEP, "without --step")
    if "--random" not in given:
        refuse(context, "seed", "without --random")
    if {"--row", "--step", "--conversation"} & set(given):
        refuse(context, "source limit", f"with {given[0]}")


def planned_step(
    split: "Split", step: int, mode: str, total_batch_size: int | None, epochs: float, seed: int, world_size: int,
    device_batch_size: int | None, rank: int | None,
) -> dict[str, Any]:  # fmt: skip
    """A step as the trainer plans it, with its learning rate; the rows of one rank, or of all"""
    from prep.inspect.show import show_step
    from prep.shard.steps import plan_steps
    from train.config import Config
    from train.schedule import LR_FRAC, lr_multiplier

    steps = plan_steps(split, mode, total_batch_size, epochs, seed)
    rate = lr_multiplier(step, steps.num_steps, Config().warmdown_ratio, LR_FRAC[mode])
    shown = show_step(split, steps, step, mode, world_size, device_batch_size, rate)
    if rank is not None and rank >= world_size:
        raise ValueError(f"--rank {rank} found, {world_size} ranks are 0 to {world_size - 1}: raise --world-size.")
    return shown | {"rows": [place for place in shown["rows"] if rank in (None, place["rank"])]}
