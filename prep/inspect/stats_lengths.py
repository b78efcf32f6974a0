"""
How long conversations are, and where their shares mislead.

    lengths          16         64        256      1,024      each mark is a factor of the square root of 2
    simple_spelling    █▂▁
    spelling_bee            ▁▄█▇▅▂▁▁

    mmlu: 11.8% of conversations, 7.1% of tokens, 0.1% of trained tokens: more than 3x apart
"""

from typing import Any

import numpy as np

from prep.shard import Split

MARKS = " ▁▂▃▄▅▆▇█"
UNEVEN = 3.0
MEASURES = {"conversations": "conversations", "total_tokens": "tokens", "trainable_tokens": "trained tokens"}


def histogram(split: Split) -> dict[str, Any]:
    """
    {"edges": (B + 1), "sources": [(B,) documents of each source by their tokens], "shortest", "longest"}: edges[b] <= tokens <
    edges[b + 1], two bins to a doubling
    """
    width, number = split.max_seq_len + 2, len(split.entry["sources"])
    key = split.docs["source"].astype(np.int64) * width + split.docs["length"]
    counts = np.bincount(key, minlength=number * width).reshape(number, width)
    powers = np.arange(2 * int(width).bit_length() + 1)
    edges = np.unique(np.ceil(2 ** (powers / 2)).astype(np.int64))
    bins = np.searchsorted(edges, np.arange(width), side="right") - 1
    out = np.zeros((number, len(edges)), dtype=np.int64)
    np.add.at(out.T, bins[1:], counts.T[1:])  # nothing has no tokens
    used = np.flatnonzero(out.sum(axis=0))
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
    there = np.flatnonzero(counts.sum(axis=0)).tolist() or [0]
    return {
        "edges": edges[first : last + 2].tolist(),
        "sources": out[:, first : last + 1].tolist(),
        "shortest": there[0],
        "longest": there[-1],
    }


def marks(counts: list[int]) -> str:
    """
    Counts as a line of bars; what is there at all is seen

    >>> marks([0, 1, 50, 100])
    ' ▁▄█'
    """
    most = max(counts, default=0)
    return "".join(MARKS[max(1, round(8 * n / most))] if n else " " for n in counts)


def length_lines(split: dict[str, Any]) -> list[str]:
    """A line of bars for each source of a split, over an axis of tokens"""
    found = split["histogram"]
    edges, names = found["edges"][:-1], [source["name"] for source in split["sources"]]
    width = max(map(len, [*names, "lengths"])) + 2
    axis = ""
    for place, edge in enumerate(edges):
        if edge & (edge - 1) == 0 and place >= len(axis):
            axis = axis.ljust(place) + f"{edge:,} "
    lines = [f"  {'lengths':<{width}}{axis.rstrip()}"]
    lines += [f"  {name:<{width}}{marks(one).rstrip()}" for name, one in zip(names, found["sources"], strict=True)]
    return [*lines, ""]


def all_lengths_line(split: dict[str, Any]) -> str:
    """One line of bars for the whole split"""
    found = split["histogram"]
    total = np.sum(found["sources"], axis=0).tolist()
    return f"  lengths {marks(total)} {found['shortest']:,} to {found['longest']:,} tokens (--lengths: by source)"


def uneven_lines(split: dict[str, Any]) -> list[str]:
    """Sources whose shares of conversations, tokens and trained tokens differ by more than UNEVEN"""
    lines = []
    for source in split["sources"]:
        shares = [source["shares"][key] for key in MEASURES]
        if max(shares) > UNEVEN * min(shares):
            parts = ", ".join(f"{source['shares'][key]:.1%} of {name}" for key, name in MEASURES.items())
            lines.append(f"  {source['name']}: {parts}: more than {UNEVEN:.0f}x apart")
    return lines
