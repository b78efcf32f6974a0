"""
How many conversations of each entry: proportions, choices and repeats made into whole copies and a drawn part.

    entry   usable   tokens   key                amount    sample
    a          100    5,000   (all of it)         5,000    1 copy
    b          400   20,000   proportion 0.5      5,000    102 conversations of 4,996 tokens
    c           10    1,000   repeat 2.5                   2 copies and 5 conversations

Proportions are of the split, so what the entries without one have fixes its size: here a is the other half. Where every
entry has one, the split is as large as it can be with no entry repeated more than its `max_repeats` (1 by default).
Where an entry would need more copies than that, it gets as many as it may, and the others keep their proportions.

Amounts are whole numbers that add up (largest remainder); what is drawn is within half a conversation of its amount. The
draw is a prefix of one permutation, so a larger share contains the smaller one. Only lengths are looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from prep.arrays import Array
from prep.mixture.checks import exact
from prep.mixture.mixture import Entry, MixOptions

NOTHING: Array = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Sample:
    """What of an entry is in the split: whole copies of its examples, and a part of one more."""

    copies: int
    part: Array  # (k,) positions in the entry, ascending, usable ones only
    size: int  # conversations, all copies
    limited: bool = False  # fewer than the proportion needs: max_repeats


def takes_part(entry: Entry) -> bool:
    """Whether an entry asks for more or less than whole copies"""
    return entry.proportion is not None or entry.choose is not None or entry.repeat != int(entry.repeat)


def sample_entries(
    entries: Sequence[Entry], usable: list[Array], weights: list[Array], mix: MixOptions, seed: int
) -> list[Sample]:
    """
    The sample of each entry: `usable` (u,) positions of its usable examples, ascending, `weights` (u,) tokens (or what
    `[mix] by` says) of each. ValueError where an entry has less than its keys take.
    """
    samples = {
        number: _counted_sample(entry, usable[number], seed, number)
        for number, entry in enumerate(entries)
        if entry.proportion is None
    }
    by_share = [number for number in range(len(entries)) if number not in samples]
    if by_share:
        sizes = [int(weight.sum(dtype=np.int64)) for weight in weights]
        fixed = sum(
            sample.copies * sizes[number] + _weight_of(sample.part, usable[number], weights[number])
            for number, sample in samples.items()
        )
        _check_sizes(entries, by_share, sizes, fixed if samples else None, mix.by)
        proportions = [exact(entries[number].proportion or 0) for number in by_share]
        limits = [sizes[number] * (entries[number].max_repeats or 1) for number in by_share]
        budget = amounts(fixed if samples else None, proportions, limits)
        for number, amount, limit in zip(by_share, budget, limits, strict=True):
            order = _draw(seed, number, len(usable[number]))
            copies, rest = divmod(amount, sizes[number])
            num_drawn = _nearest(np.cumsum(weights[number][order], dtype=np.int64), rest)
            limited = bool(samples) and amount == limit
            samples[number] = _make_sample(usable[number], copies, order[:num_drawn], limited)
    return [samples[number] for number in range(len(entries))]


def _check_sizes(entries: Sequence[Entry], by_share: list[int], sizes: list[int], fixed: int | None, by: str) -> None:
    """ValueError where a proportion is of nothing; `fixed` is what the entries without one have, None without such"""
    for number in by_share:
        if not sizes[number]:
            raise ValueError(
                f"{entries[number].label}: proportion = {entries[number].proportion} found, and it has no "
                f"{by.replace('_', ' ')} to take: see what was rejected, or take the entry out."
            )
    if fixed == 0:
        entry = entries[by_share[0]]
        raise ValueError(
            f"{entry.label}: proportion = {entry.proportion} found, and the entries without one, "
            "which fix the size of the split, have nothing: see what was rejected, or give every entry a proportion."
        )


def apportion(total: int, weights: Sequence[Fraction]) -> list[int]:
    """
    `total` in whole numbers by weight, by largest remainder (of equal ones the first): they add up to it exactly.

    >>> apportion(10, [Fraction(1), Fraction(1), Fraction(1)])
    [4, 3, 3]
    """
    whole = sum(weights, Fraction(0))
    quotas = [total * weight / whole for weight in weights]
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda i: (shares[i] - quotas[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def amounts(fixed: int | None, proportions: Sequence[Fraction], limits: Sequence[int]) -> list[int]:
    """
    Amounts of the entries with a proportion, none above its limit. `fixed` is what the other entries have; None: there
    are no others.

    >>> amounts(500, [Fraction(1, 4), Fraction(1, 4)], [9999, 100])
    [200, 100]
    """
    if fixed is None:
        return apportion(min(int(limit / p) for limit, p in zip(limits, proportions, strict=True)), proportions)
    at_limit: list[int] = []
    by_need = sorted(range(len(limits)), key=lambda i: (limits[i] / proportions[i], i))
    while True:  # the size of the split falls with every entry that stays at its limit, so those before it stay there
        free = [i for i in range(len(limits)) if i not in at_limit]
        size = (fixed + sum(limits[i] for i in at_limit)) / (1 - sum((proportions[i] for i in free), Fraction(0)))
        if not free or size * proportions[by_need[len(at_limit)]] <= limits[by_need[len(at_limit)]]:
            break
        at_limit.append(by_need[len(at_limit)])
    result = list(limits)
    if free:
        shares = [proportions[i] for i in free]
        for i, amount in zip(free, apportion(int(size * sum(shares, Fraction(0))), shares), strict=True):
            result[i] = min(amount, limits[i])
    return result


def _counted_sample(entry: Entry, usable: Array, seed: int, number: int) -> Sample:
    """The sample of an entry that counts in conversations: repeat or choose"""
    if not takes_part(entry):
        return _make_sample(usable, int(entry.repeat), NOTHING, limited=False)
    order = _draw(seed, number, len(usable))
    if entry.choose is None:
        copies = int(entry.repeat)
        num_drawn = int((exact(entry.repeat) - copies) * len(usable) + Fraction(1, 2))
        return _make_sample(usable, copies, order[:num_drawn], limited=False)
    most = len(usable) * (entry.max_repeats or 1)
    if entry.choose > most:
        needed = f"max_repeats = {-(-entry.choose // len(usable))}" if len(usable) else "other rows"
        raise ValueError(
            f"{entry.label}: choose = {entry.choose:,} found, {len(usable):,} conversations are usable and each may be "
            f"taken {entry.max_repeats or 1} times: wanted at most {most:,}, or {needed}."
        )
    copies, num_drawn = divmod(entry.choose, len(usable))
    return _make_sample(usable, copies, order[:num_drawn], limited=False)


def _make_sample(usable: Array, copies: int, drawn: Array, limited: bool) -> Sample:
    size = copies * len(usable) + len(drawn)
    if len(drawn) == len(usable):  # rounded up to a whole copy
        return Sample(copies + (len(drawn) > 0), NOTHING, size, limited)
    return Sample(copies, np.sort(usable[drawn]), size, limited)


def _draw(seed: int, number: int, size: int) -> Array:
    return np.random.default_rng([seed, number]).permutation(size)


def _nearest(sums: Array, target: int) -> int:
    """How many of the first have the sum that is nearest to `target`; of two equally near ones the fewer"""
    more = int(np.searchsorted(sums, target, side="left"))
    if more == len(sums):
        return more
    below = int(sums[more - 1]) if more else 0
    return more + (int(sums[more]) - target < target - below)


def _weight_of(part: Array, usable: Array, weights: Array) -> int:
    return int(weights[np.searchsorted(usable, part)].sum(dtype=np.int64))
