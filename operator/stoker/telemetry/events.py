"""Kubernetes Events about ModelDeployments (events.k8s.io/v1): what happened, for ``kubectl describe``.

Rules of this module:

* Recording never waits and never raises: an Event is a courtesy, conditions are the record.
* The same thing said again is one Event whose ``series`` counts, not a second Event. Numbers that always
  differ (times, durations, fractions) do not make it another thing.
* Few per object and few in all: 25 at once and then one in five minutes for each object, as in client-go
  (tools/record/events_cache.go), so that a flapping object cannot fill etcd.
* Nothing is remembered for ever: what was not said again for a while is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from stoker.api import meta
from stoker.clients.errors import ClientError, NotFound, Transient
from stoker.clients.rate import TokenBucket
from stoker.core.plan import Event
from stoker.core.readings import Key

OnEvent = Callable[[str], None]
"""``sent`` | ``aggregated`` | ``dropped`` | ``failed``, for metrics."""

API_VERSION = "events.k8s.io/v1"
REPORTING_CONTROLLER = f"{meta.GROUP}/operator"

SERIES_SECONDS = 30.0
"""A series is patched at most this often."""
FORGET_SECONDS = 360.0
"""Six minutes, as in client-go (tools/events/event_broadcaster.go, ``finishTime``)."""
FLUSH_SECONDS = 1.0
MAX_SERIES = 4096
MAX_ATTEMPTS = 5
OBJECT_BURST, OBJECT_RATE = 25, 1 / 300
TOTAL_BURST, TOTAL_RATE = 200, 20.0

MAX_NOTE = 1024
"""Bytes; the API server refuses a longer one (pkg/apis/core/validation/events.go)."""
MAX_REASON = 128

log = structlog.get_logger(__name__)


class Writer(Protocol):
    """The part of the API client that is needed."""

    async def create(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create an object."""

    async def merge(
        self, api_version: str, kind: str, namespace: str | None, name: str, body: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Merge-patch an object."""


@dataclass(slots=True)
class _Series:
    """One Event of the API server and what is still to be told to it."""

    key: Key
    uid: str
    event: Event
    name: str
    first_at: float
    last_at: float
    count: int = 1
    told: int = 0
    """The count that the API server knows; 0 before the Event was created."""
    told_at: float = 0.0
    attempts: int = 0


_Identity = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Limits:
    """Rate limits: one bucket for each object and one for all."""

    total: TokenBucket
    objects: dict[str, TokenBucket] = field(default_factory=dict)

    def allow(self, uid: str, now: float) -> bool:
        bucket = self.objects.get(uid)
        if bucket is None:
            bucket = self.objects[uid] = TokenBucket(OBJECT_RATE, OBJECT_BURST, now)
        return bucket.try_take(now) and self.total.try_take(now)

    def forget(self, now: float) -> None:
        for uid in [uid for uid, bucket in self.objects.items() if bucket.full(now)]:
            del self.objects[uid]


class Recorder:
    """Takes Events and sends them from a task of its own.

    Args:
        kube: where they go.
        instance: who reports, usually the pod's name; the default is the host's name.
        clock: Unix seconds.
        on_event: called for each Event, for metrics.
    """

    def __init__(
        self,
        kube: Writer,
        *,
        instance: str = "",
        clock: Callable[[], float] = time.time,
        on_event: OnEvent | None = None,
    ) -> None:
        self._kube = kube
        self._instance = (instance or socket.gethostname())[:MAX_REASON]
        self._clock = clock
        self._on_event = on_event or (lambda _: None)
        self._limits = _Limits(TokenBucket(TOTAL_RATE, TOTAL_BURST, clock()))
        self._series: dict[_Identity, _Series] = {}
        self._numbers = itertools.count()
        self._wake = asyncio.Event()

    def record(self, key: Key, uid: str, event: Event) -> None:
        """Take an Event about this ModelDeployment; never waits, never raises what the API server says."""
        now = self._clock()
        identity = (uid, event.type, event.reason, event.action, normalised(event.message))
        known = self._series.get(identity)
        if known is not None:
            known.count += 1
            known.last_at = now
            self._on_event("aggregated")
        elif len(self._series) < MAX_SERIES and self._limits.allow(uid, now):
            name = f"{key.name}.{int(now * 1e6):x}{next(self._numbers):x}"
            self._series[identity] = _Series(key, uid, event, name, now, now)
            self._wake.set()
        else:
            self._on_event("dropped")

    async def run(self) -> None:
        """Send what was recorded, until cancelled; then one last time."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
                await self._flush_safely()
                # A burst of new Events is not a reason to spin.
                await asyncio.sleep(0.05)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._flush_safely()

    async def _flush_safely(self) -> None:
        try:
            await self.flush()
        except Exception:  # a bug here must not end the operator
            log.exception("sending Events failed")

    async def flush(self) -> None:
        """Send what is due: new Events, and the counts of old ones."""
        now = self._clock()
        for identity, series in list(self._series.items()):
            new = series.told == 0
            if new or (series.count > series.told and now - series.told_at >= SERIES_SECONDS):
                if not await self._send(identity, series):
                    break  # the API server is away or busy: the others would wait for it in turn
            elif now - series.last_at >= FORGET_SECONDS:
                del self._series[identity]
        self._limits.forget(now)

    async def _send(self, identity: _Identity, series: _Series) -> bool:
        """Tell the API server about a series; False when it is better to go on later."""
        try:
            await self._tell(series)
        except Transient as error:
            series.attempts += 1
            if series.attempts >= MAX_ATTEMPTS:
                self._give_up(identity, series, error)
            return False
        except NotFound as error:
            # The Event expired (after an hour by default) or its namespace is gone: the next is a new one.
            self._give_up(identity, series, error)
        except ClientError as error:
            self._give_up(identity, series, error)
            log.warning("an Event was refused", error=str(error), reason=series.event.reason)
        return True

    async def _tell(self, series: _Series) -> None:
        count = series.count if series.told else 1
        if series.told:
            body = {"series": {"count": count, "lastObservedTime": micro_time(series.last_at)}}
            await self._kube.merge(API_VERSION, "Event", series.key.namespace, series.name, body)
        else:
            about = (series.key, series.uid, series.event)
            await self._kube.create(manifest(*about, series.name, series.first_at, self._instance))
            self._on_event("sent")
        series.told, series.told_at, series.attempts = count, self._clock(), 0

    def _give_up(self, identity: _Identity, series: _Series, error: ClientError) -> None:
        del self._series[identity]
        if series.told == 0:
            self._on_event("failed")
        log.debug("an Event was given up", error=str(error), reason=series.event.reason)


def manifest(key: Key, uid: str, event: Event, name: str, at: float, instance: str) -> dict[str, Any]:
    """An ``events.k8s.io/v1`` Event about a ModelDeployment."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Event",
        "metadata": {"name": name, "namespace": key.namespace},
        "eventTime": micro_time(at),
        "reportingController": REPORTING_CONTROLLER,
        "reportingInstance": instance,
        "action": event.action[:MAX_REASON],
        "reason": event.reason[:MAX_REASON],
        "type": event.type,
        "note": _cut(event.message),
        "regarding": {
            "apiVersion": meta.API_VERSION,
            "kind": meta.KIND,
            "namespace": key.namespace,
            "name": key.name,
            "uid": uid,
        },
    }


_VOLATILE = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"  # times
    r"|\d+\.\d+"  # fractions
    r"|\b(\d+(ms|µs|s|m|h|d)\b *)+"  # durations, also "1h 30m"
)


def normalised(message: str) -> str:
    """The message without what differs each time. Whole numbers stay: ``3 to 4`` is not ``4 to 5``."""
    return _VOLATILE.sub("#", " ".join(message.split()))


def micro_time(at: float) -> str:
    """Kubernetes' ``MicroTime``: RFC 3339 with six digits of a second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(message: str) -> str:
    encoded = message.encode()
    return message if len(encoded) <= MAX_NOTE else encoded[: MAX_NOTE - 3].decode(errors="ignore") + "…"
