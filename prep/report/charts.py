"""
Shapes of a report's charts, as paths of SVG in a box that stretches with the page; the template draws them.

    plot     .-----------.     a box of 1000 x 100, y down, is stretched to its place; strokes keep their width
    100% ....|   __..--''|     ticks are positioned in percent around it, in HTML, so that they stay legible on a phone
      0% ....|--'________|
             1   16   256

Made here and not by a plotting library: the page needs seven kinds of marks, no library that can be inlined is under
2 MB with all of them and legible in both colour schemes, and so the page needs no script at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from prep.arrays import Array

NUM_COLOURS = 10
LEVELS = 8  # shades of a strip
TITLE, BAR, GAP = 26, 36, 72  # heights of share bars; a title stands over its bar
Tick = tuple[float, str]  # 0 .. 1 along the axis, label


@dataclass(frozen=True)
class Shape:
    d: str
    style: str = ""
    kind: str = ""  # class
    title: str = ""


@dataclass(frozen=True)
class Plot:
    shapes: list[Shape]
    label: str  # for those who cannot see it
    x: Sequence[Tick] = ()
    y: Sequence[Tick] = ()


@dataclass(frozen=True)
class Label:
    """A source's name and share within a bar, in percent of the width and in pixels from the top"""

    text: str
    left: float
    width: float
    top: int


def percent(share: float) -> str:
    """
    >>> percent(0.00008), percent(0.0123), percent(1)
    ('< 0.1%', '1.2%', '100%')
    """
    if 0 < share < 0.0005:
        return "< 0.1%"
    return f"{share:.1%}" if share < 0.9995 else "100%"


def colour(number: int) -> str:
    return f"var(--c{number % NUM_COLOURS})"


def line(x: Array, y: Array) -> str:
    """A line through points of 0 .. 1; y up. It is broken where y is not a number."""
    points, pen = [], "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(b):
            points.append(f"{pen}{1000 * a:.1f} {100 - 100 * b:.2f}")
        pen = "L" if np.isfinite(b) else "M"
    return "".join(points)


def steps_area(x: Array, y: Array) -> str:
    """A histogram as one shape: edges x (n + 1,) and heights y (n,), 0 .. 1"""
    steps = zip(y.tolist(), x[1:].tolist(), strict=True)
    return f"M{1000 * x[0]:.1f} 100" + "".join(f"V{100 - 100 * h:.2f}H{1000 * edge:.1f}" for h, edge in steps) + "V100Z"


def log_ticks(edges: Array) -> list[Tick]:
    """Powers of four along a logarithmic axis"""
    values = [4**i for i in range(20) if edges[0] <= 4**i <= edges[-1]]
    return [(float(place), f"{value:,}") for place, value in zip(log_places(edges, values), values, strict=True)]


def log_places(edges: Array, values: Sequence[int] | Array) -> Array:
    """(n,) values -> 0 .. 1 on a logarithmic axis from the first of the edges to the last"""
    places: Array = np.log2(np.asarray(values) / edges[0]) / np.log2(edges[-1] / edges[0])
    return places


def strip(values: Array) -> list[tuple[str, str]]:
    """values (n,) 0 .. 1 as (path, opacity) in a box of n x 1; neighbours of one shade are one shape"""
    level = np.clip(np.rint(values * LEVELS), 0, LEVELS).astype(int)
    bounds = [0, *(np.flatnonzero(np.diff(level)) + 1).tolist(), len(level)]
    return [(f"M{a} 0H{b}V1H{a}Z", f"{level[a] / LEVELS:g}") for a, b in pairwise(bounds) if level[a]]


# ---- shares: three bars with bands between them ----


def share_shapes(names: Sequence[str], titles: Sequence[str], shares: Array) -> list[Shape]:
    """
    shares (3, K), each row summing to 1: a bar for each row, and a band from each source's part of one bar to its part
    of the next, so that what shrinks and grows can be followed.
    """
    edges = bar_edges(shares)
    shapes = []
    for bar, title in enumerate(titles):
        top, bottom, next_top = bar_top(bar), bar_top(bar) + BAR, bar_top(bar + 1)
        middle = (bottom + next_top) / 2
        for k, name in enumerate(names):
            a, b = edges[bar, k : k + 2]
            label = f"{name}: {percent(float(shares[bar, k]))} of {title.lower()}"
            shapes.append(Shape(f"M{a:.1f} {top}H{b:.1f}v{BAR}H{a:.1f}Z", f"fill:{colour(k)}", title=label))
            if bar + 1 < len(titles):
                c, d = edges[bar + 1, k : k + 2]
                band = f"M{a:.1f} {bottom}C{a:.1f} {middle} {c:.1f} {middle} {c:.1f} {next_top}"
                band += f"H{d:.1f}C{d:.1f} {middle} {b:.1f} {middle} {b:.1f} {bottom}Z"
                shapes.append(Shape(band, f"fill:{colour(k)}", "band"))
    return shapes


def share_labels(names: Sequence[str], shares: Array) -> list[Label]:
    """Names and shares on the parts that have room for them"""
    edges = bar_edges(shares)
    labels = []
    for bar, k in np.argwhere(shares >= 0.07).tolist():
        share = float(shares[bar, k])
        name = names[k] if bar == 0 or share > 0.2 else ""
        left, width = float(edges[bar, k]) / 10, float(edges[bar, k + 1] - edges[bar, k]) / 10
        labels.append(Label(f"{name} {percent(share)}", left, width, bar_top(bar)))
    return labels


def bar_edges(shares: Array) -> Array:
    """(bars, K) -> (bars, K + 1) where the sources begin and end, of 1000"""
    edges: Array = np.concatenate([np.zeros((len(shares), 1)), np.cumsum(shares, axis=1)], axis=1) * 1000
    return edges


def bar_top(bar: int) -> int:
    return TITLE + bar * (BAR + GAP)
