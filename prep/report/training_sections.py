"""
Sections of a report about what training will see: what trains by position, how sources mix along the steps, the launch.
"""

from typing import TYPE_CHECKING

import numpy as np

from prep.report import numbers as report_data
from prep.report.charts import colour, esc, legend, line, log_places, log_ticks, percent, plot, strip, table
from prep.text import size
from train.launch import FACTS

if TYPE_CHECKING:
    from prep.report.page import Report

HEAT_COLUMNS = 160


def mask_share(report: "Report") -> str:
    found = report_data.mask_by_position(report.split)
    middle = (log_places(found.edges)[1:] + log_places(found.edges)[:-1]) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        by_source = np.where(found.tokens >= 30, found.trained / found.tokens, np.nan)
        whole = np.where(found.tokens.sum(axis=0) >= 30, found.trained.sum(axis=0) / found.tokens.sum(axis=0), np.nan)
    shapes = "".join(line(middle, row, f"stroke:{colour(k)}") for k, row in enumerate(by_source))
    shapes += line(middle, whole, class_="line main")
    if not np.isfinite(whole).any():
        return ""
    half = np.flatnonzero(np.nan_to_num(whole) >= 0.5)
    label = "Share of trained tokens by position in the conversation: " + ", ".join(
        f"{share:.0%} from position {edge:,}"
        for edge, share in zip(found.edges.tolist(), whole.tolist(), strict=False)
        if np.isfinite(share)
    )
    since = f": half of it from about position {found.edges[half[0]]:,}" if len(half) else ""
    y = [(at / 4, f"{at * 25}%") for at in range(5)]
    return (
        f"<p>How much of what stands at a position of a conversation is trained in SFT{since}. The thick line is all sources "
        "together.</p>"
        + legend(report.names)
        + plot(shapes, label, log_ticks(found.edges), y)
        + f'<p class="note">From a sample: {found.num_documents:,} conversations in {found.num_rows:,} rows at even '
        f"distances, of {report.split.num_rows:,}. Positions are counted in tokens from &lt;|bos|&gt;.</p>"
    )


def mixing(report: "Report") -> str:
    tokens, plan = report.scan.step_tokens, report.plan
    found = report_data.mixing(tokens, report.scan.square)
    if found is None:
        return ""
    S = len(tokens)
    width = -(-S // HEAT_COLUMNS)
    binned = np.add.reduceat(tokens, np.arange(0, S, width), axis=0)  # (columns, K)
    share = binned / np.maximum(binned.sum(axis=1, keepdims=True), 1)
    whole = tokens.sum(axis=0) / tokens.sum()
    cells = []
    for k, name in enumerate(report.names):
        label = (
            f"Share of {name} along the steps: {share[:, k].min():.1%} to {share[:, k].max():.1%}, "
            f"{whole[k]:.1%} of all tokens"
        )
        cells.append(
            f"<span>{esc(name)}<small>{percent(float(share[:, k].min()))} – {percent(float(share[:, k].max()))}</small></span>"
            + strip(share[:, k] / max(whole[k], 1e-12) / 2, k, label)
        )
    ticks = "".join(
        f'<span style="left:{100 * at / 4:.0f}%">{round(at / 4 * S):,}</span>' for at in range(5)
    )  # fmt: skip
    verdict = (
        "as even as a shuffle of single conversations" if found.ratio < 1.3
        else f"{found.ratio:.1f} times as far as a shuffle of single conversations"
    )  # fmt: skip
    why = (
        " Packing puts conversations of like length, and so of one source, into the same row; rows are shuffled, not "
        "conversations." if found.ratio >= 1.3 and report.shards.manifest["packing_strategy"] == "bfd" else ""
    )  # fmt: skip
    each = f"{width} steps a column. " if width > 1 else ""
    return (
        f"<p>A step’s mix is off the whole by {percent(found.found)} of its tokens on average; {percent(found.ideal)} is what "
        f"an ideal shuffle gives. Mixing figure <b>{found.ratio:.2f}</b>: {verdict}.{why}</p>"
        f'<div class="heat">{"".join(cells)}<div class="ticks" aria-hidden="true">{ticks}</div></div>'
        f'<p class="note">Share of each source in the tokens of a step, of {S:,} steps of {plan["total_batch_size"]:,} '
        f"tokens. {each}Half a shade is its share of all, full is twice that. Under each name: least and most.</p>"
    )


def launch(report: "Report") -> str:
    plan = report.plan
    modes, model = plan["modes"], plan["model"]
    facts = [[name, *(esc(fact(one)) for one in modes.values())] for name, fact in FACTS.items()]
    ranks = [
        [
            f"{one['world_size']}",
            *(
                (f"{one['device_batch_size']}", f"{one['accumulation']}", f"~{size(one['memory_bytes'])}")
                if "error" not in one
                else ("does not divide", "", "")
            ),
        ]
        for one in plan["launches"]
    ]
    largest = next(one for one in reversed(plan["launches"]) if "error" not in one)
    commands = "".join(
        f"<h3>{mode}, {largest['world_size']} ranks</h3><pre>{esc(words)}</pre>"
        for mode, words in largest["commands"].items()
    )
    return (
        f"<p>One epoch of {plan['rows']:,} rows in steps of {plan['total_batch_size']:,} tokens, for a model of depth "
        f"{model['depth']} with {model['weights'] / 1e6:,.0f} million weights. Others: "
        "<code>midprep plan</code>.</p><div class='two'>"
        + table(["", *modes], facts, "What a run does, by mode")
        + "<div>"
        + table(["Ranks", "Rows each", "Accumulation", "Memory each"], ranks, "Launch table by number of ranks")
        + f"{commands}</div></div>"
    )
