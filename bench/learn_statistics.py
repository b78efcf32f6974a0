"""
What a few runs of each kind can tell: means, spread, differences with their intervals, and the least that they could see.

    with     96.0 97.3 95.3        difference 2.4 +- 2.0        s = 0.9 pooled over the cells, 4 degrees of freedom
    without  93.3 94.7 93.3        least difference 2.7         smaller ones are missed more often than once in five

s is the standard deviation within the cells, from all of them together: runs of one cell differ in their seed alone. A
difference of means has the 95 % interval +- t(0.975) s sqrt(sum of w^2 / n); the least difference between two cells is the
one that a two-sided test at 5 % finds with a power of 80 %, (t(0.975) + t(0.80)) s sqrt(2 / n).

Legend: n runs of a cell.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

POWER = 0.8
STEPS = 2_000  # of the integral


@cache
def t_quantile(share: float, freedom: int) -> float:
    """
    The value that Student's t is below with this probability, 0.5 or more

    >>> round(t_quantile(0.975, 8), 3), round(t_quantile(0.8, 8), 3)
    (2.306, 0.889)
    """
    low, high = 0.0, 1e4
    while high - low > 1e-9 * (1 + high):
        middle = (low + high) / 2
        low, high = (middle, high) if t_share(middle, freedom) < share else (low, middle)
    return low


def t_share(value: float, freedom: int) -> float:
    """P(t < value) for value >= 0: with t = sqrt(freedom) tan(a) the density is a power of cos(a), by Simpson's rule"""
    end = math.atan(value / math.sqrt(freedom))
    scale = math.gamma((freedom + 1) / 2) / (math.gamma(freedom / 2) * math.sqrt(math.pi))
    heights = [math.cos(end * i / STEPS) ** (freedom - 1) for i in range(STEPS + 1)]
    total = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
    return 0.5 + scale * total * end / STEPS / 3


@dataclass(frozen=True)
class Difference:
    value: float
    margin: float  # half of its 95 % interval

    @property
    def is_seen(self) -> bool:
        return abs(self.value) > self.margin


@dataclass(frozen=True)
class Cells:
    """Measured values of each kind of run, at least two of each, the same number"""

    values: Mapping[str, Sequence[float]]

    @property
    def num_runs(self) -> int:
        return min(len(values) for values in self.values.values())

    @property
    def freedom(self) -> int:
        return sum(len(values) - 1 for values in self.values.values())

    @property
    def deviation(self) -> float:
        """Pooled over the cells"""
        squares = sum(statistics.variance(values) * (len(values) - 1) for values in self.values.values())
        return math.sqrt(squares / self.freedom)

    @property
    def least_difference(self) -> float:
        quantiles = t_quantile(0.975, self.freedom) + t_quantile(POWER, self.freedom)
        return quantiles * self.deviation * math.sqrt(2 / self.num_runs)

    def difference(self, weights: Mapping[str, float]) -> Difference:
        """A sum of the cells' means, each times its weight"""
        value = sum(weight * statistics.mean(self.values[name]) for name, weight in weights.items())
        spread = math.sqrt(sum(weight**2 / len(self.values[name]) for name, weight in weights.items()))
        return Difference(value, t_quantile(0.975, self.freedom) * self.deviation * spread)
