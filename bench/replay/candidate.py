"""What a candidate is: a policy, the settings that it is tried with, and what its makers set by default.

Rules of this module:

* Everybody has the same budget: `BUDGET` settings on the traffic for tuning, and not one more. They are
  targets, or fewer targets with a second knob in each of its positions (`variants`).
* A target is what `calibration` measured, times a factor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.replay.calibration import Capacity
from bench.replay.view import Policy

BUDGET = 10
"""Settings that each policy may try on the traffic for tuning."""

FACTORS = (0.35, 0.5, 0.65, 0.8, 0.95)
"""For policies with a second knob in two positions."""

FINE = (0.35, 0.42, 0.5, 0.57, 0.65, 0.72, 0.8, 0.87, 0.95, 1.05)
"""For policies with a target alone."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a policy may be made from.

    Attributes:
        capacity: of one replica, from `calibration`.
        minimum: fewest replicas.
        maximum: most replicas.
        demand: of the workload, for the clairvoyant alone.
        horizon: seconds to serve, at the longest that is reckoned with.
    """

    capacity: Capacity
    minimum: int
    maximum: int
    demand: NDArray[np.float64]
    horizon: float
    kv_capacity: int
    """Tokens that a replica's KV cache holds, as the engine exports it (``vllm:cache_config_info``)."""


Make = Callable[[Context, float], Policy]


class Choice(NamedTuple):
    """One setting of a policy."""

    parameter: float
    variant: str = ""
    """Position of the second knob; empty: as the makers have it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy and the settings it is tried with.

    Attributes:
        name: in results; ``-like`` where the source's rule is not exact.
        parameter: what the settings are.
        settings: one run each.
        make: a fresh policy for a setting.
        variants: other positions of a second knob, by their names; each is tried with every setting.
        default: what a user has who sets no target: the makers' own; None where a user has to choose.
        reference: it is no autoscaler that anybody could run.
    """

    name: str
    parameter: str
    settings: Sequence[float]
    make: Make
    variants: Mapping[str, Make] = field(default_factory=dict)
    default: Choice | None = None
    reference: bool = False

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Every setting that may be tried; the budget is their number."""
        return tuple(Choice(float(s), variant) for variant in ("", *self.variants) for s in self.settings)

    def policy(self, context: Context, choice: Choice) -> Policy:
        """A fresh policy for a setting.

        Raises:
            KeyError: there is no such variant.
        """
        make = self.variants[choice.variant] if choice.variant else self.make
        return make(context, choice.parameter)
