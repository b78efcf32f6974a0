"""
The commands that look at a build, a run or a file: stats, plan, report, overlap, watch, try.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from prep.cli import arguments as arg
from prep.cli.arguments import print_json, refuse, say
from prep.signals import Interrupted

AGAINST = "Also compare with a file of chats, or a task (its test split); may be repeated."
TRIED = "JSON lines (also .gz, .zst), parquet, Arrow, a directory or a pattern; none for a task that makes its rows."
TRIED_TASK = "text, or your own task, as my_task.py:row, instead of chat; or one that makes its rows, as arithmetic."
TYPED = "keep, or reject rows in which others than the assistant spell a control or added token."
LAYOUT = "messages, sharegpt, gemini, pairs, strings, alpaca, completion or query; recognised by default."
COLUMNS = "theirs=ours: a field of the data, and what it holds; may be repeated."


def stats(
    context: typer.Context,
    root: arg.Build,
    other: Annotated[Path | None, Argument(help="A second build, to be shown beside it.")] = None,
    lengths: Annotated[bool, Option("--lengths", help="How long conversations are, by source.")] = False,
    times: Annotated[bool, Option("--build", help="Where the time of the build went (build.json).")] = False,
    as_json: arg.Json = False,
) -> None:
    """Show counts, shares, lengths and packing, by source. Of two builds: side by side, with what changed."""
    if other is not None:
        refuse(context, "lengths times", "with two builds")
        from prep.inspect.compare import compare, print_comparison

        (print_json if as_json else print_comparison)(compare(root, other))
    elif times:
        refuse(context, "lengths", "with --build")
        from prep.inspect.build_text import print_timings, read_timings

        (print_json if as_json else print_timings)(read_timings(root))
    else:
        from prep.inspect.stats import print_stats, read_stats

        statistics = read_stats(root)
        print_json(statistics) if as_json else print_stats(statistics, lengths)


def plan(
    root: arg.Build,
    split_name: arg.SplitName = "train",
    total_batch_size: arg.TotalBatch = None,
    device_batch_size: arg.DeviceBatch = None,
    world_size: Annotated[str, Option(help="Numbers of ranks to compare, as 1,2,4,8.")] = "1,2,4,8",
    epochs: arg.Epochs = 1.0,
    depth: Annotated[int | None, Option(help="Layers of a model from scratch; 12 by default.")] = None,
    base: Annotated[
        str | None, Option(help="The model of a checkpoint instead: a path, or nanochat's tag (d12).")
    ] = None,
    tokens_per_second: Annotated[float | None, Option(help="Measured speed of a rank; gives hours.")] = None,
    as_json: arg.Json = False,
) -> None:
    """Tell what a launch will do: steps, memory, hours, commands. Also targets and checkpoints, before anything runs."""
    from train.launch import plan_lines, read_plan

    try:
        world_sizes = [int(word) for word in world_size.split(",") if word.strip()]
    except ValueError:
        raise ValueError(f"--world-size {world_size!r} found, wanted whole numbers with commas, as 1,2,4,8.") from None
    planned = read_plan(
        root, split_name, total_batch_size, device_batch_size, world_sizes, epochs, depth, tokens_per_second, base
    )
    print_json(planned) if as_json else print("\n".join(plan_lines(planned)))


def report(
    context: typer.Context,
    paths: Annotated[list[Path], Argument(help="Directory of a finished build; or of a run, or of several.")],
    output: Annotated[Path, Option("-o", "--output", help="The page to write.")] = Path("report.html"),
    run: Annotated[list[Path] | None, Option(help="Directory of a run on this build; may be repeated.")] = None,
    split_name: arg.SplitName = "train",
    as_json: Annotated[bool, Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write one HTML page about a build, or several runs. It opens from disk and needs nothing else."""
    from prep.files import write_atomically
    from prep.report.page import make_page, make_runs_page, open_report
    from prep.text import size

    if output.is_dir():
        raise ValueError(f"-o {output} is a directory: give the file to write, as report.html.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"-o {output}: {output.parent} is not a directory: make it, or give a file elsewhere.")
    builds = [path for path in paths if (path / "manifest.json").is_file()]
    if builds and len(paths) > 1:
        raise ValueError(f"{builds[0]} is a build: give it alone, and its runs with --run; or give runs only.")
    is_run = len(paths) > 1 or paths[0].is_file() or any(paths[0].rglob("metrics.jsonl"))
    if is_run and not builds:
        refuse(context, "run split_name", "with runs instead of a build")
        page = make_runs_page(paths)
    else:
        page = make_page(open_report(paths[0], split_name), run or [])
    content = page.encode("utf-8", "backslashreplace")
    write_atomically(output, lambda file: file.write(content))
    if as_json:
        print_json({"page": str(output), "bytes": len(content)})
    else:
        print(f"{output}: {size(len(content))}")


def overlap(
    root: arg.Build,
    against: Annotated[list[str] | None, Option(help=AGAINST)] = None,
    data_root: arg.DataRoot = None,
    threshold: Annotated[float, Option(help="Share of a text's 13-grams that counts as a match.")] = 0.5,
    as_json: arg.Json = False,
) -> None:
    """Find what training asks of val, or of a benchmark. Copies and shared 13-grams, whatever case and punctuation."""
    from prep.inspect.overlap import find_overlap, overlap_lines

    overlaps = find_overlap(root, against or [], data_root, threshold)
    print_json(overlaps) if as_json else print("\n".join(overlap_lines(overlaps)))


def watch(
    run: Annotated[Path, Argument(help="Directory of a run, or its metrics.jsonl.")],
    once: Annotated[bool, Option("--once", help="Print one line and exit.")] = False,
    every: Annotated[float, Option(min=0, help="Seconds between readings.")] = 1.0,
    as_json: arg.Json = False,
) -> None:
    """Watch a run: loss, bits per byte, speed, time left. Ends with the run, or with Ctrl-C."""
    from train import watch as watching

    tail = watching.Tail(watching.find_metrics(run))
    if tail.path not in (run, run / tail.path.name):
        say(f"the newest of {run}: {tail.path}")
    if not (once or as_json) and sys.stdout.isatty():
        watching.live(tail, every)
        return
    with suppress(Interrupted):
        for records in [tail.read()] if once or as_json else watching.follow(tail, every):
            summary = watching.summary(tail.path, records)
            print_json(summary) if as_json else print(watching.line(summary), flush=True)


def try_rows(
    context: typer.Context,
    path: Annotated[Path | None, Argument(help=TRIED)] = None,
    rows: Annotated[int, Option("--rows", "-n", min=1, help="Number of rows.")] = 5,
    layout: Annotated[str | None, Option(help=LAYOUT)] = None,
    columns: Annotated[list[str] | None, Option(help=COLUMNS)] = None,
    roles: Annotated[list[str] | None, Option(help="theirs=ours, as teacher=assistant; may be repeated.")] = None,
    train_on: Annotated[str, Option(help=arg.TRAIN_ON)] = "all",
    consecutive: Annotated[str, Option(help="Consecutive messages of one role: reject or merge.")] = "reject",
    tools: Annotated[str, Option(help="What tool calls become: parts or text.")] = "parts",
    reasoning: Annotated[str | None, Option(help="What the assistant thinks: think (as text) or drop.")] = None,
    typed_tokens: Annotated[str, Option(help=TYPED)] = "keep",
    where: Annotated[list[str] | None, Option(help="field=value of rows that are kept; may be repeated.")] = None,
    task: Annotated[str | None, Option(help=TRIED_TASK)] = None,
    chat_template: arg.ChatTemplateName = None,
    mask: arg.Mask = None,
    empty_think: arg.EmptyThink = None,
    chat_date: arg.ChatDate = None,
    tokenizer: arg.TokenizerName = None,
    pattern: arg.Pattern = None,
    plain: arg.Plain = False,
    as_json: arg.Json = False,
) -> None:
    """Show the first rows of a file, or of a task, as rendered. The options are those of a mixture's entry."""
    from prep.chat.choose import choose_template
    from prep.conversations.layouts import Layout
    from prep.inspect.preview import made_rows, preview, render_rows
    from prep.inspect.terminal import Printer
    from prep.mixture.checks import READING, check_names, check_train_on, check_value
    from prep.tokenizer.load import load_tokenizer

    if task is not None:
        refuse(context, "layout columns roles train_on consecutive tools reasoning typed_tokens where", "with --task")
    column_names, role_names = read_pairs(columns, "--columns"), read_pairs(roles, "--roles")
    words = {"layout": layout, "consecutive": consecutive, "tools": tools, "reasoning": reasoning} | {
        "typed_tokens": typed_tokens
    }
    choice = arg.train_on_choice(train_on)
    check_train_on(choice, "--", "train-on")
    for key, word in words.items():
        check_value(key.replace("_", "-"), word, READING[key], "--")
    check_names(column_names, role_names, "--")
    options = Layout(
        columns=tuple(sorted(column_names.items())),
        roles=tuple(sorted(role_names.items())),
        train_on=choice or "all",
        consecutive=consecutive,
        tools=tools,
        reasoning=reasoning,
        typed_tokens=typed_tokens,
        where=tuple(sorted((name, (_value(text),)) for name, text in read_pairs(where, "--where").items())),
    )
    loaded = load_tokenizer(tokenizer, pattern)
    keys = {"chat_template": chat_template, "mask": mask, "empty_think": empty_think, "chat_date": chat_date}
    template = choose_template(keys, loaded)
    if path is not None:
        previewed = preview(path, rows, options, layout, task, template)
    elif task is not None:
        previewed = made_rows(rows, task)
    else:
        raise ValueError("no PATH given: give a file to read, or with --task a task that makes its rows.")
    examples = render_rows(previewed, loaded, template)
    if as_json:
        print_json({**previewed.describe(), "chat_template": template.describe(), "rows": list(examples)})
        return
    printer = Printer(plain)
    printer.say(previewed.summary(), "bold")
    if not template.is_default:
        printer.say(template.summary(), "dim")
    for example in examples:
        printer.example(example)


def _value(text: str) -> Any:
    """true, 3 and 0.5 are what JSON has for them; anything else is text"""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def read_pairs(pairs: list[str] | None, option: str) -> dict[str, str]:
    """["a=b"] -> {"a": "b"}"""
    for pair in pairs or []:
        if "=" not in pair:
            raise ValueError(f"{option} {pair} found, wanted theirs=ours, as in {option} human=user.")
    return dict(pair.split("=", 1) for pair in pairs or [])
