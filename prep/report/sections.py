"""
What the sections of a report draw and tell, as values for the template: shapes, labels, lines of tables.

Legend: K sources, S steps, P bins of position.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from prep.arrays import Array
from prep.inspect.show import ShownConversation
from prep.report.charts import Plot, Shape, Tick, colour, line, log_places, log_ticks, steps_area, strip
from prep.report.numbers import MaskShare
from prep.shard import Manifest
from prep.shard.mixing import Mixing

SHOWN_CHARACTERS = 2500  # of a sample conversation
HEAT_COLUMNS = 160
FEW_TOKENS = 30  # fewer at a position give no share


@dataclass(frozen=True)
class LengthPlots:
    shapes: list[str]  # of each source, to its own height
    ticks: list[Tick]  # of their common axis


def length_plots(histogram: dict[str, Any]) -> LengthPlots:
    edges = np.array(histogram["edges"])
    density = np.array(histogram["sources"]) / np.diff(np.log2(edges))
    places = log_places(edges, edges)
    shapes = [steps_area(places, heights / max(heights.max(), 1e-9)) for heights in density]
    return LengthPlots(shapes, log_ticks(edges))


@dataclass(frozen=True)
class MaskPlot:
    plot: Plot
    half_from: int | None  # position from which on half of the tokens are loss tokens


def mask_plot(sample: MaskShare) -> MaskPlot | None:
    """None where no position has enough tokens"""
    middle = log_places(sample.edges, sample.edges)
    middle = (middle[1:] + middle[:-1]) / 2
    tokens = np.vstack([sample.tokens, sample.tokens.sum(axis=0)])  # (K + 1, P), of all sources last
    trained = np.vstack([sample.trained, sample.trained.sum(axis=0)])
    share = np.divide(trained, tokens, out=np.full(tokens.shape, np.nan), where=tokens >= FEW_TOKENS)
    *by_source, whole = share
    if not np.isfinite(whole).any():
        return None
    shapes = [Shape(line(middle, row), f"stroke:{colour(k)}", "line") for k, row in enumerate(by_source)]
    shapes.append(Shape(line(middle, whole), kind="line main"))
    label = "Share of loss tokens by position in the conversation: " + ", ".join(
        f"{part:.0%} from position {edge:,}"
        for edge, part in zip(sample.edges.tolist(), whole.tolist(), strict=False)
        if np.isfinite(part)
    )
    half = np.flatnonzero(np.nan_to_num(whole) >= 0.5)
    plot = Plot(
        [shape for shape in shapes if shape.d],
        label,
        log_ticks(sample.edges),
        [(i / 4, f"{i * 25}%") for i in range(5)],
    )
    return MaskPlot(plot, int(sample.edges[half[0]]) if len(half) else None)


@dataclass(frozen=True)
class Heat:
    shares: list[list[float]]  # of each source in each column, which is one step or several
    averages: list[float]
    strips: list[list[tuple[str, str]]]  # half a shade is the average
    steps_per_column: int
    num_steps: int
    mixing: Mixing


def heat(step_tokens: Array, mixing: Mixing) -> Heat:
    """step_tokens (S, K): the share of each source along the steps"""
    num_steps = len(step_tokens)
    width = -(-num_steps // HEAT_COLUMNS)
    binned = np.add.reduceat(step_tokens, np.arange(0, num_steps, width), axis=0)  # (columns, K)
    shares = (binned / np.maximum(binned.sum(axis=1, keepdims=True), 1)).T
    averages = step_tokens.sum(axis=0) / step_tokens.sum()
    strips = [strip(values) for values in shares / np.maximum(averages, 1e-12)[:, None] / 2]
    return Heat(shares.tolist(), averages.tolist(), strips, width, num_steps, mixing)


# ---- text ----


class Piece(NamedTuple):
    text: str
    tag: str  # i: a special token; mark: loss tokens; "": context
    trained: bool


BOS = Piece("bos", "i", False)


def turns(shown: ShownConversation) -> list[list[Piece]]:
    """A conversation in blocks, one for each message; <|bos|> is in that of the first"""
    blocks, left = [list[Piece]()], SHOWN_CHARACTERS
    for segment in shown["segments"]:
        text, trained = segment["text"], segment["trained"]
        if segment["special"]:
            if text in ("<|user_start|>", "<|assistant_start|>") and blocks[-1] not in ([], [BOS]):
                blocks.append([])
            blocks[-1].append(Piece(text.strip("<|>"), "i", trained))
            continue
        blocks[-1].append(Piece(text[:left], "mark" if trained else "", trained))
        left -= len(text)
        if left <= 0:
            blocks.append([Piece("… the rest is left out here; midprep show has all of it", "", False)])
            break
    return blocks


def manifest_lines(manifest: Manifest, key: str) -> list[list[str]]:
    """What the manifest holds under "duplicates" or "overlap", as (where, what, value) lines"""
    lines = []
    for name, split in manifest["splits"].items():
        lines += [[name, *line] for line in flatten(split.get(key))]
    for name, split in manifest["splits"].items():
        for source in split["sources"]:
            lines += [[f"{name}, {source['name']}", *line] for line in flatten(source.get(key))]
    return lines


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A value of the manifest as (what, value) lines"""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{name} {key}".strip())
    elif isinstance(value, list):
        for number, inner in enumerate(value[:20], start=1):
            yield from flatten(inner, f"{name} {number}".strip())
    elif value is not None:
        yield name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def source_origin(source: dict[str, Any]) -> list[str]:
    """Where an entry of the mixture is from: place, rows, revision, contents"""
    place = " ".join(str(source[key]) for key in ("task", "subset", "split", "path") if source.get(key))
    start, stop = source.get("start") or 0, source.get("stop")
    rows = f"{start:,} to {f'{stop:,}' if stop is not None else 'the last'}" if start or stop is not None else "all"
    if source.get("size"):
        rows = f"{source['size']:,}"
    return [place, rows, (source.get("revision") or "–")[:12], source["sha256"][:12]]
