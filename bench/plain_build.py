"""
What a build is compared with: the plain loop, and encoding alone, on the same rows.

    plain     for every conversation: tiktoken, a list of ids and one of the mask; numpy at the end
    encode    one engine over all texts, which lie ready in Arrow arrays; nothing is placed, packed or written

    python bench/plain_build.py plain MIXTURE --data-root DIR        {"seconds": 8.1, "cpu": 8.0, "tokens": 24872876}

Both get their rows ready-made in memory, which is not timed: reading, generating and checking them is work that only the
build does. With --wait a process says "ready" before it starts the clock and waits for a line, so that two can start as
one.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from prep.arrange.arrange import normalize  # noqa: E402
from prep.build.job import make_job  # noqa: E402
from prep.build.options import BuildOptions  # noqa: E402
from prep.conversations.conversation import ASSISTANT, KINDS, USER, Conversations  # noqa: E402
from prep.encode.encode import Encoder  # noqa: E402
from prep.mixture.mixture import load_mixture  # noqa: E402
from prep.render.blocks import read_batches  # noqa: E402
from prep.tokenizer.load import load_tokenizer  # noqa: E402
from prep.tokenizer.tokenizer import Tokenizer  # noqa: E402

Conversation = list[dict[str, Any]]  # messages; content is a string, or for assistants a list of parts
MAX_SEQ_LEN = 2048


class PlainRenderer:
    """One conversation at a time, as a training script would do it"""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.encoding = tokenizer.encoding
        self.special = tokenizer.special_tokens

    def __call__(self, conversation: Conversation) -> tuple[list[int], list[int]]:
        """Messages -> ids and mask, at most MAX_SEQ_LEN of them"""
        ids: list[int] = []
        mask: list[int] = []

        def add(tokens: list[int], trained: int) -> None:
            ids.extend(tokens)
            mask.extend([trained] * len(tokens))

        def fenced(name: str, text: str, trained: int) -> None:
            inner = self.encoding.encode_ordinary(text)
            add([self.special[f"<|{name}_start|>"], *inner, self.special[f"<|{name}_end|>"]], trained)

        add([self.special["<|bos|>"]], 0)
        for message in conversation:
            content = message["content"]
            if message["role"] == "user":
                fenced("user", content, 0)
                continue
            add([self.special["<|assistant_start|>"]], 0)
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                if part["type"] == "text":
                    add(self.encoding.encode_ordinary(part["text"]), 1)
                elif part["type"] == "python":
                    fenced("python", part["text"], 1)
                else:
                    fenced("output", part["text"], 0)
            add([self.special["<|assistant_end|>"]], 1)
        return ids[:MAX_SEQ_LEN], mask[:MAX_SEQ_LEN]


def plain_loop(
    conversations: list[Conversation], tokenizer: Tokenizer
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """All conversations one after the other -> flat tokens and mask"""
    render = PlainRenderer(tokenizer)
    tokens: list[npt.NDArray[np.uint16]] = []
    masks: list[npt.NDArray[np.uint8]] = []
    for conversation in conversations:
        ids, mask = render(conversation)
        tokens.append(np.array(ids, dtype=np.uint16))
        masks.append(np.array(mask, dtype=np.uint8))
    return np.concatenate(tokens), np.concatenate(masks)


# ---- the same rows ----


def batches_of(mixture: str, data_root: Path | None, identity: Path | None) -> Iterator[Conversations]:
    """Every conversation that a build of the mixture renders, checked, in blocks"""
    job = make_job(load_mixture(mixture), load_tokenizer(), BuildOptions(quiet=True), data_root, identity)
    for item in job.items():
        for batch in read_batches(item, item.bounds[0], item.bounds[-1]):
            yield normalize(batch)


def to_messages(batch: Conversations) -> list[Conversation]:
    """The batch as Python objects; rejected rows are left out"""
    texts = batch.texts.to_pylist()
    out = []
    for c in np.flatnonzero(np.diff(batch.messages)):
        conversation: Conversation = []
        for m in range(batch.messages[c], batch.messages[c + 1]):
            a, b = batch.parts[m], batch.parts[m + 1]
            parts = [{"type": KINDS[batch.kinds[p]], "text": texts[p]} for p in range(a, b)]
            if batch.roles[m] == USER or (len(parts) == 1 and parts[0]["type"] == "text"):
                role = "assistant" if batch.roles[m] == ASSISTANT else "user"
                conversation.append({"role": role, "content": parts[0]["text"]})
            else:
                conversation.append({"role": "assistant", "content": parts})
        out.append(conversation)
    return out


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Prepare, wait for the start, and time one of the two"""
    tokenizer, work = load_tokenizer(), list(batches_of(args.mixture, args.data_root, args.identity))
    if args.what == "plain":
        conversations = [conversation for batch in work for conversation in to_messages(batch)]
    else:
        encode = Encoder(tokenizer, args.encoder)
        texts = [batch.texts for batch in work[args.part :: args.of]]
    if args.wait:
        print("ready", flush=True)
        sys.stdin.readline()
    start, cpu = time.perf_counter(), time.process_time()
    if args.what == "plain":
        num_tokens = len(plain_loop(conversations, tokenizer)[0])
    else:
        num_tokens = sum(len(encode(batch)[0]) for batch in texts)
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "tokens": num_tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["plain", "encode"])
    parser.add_argument("mixture")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--identity", type=Path)
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--wait", action="store_true")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
