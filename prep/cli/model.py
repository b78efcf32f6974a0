"""
The commands that ask a trained model: chat, evaluate.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from prep.cli.arguments import DataRoot, Json, TokenizerName, print_json, refuse, say
from prep.signals import INTERRUPTED, Interrupted

if TYPE_CHECKING:
    from train.distributed import Ranks

ROWS_AT_ONCE = 8
DEVICES = ("auto", "cpu", "cuda")
CHECKPOINT = "Directory of a checkpoint or run, or nanochat's tag, as d12."
Checkpoint = Annotated[str, Argument(help=CHECKPOINT)]
Checkpoints = Annotated[list[str], Argument(help=f"{CHECKPOINT} Several are shown side by side.")]
Step = Annotated[int | None, Option(help="Step of the checkpoint; the last by default.")]
Device = Annotated[str, Option(help="auto (CUDA if there is a GPU), cpu or cuda.")]


def chat(
    context: typer.Context,
    checkpoint: Checkpoint,
    prompt: Annotated[str | None, Option("--prompt", "-p", help="Print the answer to this and exit.")] = None,
    system: Annotated[str | None, Option(help="A system message at the beginning.")] = None,
    web: Annotated[bool, Option("--web", help="Serve a page to talk on, to this machine only.")] = False,
    port: Annotated[int, Option(min=0, max=65535, help="With --web: the port; 0 takes a free one.")] = 8000,
    max_tokens: Annotated[int, Option(min=1, help="Most tokens of an answer.")] = 512,
    temperature: Annotated[float, Option(min=0, help="0 always says what is likeliest.")] = 0.6,
    top_k: Annotated[int, Option(min=0, help="Choose among so many tokens; 0 for all.")] = 50,
    seed: Annotated[int, Option(min=0, help="Of the choices: the same seed gives the same answers.")] = 42,
    step: Step = None,
    tokenizer: TokenizerName = None,
    device: Device = "auto",
    as_json: Annotated[bool, Option("--json", help="With --prompt: print the answer and its parts as JSON.")] = False,
) -> None:
    """Talk to a checkpoint. In the terminal, on a local page (--web), or for one answer (--prompt)."""
    if web:
        refuse(context, "prompt system as_json", "with --web")
    else:
        refuse(context, "port", "without --web")
    if prompt is None:
        refuse(context, "as_json", "without --prompt")
        if not web and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ValueError("chat needs a terminal, and this is none: give --prompt TEXT for one answer, or --web.")
    check_device(device)
    from train.inference.chat import LIMIT, Chat, Screen, answer_once, talk
    from train.inference.generate import Sampling
    from train.inference.speaker import open_speaker

    speaker = open_speaker(checkpoint, step, tokenizer, device, say)
    talked = Chat(speaker, Sampling(temperature, top_k or None, seed), max_tokens)
    talked.clear(system)
    if web:
        from train.inference.web import serve

        serve(talked, port)
    elif prompt is None:
        with suppress(ImportError):
            import readline  # noqa: F401 (input() edits lines with it)
        talk(talked, Screen())
    else:
        answer_once(talked, prompt, None if as_json else Screen())
        if as_json:
            print_json(talked.result())
        elif talked.reader is not None and not talked.reader.ended:
            say(LIMIT)


def evaluate(
    context: typer.Context,
    checkpoints: Checkpoints,
    mixture: Annotated[str, Option(help="Its val entries are what is asked.")] = "sample",
    questions: Annotated[int, Option(min=1, help="Most questions of an entry.")] = 200,
    max_tokens: Annotated[int, Option(min=1, help="Most tokens of an answer.")] = 256,
    batch_size: Annotated[int, Option(min=1, help="Questions that are answered at once.")] = 16,
    data_root: DataRoot = None,
    shards: Annotated[Path | None, Option(help="A build: also bits per byte of its val split, by source.")] = None,
    eval_tokens: Annotated[int, Option(min=1, help="With --shards: tokens of it that are read.")] = 65_536,
    tokenizer: TokenizerName = None,
    step: Step = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Count a checkpoint's right answers, by task. Asks what a mixture holds out: spelling, counts, sums, GSM8K, MMLU."""
    with all_ranks(device) as ranks:
        check_device(device)
        if shards is None:
            refuse(context, "eval_tokens", "without --shards")
        from train.evaluate import evaluate_shards
        from train.inference.scores import summarise
        from train.inference.speaker import open_speaker
        from train.inference.tasks import ask_all, read_questions

        def tell(line: str) -> None:
            if ranks.rank == 0:
                say(line)

        asked, others = read_questions(mixture, questions, data_root)
        for name in others:
            tell(f"{name} has no answer that can be graded: not asked")
        if not asked:
            raise ValueError(
                f"mixture {mixture} has nothing to ask in [[val]]: add spelling, arithmetic, gsm8k or mmlu."
            )
        ranks.check_same(questions=repr(asked))
        summaries = {}
        for name in checkpoints:
            speaker = open_speaker(name, step, tokenizer, device, tell)
            key = f"{speaker.root}, step {speaker.step}"
            ranks.check_same(checkpoint=key)
            bits = {}
            if shards is not None:
                opened = speaker.open_shards(shards)
                bits["bits_per_byte"] = evaluate_shards(speaker.model, opened, eval_tokens, ROWS_AT_ONCE, ranks)
            answers = ask_all(speaker, asked, max_tokens, batch_size, ranks, tell)
            summaries[key] = summarise(answers) | bits
        if ranks.rank == 0:
            show_summaries(mixture, summaries, as_json)


def show_summaries(mixture: str, summaries: dict[str, dict[str, Any]], as_json: bool) -> None:
    from prep.inspect.terminal import make_console, make_table
    from train.inference.scores import table

    if as_json:
        print_json({"mixture": mixture, "checkpoints": summaries})
        return
    console = make_console(0)
    for column, key in enumerate(summaries, 1):
        console.print(f"{column}  {key}")
    shown = make_table("task (questions)", *map(str, range(1, len(summaries) + 1)), name_width=24)
    for row in table(summaries):
        shown.add_row(*row)
    console.print(shown)


@contextmanager
def all_ranks(device: str) -> Iterator["Ranks"]:
    """This process, or those that torchrun started: then an error of one ends them all, in one line."""
    from train.distributed import Ranks, choose_device, start_ranks

    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Ranks(0, 1, choose_device(device))
        return
    with start_ranks(device) as ranks:
        try:
            yield ranks
        except Interrupted:
            if ranks.rank == 0:
                say(INTERRUPTED)
            raise KeyboardInterrupt from None


def check_device(device: str) -> None:
    if device not in DEVICES:
        raise ValueError(f"--device {device!r} found, wanted {', '.join(DEVICES)}.")
