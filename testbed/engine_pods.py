"""An engine per pod: its listener opens when the engine has loaded and closes when the pod is gone.

Rules of this module:

- The pod's status decides: the listener opens when the first container's `started` turns true and closes when
  that ends or the object is gone. A pod that is being deleted keeps serving until then.
- A container that restarted is a new engine: its counters start at zero.
- The pod's own command line decides what is served: ``--served-model-name``, ``--max-num-seqs``,
  ``--max-num-batched-tokens``, ``--stream-interval``. Annotations of the testbed choose the coefficients
  (`MODEL_ANNOTATION`) and let the metrics misbehave (`FAULT_ANNOTATION`); the control port can do so too.
"""

import asyncio
import logging
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from testbed.engine import Engine, EngineStats, MetricsFault, Pacer
from testbed.engine_server import EngineServer
from testbed.pods import Pod, PodSource, flag
from testbed.replica_models import ReplicaModel, model_named

__all__ = ["FAULT_ANNOTATION", "MODEL_ANNOTATION", "EngineOptions", "Engines"]

MODEL_ANNOTATION = "testbed.stoker.dev/replica-model"
FAULT_ANNOTATION = "testbed.stoker.dev/metrics"

_RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Defaults for pods that say nothing themselves.

    Attributes:
        model: coefficients (a name of `testbed.replica_models.MODELS`).
        port: of pods that name none.
        stream_interval: tokens per chunk of a stream; writing chunks is what the process spends its time on.
        tick: seconds between two looks at the busy engines.
    """

    model: str = "qwen3-32b-2xh100"
    port: int = 8000
    stream_interval: int = 10
    tick: float = 0.02


@dataclass(slots=True)
class _Serving:
    pod: Pod
    server: EngineServer


@dataclass(slots=True)
class _Past:
    """What the engines that are gone have done."""

    engines: int = 0
    stats: EngineStats = field(default_factory=EngineStats)
    prompt_tokens: int = 0
    generated_tokens: int = 0


class Engines:
    """Opens and closes engines as pods come and go."""

    def __init__(self, options: EngineOptions) -> None:
        model_named(options.model)  # an unknown name fails here, not in the first pod
        self._options = options
        self._pacer = Pacer(options.tick)
        self._serving: dict[str, _Serving] = {}
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._faults: dict[str, MetricsFault] = {}
        self._past = _Past()
        self._changed = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self, source: PodSource) -> None:
        """Serve the pods of a source, for ever."""
        async for change in source.changes():
            await self.apply(change.pod, gone=change.gone)

    async def apply(self, pod: Pod, *, gone: bool = False) -> None:
        """Bring one pod's engine in line with its status."""
        async with self._changed:
            self._cancel_retry(pod.key)
            serving = self._serving.get(pod.key)
            if serving is not None and (gone or not _same_engine(serving.pod, pod)):
                if gone and serving.pod.uid != pod.uid:
                    return  # news of an earlier pod of this name
                self._stop(serving)
                serving = None
            if gone or not (pod.started and pod.ip):
                return
            if serving is None:
                await self._start(pod)
            else:
                serving.pod = pod
            self._set_fault(pod.key)

    def close(self) -> None:
        """Kill every engine."""
        for key in list(self._retries):
            self._cancel_retry(key)
        for serving in list(self._serving.values()):
            self._stop(serving)

    def inject(self, pods: list[str], fault: MetricsFault) -> None:
        """Let the metrics of pods (``namespace/name``; none = all) misbehave, or behave again."""
        for key in pods or list(self._serving):
            if fault is MetricsFault.NONE:
                self._faults.pop(key, None)
            else:
                self._faults[key] = fault
            self._set_fault(key)

    def stats(self) -> dict[str, Any]:
        """What every engine does, and what those that are gone have done, as JSON.

        ``pods`` by ``namespace/name``; ``gone`` and ``totals`` with the same counts added up.
        """
        pods = {key: _pod_stats(one) for key, one in self._serving.items()}
        past = self._past
        gone = {
            "engines": past.engines,
            **asdict(past.stats),
            "prompt_tokens": past.prompt_tokens,
            "generated_tokens": past.generated_tokens,
        }
        counted = [name for name in gone if name != "engines"]
        totals = {name: gone[name] + sum(pod[name] for pod in pods.values()) for name in counted}
        return {"pods": pods, "gone": gone, "totals": totals}

    async def _start(self, pod: Pod) -> None:
        try:
            server = EngineServer(self._engine(pod))
            await server.start(str(pod.ip), pod.port or self._options.port)
        except (OSError, ValueError) as error:
            _log.warning("pod %s: no engine at %s: %s; trying again", pod.key, pod.ip, error)
            self._retry(pod)
            return
        self._serving[pod.key] = _Serving(pod, server)

    def _engine(self, pod: Pod) -> Engine:
        name = pod.annotations.get(MODEL_ANNOTATION, self._options.model)
        interval = _integer(pod, "--stream-interval", self._options.stream_interval)
        return Engine(
            _served_name(pod), _limited(model_named(name), pod), self._pacer, stream_interval=interval
        )

    def _stop(self, serving: _Serving) -> None:
        engine = serving.server.engine
        cut = serving.server.close()
        self._pacer.forget(engine)
        del self._serving[serving.pod.key]
        self._remember(engine)
        if cut:
            _log.warning("pod %s went away with %d requests under way", serving.pod.key, cut)

    def _remember(self, engine: Engine) -> None:
        past, counters = self._past, engine.replica.counters
        past.engines += 1
        past.prompt_tokens += counters.prompt_tokens
        past.generated_tokens += counters.generated_tokens
        before, now = asdict(past.stats), asdict(engine.stats)
        past.stats = EngineStats(**{name: before[name] + now[name] for name in before})

    def _set_fault(self, key: str) -> None:
        serving = self._serving.get(key)
        if serving is None:
            return
        wanted = self._faults.get(key) or serving.pod.annotations.get(FAULT_ANNOTATION) or MetricsFault.NONE
        try:
            serving.server.engine.set_fault(MetricsFault(wanted))
        except ValueError:
            modes = ", ".join(MetricsFault)
            _log.warning("pod %s: annotation %s is %r, not one of %s", key, FAULT_ANNOTATION, wanted, modes)

    def _retry(self, pod: Pod) -> None:
        loop = asyncio.get_running_loop()
        self._retries[pod.key] = loop.call_later(_RETRY_SECONDS, self._again, pod)

    def _again(self, pod: Pod) -> None:
        task = asyncio.get_running_loop().create_task(self.apply(pod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel_retry(self, key: str) -> None:
        retry = self._retries.pop(key, None)
        if retry is not None:
            retry.cancel()


def _same_engine(one: Pod, other: Pod) -> bool:
    key = ("uid", "ip", "port", "restarts", "started")
    return all(getattr(one, name) == getattr(other, name) for name in key)


def _served_name(pod: Pod) -> str:
    """``--served-model-name``, else the model argument of ``vllm serve``, else the pod's name."""
    name = flag(pod.command, "--served-model-name") or flag(pod.command, "--model")
    if name:
        return name
    words = pod.command
    after = words[words.index("serve") + 1] if "serve" in words[:-1] else (words[0] if words else "")
    return pod.name if not after or after.startswith("-") else after


def _limited(model: ReplicaModel, pod: Pod) -> ReplicaModel:
    return replace(
        model,
        max_sequences=_integer(pod, "--max-num-seqs", model.max_sequences),
        max_batched_tokens=_integer(pod, "--max-num-batched-tokens", model.max_batched_tokens),
    )


def _integer(pod: Pod, name: str, default: int) -> int:
    text = flag(pod.command, name)
    if text is None:
        return default
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name} must be a positive integer, got {text!r}")
    return int(text)


def _pod_stats(serving: _Serving) -> dict[str, Any]:
    engine = serving.server.engine
    replica = engine.replica
    return {
        **asdict(engine.stats),
        "model": engine.served_name,
        "running": replica.running,
        "waiting": replica.waiting,
        "kv_usage": replica.kv_usage,
        "prompt_tokens": replica.counters.prompt_tokens,
        "generated_tokens": replica.counters.generated_tokens,
        "preemptions": replica.counters.preemptions,
    }
