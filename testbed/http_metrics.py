"""The ``http_*`` families that vLLM's API server exports beside the engine's.

They come from prometheus-fastapi-instrumentator: a series appears with its first request, responses are
counted by status class, and `UNCOUNTED` paths are left out. A path that no handler serves is ``none``.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from testbed.exposition import Histogram, header, sample

__all__ = ["UNCOUNTED", "HttpMetrics"]

UNCOUNTED = frozenset({"/health", "/metrics", "/load", "/ping", "/version"})
FINE_BUCKETS = (
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    *(x / 2 for x in range(2, 11)),
    7.5,
    10,
    30,
    60,
)
COARSE_BUCKETS = (0.1, 0.5, 1)

_REQUESTS = "Total number of requests by method, status and handler."
_SIZE = (
    "Content length of {} by handler. Only value of header is respected. Otherwise ignored. "
    "No percentile calculated. "
)
_FINE = (
    "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. "
)
_COARSE = (
    "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. "
)

Labels = tuple[tuple[str, str], ...]


class HttpMetrics:
    """Counts finished requests of one API server."""

    def __init__(self, created: float) -> None:
        self._created = created
        self._requests: defaultdict[Labels, int] = defaultdict(int)
        self._received: defaultdict[str, list[int]] = defaultdict(list)
        self._sent: defaultdict[str, list[int]] = defaultdict(list)
        self._fine = Histogram(FINE_BUCKETS)
        self._coarse: dict[Labels, Histogram] = {}

    def on_response(
        self, handler: str, method: str, status: int, duration: float, sizes: tuple[int, int]
    ) -> None:
        """A response has ended after `duration` seconds; `sizes`: Content-Length of request and response."""
        if handler in UNCOUNTED:
            return
        key = (("handler", handler), ("method", method))
        self._requests[(*key, ("status", f"{status // 100}xx"))] += 1
        for total, size in zip((self._received, self._sent), sizes, strict=True):
            count, before = total[handler] or (0, 0)
            total[handler] = [count + 1, before + size]
        self._fine.observe(duration)
        self._coarse.setdefault(key, Histogram(COARSE_BUCKETS)).observe(duration)

    def render(self) -> str:
        """The text of a scrape."""
        return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        requests = {labels: float(count) for labels, count in self._requests.items()}
        yield header("http_requests_total", "counter", _REQUESTS)
        yield from (sample("http_requests_total", dict(labels), repr(n)) for labels, n in requests.items())
        yield from self._created_lines("http_requests", _REQUESTS, [dict(labels) for labels in requests])
        yield from self._summary("http_request_size_bytes", _SIZE.format("incoming requests"), self._received)
        yield from self._summary("http_response_size_bytes", _SIZE.format("outgoing responses"), self._sent)
        yield from self._histograms("http_request_duration_highr_seconds", _FINE, {(): self._fine})
        yield from self._histograms("http_request_duration_seconds", _COARSE, self._coarse)

    def _created_lines(self, name: str, text: str, series: list[dict[str, str]]) -> Iterator[str]:
        yield header(f"{name}_created", "gauge", text)
        yield from (sample(f"{name}_created", labels, repr(self._created)) for labels in series)

    def _summary(self, name: str, text: str, totals: Mapping[str, list[int]]) -> Iterator[str]:
        yield header(name, "summary", text)
        for handler, (count, size) in totals.items():
            yield sample(f"{name}_count", {"handler": handler}, repr(float(count)))
            yield sample(f"{name}_sum", {"handler": handler}, repr(float(size)))
        yield from self._created_lines(name, text, [{"handler": handler} for handler in totals])

    def _histograms(self, name: str, text: str, series: Mapping[Labels, Histogram]) -> Iterator[str]:
        yield header(name, "histogram", text)
        for labels, one in series.items():
            bounds = [repr(float(bound)) for bound in one.bounds] + ["+Inf"]
            for bound, value in zip(bounds, one.cumulative(), strict=True):
                yield sample(f"{name}_bucket", {**dict(labels), "le": bound}, repr(value))
            yield sample(f"{name}_count", dict(labels), repr(float(one.count)))
            yield sample(f"{name}_sum", dict(labels), repr(one.sum))
        yield from self._created_lines(name, text, [dict(labels) for labels in series])
