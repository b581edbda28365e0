"""Prometheus: queries of an instant or of a stretch of time, many at once under one deadline.

Rules of this module:

* An answer is a value, never an exception: ``Samples`` or ``Failed`` with the reason in words.
* The event loop never waits for a socket: ``prometheus-api-client`` is synchronous, so it runs in a small
  pool of threads, one connection each (a ``requests.Session`` is not promised to be safe across threads).
* Nothing is unbounded: not the time (``PrometheusConnect`` waits for ever unless told), not the body, not
  the retries (its default of three holds a thread for five times the time-out), not the redirects (none).
* NaN and ±Inf are values that Prometheus may give; they are passed on as such; what they mean is decided
  elsewhere.

Source of the format: https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

import requests
from prometheus_api_client import PrometheusConnect
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from stoker.clients import user_agent
from stoker.clients.answers import MAX_WHY, Body, Matrix, Span, read, read_range, short
from stoker.core.signals import Answer, Failed, Samples
from stoker.settings import Settings

CONNECT_SECONDS = 2.0
"""For the connect alone: a Prometheus that is up accepts at once, and the read needs the rest of the time."""
CHUNK = 64 * 1024

T = TypeVar("T")

OnQuery = Callable[[str, str, float], None]
"""(name of the query, ``ok`` | ``partial`` | ``failed`` | ``unreachable``, seconds), for metrics."""

_Read: TypeAlias = Callable[[int, Body], T | Failed]
"""What makes an answer of (HTTP status, body); raises nothing."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to get in: at most one of basic auth and bearer token."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each query, for example a tenant's ``X-Scope-OrgID``."""
    basic: tuple[str, str | Path] | None = field(default=None, repr=False)
    """User name and password, or the file that holds the password (read for each query)."""
    bearer_file: Path | None = None
    """Read for each query, because such tokens are rotated."""
    ca_file: Path | None = None
    """Certificates to trust instead of the usual ones."""
    verify: bool = True
    """False accepts any certificate."""


def access_from(settings: Settings) -> Access:
    """The access that the settings ``STOKER_PROMETHEUS_…`` describe."""
    password = settings.prometheus_password_file
    return Access(
        headers=settings.prometheus_headers,
        basic=(settings.prometheus_username, password) if password is not None else None,
        bearer_file=settings.prometheus_bearer_token_file,
        ca_file=settings.prometheus_ca_file,
        verify=not settings.prometheus_insecure_skip_verify,
    )


class Prometheus:
    """Queries to one Prometheus; ``async with Prometheus(url) as prometheus: …``.

    Args:
        url: base address, with a path prefix if there is one; without one every query fails and says so.
        access: headers, credentials and certificates.
        timeout: seconds for all of ``query_all``.
        threads: queries in flight at a time.
        max_bytes: longest accepted body, decompressed.
        on_query: called for each query, for metrics.
    """

    def __init__(
        self,
        url: str,
        *,
        access: Access | None = None,
        timeout: float = 8.0,
        threads: int = 4,
        max_bytes: int = 64 * 1024 * 1024,
        on_query: OnQuery | None = None,
    ) -> None:
        self._url = url.rstrip("/")  # PrometheusConnect would ask for //api/v1/query
        self._access = access or Access()
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._on_query = on_query
        self._local = threading.local()
        self._connections: list[_Connection] = []
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prometheus")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Threads that wait for an answer end by their own deadline; nobody waits for them here.
        self._pool.shutdown(wait=False, cancel_futures=True)
        for connection in self._connections:
            connection.close()

    async def query_all(self, queries: Mapping[str, str], at: float | None = None) -> Mapping[str, Answer]:
        """Ask all queries at once.

        Args:
            queries: PromQL by a name of the caller's choice.
            at: evaluation time (Unix s); None is the server's now.

        Returns:
            An answer for each name.
        """
        when = {} if at is None else {"time": f"{at:.3f}"}
        return await self._all("query", queries, when, read)

    async def query_range_all(self, queries: Mapping[str, str], span: Span) -> Mapping[str, Matrix | Failed]:
        """Ask all queries at once, each at every step of a stretch of time.

        Args:
            queries: PromQL by a name of the caller's choice.
            span: the instants; Prometheus refuses more than 11,000.

        Returns:
            An answer for each name.
        """
        when = {"start": f"{span.start:.3f}", "end": f"{span.end:.3f}", "step": f"{span.step:.3f}"}
        return await self._all("query_range", queries, when, partial(read_range, span))

    async def _all(
        self, kind: str, queries: Mapping[str, str], when: Mapping[str, str], read_as: _Read[T]
    ) -> Mapping[str, T | Failed]:
        if not queries:
            return {}
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        running: dict[str, asyncio.Future[T | Failed]] = {
            name: loop.run_in_executor(
                self._pool,
                partial(
                    self._ask, name, _Asked(kind, {"query": query, **when}), read_as, started + self._timeout
                ),
            )
            for name, query in queries.items()
        }
        done, late = await asyncio.wait(running.values(), timeout=self._timeout)
        for future in late:
            future.cancel()
        return {
            name: future.result() if future in done else self._late(name) for name, future in running.items()
        }

    def _late(self, name: str) -> Failed:
        failed = Failed(f"no answer from {self._url} within {self._timeout:g} s", unreachable=True)
        self._note(name, failed, self._timeout)
        return failed

    def _ask(self, name: str, asked: _Asked, read_as: _Read[T], deadline: float) -> T | Failed:
        """Runs in a thread of the pool; raises nothing."""
        started = time.monotonic()
        answer = self._answer(asked, read_as, deadline)
        if time.monotonic() < deadline:  # after it, query_all has counted the query as late
            self._note(name, answer, time.monotonic() - started)
        return answer

    def _answer(self, asked: _Asked, read_as: _Read[T], deadline: float) -> T | Failed:
        if not self._url:
            return Failed("no Prometheus address is configured: set STOKER_PROMETHEUS_URL", unreachable=True)
        try:
            status, body = self._connection().ask(asked, deadline)
        except _Refused as refused:
            return Failed(f"{self._url}: {refused}", unreachable=refused.unreachable)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            return Failed(f"{self._url} cannot be asked: {short(_root(error))}", unreachable=True)
        return read_as(status, body)

    def _connection(self) -> _Connection:
        """The connection of this thread."""
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection(self._url, self._access, self._max_bytes)
            self._connections.append(connection)
        return connection

    def _note(self, name: str, answer: object, seconds: float) -> None:
        if self._on_query is not None:
            self._on_query(name, _outcome(answer), seconds)


def _outcome(answer: object) -> str:
    if isinstance(answer, Failed):
        return "unreachable" if answer.unreachable else "failed"
    return "partial" if isinstance(answer, Samples | Matrix) and answer.warnings else "ok"


# --- The wire ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """One query as it is sent."""

    kind: str
    """``query`` | ``query_range``: the last part of the path."""
    form: Mapping[str, str]


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """An answer that is not read at all."""

    def __init__(self, why: str, *, unreachable: bool) -> None:
        super().__init__(why)
        self.unreachable = unreachable


class _Bearer(AuthBase):  # as an ``auth``: requests lets a .netrc overrule a plain Authorization header
    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {_secret(self._file)}"
        return request


class _Basic(AuthBase):
    def __init__(self, username: str, password: str | Path) -> None:
        self._username = username
        self._password = password

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return HTTPBasicAuth(self._username, _secret(self._password))(request)


def _secret(secret: str | Path) -> str:
    """A secret itself, or the content of its file as it is now: such files are rotated."""
    if isinstance(secret, str):
        return secret
    try:
        return secret.read_text().strip()
    except (OSError, ValueError) as error:
        raise _Refused(f"the file with its credentials cannot be read: {error}", unreachable=True) from error


class _Connection(PrometheusConnect):  # type: ignore[misc]  # the library is not typed
    """The library's session, adapter and authentication, with a query of our own on top.

    ``PrometheusConnect.custom_query`` (0.7.2, prometheus_connect.py) returns ``data.result`` alone, so that
    the ``warnings`` which mark partial data are lost, and puts the query into the URL even with
    ``method="POST"``, so that a proxy refuses a long one. It also reads a body of any length and follows
    redirects. Those four are decided in the one call that ``ask`` replaces; the rest of the library is
    used as it stands.
    """

    def __init__(self, url: str, access: Access, max_bytes: int) -> None:
        session = requests.Session()
        session.verify = str(access.ca_file) if access.ca_file and access.verify else access.verify
        super().__init__(
            url,
            headers={**access.headers, "User-Agent": user_agent(), "Accept": "application/json"},
            auth=_auth(access),
            retry=Retry(0),
            session=session,
        )
        self._max_bytes = max_bytes

    def ask(self, asked: _Asked, deadline: float) -> tuple[int, Body]:
        """(HTTP status, body) of one query, sent as a form, over by ``deadline`` (monotonic s)."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Refused("not asked: all connections were busy until the deadline", unreachable=True)
        with self._session.post(
            f"{self.url}/api/v1/{asked.kind}",
            data={**asked.form, "timeout": f"{left:.3f}"},
            headers=self.headers,
            auth=self.auth,
            verify=self._session.verify,
            timeout=(min(CONNECT_SECONDS, left), left),
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.is_redirect:
                where = response.headers.get("Location", "")[:MAX_WHY]
                raise _Refused(f"redirects to {where!r}: configure the final address", unreachable=True)
            return response.status_code, self._read(response, deadline)

    def _read(self, response: requests.Response, deadline: float) -> Body:
        """The body. ``read1`` returns what has come, so that a server that drips cannot hold the thread."""
        body = bytearray()
        while chunk := response.raw.read1(CHUNK, decode_content=True):
            body += chunk
            if len(body) > self._max_bytes:
                limit = self._max_bytes / 1024 / 1024
                raise _Refused(f"the answer is longer than {limit:g} MiB", unreachable=False)
            if time.monotonic() > deadline:
                raise _Refused("the answer was not complete in time", unreachable=True)
        return body


def _auth(access: Access) -> AuthBase | None:
    if access.bearer_file is not None:
        return _Bearer(access.bearer_file)
    return _Basic(*access.basic) if access.basic else None


def _root(error: BaseException) -> BaseException:
    """The innermost cause: requests wraps 'connection refused' three times."""
    reason = getattr(error, "reason", None) or next(iter(error.args), None)
    return _root(reason) if isinstance(reason, BaseException) else error
