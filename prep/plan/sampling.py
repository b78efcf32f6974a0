"""
How many conversations of each source: proportions, choices and repeats made into whole copies and a drawn part.

    entry   usable   tokens   asked              amount    taken
    a          100    5,000   all of it           5,000    1 copy
    b          400   20,000   proportion 0.5      5,000    102 conversations of 4,996 tokens
    c           10    1,000   repeat 2.5                   2 copies and 5 conversations

Proportions are of the split, so what the entries without one have fixes its size: here a is the other half. Where every
entry has one, the split is as large as it can be with no entry repeated more than its `max_repeats` (1 unless said).
Where an entry would need more copies than that, it gets as many as it may, and the others keep their proportions.

Amounts are whole numbers that add up (largest remainder); what is drawn is within half a conversation of its amount. The
draw is a prefix of one permutation, so a larger share holds the smaller one. Only lengths are looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from prep.arrays import Array
from prep.mixture.checks import exact
from prep.mixture.mixture import Entry, MixOptions

NONE: Array = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Sample:
    """What of an entry is in the split: so many copies of its rows, and a part of one more."""

    copies: int
    part: Array  # (k,) places in the entry's rows, ascending, usable ones only
    limited: bool = False  # fewer than asked: max_repeats


def apportion(total: int, weights: Sequence[Fraction]) -> list[int]:
    """
    `total` in whole numbers by weight, by largest remainder (of equal ones the first): they add up to it exactly.

    >>> apportion(10, [Fraction(1), Fraction(1), Fraction(1)])
    [4, 3, 3]
    """
    whole = sum(weights, Fraction(0))
    quotas = [total * weight / whole for weight in weights]
    out = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(out)), key=lambda i: (out[i] - quotas[i], i))
    for i in by_remainder[: total - sum(out)]:
        out[i] += 1
    return out


def amounts(fixed: int | None, proportions: Sequence[Fraction], limits: Sequence[int]) -> list[int]:
    """
    Amounts of the entries that ask for a proportion, none above its limit. `fixed` is what the other entries have; None:
    there are none.

    >>> amounts(500, [Fraction(1, 4), Fraction(1, 4)], [9999, 100])
    [200, 100]
    """
    if fixed is None:
        return apportion(min(int(limit / p) for limit, p in zip(limits, proportions, strict=True)), proportions)
    at_limit: list[int] = []
    by_need = sorted(range(len(limits)), key=lambda i: (limits[i] / proportions[i], i))
    while True:  # the size of the split falls with every entry that stays at its limit, so those before it stay there
        left = [i for i in range(len(limits)) if i not in at_limit]
        size = (fixed + sum(limits[i] for i in at_limit)) / (1 - sum((proportions[i] for i in left), Fraction(0)))
        if not left or size * proportions[by_need[len(at_limit)]] <= limits[by_need[len(at_limit)]]:
            break
        at_limit.append(by_need[len(at_limit)])
    out = list(limits)
    if left:
        mine = [proportions[i] for i in left]
        for i, amount in zip(left, apportion(int(size * sum(mine, Fraction(0))), mine), strict=True):
            out[i] = min(amount, limits[i])
    return out


def allocate(
    entries: Sequence[Entry], places: list[Array], weights: list[Array], mix: MixOptions, seed: int
) -> list[Sample]:
    """
    What is taken of each entry: `places` (u,) of its usable rows, ascending, `weights` (u,) tokens (or what `by` says) of
    each. ValueError where an entry has not what is asked of it.
    """
    taken: dict[int, Sample] = {}
    for i, entry in enumerate(entries):
        if entry.proportion is None:
            taken[i] = _counted(entry, places[i], seed, i)
    asking = [i for i in range(len(entries)) if i not in taken]
    sizes = [int(some.sum(dtype=np.int64)) for some in weights]
    for i in asking:
        if not sizes[i]:
            raise ValueError(
                f"{entries[i].label}: proportion = {entries[i].proportion} found, and it has no {mix.by.replace('_', ' ')} "
                "to take: see what was rejected, or take the entry out."
            )
    fixed = sum(one.copies * sizes[i] + _weight(one.part, places[i], weights[i]) for i, one in taken.items())
    if asking and taken and not fixed:
        raise ValueError(
            f"{entries[asking[0]].label}: proportion = {entries[asking[0]].proportion} found, and the entries without one, "
            "which fix the size of the split, have nothing: see what was rejected, or give every entry a proportion."
        )
    proportions = [exact(entries[i].proportion or 0) for i in asking]
    limits = [sizes[i] * (entries[i].max_repeats or 1) for i in asking]
    wanted = amounts(fixed if taken else None, proportions, limits) if asking else []
    for i, amount, limit in zip(asking, wanted, limits, strict=True):
        order = _draw(seed, i, len(places[i]))
        copies, rest = divmod(amount, sizes[i])
        number = _nearest(np.cumsum(weights[i][order], dtype=np.int64), rest)
        taken[i] = _part(places[i], copies, order[:number], bool(taken) and amount == limit)
    return [taken[i] for i in range(len(entries))]


def _counted(entry: Entry, places: Array, seed: int, number: int) -> Sample:
    """What is taken of an entry that says it in conversations"""
    if not entry.takes_part:
        return Sample(int(entry.repeat), NONE)
    order = _draw(seed, number, len(places))
    if entry.choose is None:
        copies = int(entry.repeat)
        num_drawn = int((exact(entry.repeat) - copies) * len(places) + Fraction(1, 2))
        return _part(places, copies, order[:num_drawn], False)
    most = len(places) * (entry.max_repeats or 1)
    if entry.choose > most:
        needed = f"max_repeats = {-(-entry.choose // len(places))}" if len(places) else "other rows"
        raise ValueError(
            f"{entry.label}: choose = {entry.choose:,} found, {len(places):,} conversations are usable and each may be "
            f"taken {entry.max_repeats or 1} times: wanted at most {most:,}, or {needed}."
        )
    copies, num_drawn = divmod(entry.choose, len(places))
    return _part(places, copies, order[:num_drawn], False)


def _part(places: Array, copies: int, drawn: Array, limited: bool) -> Sample:
    if len(drawn) == len(places):  # rounded up to a whole copy
        return Sample(copies + (len(drawn) > 0), NONE, limited)
    return Sample(copies, np.sort(places[drawn]), limited)


def _draw(seed: int, number: int, size: int) -> Array:
    return np.random.default_rng([seed, number]).permutation(size)


def _nearest(sums: Array, wanted: int) -> int:
    """How many of the first have the sum that is nearest to `wanted`; of two equally near ones the fewer"""
    more = int(np.searchsorted(sums, wanted, side="left"))
    if more == len(sums):
        return more
    below = int(sums[more - 1]) if more else 0
    return more + (int(sums[more]) - wanted < wanted - below)


def _weight(part: Array, places: Array, weights: Array) -> int:
    return int(weights[np.searchsorted(places, part)].sum(dtype=np.int64))


# ---- asked and got ----


def describe_share(
    entry: Entry, one: Sample, usable: int, source: dict[str, Any], total: dict[str, int], by: str
) -> None:
    """Write into a source's part of the manifest what was asked of it and what it got, if it asks for more than copies."""
    number = one.copies * usable + len(one.part)
    if not entry.takes_part:
        return
    copies = number / usable if usable else 0.0
    source["repeat"] = copies  # of the entry's usable rows; above the number of its last copy
    source["not_chosen"] = usable - number if not one.copies else 0
    if entry.proportion is not None:
        key = {"tokens": "total_tokens", "trained_tokens": "trainable_tokens"}.get(by, by)
        got = round(source[key] / total[key], 6) if total[key] else 0.0
        source["share"] = {"of": by, "asked": entry.proportion, "got": got, "limited": one.limited}
    elif entry.choose is not None:
        source["share"] = {"of": "choose", "asked": entry.choose, "got": number}
    else:
        source["share"] = {"of": "repeat", "asked": entry.repeat, "got": round(copies, 6)}
