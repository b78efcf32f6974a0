"""
Distinct chats for measurements: random words as often as words of a language are, some numbers, code, newlines and marks,
reasoning, calls and their answers, and tools that each batch of chats has in common.

    system?  user  assistant (reasoning, calls)  tool  tool  assistant  user  assistant        about 2 kB
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from prep.tasks.words import word_list

BATCH = 500  # chats that have tools in common, as apply_chat_template takes them
ODD = [
    "don't",
    "x=3.14e-5;",
    "(see below),",
    "\n\n",
    "\n",
    "1,234",
    "étude",
    "naïve",
    "日本語の",
    "cafe\u0301",
    "🙂",
    "  ",
    "- ",
]
DECOMPOSED = "cafe\u0301"  # in every other chat or so: NFC changes it
COMMON = 40_000  # words; the n-th is met about as often as 1 / n
Chat = dict[str, Any]


class Writer:
    """Texts by a seed"""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        words = word_list()
        self.words = [words[int(i)].as_py() for i in self.rng.choice(len(words), COMMON, replace=False)]

    def text(self, low: int, high: int) -> str:
        num = int(self.rng.integers(low, high))
        words = [self.words[int(COMMON**share) - 1] for share in self.rng.random(num)]
        for place in np.flatnonzero(self.rng.random(num) < 0.02).tolist():
            words[place] = ODD[int(self.rng.integers(len(ODD)))]
        for place in np.flatnonzero(self.rng.random(num) < 0.08).tolist():
            words[place] += ".?!,:"[int(self.rng.integers(5))]
        if self.happens(num / 1000):
            words[0] = DECOMPOSED
        return " ".join(words)

    def happens(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def call(self) -> dict[str, Any]:
        arguments = {"city": self.text(1, 3), "days": int(self.rng.integers(10)), "units": ["C", self.text(1, 2)]}
        return {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}

    def turn(self, with_tools: bool, with_reasoning: bool) -> Iterator[dict[str, Any]]:
        """A question, and what comes before its answer"""
        yield {"role": "user", "content": self.text(3, 40)}
        if with_tools and self.happens(0.5):
            calls = [self.call() for _ in range(1 + self.happens(0.3))]
            said = self.text(3, 20) if self.happens(0.5) else ""
            thought = {"reasoning_content": self.text(5, 40)} if with_reasoning and self.happens(0.5) else {}
            yield {"role": "assistant", "content": said, **thought, "tool_calls": calls}
            for _ in calls:
                yield {"role": "tool", "content": json.dumps({"weather": self.text(3, 40)})}
        thought = {"reasoning_content": self.text(10, 60)} if with_reasoning and self.happens(0.4) else {}
        yield {"role": "assistant", "content": self.text(10, 70), **thought}

    def chat(self, with_tools: bool, with_reasoning: bool) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": self.text(5, 40)}] if self.happens(0.5) else []
        turns = [self.turn(with_tools, with_reasoning) for _ in range(int(self.rng.integers(1, 4)))]
        return [*system, *(message for turn in turns for message in turn)]

    def tools(self) -> list[dict[str, Any]]:
        properties = {name: {"type": "string", "description": self.text(4, 12)} for name in ("city", "days", "units")}
        about = {"description": self.text(5, 20), "parameters": {"type": "object", "properties": properties}}
        return [{"type": "function", "function": {"name": "get_weather", **about}}]


def write_chats(num: int, with_tools: bool, with_reasoning: bool, seed: int = 0) -> list[Chat]:
    """Rows with messages, and tools in every second batch of BATCH"""
    writer, rows = Writer(seed), list[Chat]()
    for start in range(0, num, BATCH):
        tools = {"tools": writer.tools()} if with_tools and start // BATCH % 2 == 0 else {}
        rows += [{"messages": writer.chat(with_tools, with_reasoning), **tools} for _ in range(min(BATCH, num - start))]
    return rows
