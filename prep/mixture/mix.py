"""
How much of each source a mixture takes: what its keys say, checked before anything is read.

    [mix]                          # all of it may be left out
    by = "trained_tokens"          # what a proportion is of: tokens (the default), trained_tokens or conversations
    dedup = "exact"                # a conversation whose tokens were there before is left out, split by split
    drop_overlap = "exact"         # training conversations that ask what a val one asks are left out; or "13-gram"

    [[train]]
    task = "gsm8k"
    proportion = 0.3               # or choose = 5000, or repeat = 1.5
    max_repeats = 4                # most copies of it that proportion and choose may take; 1 unless said
    min_tokens = 20                # as rendered; max_tokens, min_trained_tokens and max_trained_tokens beside it

prep.plan.sampling makes numbers of conversations of it, in the plan.
"""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

BY = ("tokens", "trained_tokens", "conversations")
DEDUP = ("exact",)
DROP_OVERLAP = ("exact", "13-gram")
FILTERS = ("min_tokens", "max_tokens", "min_trained_tokens", "max_trained_tokens")
SHARES = ("proportion", "choose", "max_repeats", *FILTERS)  # keys of an entry
MOST_REPEATS = (1 << 16) - 1


@dataclass(frozen=True)
class Mix:
    """The [mix] table of a mixture."""

    by: str = "tokens"
    dedup: str | None = None
    drop_overlap: str | None = None

    def describe(self) -> dict[str, str]:
        """What is not the default: a mixture that asks for nothing new has the fingerprint it always had"""
        return {key: value for key, value in asdict(self).items() if value not in (None, "tokens")}


def parse_mix(data: dict[str, Any], where: str) -> Mix:
    """ValueError for a value that is not known; the keys are checked before"""
    mix = Mix(**data)
    for key, known in (("by", BY), ("dedup", DEDUP), ("drop_overlap", DROP_OVERLAP)):
        value = getattr(mix, key)
        if value is not None and value not in known:
            raise ValueError(f"{where}, [mix]: {key} = {value!r} found, wanted {' or '.join(map(repr, known))}.")
    return mix


def exact(number: float) -> Fraction:
    """
    The number as it is written: 0.3 is three tenths.

    >>> exact(0.1) + exact(0.2) == exact(0.3)
    True
    """
    return Fraction(str(number))


def check_share(data: dict[str, Any], where: str) -> None:
    """ValueError where the keys of an entry that say how much of it is taken are wrong, or more than one says it"""
    asked = [key for key in ("proportion", "choose", "repeat") if key in data]
    if len(asked) > 1:
        raise ValueError(f"{where}: {' and '.join(asked)} found, each says how much is taken: wanted one of them.")
    repeat, proportion = data.get("repeat", 1), data.get("proportion", 0.5)
    if not math.isfinite(repeat) or not 0 < repeat <= MOST_REPEATS:
        raise ValueError(f"{where}: repeat = {repeat} found, wanted 1 to 65,535, or a part, as 0.5 or 1.5.")
    if not math.isfinite(proportion) or not 0 < proportion <= 1:
        raise ValueError(f"{where}: proportion = {proportion} found, wanted more than 0 and at most 1, as 0.3.")
    for key in ("choose", "max_repeats", *FILTERS):
        least = 0 if key == "max_trained_tokens" else 1
        if data.get(key, least) < least:
            raise ValueError(f"{where}: {key} = {data[key]} found, wanted {least} or more.")
    if "max_repeats" in data and not {"proportion", "choose"} & set(data):
        raise ValueError(f"{where}: max_repeats found without proportion or choose, which it limits: take it out.")
    if data.get("max_repeats", 1) > MOST_REPEATS:
        raise ValueError(f"{where}: max_repeats = {data['max_repeats']:,} found, wanted at most {MOST_REPEATS:,}.")
    for kind in ("tokens", "trained_tokens"):
        low, high = data.get(f"min_{kind}"), data.get(f"max_{kind}")
        if low is not None and high is not None and low > high:
            raise ValueError(f"{where}: min_{kind} = {low} is more than max_{kind} = {high}, which leaves nothing.")


def check_proportions(proportions: list[float | None], where: str) -> None:
    """ValueError unless the proportions of a split leave room for the entries without one, or add up to 1"""
    asked = [exact(one) for one in proportions if one is not None]
    total, others = sum(asked, Fraction(0)), len(proportions) - len(asked)
    if not asked or (total < 1 if others else total == 1):
        return
    wanted = f"less than 1, for the {others} entries without one" if others else "1, as every entry has one"
    raise ValueError(f"{where}: the proportions add up to {float(total):g}, wanted {wanted}.")
