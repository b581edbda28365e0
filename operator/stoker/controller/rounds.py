"""What each round asks Prometheus: seldom everything, and in between what decides.

Rules of this module:

* Every so often a round asks for everything. The rounds in between leave out what only teaches, since the
  last answers still say it, and the names for a signal that no pod uses.
* An answer is kept from one such round to the next and no longer. A failure is not kept, and after a round
  that failed everything is asked for again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from stoker.core import promql, signals
from stoker.core.readings import FOR_LEARNING, MetricNames
from stoker.core.signals import Answer, Samples

EVERYTHING_SECONDS = 15.0
"""A usual scrape interval: Prometheus has nothing new of a pod any sooner. A counter of a name that a new pod
alone uses takes a whole rate window until it means something, which is longer."""


class Rounds:
    """What to ask next, and what is known from before.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._everything_at = -math.inf
        self._kept: Mapping[str, Answer] = {}
        self._idle: frozenset[str] = frozenset()

    def queries(
        self, engines: Iterable[MetricNames], latency: Iterable[promql.LatencyScope]
    ) -> dict[str, str]:
        """PromQL by query name for the next round; see `stoker.core.promql.queries`."""
        if not self._kept or self._clock() - self._everything_at >= EVERYTHING_SECONDS:
            self._kept, self._idle = {}, frozenset()
        asked = promql.queries(engines, latency, self._idle)
        return {name: query for name, query in asked.items() if name not in self._kept}

    def completed(
        self, answers: Mapping[str, Answer], engines: Iterable[MetricNames]
    ) -> Mapping[str, Answer]:
        """A round's answers, with those that it did not ask for once more."""
        if signals.failure(answers) is not None:
            self._kept = {}  # what was known must not hide that nothing is known now
        elif not self._kept:
            taught = {name: answers.get(name) for name in FOR_LEARNING}
            self._kept = {name: answer for name, answer in taught.items() if isinstance(answer, Samples)}
            self._idle = signals.idle(answers, engines)
            self._everything_at = self._clock()
        return {**self._kept, **answers}
