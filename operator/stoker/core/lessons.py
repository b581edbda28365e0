"""What one round of readings teaches: who of a fleet is believed, and how far.

Rules of this module:

* Only whole windows count, of replicas that serve and have served for longer than a window.
* A replica that disagrees with most of the fleet is not believed, whatever it says.
* Most of the fleet disagreeing with what was learned is not believed before it has lasted; then everything is
  doubted, and learned anew from what the fleet says now.
* The order of the pods changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from stoker.core.belief import NOISE, Belief, Learned, Vector, doubted, drifted, updated
from stoker.core.demand import WARM_UP_SECONDS
from stoker.core.latency import Mix
from stoker.core.readings import Fresh, Metrics, Reading, Signal

if TYPE_CHECKING:  # observed keeps what is learned between ticks
    from stoker.core.observed import Pod

LEAST_GENERATED = 1.0
"""Tokens per second below which a window holds too few of them to tell a mean."""

PLAUSIBLE_SECONDS = (1e-4, 30.0)
"""Between two tokens of a request."""

MOST_TOKENS = 65_536
"""Generated, or prompt tokens computed, in one iteration: no engine is given a budget so large."""

APART = 0.2
"""A replica whose time is this far (logarithm) from that of most of the fleet is another kind of replica."""

SIGMAS = 3.5
"""Deviations beyond which a measurement is an outlier, and beyond which a fleet surprises."""

PERSISTS = 2.0
"""Surprises before a fleet is believed, older ones counting less: three windows in a row, or every second one
for a while. Counted in a row alone, a belief that is right at some loads would be deaf to all others."""

SURPRISE_FADES = 0.7
"""What a surprise still counts a window later."""

MIX_HALF_LIFE = 60.0
"""Seconds in which half of a former mix is forgotten: a shift is followed within minutes."""

MANY_SEQUENCES = 20.0
"""Requests in the batches of a fleet from which on one window tells the mix; below, single requests do."""

BUSIEST_HALF_LIFE = 86_400.0
"""Seconds: a fleet that was busy yesterday is still known to be like that when busy."""

NOISE_SAMPLES = 100.0
"""Samples over which the error that the law leaves is averaged."""

LONGEST_GAP = 3600.0
"""Seconds without traffic that count as drift: an idle engine does not change."""


class Sample(NamedTuple):
    """One replica over one window."""

    generated: float
    """Tokens per second."""
    prompt: float
    """Tokens per second."""
    latency: float
    """Seconds from token to token."""
    cache: float
    """Share in use."""

    @property
    def row(self) -> Vector:
        """Of the equation in ``stoker.core.belief``."""
        return (1 / self.latency, self.generated, self.cache / self.latency, self.prompt)


# --- From readings to samples --------------------------------------------------------------------


def samples_of(learned: Learned, pods: Sequence[Pod], metrics: Metrics, window: float) -> list[Sample]:
    """What the replicas of the learned revision have to say, in the order of their names.

    Args:
        learned: Says which revision; its mix stands in for a KV cache that the engine does not show.
        pods: The ModelDeployment's, in any order.
        metrics: Of this tick.
        window: Seconds of the rate window.
    """
    settled = metrics.at - window - WARM_UP_SECONDS
    found = (
        _sample(known.readings, learned)
        for pod in sorted(pods, key=lambda p: p.key)
        if pod.routed and pod.revision == learned.revision
        if pod.ready_since is not None and pod.ready_since <= settled
        if (known := metrics.pods.get(pod.key)) is not None
    )
    return [sample for sample in found if sample is not None]


def _sample(readings: Mapping[Signal, Reading], learned: Learned) -> Sample | None:
    """None unless every signal that the engine has is fresh, and the numbers can be."""
    generated, latency = (
        _fresh(readings, signal) for signal in (Signal.GENERATED_TOKENS, Signal.INTER_TOKEN_LATENCY)
    )
    if generated is None or latency is None or generated < LEAST_GENERATED:
        return None
    low, high = PLAUSIBLE_SECONDS
    if not low <= latency <= high:
        return None
    prompt = _fresh(readings, Signal.PROMPT_TOKENS) if Signal.PROMPT_TOKENS in readings else 0.0
    assumed = learned.mix.cache * generated * latency
    cache = _fresh(readings, Signal.CACHE_USAGE) if Signal.CACHE_USAGE in readings else min(1.0, assumed)
    if prompt is None or cache is None or cache > 1:
        return None
    if max(generated, prompt) * latency > MOST_TOKENS:
        return None
    return Sample(generated, prompt, latency, cache)


def _fresh(readings: Mapping[Signal, Reading], signal: Signal) -> float | None:
    reading = readings.get(signal)
    return reading.value if isinstance(reading, Fresh) and math.isfinite(reading.value) else None


# --- From samples to what is learned -------------------------------------------------------------


def taught(learned: Learned, samples: Sequence[Sample], window: int, at: float) -> Learned:
    """What is known after a round of samples.

    Args:
        learned: before.
        samples: at least one.
        window: number of the window that they were read in.
        at: Unix s.
    """
    elapsed = min(max(0.0, at - learned.read_at), LONGEST_GAP)
    belief = drifted(learned.belief, elapsed / 3600)
    residuals = [-math.log(belief.predicted(sample.row)) for sample in samples]
    centre, apart = middle(residuals), _apart(residuals)
    believed = [s for s, r in zip(samples, residuals, strict=True) if abs(r - centre) <= apart]
    read = replace(learned, mix=_mixed(learned, believed, elapsed), window=window, read_at=at)
    surprise = _surprise(learned, belief, believed, centre)
    surprises = surprise + SURPRISE_FADES * learned.surprises
    if surprise and abs(surprises) < PERSISTS:
        return replace(read, surprises=surprises)
    if surprise:
        belief, surprises = doubted(belief), 0.0
    return _learned(replace(read, surprises=surprises, belief=belief), believed, elapsed)


def _mixed(learned: Learned, samples: Sequence[Sample], elapsed: float) -> Mix:
    """The mix of the samples, averaged with the former ones the more, the fewer requests are behind them."""
    generated = math.fsum(s.generated for s in samples)
    sequences = math.fsum(s.generated * s.latency for s in samples)
    prompt, cache = (
        math.fsum(values) for values in zip(*((s.prompt, s.cache) for s in samples), strict=True)
    )
    share = (1 - 0.5 ** (elapsed / MIX_HALF_LIFE)) * min(1.0, sequences / MANY_SEQUENCES)
    before = learned.mix
    return Mix(
        before.prompt + share * (prompt / generated - before.prompt),
        before.cache + share * (cache / sequences - before.cache),
    )


def middle(residuals: Sequence[float]) -> float:
    """The median; of two middle ones that which is nearer to what is known already."""
    ordered = sorted(residuals)
    return min(ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2], key=abs)


def _apart(residuals: Sequence[float]) -> float:
    """How far from the middle a replica still belongs to the fleet: wider where the whole fleet is uneven."""
    centre = middle(residuals)
    spread = 1.4826 * sorted(abs(r - centre) for r in residuals)[(len(residuals) - 1) // 2]
    return min(max(APART, SIGMAS * spread), 2 * APART)


def _surprise(learned: Learned, belief: Belief, believed: Sequence[Sample], centre: float) -> int:
    """Whether most of the fleet is slower (1) or faster (-1) than can be expected; 0 where it is neither."""
    # Relative, as the residuals are: an absurdly short time makes prediction and variance absurdly large.
    uncertainty = middle([belief.variance(s.row) / belief.predicted(s.row) ** 2 for s in believed])
    expected = SIGMAS * math.sqrt(uncertainty + max(NOISE**2, learned.noise))
    if abs(centre) <= expected:
        return 0
    return 1 if centre > 0 else -1


def _learned(learned: Learned, samples: Sequence[Sample], elapsed: float) -> Learned:
    """After the samples of those who are believed."""
    belief, noise = learned.belief, max(NOISE**2, learned.noise)
    for sample in samples:
        belief = updated(belief, sample.row, 1 - belief.predicted(sample.row), noise)
    errors = math.fsum((1 - belief.predicted(s.row)) ** 2 for s in samples) / len(samples)
    share = len(samples) / (len(samples) + NOISE_SAMPLES)
    busiest = max(1 - belief.costs.base / s.latency for s in samples)
    return replace(
        learned,
        belief=belief,
        samples=learned.samples + len(samples),
        noise=learned.noise + share * (min(errors, 1.0) - learned.noise),
        busiest=max(0.0, busiest, learned.busiest * 0.5 ** (elapsed / BUSIEST_HALF_LIFE)),
    )
