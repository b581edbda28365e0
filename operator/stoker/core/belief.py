"""What is believed of the four costs of an iteration, and how one measurement changes it.

A Kalman filter over four numbers: each cost as a multiple of its prior, with its covariance. A measurement of
a replica is one linear equation between them (``stoker.core.latency``, divided by the measured time, so that
errors are relative):

    1 = base / t + per_sequence · G + full_cache · u / t + per_prompt_token · P

It is the online form of least squares with the prior as pseudo-observations: what the fleet's traffic cannot
tell apart (in a mix that never changes, the costs of a sequence and of its prompt) keeps the prior's
proportion, and only their sum is learned. Costs are taken to drift, so the latest measurements count most.

Rules of this module:

* Whatever is measured, costs stay positive, finite, and within FACTORS of the prior.
* Nothing is ever less sure than the prior was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import mul

from stoker.core.latency import Costs, Mix

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]

FACTORS = (0.02, 50.0)
"""No cost is believed to be further from its prior than this."""

DRIFT = 0.03
"""Relative standard deviation by which a cost may change within an hour of traffic. What every window tests
yields to new measurements with a half-life of 13 minutes for one replica and of 4 minutes for ten; what the
traffic does not test is kept for days, so that a quiet night does not forget the busy day."""

NOISE = 0.05
"""Relative standard deviation of a measured time from the law, at least: published fits leave 2 % in the mean
and 12 % at most, and one window is not the mean."""


@dataclass(frozen=True, slots=True)
class Belief:
    """Costs as multiples of the prior's, and how sure they are."""

    prior: Costs
    factors: Vector
    covariance: Matrix
    """Of the factors."""
    ceiling: float
    """The prior's variance of one factor."""

    @property
    def costs(self) -> Costs:
        """In seconds."""
        return Costs(*map(mul, self.prior, self.factors))

    def scaled(self, row: Vector) -> Vector:
        """A row of the equation, for the factors instead of the costs."""
        return tuple(map(mul, row, self.prior))

    def predicted(self, row: Vector) -> float:
        """The equation's right-hand side: the predicted time over the measured one."""
        return _dot(self.scaled(row), self.factors)

    def variance(self, row: Vector) -> float:
        """Of ``predicted``."""
        scaled = self.scaled(row)
        return _dot(scaled, _times(self.covariance, scaled))


def believe(prior: Costs, deviation: float) -> Belief:
    """The prior alone.

    Args:
        prior: All positive.
        deviation: Relative standard deviation of each cost. Half of the variance is shared: a GPU, or a
            version of the engine, is first of all faster or slower as a whole.
    """
    variance = deviation**2
    covariance = tuple(tuple(variance if i == j else variance / 2 for j in range(4)) for i in range(4))
    return Belief(prior, (1.0,) * 4, covariance, variance)


def drifted(belief: Belief, hours: float) -> Belief:
    """Less sure than before: so much time has passed."""
    return _less_sure(belief, DRIFT**2 * hours)


def doubted(belief: Belief) -> Belief:
    """As unsure as in the beginning, about everything: the engine has changed."""
    return _less_sure(belief, belief.ceiling)


def _less_sure(belief: Belief, variance: float) -> Belief:
    """More variance, half of it shared, up to the ceiling."""
    grown = [
        [value + (variance if i == j else variance / 2) for j, value in enumerate(row)]
        for i, row in enumerate(belief.covariance)
    ]
    shrink = [math.sqrt(min(1.0, belief.ceiling / grown[i][i])) for i in range(4)]
    covariance = tuple(tuple(grown[i][j] * shrink[i] * shrink[j] for j in range(4)) for i in range(4))
    return Belief(belief.prior, belief.factors, covariance, belief.ceiling)


def updated(belief: Belief, row: Vector, residual: float, noise: float) -> Belief:
    """The belief after one measurement (Kalman's update of a scalar measurement).

    Args:
        belief: before.
        row: of the equation above.
        residual: 1 less ``predicted``: at most 1, however slow the replica was.
        noise: variance of the residual if the costs were known exactly; positive.
    """
    scaled = belief.scaled(row)
    against = _times(belief.covariance, scaled)
    gain = [value / (_dot(scaled, against) + noise) for value in against]
    factors = (f + g * residual for f, g in zip(belief.factors, gain, strict=True))
    covariance = tuple(
        # Symmetric by construction, whatever the rounding.
        tuple(belief.covariance[i][j] - (gain[i] * against[j] + gain[j] * against[i]) / 2 for j in range(4))
        for i in range(4)
    )
    low, high = FACTORS
    return Belief(belief.prior, tuple(min(high, max(low, f)) for f in factors), covariance, belief.ceiling)


def _dot(a: Vector, b: Vector) -> float:
    return math.fsum(map(mul, a, b))


def _times(matrix: Matrix, vector: Vector) -> Vector:
    return tuple(_dot(row, vector) for row in matrix)


# --- What is kept between ticks ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Learned:
    """What a fleet has taught about one revision of its replicas."""

    revision: str
    origin: str
    """What was known before, in words."""
    belief: Belief
    mix: Mix
    """The present one, or the last that was seen."""
    samples: int = 0
    """Readings of replicas that were learned from."""
    noise: float = NOISE**2
    """Variance of the relative error that the law leaves."""
    busiest: float = 0.0
    """0..1: the highest load that was learned from, fading."""
    window: int | None = None
    """Number of the rate window that was read last, counted from the epoch."""
    read_at: float = 0.0
    """When that was, Unix s."""
    surprises: float = 0.0
    """Windows in which most of the fleet was slower (negative: faster) than was to be expected; older ones
    count less."""
