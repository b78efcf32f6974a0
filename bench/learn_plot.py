"""
Curves of accuracy over tokens as one SVG file, for a page in light or dark.

    100% ....|        __--  spelling      x is log2 of the tokens; a point is a run of its own, drawn as a dot
      0% ....|--'''''       counting      its names stand at the ends of its lines, apart from each other
             0.4M       6.4M

It brings its own background, and changes its colours where the reader's system is dark.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 570, 48, 310  # of the box that lines are drawn in
NAME_HEIGHT = 18
COLOURS = (("#0969da", "#58a6ff"), ("#bc4c00", "#f0883e"), ("#1a7f37", "#3fb950"), ("#8250df", "#bc8cff"))
STYLE = """
    text {{ font: 13px system-ui, sans-serif; fill: #1f2328 }} .page {{ fill: #ffffff }} .grid {{ stroke: #d1d9e0 }}
    path, circle {{ stroke-width: 2.5 }} path {{ fill: none }} .title {{ font-size: 15px; font-weight: 600 }}
    {light}
    @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .page {{ fill: #0d1117 }} .grid {{ stroke: #3d444d }}
    {dark} }}
"""
Line = Sequence[tuple[float, float]]  # tokens and share of right answers, 0 to 1


def draw(title: str, lines: Mapping[str, Line], about_x: str) -> str:
    """An SVG of at most four lines; tokens are more than 0"""
    places = sorted({tokens for line in lines.values() for tokens, _ in line})
    parts = [f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = y_of(share)
        parts.append(f'<path class="grid" style="stroke-width:1" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for tokens in places:
        x = x_of(tokens, places)
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{millions(tokens)}</text>')
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 42}" text-anchor="middle">{escape(about_x)}</text>')
    names = apart([y_of(line[-1][1]) for line in lines.values()])
    for k, ((name, line), y) in enumerate(zip(lines.items(), names, strict=True)):
        points = [(x_of(tokens, places), y_of(share)) for tokens, share in line]
        parts.append(f'<path class="c{k}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')
        parts += [f'<circle class="c{k} dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points]
        label = f"{escape(name)} {line[-1][1]:.0%}"
        parts.append(f'<text class="c{k} name" x="{RIGHT + 12}" y="{y + 4:.1f}">{label}</text>')
    light, dark = ("\n    ".join(colour_rules(k, shade) for k in range(len(lines))) for shade in (0, 1))
    style = STYLE.format(light=light, dark=dark)
    ends = "; ".join(f"{name} from {line[0][1]:.0%} to {line[-1][1]:.0%}" for name, line in lines.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>{escape(title)}</title><desc>{escape(ends)}</desc>\n<style>{style}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def colour_rules(k: int, shade: int) -> str:
    colour = COLOURS[k][shade]
    return f"path.c{k} {{ stroke: {colour} }} circle.c{k}, text.c{k} {{ fill: {colour} }}"


def x_of(tokens: float, places: Sequence[float]) -> float:
    low, high = math.log2(places[0]), math.log2(places[-1])
    return LEFT + (RIGHT - LEFT) * (math.log2(tokens) - low) / max(high - low, 1e-9)


def y_of(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def apart(heights: Sequence[float]) -> list[float]:
    """
    Heights of names, moved so that none stands on another, in their order

    >>> apart([100.0, 101.0, 200.0])
    [91.5, 109.5, 200.0]
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for _ in range(100):
        for above, below in pairwise(order):
            overlap = NAME_HEIGHT - (moved[below] - moved[above])
            if overlap > 0:
                moved[above] -= overlap / 2
                moved[below] += overlap / 2
    return moved


def millions(tokens: float) -> str:
    """
    >>> millions(400_000), millions(6_400_000)
    ('0.4M', '6.4M')
    """
    return f"{tokens / 1e6:.1f}M"
