"""
What answers come to: shares with their 95 % intervals by task, and the mean over tasks, of one checkpoint or of several.

    arithmetic (150)     12.0% (7.7 to 18.2)    96.0% (91.5 to 98.2)
      format errors      31                     0
    mean over chance     0.120                  0.960

Intervals are Wilson's. The mean over tasks is of (accuracy - chance) / (1 - chance), as nanochat's ChatCORE.
"""

import math
from collections.abc import Iterable
from typing import Any

from train.inference.tasks import LETTERS, Answer

CHANCE = {"exact": 0.0, "####": 0.0, "letter": 1 / len(LETTERS)}
FORMAT_ERRORS = ("not ended", "wrong tokens", "unbalanced parts", "too long")


def interval(num_right: int, num: int) -> tuple[float, float]:
    """
    Wilson's 95 % interval of a share

    >>> [round(bound, 3) for bound in interval(90, 100)]
    [0.826, 0.945]
    """
    z, share = 1.96, num_right / num
    middle, spread = share + z * z / (2 * num), z * math.sqrt(share * (1 - share) / num + (z / (2 * num)) ** 2)
    low, high = ((middle + sign * spread) / (1 + z * z / num) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def summarise(answers: Iterable[Answer]) -> dict[str, Any]:
    """{"tasks": {name: counts and shares}, "chat_core": the mean over tasks, 0 for chance and 1 for all right}"""
    by_task: dict[str, list[Answer]] = {}
    for answer in answers:
        by_task.setdefault(answer.question.task, []).append(answer)
    tasks = {name: summarise_task(by_task[name]) for name in sorted(by_task)}
    scores = [(task["accuracy"] - task["chance"]) / (1 - task["chance"]) for task in tasks.values()]
    return {"tasks": tasks, "chat_core": sum(scores) / len(scores) if scores else None}


def summarise_task(answers: list[Answer]) -> dict[str, Any]:
    num, num_right = len(answers), sum(answer.right for answer in answers)
    low, high = interval(num_right, num)
    beside = {
        name: sum(values) / num
        for name in ("written", "said")
        if None not in (values := [getattr(answer, name) for answer in answers])
    }
    return {
        "questions": num,
        "right": num_right,
        "accuracy": num_right / num,
        "low": low,
        "high": high,
        "chance": CHANCE[answers[0].question.how],
        **beside,
        "malformed": sum(bool(answer.errors) for answer in answers),
        "format_errors": {name: sum(name in answer.errors for answer in answers) for name in FORMAT_ERRORS},
    }


def table(summaries: dict[str, dict[str, Any]]) -> list[list[str]]:
    """{checkpoint: summary} -> rows of a table: a task, and of each checkpoint the accuracy with its interval"""
    rows = []
    for name in next(iter(summaries.values()))["tasks"]:
        tasks = [summary["tasks"][name] for summary in summaries.values()]
        rows.append([f"{name} ({tasks[0]['questions']:,})", *map(share_text, tasks)])
        for key, about in (("written", "count written out"), ("said", "letter said")):
            if key in tasks[0]:
                rows.append([f"  {about}", *(f"{task[key]:.1%}" for task in tasks)])
        if any(task["malformed"] for task in tasks):
            rows.append(["  format errors", *(f"{task['malformed']:,}" for task in tasks)])
    rows.append(["mean over chance", *(f"{summary['chat_core']:.3f}" for summary in summaries.values())])
    bits = [summary["bits_per_byte"] for summary in summaries.values() if "bits_per_byte" in summary]
    if bits:
        rows.append(["bits per byte", *(f"{measured['all']:.4f}" for measured in bits)])
        for name in bits[0]["by_source"]:
            rows.append([f"  {name}", *(f"{measured['by_source'][name]:.4f}" for measured in bits)])
    return rows


def share_text(task: dict[str, Any]) -> str:
    """
    >>> share_text({"accuracy": 0.9, "low": 0.826, "high": 0.945})
    '90.0% (82.6 to 94.5)'
    """
    return f"{task['accuracy']:.1%} ({100 * task['low']:.1f} to {100 * task['high']:.1f})"
