"""A light list and watch of the Kubernetes API, for simulators that only read.

Rules of this module:

- A watch is a stream of `Change` records: an object as it is now, or an object that is gone. A lost
  connection, a restarted API server and an expired resourceVersion are all healed here, by listing again and
  reporting the difference: the reader of the stream sees every object that exists, and each one that leaves.
- Every watch ends after a few minutes and lists again, so nothing missed stays missed.
"""

import asyncio
import base64
import json
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

__all__ = ["Change", "KubeReader", "KubeconfigError", "Manifest"]

Manifest = dict[str, Any]

_log = logging.getLogger(__name__)

_WATCH_SECONDS = 240
_SILENCE_SECONDS = 30  # beyond the end of the watch: a peer that vanished without a word
_BACK_OFF_SECONDS = (0.2, 5.0)


class KubeconfigError(Exception):
    """The kubeconfig lacks something; the message names file and field."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object of a watch, as it is now or (`gone`) as it was last."""

    manifest: Manifest
    gone: bool


class _ExpiredError(Exception):
    """The API server no longer has the history that the watch asked for."""


class KubeReader:
    """Reads the API server of a kubeconfig's current context.

    Use as an asynchronous context manager.

    Raises:
        KubeconfigError: the file does not say where the server is or who asks.
    """

    def __init__(self, kubeconfig: Path) -> None:
        cluster, user = _current_context(kubeconfig)
        self.server = str(cluster["server"]).rstrip("/")
        self._ssl = _tls(cluster, user) if self.server.startswith("https") else None
        token = user.get("token")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)
        connector = aiohttp.TCPConnector(ssl=True if self._ssl is None else self._ssl, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def watch(self, path: str, *, labels: str = "", fields: str = "") -> AsyncIterator[Change]:
        """Follow a collection (for example ``/api/v1/pods``) for ever; close the iterator to stop.

        Args:
            path: of the collection.
            labels: label selector; an object that stops matching is reported as gone.
            fields: field selector.
        """
        selectors = {
            key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value
        }
        known: dict[str, Manifest] = {}
        pause = _BACK_OFF_SECONDS[0]
        while True:
            # What goes wrong with one connection is healed by listing again: a delay, and a line in the log.
            try:
                version, changes = await self._list(path, selectors, known)
                for change in changes:
                    yield change
                pause = _BACK_OFF_SECONDS[0]
                async for change in self._follow(path, selectors, version):
                    _remember(known, change)
                    yield change
                continue
            except (aiohttp.ClientError, TimeoutError, _ExpiredError, json.JSONDecodeError) as error:
                _log.warning(
                    "watch of %s: %s: %s; listing again in %.1f s", path, type(error).__name__, error, pause
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _BACK_OFF_SECONDS[1])

    async def _list(
        self, path: str, selectors: Mapping[str, str], known: dict[str, Manifest]
    ) -> tuple[str, list[Change]]:
        async with self._open().get(self.server + path, params=dict(selectors)) as answer:
            answer.raise_for_status()
            body: Manifest = await answer.json()
        found = {_key(item): item for item in body["items"]}
        changes = [Change(item, gone=True) for key, item in known.items() if key not in found]
        changes += [Change(item, gone=False) for key, item in found.items() if known.get(key) != item]
        known.clear()
        known.update(found)
        return str(body["metadata"]["resourceVersion"]), changes

    async def _follow(self, path: str, selectors: Mapping[str, str], version: str) -> AsyncIterator[Change]:
        params = {
            **selectors,
            "watch": "1",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=5, sock_read=_WATCH_SECONDS + _SILENCE_SECONDS
        )
        async with self._open().get(self.server + path, params=params, timeout=timeout) as answer:
            answer.raise_for_status()
            async for line in _lines(answer.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _ExpiredError(event["object"].get("message"))
                if event["type"] != "BOOKMARK":
                    yield Change(event["object"], gone=event["type"] == "DELETED")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("KubeReader is an asynchronous context manager: enter it first")
        return self._session


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a body into lines of any length (aiohttp's own reader refuses long ones)."""
    rest = b""
    async for block in stream.iter_any():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line:
                yield line


def _key(manifest: Manifest) -> str:
    # With the uid: an object that was replaced by one of the same name between two lists left, and one came.
    metadata = manifest["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}/{metadata['uid']}"


def _remember(known: dict[str, Manifest], change: Change) -> None:
    if change.gone:
        known.pop(_key(change.manifest), None)
    else:
        known[_key(change.manifest)] = change.manifest


def _current_context(kubeconfig: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    config = yaml.safe_load(kubeconfig.read_text())
    try:
        contexts = {one["name"]: one["context"] for one in config["contexts"]}
        context = contexts[config["current-context"]]
        cluster = {one["name"]: one["cluster"] for one in config["clusters"]}[context["cluster"]]
        user = {one["name"]: one["user"] for one in config["users"]}[context["user"]]
    except (KeyError, TypeError) as missing:
        raise KubeconfigError(f"{kubeconfig}: no {missing} for the current context") from None
    return cluster, user


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _text(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _text(user, "client-certificate"), _text(user, "client-key")
    if certificate and key:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:  # ssl reads key pairs from files only
            both.write(certificate + "\n" + key)
            both.flush()
            context.load_cert_chain(both.name)
    return context


def _text(section: Mapping[str, Any], field: str) -> str | None:
    """A PEM given as ``field`` (a file) or ``field-data`` (base64)."""
    if f"{field}-data" in section:
        return base64.b64decode(section[f"{field}-data"]).decode()
    if field in section:
        return Path(section[field]).read_text()
    return None
