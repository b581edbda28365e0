"""Two fleets through one period: the one that really ran, and the one that the spec would have asked for.

Rules of this module:

* The load is the recorded one, whatever the simulated fleet does: what the replicas of the time served and
  queued. The readings are theirs too, so that what is learned from them is true of a replica.
* A fleet is short of capacity while the demand needs more replicas, at the spec's own targets, than serve.
  Both fleets are judged by the same demand.
* What was not known then is not known now: such instants are counted and decide what the operator would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stoker.api.v1alpha1 import Freshness
from stoker.backtest.decider import Decider, serving_pod
from stoker.backtest.fleet import Fleet
from stoker.backtest.history import OWN_QUERY
from stoker.backtest.recorded import Days, Life
from stoker.core import gateway, outside
from stoker.core.faces import Face
from stoker.core.history import History
from stoker.core.observed import ModelDeployment, Pod
from stoker.core.readings import MetricNames, Metrics
from stoker.core.reconcile import Want
from stoker.core.signals import Answer, gathered

HISTORY_SECONDS = 3600.0
"""Between two looks at the days before."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant of both fleets."""

    at: float
    """Unix s."""
    wanted: int
    """Replicas that the decision asks for: created, and paid for, from now on."""
    serving: int
    """Those of them that have started up."""
    recorded: int
    """Replicas that really served."""
    needed: int | None
    """Replicas that the demand needs at the spec's targets, a lower bound where not all of it is known; None
    where nothing is."""
    load: float
    """The same, not rounded."""
    known: bool
    """Whether every target's demand was known."""
    limited_by: str


@dataclass(frozen=True, slots=True)
class Change:
    """One decision that changed the number of replicas."""

    at: float
    """Unix s."""
    before: int
    after: int
    limited_by: str
    message: str


@dataclass(slots=True)
class Tally:
    """How well one target's demand was known while replicas served, in instants."""

    known: int = 0
    partly: int = 0
    """A lower bound: some replicas did not answer, or not freshly."""
    unknown: int = 0
    why: str = ""
    """The last reason why it was not known."""

    @property
    def instants(self) -> int:
        """All of them."""
        return self.known + self.partly + self.unknown


@dataclass(slots=True)
class Outcome:
    """What happened to both fleets."""

    moments: list[Moment] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    """By target."""
    started: int = 0
    """Replicas that the decisions started."""
    removed: int = 0
    """Serving replicas that they removed."""
    last: Want | None = None


@dataclass(slots=True)
class Replay:
    """The spec's decisions on recorded answers; feed it with `step`, then read `outcome`.

    Args:
        deployment: whose spec decides.
        names: the metric names in the answers.
        start_up: seconds from creation to serving, of both fleets' replicas.
        stale_after: ``STOKER_STALE_AFTER_SECONDS``.
        days: the demand of the days before, for forecasts.
    """

    deployment: ModelDeployment
    names: MetricNames
    start_up: float
    stale_after: float
    days: Days = field(default_factory=Days)
    outcome: Outcome = field(default_factory=Outcome)
    _decider: Decider = field(init=False)
    _fleet: Fleet = field(init=False)
    _pods: dict[Life, Pod] = field(default_factory=dict)
    _known: History | None = None
    _history_until: float = -math.inf

    def __post_init__(self) -> None:
        self._decider = Decider(self.deployment)
        self._fleet = Fleet(self.start_up)

    def step(self, at: float, lives: Sequence[Life], answers: Mapping[str, Answer]) -> Moment:
        """Decide at one instant (Unix s), from what Prometheus said about the replicas of the time."""
        pods = [self._pod(life) for life in lives]
        wanted = self._decider.decide(at, pods, self._metrics(answers, pods, at), self._history(at))
        self._carry_out(wanted, at)
        moment = self._moment(at, wanted, len(lives))
        self.outcome.moments.append(moment)
        self.outcome.last = wanted
        if lives:
            self._count(_demands(wanted.faces))
        return moment

    def _metrics(self, answers: Mapping[str, Answer], pods: Sequence[Pod], at: float) -> Metrics:
        """All readings, as the operator's gatherer puts them together."""
        key, spec = self.deployment.key, self.deployment.spec
        assert spec is not None  # noqa: S101 - the caller's contract
        own = {name.removeprefix(OWN_QUERY): a for name, a in answers.items() if name.startswith(OWN_QUERY)}
        fleet = gateway.Fleet(key, spec.model.name or key.name)
        return replace(
            gathered(answers, [(pod.key, self.names) for pod in pods], at, self.stale_after),
            signals={query: outside.reading(answer, at) for query, answer in own.items()},
            held=gateway.held(answers.get(gateway.NAME), [fleet], at),
        )

    def _history(self, at: float) -> History | None:
        """What the operator would have read of the days before: looked at anew every hour."""
        if at >= self._history_until:
            self._known = self.days.until(at)
            self._history_until = at + HISTORY_SECONDS
        return self._known

    def _pod(self, life: Life) -> Pod:
        pod = self._pods.get(life)
        if pod is None:
            created = life.start - self.start_up
            pod = serving_pod(life.pod, self.deployment, created=created, ready=life.start)
            self._pods[life] = pod
        return pod

    def _carry_out(self, wanted: Want, at: float) -> None:
        outcome, fleet = self.outcome, self._fleet
        before = outcome.moments[-1].wanted if outcome.moments else None
        if before is None:
            fleet.begin(wanted.desired, at)
        elif before != wanted.desired:
            chosen = wanted.recommendation
            assert chosen is not None  # noqa: S101 - a spec without scaling is refused
            outcome.changes.append(Change(at, before, wanted.desired, chosen.limited_by, chosen.message))
            fleet.scale(wanted.desired, at)
        outcome.started, outcome.removed = fleet.started, fleet.removed

    def _moment(self, at: float, wanted: Want, recorded: int) -> Moment:
        demands = _demands(wanted.faces)
        seen = [face for face in demands if not face.blind]
        return Moment(
            at=at,
            wanted=wanted.desired,
            serving=self._fleet.serving(at),
            recorded=recorded,
            needed=max((face.replicas for face in seen), default=None),
            load=max((face.load for face in seen), default=0.0),
            known=bool(demands) and all(map(_known, demands)),
            limited_by=wanted.recommendation.limited_by if wanted.recommendation is not None else "",
        )

    def _count(self, faces: Iterable[Face]) -> None:
        for face in faces:
            tally = self.outcome.tallies.setdefault(face.name, Tally())
            if _known(face):
                tally.known += 1
                continue
            tally.why = face.message
            if face.blind:
                tally.unknown += 1
            else:
                tally.partly += 1


def _demands(faces: Iterable[Face]) -> list[Face]:
    """The faces that tell of a load: no guard, and nothing that is only expected."""
    return [face for face in faces if not face.guard and not face.ahead]


def _known(face: Face) -> bool:
    return not face.blind and face.freshness is Freshness.FRESH


def stretches(moments: Sequence[Moment], holds: Iterable[bool]) -> Iterator[tuple[Moment, Moment]]:
    """(first, last) of each run of moments for which something holds."""
    first: Moment | None = None
    last: Moment | None = None
    for moment, held in zip(moments, holds, strict=True):
        if held:
            first, last = first or moment, moment
        elif first is not None and last is not None:
            yield first, last
            first = None
    if first is not None and last is not None:
        yield first, last
