"""
Questions to a model in training: what its build holds out, asked of the weights as they stand.

    build.json's mixture, [[val]]  ->  questions  ->  {"accuracy_by_task": {"arithmetic": 0.96, ...}, "chat_core": 0.95}

The limits are those of `midprep evaluate` without flags: the step's checkpoint gets the same numbers there, float32 on a CPU
or bfloat16 on a GPU. Training does not notice: nothing is drawn by chance and no weight moves.
"""

from collections.abc import Callable
from pathlib import Path

from prep.build.record import find_inputs
from prep.chat.choose import read_template
from prep.shard import Shards
from prep.tokenizer.load import load_tokenizer
from train.distributed import Ranks
from train.inference.scores import summarise
from train.inference.speaker import Speaker
from train.inference.tasks import ask_all, read_questions
from train.model import GPT
from train.records import Record

QUESTIONS, MAX_TOKENS, BATCH_SIZE = 200, 256, 16  # as `midprep evaluate` has them
FLAG = "--eval-tasks-every"


def make_exam(shards: Shards, root: Path, model: GPT, ranks: Ranks) -> Callable[[int], Record]:
    """
    A function from the number of steps done to what goes into the step's record; all ranks call it. `root` is the run's.
    ValueError or FileNotFoundError for a build of which nobody knows what to ask, or that has nothing to ask.
    """
    try:
        inputs = find_inputs(shards.root, None, None, None)
    except FileNotFoundError:
        problem = f"{shards.root / 'build.json'} does not say what {shards.root} was built from"
        raise FileNotFoundError(f"{FLAG}: {problem}: copy it along, or leave the flag out") from None
    questions, others = read_questions(inputs.mixture, QUESTIONS, inputs.data_root, inputs.identity)
    if not questions:
        raise ValueError(f"{FLAG}: the mixture of {shards.root} has nothing to ask in [[val]]: leave the flag out")
    for name in others:
        ranks.say(f"{name} has no answer that can be graded: not asked")
    ranks.check_same(questions=repr(questions))
    tokenizer = load_tokenizer(shards.root)

    def exam(steps_done: int) -> Record:
        speaker = Speaker(root, steps_done, model, tokenizer, read_template(shards.manifest, shards.root))
        summary = summarise(ask_all(speaker, questions, MAX_TOKENS, BATCH_SIZE, ranks, lambda line: None))
        accuracies = {name: task["accuracy"] for name, task in summary["tasks"].items()}
        each = " ".join(f"{name} {accuracy:.1%}" for name, accuracy in accuracies.items())
        ranks.say(f"right answers after {steps_done} steps: {summary['chat_core']:.4f} over chance | {each}")
        return {"accuracy_by_task": accuracies, "chat_core": summary["chat_core"]}

    return exam
