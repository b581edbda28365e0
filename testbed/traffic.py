"""Load that behaves as users behind an inference gateway do: a list of arrivals, played in real time.

Rules of this module:

- Open loop: a request is sent when its time has come, however busy the engines are.
- Each request ends in one `Outcome`. What an engine refuses at the connection is offered to another endpoint
  first, as gateways do; once a connection stands, a broken one is a cut.
- Parsing is cheap on purpose: chunks are searched for two markers, never decoded.

Run as ``python -m testbed.traffic --kubeconfig FILE --service NAME --model NAME``; `Traffic` is the same from
Python, with counters to look at while it plays.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aiohttp

from testbed.gateway import Endpoint, Gateway, NoEndpointError, ServicePods
from testbed.kubewatch import KubeReader
from testbed.openai_api import PROMPT_TOKENS_HEADER
from testbed.trace import AZURE_2023_CONVERSATION, Stage, TraceRequest, load_azure, stage
from testbed.traffic_report import Counters, Outcome, Result, summarize

__all__ = ["Counters", "Outcome", "Result", "Traffic", "TrafficOptions"]

_USAGE = re.compile(rb'"completion_tokens": ?(\d+)[,}]')
_DONE = b"data: [DONE]"
_TAIL = 64  # bytes of a block that are looked at again with the next: longer than either marker
_BACK_OFF_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # between attempts, when every endpoint refused


@dataclass(frozen=True, slots=True)
class TrafficOptions:
    """How requests are sent.

    Attributes:
        model: the served name that engines expect.
        connect_seconds: how long a connection may take.
        silence_seconds: how long an answer may pause before it counts as cut.
    """

    model: str
    connect_seconds: float = 5.0
    silence_seconds: float = 600.0


class Traffic:
    """Plays requests at the endpoints of a gateway.

    Args:
        requests: in order of arrival.
        gateway: picks the endpoints; somebody must let it follow pods.
        options: how to send.
    """

    def __init__(self, requests: Sequence[TraceRequest], gateway: Gateway, options: TrafficOptions) -> None:
        self.gateway = gateway
        self.results: list[Result] = []
        self._requests = requests
        self._options = options
        self._counters = Counters()
        self._start = 0.0
        self._ended = False

    @property
    def counters(self) -> Counters:
        """Counts as of now (a copy)."""
        return replace(self._counters, queued=self.gateway.queued)

    @property
    def elapsed(self) -> float:
        """Seconds since `run` began; 0 before."""
        return asyncio.get_running_loop().time() - self._start if self._start else 0.0

    async def run(self) -> list[Result]:
        """Play everything and wait for the last answer; cancel to stop, which abandons what is under way.

        Returns:
            The results in order of completion, also in `results` at any time.
        """
        self._start = asyncio.get_running_loop().time()
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._options.connect_seconds, sock_read=self._options.silence_seconds
        )
        # A connection per request: a reused one to a pod that has just gone would look like a cut.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for request in self._requests:
                await asyncio.sleep(self._start + request.arrival - asyncio.get_running_loop().time())
                group.create_task(self._one(session, request))
        return self.results

    async def _one(self, session: aiohttp.ClientSession, request: TraceRequest) -> None:
        counters = self._counters
        counters.arrivals += 1
        counters.asked_prompt_tokens += request.prompt_tokens
        counters.asked_output_tokens += request.output_tokens
        exchange = _Exchange(request, counters)
        try:
            await self._send(session, exchange)
        finally:
            result = exchange.result(self.elapsed)
            setattr(counters, result.outcome, getattr(counters, result.outcome) + 1)
            self.results.append(result)

    async def _send(self, session: aiohttp.ClientSession, exchange: "_Exchange") -> None:
        """Offer the request to endpoints until one accepts the connection.

        Ready pods refuse when they have just died, or just loaded: a simulated kubelet's word travels to this
        process and to the engine's at the same time. So the last of them is asked again after a pause.
        """
        refused: frozenset[str] = frozenset()
        for pause in (*_BACK_OFF_SECONDS, None):
            while (endpoint := await self._pick(exchange, refused)) and endpoint.url not in refused:
                if await self._accepted(session, endpoint, exchange):
                    return
                refused |= {endpoint.url}
            if endpoint is None or pause is None:
                return
            await asyncio.sleep(pause)
            refused = frozenset()

    async def _pick(self, exchange: "_Exchange", refused: frozenset[str]) -> Endpoint | None:
        try:
            endpoint = await self.gateway.pick(refused)
        except NoEndpointError as error:
            exchange.end(Outcome.REFUSED, str(error))
            return None
        exchange.chosen(endpoint, self.elapsed)
        return endpoint

    async def _accepted(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, exchange: "_Exchange"
    ) -> bool:
        """Whether a connection stood; what became of the request is in `exchange`."""
        try:
            await self._exchange(session, endpoint, exchange)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            exchange.end(Outcome.REFUSED, f"{endpoint.pod}: {error}")
            return False
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            exchange.end(Outcome.CUT, f"{endpoint.pod}: {type(error).__name__}: {error}")
        return True

    async def _exchange(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, exchange: "_Exchange"
    ) -> None:
        request = exchange.request
        body = {
            "model": self._options.model,
            "prompt": "x",
            "max_tokens": request.output_tokens,
            "stream": True,
            "ignore_eos": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        headers = {PROMPT_TOKENS_HEADER: str(request.prompt_tokens)}
        self._counters.in_flight += 1
        try:
            with self.gateway.using(endpoint):
                async with session.post(
                    f"{endpoint.url}/v1/completions", json=body, headers=headers
                ) as answer:
                    if answer.status != 200:
                        text = (await answer.text())[:200]
                        exchange.end(Outcome.REFUSED, f"{endpoint.pod}: HTTP {answer.status}: {text}")
                        return
                    async for block in answer.content.iter_any():
                        exchange.received(block, self.elapsed)
            exchange.finish(endpoint.pod)
        finally:
            self._counters.in_flight -= 1


class _Exchange:
    """One request while it is under way.

    Waits count from the moment when it was to arrive, so a load generator that lags cannot make them shorter.
    """

    def __init__(self, request: TraceRequest, counters: Counters) -> None:
        self.request = request
        self._counters = counters
        self._arrived = request.arrival
        self._outcome = Outcome.ABANDONED
        self._detail = ""
        self._pod: str | None = None
        self._queued = 0.0
        self._first = self._last = 0.0
        self._tokens = 0
        self._tail = b""
        self._done = False

    def chosen(self, endpoint: Endpoint, now: float) -> None:
        """An endpoint was picked."""
        self._pod = endpoint.pod
        self._queued = now - self._arrived

    def received(self, block: bytes, now: float) -> None:
        """A piece of the stream: find the end mark and the number of tokens so far."""
        text = self._tail + block
        self._tail = text[-_TAIL:]
        self._done = self._done or _DONE in text
        counts = _USAGE.findall(text)
        tokens = int(counts[-1]) if counts else self._tokens
        if tokens <= self._tokens:
            return
        if not self._tokens:
            self._first = now
            self._counters.prompt_tokens += self.request.prompt_tokens
        self._counters.generated_tokens += tokens - self._tokens
        self._tokens, self._last = tokens, now

    def finish(self, pod: str) -> None:
        """The stream has ended without an error: was that its end?"""
        if self._done:
            self.end(Outcome.SERVED, "")
        else:
            self.end(Outcome.CUT, f"{pod}: the stream ended without [DONE]")

    def end(self, outcome: Outcome, detail: str) -> None:
        """The request is over (or, refused, may be offered again)."""
        self._outcome, self._detail = outcome, detail

    def result(self, now: float) -> Result:
        """What is to be reported."""
        intervals = self._tokens - 1
        return Result(
            arrival=self._arrived,
            prompt_tokens=self.request.prompt_tokens,
            output_tokens=self.request.output_tokens,
            tokens=self._tokens,
            outcome=self._outcome,
            pod=self._pod,
            queued=self._queued,
            ttft=self._first - self._arrived if self._tokens else None,
            tpot=(self._last - self._first) / intervals if intervals > 0 else None,
            duration=now - self._arrived,
            detail=self._detail,
        )


async def play(traffic: Traffic, reader: KubeReader, *, namespace: str, service: str) -> list[Result]:
    """Let the gateway follow a Service while the traffic plays; return the results."""
    source = ServicePods(reader, namespace=namespace, service=service)
    following = asyncio.create_task(traffic.gateway.follow(source))
    playing = asyncio.create_task(traffic.run())
    try:
        await asyncio.wait((following, playing), return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()  # a bug in following would otherwise look like a fleet without endpoints
        return await playing
    finally:
        following.cancel()
        playing.cancel()
        await asyncio.wait((following, playing))


def _stages(text: str) -> list[Stage]:
    """``0:2,60:8,240:2``: two copies from the start, eight from second 60 on, two from 240 on."""
    pairs = (part.split(":") for part in text.split(","))
    return [Stage(float(start), int(copies)) for start, copies in pairs]


async def _report_progress(traffic: Traffic, every: float = 5.0) -> None:
    while True:
        await asyncio.sleep(every)
        now = traffic.counters
        counts = (
            f"arrived {now.arrivals}  in flight {now.in_flight}  queued {now.queued}  served {now.served}  "
            f"cut {now.cut}  refused {now.refused}  endpoints {len(traffic.gateway.endpoints)}"
        )
        print(f"{traffic.elapsed:6.0f} s  {counts}", flush=True)


async def _main(given: argparse.Namespace) -> None:
    requests = stage(load_azure(given.trace), given.stages, given.duration, seed=given.seed)
    traffic = Traffic(requests, Gateway(), TrafficOptions(given.model))
    progress = asyncio.create_task(_report_progress(traffic))
    try:
        async with KubeReader(given.kubeconfig) as reader:
            await play(traffic, reader, namespace=given.namespace, service=given.service)
    finally:
        progress.cancel()
        _write_reports(traffic.results, given.report, given.results)


def _write_reports(results: Sequence[Result], report: Path | None, lines: Path | None) -> None:
    text = json.dumps(summarize(results), indent=2)
    print(text)
    if report is not None:
        report.write_text(text + "\n")
    if lines is not None:
        lines.write_text("".join(json.dumps(asdict(result)) + "\n" for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m testbed.traffic", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--service", required=True)
    parser.add_argument("--model", required=True, help="the served name")
    parser.add_argument("--trace", type=Path, default=AZURE_2023_CONVERSATION)
    parser.add_argument(
        "--stages", type=_stages, default=[Stage(0, 1)], help="copies from second on: 0:2,60:8"
    )
    parser.add_argument("--duration", type=float, default=300.0, help="seconds of arrivals (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the copies' shifts")
    parser.add_argument("--report", type=Path, help="write the summary here, as JSON")
    parser.add_argument("--results", type=Path, help="write every request here, as JSON Lines")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    asyncio.run(_main(_parser().parse_args(arguments)))


if __name__ == "__main__":
    main()
