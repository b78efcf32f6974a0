"""
Charts of a report: SVG shapes that stretch with the page, with their labels in HTML so that they stay legible on a phone.

    plot     .-----------.     <svg preserveAspectRatio="none"> is stretched to its box; strokes keep their width
    100% ....|   __..--''|     ticks are positioned in percent around it
      0% ....|--'________|
             1   16   256

Made here and not by a plotting library: the page needs seven kinds of marks, no library that can be inlined is under
2 MB with all of them and legible in both colour schemes, and so the page needs no script at all. All text goes through
`esc`: control characters are shown, markup is text.
"""

import html
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from prep.arrays import Array
from prep.text import visible

NUM_COLOURS = 10
Tick = tuple[float, str]  # 0 .. 1 along the axis, label


def esc(text: object) -> str:
    return html.escape(visible(str(text)))


def percent(share: float) -> str:
    """For HTML: 0.00008 -> '&lt; 0.1%', 0.0123 -> '1.2%', 1 -> '100%'"""
    if 0 < share < 0.0005:
        return "&lt; 0.1%"
    return f"{share:.1%}" if share < 0.9995 else "100%"


def colour(number: int) -> str:
    return f"var(--c{number % NUM_COLOURS})"


def legend(names: Sequence[str]) -> str:
    items = "".join(f'<li><i style="background:{colour(i)}"></i>{esc(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """A table of ready HTML cells, scrolling by itself where the page is too narrow"""
    first = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{esc(label)}">'
        f"<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def plot(shapes: str, label: str, x: Sequence[Tick], y: Sequence[Tick], height: str = "14rem") -> str:
    """Shapes in a box of 1000 x 100 (y down), its ticks around it"""
    lines = "".join(f'<path class="grid" d="M0 {100 - 100 * at:.2f}H1000"/>' for at, _ in y)
    ticks = "".join(f'<span class="y" style="bottom:{100 * at:.2f}%">{text}</span>' for at, text in y)
    ticks += "".join(f'<span class="x" style="left:{100 * at:.2f}%">{text}</span>' for at, text in x)
    return (
        f'<div class="plot"><div class="area" style="height:{height}">'
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="{esc(label)}">{lines}{shapes}</svg>'
        f'<div aria-hidden="true">{ticks}</div></div></div>'
    )


def line(x: Array, y: Array, style: str = "", class_: str = "line") -> str:
    """A line through points of 0 .. 1; y up. It is broken where y is not a number."""
    points, pen = [], "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(b):
            points.append(f"{pen}{1000 * a:.1f} {100 - 100 * b:.2f}")
        pen = "L" if np.isfinite(b) else "M"
    return f'<path class="{class_}" d="{"".join(points)}" style="{style}"/>' if points else ""


def steps_area(x: Array, y: Array, style: str) -> str:
    """A histogram as one shape: edges x (n + 1,) and heights y (n,), 0 .. 1"""
    d = f"M{1000 * x[0]:.1f} 100" + "".join(
        f"V{100 - 100 * h:.2f}H{1000 * edge:.1f}" for h, edge in zip(y.tolist(), x[1:].tolist(), strict=True)
    )
    return f'<path d="{d}V100Z" style="{style}"/>'


def log_ticks(edges: Array) -> list[Tick]:
    """Powers of four along an axis whose bins grow by half an octave"""
    low, high = np.log2(edges[0]), np.log2(edges[-1])
    values = [4**i for i in range(20) if edges[0] <= 4**i <= edges[-1]]
    return [(float((np.log2(v) - low) / (high - low)), f"{v:,}") for v in values]


def log_places(edges: Array) -> Array:
    """(n,) edges -> 0 .. 1 on a logarithmic axis"""
    places: Array = np.log2(edges / edges[0]) / np.log2(edges[-1] / edges[0])
    return places


# ---- shares: three bars with bands between them ----

TITLE, BAR, GAP = 26, 36, 72  # heights; a title stands over its bar


def share_bars(names: Sequence[str], titles: Sequence[tuple[str, str]], shares: Array) -> str:
    """
    shares (3, K), each row summing to 1: a bar for each row, and a band from each source's part of one bar to its part
    of the next, so that what shrinks and grows can be followed.
    """
    num_bars = len(shares)
    height = TITLE + num_bars * BAR + (num_bars - 1) * GAP
    left = np.concatenate([np.zeros((num_bars, 1)), np.cumsum(shares, axis=1)], axis=1) * 1000
    shapes, labels = [], []
    for bar in range(num_bars):
        top = TITLE + bar * (BAR + GAP)
        for k, name in enumerate(names):
            a, b, share = left[bar, k], left[bar, k + 1], float(shares[bar, k])
            what = f"{esc(name)}: {percent(share)} of {titles[bar][0].lower()}"
            shapes.append(
                f'<path d="M{a:.1f} {top}H{b:.1f}v{BAR}H{a:.1f}Z" style="fill:{colour(k)}"><title>{what}</title></path>'
            )
            if bar + 1 < num_bars:
                c, d, y0, y1 = left[bar + 1, k], left[bar + 1, k + 1], top + BAR, top + BAR + GAP
                m = (y0 + y1) / 2
                shapes.append(
                    f'<path class="band" style="fill:{colour(k)}" d="M{a:.1f} {y0}C{a:.1f} {m} {c:.1f} {m} {c:.1f} {y1}'
                    f'H{d:.1f}C{d:.1f} {m} {b:.1f} {m} {b:.1f} {y0}Z"/>'
                )
            if share >= 0.07:
                text = esc(name) if bar == 0 or share > 0.2 else ""
                labels.append(
                    f'<span{" class=narrow" * (share < 0.25)} style="left:{a / 10:.2f}%;width:{(b - a) / 10:.2f}%;top:{top}px">'
                    f"{text} {percent(share)}</span>"
                )
    heads = "".join(
        f'<div style="top:{bar * (BAR + GAP)}px"><b>{title}</b> <small>{number}</small></div>'
        for bar, (title, number) in enumerate(titles)
    )
    said = "; ".join(
        f"{title}: " + ", ".join(f"{name} {share:.1%}" for name, share in zip(names, row, strict=True))
        for (title, _), row in zip(titles, shares.tolist(), strict=True)
    )
    return (
        f'<div class="shares" style="height:{height}px">'
        f'<svg viewBox="0 0 1000 {height}" preserveAspectRatio="none" role="img" aria-label="Shares. {esc(said)}">'
        f'{"".join(shapes)}</svg><div class="heads">{heads}</div>'
        f'<div class="names" aria-hidden="true">{"".join(labels)}</div></div>'
    )


# ---- strips: a heat map, a row a source ----

LEVELS = 8


def strip(values: Array, number: int, label: str) -> str:
    """values (n,) 0 .. 1 as shades of a colour; neighbours of one shade are one shape"""
    level = np.clip(np.rint(values * LEVELS), 0, LEVELS).astype(int)
    cuts = [0, *(np.flatnonzero(np.diff(level)) + 1).tolist(), len(level)]
    shapes = "".join(
        f'<path d="M{a} 0H{b}V1H{a}Z" opacity="{level[a] / LEVELS:g}"/>' for a, b in pairwise(cuts) if level[a]
    )
    return (
        f'<svg viewBox="0 0 {len(values)} 1" preserveAspectRatio="none" role="img" aria-label="{esc(label)}" '
        f'shape-rendering="crispEdges" style="fill:{colour(number)}">{shapes}</svg>'
    )


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """[(label, 0 .. 1, number)] as horizontal bars"""
    return (
        '<ul class="hbars">'
        + "".join(
            f'<li><span>{esc(name)}</span><i><b style="width:{100 * share:.2f}%"></b></i><em>{number}</em></li>'
            for name, share, number in rows
        )
        + "</ul>"
    )
