"""
The launch table as text: two columns of facts for mid and sft, a line for each number of ranks, the commands.
"""

from collections.abc import Callable, Iterator
from typing import Any

from prep.text import duration, short, size

Mode = dict[str, Any]
FACTS: dict[str, Callable[[Mode], str]] = {
    "rows": lambda m: f"{m['rows']:,}" + (f" ({m['rows_skipped']:,} skipped)" if m["rows_skipped"] else ""),
    "steps": lambda m: f"{m['steps']:,}",
    "tokens": lambda m: short(m["tokens"]),
    "trained tokens": lambda m: short(m["targets"]),
    "a step, mean": lambda m: f"{m['targets_per_step']['mean']:,.0f}",
    "a step, least": lambda m: f"{m['targets_per_step']['min']:,}",
    "a step, most": lambda m: f"{m['targets_per_step']['max']:,}",
    "steps under half": lambda m: few(m["steps_with_few_targets"]),
    "not trained": lambda m: f"{m['untrained_share']:.2%}",
    "padding": lambda m: f"{m['padding_share']:.2%}",
    "rows to fill up": lambda m: f"{m['filler_rows']:,}",
    "warm-down from": lambda m: f"step {m['warmdown_start']:,}",
    "evaluations": lambda m: f"{m['evaluations']:,}",
    "checkpoints": lambda m: f"{m['checkpoints']:,}, {size(m['checkpoint_bytes'])}",
    "FLOPs": lambda m: f"{m['flops']:.2e}",
}


def few(found: dict[str, Any]) -> str:
    steps = ", ".join(map(str, found["first"])) + (", ..." if found["number"] > len(found["first"]) else "")
    return f"{found['number']:,}" + (f" ({steps})" if found["number"] else "")


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    model, modes, epochs = plan["model"], plan["modes"], plan["epochs"]
    yield (
        f"{plan['root']} {plan['split']}: {plan['rows']:,} rows x {plan['max_seq_len']:,}, {epochs:g} "
        f"epoch{'s' * (epochs != 1)}, {plan['total_batch_size']:,} tokens a step ({plan['rows_per_step']:,} rows)"
    )
    yield (
        f"depth {model['depth']}: {short(model['weights'])} weights, {model['flops_per_token'] / 1e9:.2f} GFLOPs a token, "
        f"{size(model['checkpoint_bytes'])} a checkpoint"
    )
    yield ""
    yield f"{'':<20}" + "".join(f"{mode:>22}" for mode in modes)
    for name, fact in FACTS.items():
        yield f"{name:<20}" + "".join(f"{fact(one):>22}" for one in modes.values())
    if "sft" not in modes:
        yield "no row has a target in sft: mid only"
    yield ""
    yield f"{'ranks':>5} {'rows each':>10} {'accumulation':>13} {'memory a rank':>14}" + "".join(
        f"{f'{mode} takes':>12}" for mode in (modes if plan["tokens_per_second"] else ())
    )
    for one in plan["launches"]:
        if "error" in one:
            yield f"{one['world_size']:>5}  {one['error']}"
            continue
        hours = "".join(f"{duration(value):>12}" for value in (one["hours"] or {}).values())
        about = f"~{size(one['memory_bytes'])}"
        yield f"{one['world_size']:>5} {one['device_batch_size']:>10} {one['accumulation']:>13} {about:>14}{hours}"
    yield "memory: an estimate for bfloat16 without torch.compile, which needs less"
    if plan["tokens_per_second"]:
        yield f"hours: at {plan['tokens_per_second']:,.0f} tokens a second of one rank, and ranks that scale"
    for one in plan["launches"]:
        for mode, line in one.get("commands", {}).items():
            yield ""
            yield f"{one['world_size']} {'rank' if one['world_size'] == 1 else 'ranks'}, {mode}"
            yield f"  {line}"
