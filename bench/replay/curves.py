"""Curves of GPU-hours against attainment: which settings are frozen, and what one curve costs beside another.

Rules of this module:

* Settings are chosen on the traffic for tuning, by the same rule for everybody (`frozen`).
* Cost is compared at equal attainment, between the settings of a curve and never beyond its ends.
* Seeds are paired: a resample of seeds is the same for both curves (`ratio`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.replay.candidate import Choice

LOWEST, HIGHEST = 0.70, 0.999
"""Attainments on the traffic for tuning between which settings are of interest."""

LEAST_MISS = 1e-5
"""Fewer misses than this are as good as none: a run has about so many requests."""

RESAMPLES = 1000
CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""Below so many seeds there is no interval: it would only look like one."""

Point = tuple[float, float]
"""(GPU-hours, attainment)."""

Seeds = Mapping[int, Point]
"""The points of one setting, by seed."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """What one curve costs beside another at the same attainment.

    Attributes:
        value: over all seeds; None where one of the curves does not reach.
        low: lower end of the interval; None with too few seeds, or where too few resamples reach.
        high: upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, float | None]:
        """Plain values."""
        return {"ratio": self.value, "low": self.low, "high": self.high}


def front(points: Iterable[Point]) -> list[Point]:
    """The settings that no other beats in both, by rising cost."""
    found: list[Point] = []
    for hours, reached in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or reached > found[-1][1]:
            found.append((hours, reached))
    return found


def cost_at(points: Iterable[Point], attainment: float) -> float | None:
    """GPU-hours of a curve at an attainment.

    Between neighbours on the `front` the cost is linear in the logarithm of the misses: with each further
    replica they shrink by a factor, and a chord in attainment itself would make coarse curves look dear.

    Returns:
        None where the curve does not reach, or begins above: what it would cost there is not known.
    """
    efficient = front(points)
    if efficient and efficient[0][1] == attainment:
        return efficient[0][0]
    for (low, worse), (high, better) in pairwise(efficient):
        if worse < attainment <= better:
            begin, here, end = (math.log(max(1 - a, LEAST_MISS)) for a in (worse, attainment, better))
            return high if begin == end else low + (high - low) * (here - begin) / (end - begin)
    return None


def frozen(tried: Mapping[Choice, Point]) -> list[Choice]:
    """The settings to be scored, in order of cost: those that no other beats in both, as far as they matter.

    That is from the last one below `LOWEST` attainment to the first one above `HIGHEST`.
    """
    efficient = front(tried.values())
    bad = [point for point in efficient if point[1] < LOWEST][:-1]
    good = [point for point in efficient if point[1] >= HIGHEST][1:]
    wanted = dict.fromkeys(point for point in efficient if point not in (*bad, *good))
    chosen = {point: choice for choice, point in reversed(list(tried.items()))}
    return [chosen[point] for point in wanted]


def cheapest(tried: Mapping[Choice, Point], level: float) -> Choice:
    """The cheapest setting that reached a level, or else the one that came closest."""
    reaching = [setting for setting, (_, reached) in tried.items() if reached >= level]
    if reaching:
        return min(reaching, key=lambda setting: tried[setting][0])
    return max(tried, key=lambda setting: (tried[setting][1], -tried[setting][0]))


def mean_curve(settings: Sequence[Seeds], seeds: Sequence[int]) -> list[Point]:
    """The mean point of each setting over seeds, which may come more than once."""
    count = len(seeds)
    return [
        (sum(one[seed][0] for seed in seeds) / count, sum(one[seed][1] for seed in seeds) / count)
        for one in settings
    ]


def ratio(ours: Sequence[Seeds], theirs: Sequence[Seeds], level: float, *, resampling_seed: int = 0) -> Ratio:
    """Cost of one curve over the other's at an attainment, with a bootstrap interval over paired seeds.

    Source of the interval: Efron's percentile bootstrap, on the seeds, which are what differs between runs.
    """
    seeds = sorted(set.intersection(*(set(one) for one in (*ours, *theirs)))) if ours and theirs else []
    if not seeds:
        return Ratio(None)
    value = _ratio(ours, theirs, level, seeds)
    if value is None or len(seeds) < LEAST_SEEDS:
        return Ratio(value)
    draw = random.Random(resampling_seed)
    drawn = (draw.choices(seeds, k=len(seeds)) for _ in range(RESAMPLES))
    found = sorted(r for sample in drawn if (r := _ratio(ours, theirs, level, sample)) is not None)
    if len(found) < CONFIDENCE * RESAMPLES:
        return Ratio(value)
    tail = (1 - CONFIDENCE) / 2
    last = len(found) - 1
    return Ratio(value, found[round(tail * last)], found[round((1 - tail) * last)])


def _ratio(
    ours: Sequence[Seeds], theirs: Sequence[Seeds], level: float, seeds: Sequence[int]
) -> float | None:
    costs = [cost_at(mean_curve(settings, seeds), level) for settings in (ours, theirs)]
    return costs[0] / costs[1] if costs[0] is not None and costs[1] else None
